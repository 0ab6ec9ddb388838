"""Job files: what may stand in them, what is said of what may not, and how they are written."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sokovan.cli.exits import UsageError
from sokovan.cli.jobfile import JobFile, fields, read_job, written
from sokovan.cli.session_options import session_options
from tests.fuzz.ground import House
from tests.fuzz.terminal import Terminal

JOB = """\
# nightly
command = ["python", "train.py"]
name = "nightly"
cpu = 2
gpu = 0.5
begin = 2026-12-24T18:00:00
requeue = true
retries = 2
constraint = "rack=r1"
prefer = ["left",
  "right"]
cwd = "data"

[env]
LR = 0.1
"A B" = "x=y"

[limit]
start-sessions = "10m"
"""


def a_job(text):
    return JobFile("job.toml", text, Path("/jobs"))


def test_each_option_of_a_session_is_a_field():
    assert a_job(JOB).values == {
        "name": "nightly",
        "cpu": "2",
        "gpu": "0.5",
        "begin": "2026-12-24T18:00:00",
        "requeue": True,
        "retries": 2,
        "constraint": ["rack=r1"],
        "prefer": ["left", "right"],
        "cwd": "/jobs/data",
        "env": ["LR=0.1", "A B=x=y"],
        "limit": ["start-sessions=10m"],
    }
    session, dependencies, array = session_options(**a_job(JOB).values)
    assert (session["cpu_milli"], session["gpu_shares"]) == (2000, 500)
    assert dependencies == []
    assert array is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("gpus = 1", "gpus: there is no such field; did you mean gpu?"),
        ("gpu_mem = '40G'", "gpu_mem: there is no such field; write gpu-mem, with hyphens"),
        ("walltime_s = 60", "walltime_s: there is no such field; did you mean time?"),
        ("zzz = 1", "zzz: there is no such field; the fields are the options of"),
        ("mem = [1]", "mem: [1] is neither text nor a number"),
        ("mem = true", "mem: true is neither text nor a number"),
        ("kernels = 0", "kernels: 0 is too little; write 1 or more"),
        ("kernels = '2'", 'kernels: "2" is no whole number'),
        ("retries = true", "retries: true is no whole number"),
        ("hold = 1", "hold: 1 is neither; write true or false"),
        ("prefer = { a = 1 }", "prefer: a table is neither text nor a number"),
        ("env = 'A=1'", 'env: "A=1" is no table; write [env], and lines below it such as NAME ='),
        ("env.DEBUG = true", "env: true is neither text nor a number"),
        ("env.'A=B' = 1", "env: 'A=B' is no name"),
        ("[[env]]", "env: [{}] is no table"),
        ("name = ", "this is not TOML: Invalid value"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_line(line, said):
    with pytest.raises(UsageError) as caught:
        a_job(f"command = ['true']\n\n{line}\n")

    assert caught.value.message.startswith(f"job.toml:3: {said}")


@pytest.mark.parametrize(
    ("text", "arguments", "command"),
    [
        ("command = ['a', 1]", ["b"], ["a", "1", "b"]),
        ("command = 'a | b'", [], ["/bin/sh", "-c", "a | b"]),
        ("command = 'a \"$@\"'", ["b"], ["/bin/sh", "-c", 'a "$@"', "sh", "b"]),
        ("command = 'a ${1:-x}'", ["b"], ["/bin/sh", "-c", "a ${1:-x}", "sh", "b"]),
        ("cpu = 1", ["b", "c"], ["b", "c"]),
    ],
)
def test_a_command_is_words_or_text_for_the_shell(text, arguments, command):
    assert a_job(text).full_command(arguments) == command


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("command = []", [], "job.toml:1: command: [] is no command"),
        ("command = ' '", [], 'job.toml:1: command: " " is no command'),
        ("command = ['a',\n['b']]", [], 'job.toml:2: command: ["b"] is neither text nor a number'),
        ("\ncommand = 'a'", ["b"], "job.toml:2: command: 'b' is not used by this text"),
        ("cpu = 1", [], "job.toml: it has no command"),
    ],
)
def test_a_command_that_cannot_be_is_said(text, arguments, said):
    with pytest.raises(UsageError) as caught:
        a_job(text).full_command(arguments)

    assert caught.value.message.startswith(said)


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"a = 1\nb = '\xff'\n")
    for name, said in {
        "none.toml": "this job file cannot be read: No such file or directory; if it is a command,",
        ".": "this job file cannot be read: Is a directory",
        "bytes.toml": "2: this is not UTF-8",
    }.items():
        with pytest.raises(UsageError, match=said):
            read_job(str(tmp_path / name))


# --- writing --------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PAIRS = st.tuples(TEXTS.filter(lambda name: name and "=" not in name), TEXTS).map("=".join)
VALUES = {
    "text": st.one_of(TEXTS, st.sampled_from(["2", "0.5", "1.50", "007", "1e3", "9" * 30])),
    "whole": st.integers(1, 2**40),
    "flag": st.booleans(),
    "list": st.lists(TEXTS, max_size=3),
    "table": st.lists(PAIRS, max_size=3, unique_by=lambda pair: pair.split("=")[0]),
}
SAID = st.fixed_dictionaries(
    {},
    optional={
        field.parameter: VALUES[field.kind] for field in fields().values() if field.name != "cwd"
    },
)


@given(st.lists(TEXTS, min_size=1, max_size=4), SAID)
def test_what_is_written_is_read_again(command, said):
    text = written(command, said)

    job = a_job(text)
    unset = {f.parameter: f.default for f in fields().values()}
    assert job.full_command(()) == command
    assert unset | job.values == unset | {
        name: value for name, value in said.items() if value not in ([], None)
    }
    assert written(command, job.values) == text


def test_a_job_file_is_pleasant_to_read():
    said = a_job(JOB).values

    text = written(["python", "train.py"], said)

    assert text == (
        "# sokovan submit FILE.toml\n"
        'command = ["python", "train.py"]\n'
        'name = "nightly"\n'
        "cpu = 2\n"
        "gpu = 0.5\n"
        'cwd = "/jobs/data"\n'
        'begin = "2026-12-24T18:00:00"\n'
        "requeue = true\n"
        "retries = 2\n"
        'constraint = ["rack=r1"]\n'
        'prefer = ["left", "right"]\n'
        "\n"
        "[env]\n"
        'LR = "0.1"\n'
        '"A B" = "x=y"\n'
        "\n"
        "[limit]\n"
        'start-sessions = "10m"\n'
    )
    assert "[\n    " in written(["x" * 60, "y" * 60], {})


def test_what_is_not_utf_8_cannot_be_written():
    with pytest.raises(UsageError, match="is not UTF-8"):
        written(["\udcff"], {})


# --- as it is typed -------------------------------------------------------------------------------


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    house = House()
    house.inhabit()
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    yield Terminal(tmp_path, house)
    house.close()


def printed(terminal, *words, environ=None):
    code, out, err = terminal.type("submit", "--print", *words, environ=environ)
    assert code == 0, err
    return tomllib.loads(out)


def test_options_win_over_the_file_wherever_they_stand(terminal, tmp_path):
    Path("job.toml").write_text(
        'command = ["a"]\ncpu = 2\nprefer = ["x"]\nretries = 3\n[env]\nA = "1"\nB = "1"\n'
    )

    before = printed(terminal, "--cpu", "4", "--env", "B=2", "--prefer", "y", "job.toml")
    after = printed(terminal, "job.toml", "--cpu", "4", "--env", "B=2", "--prefer", "y", "--", "-v")
    explicit = printed(terminal, "--retries", "0", "-f", "job.toml", "x")

    assert before == {
        "command": ["a"],
        "cpu": 4,
        "retries": 3,
        "prefer": ["y"],
        "env": {"A": "1", "B": "2"},
    }
    assert after == before | {"command": ["a", "-v"]}
    assert (explicit["command"], "retries" in explicit) == (["a", "x"], False)


def test_dashes_make_a_command_of_it_and_so_does_path(terminal, tmp_path):
    tool = tmp_path / "tool.toml"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    Path("job.toml").write_text('command = ["a"]')

    assert printed(terminal, "--", "job.toml") == {"command": ["job.toml"]}
    assert printed(terminal, "./tool.toml") == {"command": ["./tool.toml"]}
    found = printed(terminal, "tool.toml", "x", environ={"PATH": str(tmp_path)})
    assert found == {"command": ["tool.toml", "x"]}


@pytest.mark.parametrize(
    ("text", "words", "code", "said"),
    [
        ("\ncpu = 'two'", [], 2, "error: job.toml:2: cpu: 'two' is not an amount; write a number"),
        ("env.A = 1", ["--env", "B"], 2, "error: --env: 'B' is not a variable"),
        ("cpu = 'two'", ["--cpu", "x"], 2, "error: --cpu: 'x' is not an amount"),
        ("prefer=['a']\nconstraint = ['a=b',\n'a']", [], 2, "job.toml:3: constraint: 'a' is not"),
        ("limit.x = '1m'\nlimit.y = 'q'", [], 2, "job.toml:2: limit: 'q' is not a duration"),
        ("\n\npriority = 200", [], 4, "error: job.toml:3: priority: "),
        ("[limit]\nnone = '1m'", [], 4, "error: job.toml:1: limits"),
        ("\nagent = 'nobody'", [], 4, "error: job.toml:2: where.agents: the group default has no"),
        ("depends-on = ['@', 'x:y']", [], 2, "error: job.toml:1: depends-on: 'x:y' is no"),
    ],
)
def test_an_error_names_the_line_of_the_file_or_the_option(terminal, text, words, code, said):
    Path("job.toml").write_text(text)

    found, _, err = terminal.type("submit", "-f", "job.toml", *words, "--", "true")

    assert (found, err.count("\n")) == (code, 1)
    assert said in err


def test_a_file_is_submitted(terminal):
    Path("job.toml").write_text('command = ["true"]\nhold = true\ncpu = 0.5\ncwd = ".."')

    code, out, _ = terminal.type("submit", "job.toml", "--json")

    assert code == 0
    session = json.loads(out)
    assert (session["command"], session["held"], session["cpu_milli"]) == (["true"], True, 500)
    assert session["cwd"] == str(Path("..").absolute())


def test_without_a_command_there_is_nothing_to_submit(terminal):
    code, _, err = terminal.type("submit")

    assert code == 2
    assert err.startswith("error: there is no COMMAND; write `sokovan submit -- COMMAND`")
