"""Whatever is typed or set: one line that says what is wrong, and a stated exit code."""

import json
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sokovan.cli import exits
from sokovan.simulator.runtime import Script
from tests.build import a_spec
from tests.fuzz.ground import House
from tests.fuzz.terminal import COMMAND, Terminal

STATED = {0, 2, 3, 4, 5, 124, 125, 126, 127, 137, 143}
"""See docs/guides/running-sessions.md. 1 is a bug of ours."""
NOT_TRIED = {
    ("sokovan", "sim"): "takes as long as it is told to",
    ("sokovan", "doctor"): "exits with 1 where the machine has a problem",
    ("sokovan", "up"): "tried by itself",
}


@pytest.fixture(scope="module")
def terminal(tmp_path_factory) -> Iterator[Terminal]:
    house = House()
    house.inhabit()
    house.submit(a_spec(name="long"), Script(50.0))
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    yield Terminal(home, house)
    house.close()


def is_civil(code: int, err: str, *, stated: set[int] = STATED) -> None:
    """The exit code is a stated one, and an error is one line, or one problem object."""
    assert code in stated, (code, err)
    assert "Traceback" not in err
    assert "this is a bug" not in err
    if code in {2, 3, 4, 5}:
        said = [line for line in err.splitlines() if not line.startswith("sokovan: ")]
        assert len(said) == 1, err
        assert said[0].startswith("error: ") or json.loads(said[0])["detail"]


HALF = settings(max_examples=settings().max_examples // 2)

# --- any words ------------------------------------------------------------------------------------


def leaves(command, path=("sokovan",)) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield every command and the names of its options."""
    below = getattr(command, "commands", {})
    if not below or (command.callback is not None and len(path) > 1):
        names = [name for p in command.params for name in (*p.opts, *p.secondary_opts)]
        yield path, [name for name in names if name.startswith("-") and "background" not in name]
    for name, inner in below.items():
        yield from leaves(inner, (*path, name))


COMMANDS = {path: names for path, names in leaves(COMMAND) if path not in NOT_TRIED}
ARGUMENTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers().map(str) | st.floats().map(str)
WORDS = (
    ARGUMENTS
    | NUMBERS
    | st.sampled_from(
        ["@", "@~1", "@~99999999999", "a1", "runs", "", "-", "--", "-1", "9" * 5000, "\udcff", "..",
         "afterany:@", "start-sessions=1s", "x=y", "=", "1h30m", "99:99:99", "+1s", "now", "~x/y",
         "RUNNING", "stdout", "0.5", "64K", "\u0663", "\u202e\x1b[2J", "true", "x" * 3000, "#0"]
    )
)  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_any_words_behind_a_command_are_done_or_refused(terminal, path):
    names = [name for name in COMMANDS[path] if name not in {"--home", "--help", "-h"}]

    @HALF
    @given(st.lists(WORDS | st.sampled_from(names or [""]), max_size=6))
    def typed(words):
        code, _, err = terminal.type(*path[1:], *words)
        is_civil(code, err)

    typed()


@given(
    st.lists(WORDS | st.sampled_from(["--home", "--version", "ls", "run", "agents"]), max_size=4)
)
def test_any_words_at_all_are_refused_or_done(terminal, words):
    assume("sim" not in words and "up" not in words)
    code, _, err = terminal.type(*words)

    is_civil(code, err)


@given(st.dictionaries(st.sampled_from(["--cpu", "--json", "--port", "--limit"]), WORDS))
def test_any_words_behind_up_are_refused_or_done(terminal, words):
    code, _, err = terminal.type("up", *(word for pair in words.items() for word in pair))

    is_civil(code, err)


# --- the session's options ------------------------------------------------------------------------

FIELDS = {
    "--name": "name",
    "--cpu": "cpu",
    "--mem": "mem",
    "--gpu": "gpu",
    "--gpu-mem": "gpu",
    "--kernels": "kernels",
    "--time": "time",
    "--priority": "priority",
    "--group": "group",
    "--env": "env",
    "--cwd": "cwd",
    "--pending-timeout": "pending",
    "--depends-on": "depends",
    "--begin": "begin",
    "--grace": "grace",
    "--retries": "retries",
    "--limit": "limit",
}
IN_OTHER_WORDS = (
    "is not UTF-8",
    "is no session",
    "there is no session",
    "; type more of it",
    "has not submitted so many sessions",
    "can never start here",
)


@pytest.mark.parametrize("option", FIELDS)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(terminal, option):
    @HALF
    @given(WORDS)
    def typed(value):
        code, out, err = terminal.type("submit", f"{option}={value}", "--", "true")
        is_civil(code, err)
        assert (code == 0) == bool(out)
        if code and not any(words in err for words in IN_OTHER_WORDS):
            assert FIELDS[option] in err

    typed()


def test_a_home_of_nobody_is_refused(terminal):
    code, _, err = terminal.type("--home", "~no-such-user/x", "ls")

    assert code == exits.UNREACHABLE
    assert "leads nowhere" in err


def test_a_directory_of_nobody_is_refused(terminal):
    code, _, err = terminal.type("submit", "--cwd", "~no-such-user/x", "--", "true")

    assert code == exits.USAGE
    assert "--cwd: '~no-such-user/x' leads nowhere" in err


def test_a_current_directory_that_was_removed_is_named(terminal, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    code, _, err = terminal.type("submit", "--", "true")

    assert code == exits.USAGE
    assert "--cwd: the current directory cannot be used" in err


# --- the environment ------------------------------------------------------------------------------

VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1),
        VALUES | st.just("\udcff"),
        max_size=5,
    )
)
def test_any_environment_goes_with_a_session(terminal, environ):
    assume(not {name for name in environ if name.upper().startswith(("SOKOVAN", "_"))})
    code, out, err = terminal.type("submit", "--", "true", environ=environ)

    is_civil(code, err)
    assert out


@given(VALUES | st.sampled_from(["~no-such-user", "/proc/1/x", "/dev/null", "x/" * 3000]))
@example("~no-such-user")
def test_any_home_in_the_environment_is_used_or_refused(terminal, home):
    assume(home)
    with mock.patch("sokovan.home.Path.mkdir", side_effect=FileExistsError):
        code, _, err = terminal.type("up", environ={"SOKOVAN_HOME": home})

    is_civil(code, err)
    assert code == exits.UNREACHABLE


@pytest.mark.parametrize("argv", [["why", "\udcff"], ["cancel", "\udcff"], ["ls", "-n", "\udcff"]])
def test_a_word_that_is_not_utf_8_is_refused(terminal, argv):
    code, _, err = terminal.type(*argv)

    assert code in {exits.NOT_FOUND, exits.REFUSED}
    assert "\\udcff" in err
