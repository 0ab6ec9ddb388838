"""Rules about the source that need no taste, each with its reason and what to do instead."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

PURE = (
    "sokovan/domain/*.py",
    "sokovan/placement/*.py",
    *(
        f"sokovan/scheduler/{name}.py"
        for name in ("stages", "results", "settle", "promote", "change", "ledger", "moves")
    ),
)
NOT_IN_PURE = {"asyncio", "datetime", "logging", "os", "random", "time", "uuid"}

# Modules that nothing in sokovan/ imports, and who starts them instead.
ENTRY_POINTS = {
    "sokovan/__main__.py": "python -m sokovan",
    "sokovan/cli/main.py": "the `sokovan` command, see pyproject.toml",
    "sokovan/agent/__main__.py": "`python -m sokovan.agent` runs it",
    "sokovan/client/__init__.py": "the SDK, imported by its users",
    "sokovan/client/worker.py": "a session's command, `python -m sokovan.client.worker`",
    "sokovan/placement/exact.py": "for a batch planned by hand: benchmarks/quality.py --exact",
    "sokovan/store/migrations/env.py": "Alembic runs it by path",
    "sokovan/store/migrations/versions/*.py": "Alembic runs them by path",
}

# Modules above LINES_MAX lines, and why each is better whole than in two.
LINES_MAX = 400
LONG: dict[str, str] = {}

# Modules that read the time, and why they cannot be given a Clock.
READS_TIME = {"sokovan/clock.py": "it is the Clock"}
TIME_CALLS = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns"} | {
    f"{owner}.{name}" for owner in ("datetime", "datetime.datetime") for name in ("now", "utcnow")
}

VAGUE = {"util", "utils", "helper", "helpers", "misc"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


PRODUCT = python_files("sokovan")
EVERYTHING = python_files("sokovan", "tests", "benchmarks", "demo", "scripts")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def at(path: Path, node: ast.AST) -> str:
    return f"{name_of(path)}:{getattr(node, 'lineno', 1)}"


def matches(path: Path, patterns: Iterable[str]) -> bool:
    return any(path.relative_to(ROOT).match(pattern) for pattern in patterns)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Every name that a file imports, absolute; `from a import b` gives `a` and `a.b`."""
    package = dotted(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield node, base
            yield from ((node, f"{base}.{alias.name}") for alias in node.names)


def test_pure_modules_import_nothing_that_acts():
    found = [
        f"{at(path, node)} imports {name}"
        for path in PRODUCT
        if matches(path, PURE)
        for node, name in imports(path)
        if name in NOT_IN_PURE
    ]

    assert not found, (
        f"{found}: decisions are functions of values, so that a dry run, `why` and the simulator "
        "can call them; take the time, the chance or the id as an argument instead"
    )


def test_pure_modules_never_wait():
    waits = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    found = [
        at(path, node)
        for path in PRODUCT
        if matches(path, PURE)
        for node in ast.walk(tree_of(path))
        if isinstance(node, waits) or (isinstance(node, ast.comprehension) and node.is_async)
    ]

    assert not found, (
        f"{found}: what waits can be interrupted half-way, and a decision must not be; "
        "await in the coordinator and pass the value in instead"
    )


def test_every_module_opens_with_a_docstring():
    found = [name_of(path) for path in EVERYTHING if not ast.get_docstring(tree_of(path))]

    assert not found, (
        f"{found}: a reader decides by the first line whether this is the right file; "
        "say there what the module is for"
    )


def test_every_module_is_used():
    used = {
        name
        for path in PRODUCT
        for name in (*(name for _, name in imports(path)), *names_in_text(path))
        if name != dotted(path)
    }
    found = [
        name_of(path)
        for path in PRODUCT
        if path.name != "__init__.py"
        and dotted(path) not in used
        and not matches(path, ENTRY_POINTS)
    ]

    assert not found, (
        f"{found}: no other module imports it, so it is dead or was never wired; "
        "delete it, wire it, or list it in ENTRY_POINTS with who starts it"
    )


def names_in_text(path: Path) -> Iterator[str]:
    """Every string: lazy exports, `python -m` and "module:app" name a module that way."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.split(":")[0]


def test_every_todo_names_an_issue():
    found = [
        f"{name_of(path)}:{token.start[0]}"
        for path in EVERYTHING
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.COMMENT
        and re.search(r"\b(TODO|FIXME)\b", token.string)
        and not re.search(r"#\d+", token.string)
    ]

    assert not found, (
        f"{found}: a wish without an owner is never done; "
        "do it now, or open an issue and write its number as #N in the same comment"
    )


def test_modules_are_short_enough_to_be_read_whole():
    found = [
        f"{name_of(path)} ({lines} lines)"
        for path in PRODUCT
        if (lines := len(path.read_text().splitlines())) > LINES_MAX and name_of(path) not in LONG
    ]

    assert not found, (
        f"{found}: above {LINES_MAX} lines a noun is usually missing; "
        "find it and give it a module, or list the file in LONG with the reason"
    )


def test_no_module_has_a_name_that_says_nothing():
    found = [name_of(path) for path in EVERYTHING if VAGUE & set(re.split(r"[/_.]", name_of(path)))]

    assert not found, (
        f"{found}: such a file collects what has no place; "
        "name it after what its functions are about, or move each to its one caller"
    )


def test_only_the_clock_reads_the_time():
    found = [
        f"{at(path, node)} {name}"
        for path in PRODUCT
        if name_of(path) not in READS_TIME
        for node, name in time_readings(path)
    ]

    assert not found, (
        f"{found}: time that is read in place cannot be set by a test or the simulator; "
        "take a Clock at construction instead, or list the file in READS_TIME with the reason"
    )


def time_readings(path: Path) -> Iterator[tuple[ast.AST, str]]:
    yield from ((node, name) for node, name in imports(path) if name in TIME_CALLS)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in TIME_CALLS:
            yield node, ast.unparse(node)


def test_every_exception_names_a_file_that_exists():
    found = [name for name in LONG | READS_TIME if not (ROOT / name).exists()]

    assert not found, f"{found}: an exception without its file excuses the next one; remove it"
