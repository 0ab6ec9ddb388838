"""The documentation says what the code does: generated pages are fresh, links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])


def generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "states.md",
        "settings.md",
        "reasons.md",
        "errors.md",
        "command.md",
        "sessions.md",
        "metrics.md",
        "openapi.json",
    ],
)
def test_a_generated_page_is_what_the_code_says(name):
    made = generate().pages()[name]()

    assert (DOCS / "reference" / name).read_text() == made, f"{name} is stale: run `make docs`"


def test_every_generated_page_is_checked():
    assert set(generate().pages()) == {
        mark.args[1][i]
        for mark in test_a_generated_page_is_what_the_code_says.pytestmark
        for i in range(len(mark.args[1]))
    }


def test_every_field_setting_and_reason_is_explained():
    for name in ("settings.md", "reasons.md", "command.md", "metrics.md"):
        for line in (DOCS / "reference" / name).read_text().splitlines():
            if line.startswith("| `"):
                cells = [cell.strip() for cell in line.strip("|").split("|")]
                assert cells[-1], f"{name}: {cells[0]} has no explanation; write it beside the code"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_the_pages_use_exist(page):
    reference = (DOCS / "reference/command.md").read_text()
    known = set(re.findall(r"^## `sokovan ([^`]+)`", reference, re.MULTILINE))
    groups = "|".join({name.split()[0] for name in known if " " in name})
    command = rf"^(?:\$ )?sokovan ((?:{groups}) (?!--)[a-z]+|[a-z]+)"
    used = set(re.findall(command, page.read_text(), re.MULTILINE))

    assert used <= known, f"{page.name} uses commands that do not exist: {used - known}"


def test_one_sentence_per_line():
    for page in PAGES:
        fenced = False
        for number, line in enumerate(page.read_text().splitlines(), 1):
            fenced ^= line.startswith("```")
            if not fenced and not line.startswith(("|", "<!--", "    ")):
                plain = re.sub(r"`[^`]*`|\(.*?\)", "", line)
                assert not re.search(r"[a-z]{3}\. [A-Z]", plain), (
                    f"{page.relative_to(ROOT)}:{number}: put each sentence on a line of its own,"
                    " so that a change shows as what it is"
                )
