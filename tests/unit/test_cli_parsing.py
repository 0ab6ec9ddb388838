"""What people type, and what is made of it."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sokovan.cli import exits
from sokovan.cli.events import _secret_of
from sokovan.cli.parsing import (
    parse_array,
    parse_begin,
    parse_dependencies,
    parse_env,
    parse_labels,
    parse_limits,
)
from sokovan.cli.session_options import session_options
from sokovan.client.addresses import array_body
from sokovan.domain.arrays import ArraySpec
from sokovan.domain.errors import (
    AlreadyRunningError,
    HomeError,
    InvalidRequestError,
    ServerUnreachableError,
    SessionNotFoundError,
    SokovanError,
)
from sokovan.domain.sessions import DependencyKind, SessionSpec


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text):
    return datetime.fromisoformat(text).timestamp()


NOON = "2026-11-23T12:00:00+01:00"


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("now", NOON, "2026-11-23T11:00:00Z"),
        ("+30m", NOON, "2026-11-23T11:30:00Z"),
        ("now+1h30m", NOON, "2026-11-23T12:30:00Z"),
        ("now + 1h", NOON, "2026-11-23T12:00:00Z"),
        ("+90", NOON, "2026-11-23T11:01:30Z"),
        ("18:30", NOON, "2026-11-23T17:30:00Z"),
        ("9:05", NOON, "2026-11-24T08:05:00Z"),
        ("12:00", NOON, "2026-11-23T11:00:00Z"),
        ("11:59:59", NOON, "2026-11-24T10:59:59Z"),
        ("00:30", "2026-11-23T23:45:00+01:00", "2026-11-23T23:30:00Z"),
        ("2026-12-24", NOON, "2026-12-23T23:00:00Z"),
        ("2026-12-24T18:00", NOON, "2026-12-24T17:00:00Z"),
        ("2026-12-24 18:00:30", NOON, "2026-12-24T17:00:30Z"),
        ("2027-07-01T18:00", NOON, "2027-07-01T16:00:00Z"),
        ("2026-12-24T18:00:00Z", NOON, "2026-12-24T18:00:00Z"),
        ("2026-12-24T18:00:00-05:00", NOON, "2026-12-24T23:00:00Z"),
        # the clock goes from 03:00 back to 02:00 that night
        ("12:00", "2026-10-24T13:00:00+02:00", "2026-10-25T11:00:00Z"),
    ],
)
def test_a_begin_time_is_read_as_this_machine_s_clock_shows_it(text, now, expected):
    assert parse_begin(text, at(now)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "25:00",
        "18:61",
        "+",
        "now+",
        "now-1h",
        "+soon",
        "2026-13-01",
        "1",
        "9999w",
        "+9999999d",
    ],
)
def test_what_is_no_time_is_refused_with_examples(text):
    with pytest.raises(InvalidRequestError) as caught:
        parse_begin(text, at(NOON))

    assert caught.value.field == "begin"


def test_variables_may_contain_equals_signs_and_be_empty():
    assert parse_env(["A=b=c", "EMPTY="]) == {"A": "b=c", "EMPTY": ""}


@pytest.mark.parametrize("pair", ["", "A", "=b"])
def test_what_is_no_variable_is_refused(pair):
    with pytest.raises(InvalidRequestError, match="NAME=value"):
        parse_env([pair])


def test_limits_are_durations_by_stage():
    assert parse_limits(["start-sessions=10m", "check-precondition=1h"]) == {
        "start-sessions": {"phase_s_max": 600.0},
        "check-precondition": {"phase_s_max": 3600.0},
    }


@pytest.mark.parametrize("pair", ["", "start-sessions", "=10m", "start-sessions=soon"])
def test_what_is_no_limit_is_refused(pair):
    with pytest.raises(InvalidRequestError) as caught:
        parse_limits([pair])

    assert caught.value.field == "limit"


def test_dependencies_have_a_kind_and_may_be_listed():
    assert parse_dependencies(["abc", "afterany:@~1, afternotok:def"]) == [
        ("afterok", "abc"),
        ("afterany", "@~1"),
        ("afternotok", "def"),
    ]


@pytest.mark.parametrize("text", ["", "after:abc", "afterok:", ":abc", "a,,b"])
def test_what_is_no_dependency_is_refused(text):
    with pytest.raises(InvalidRequestError, match="KIND:ID"):
        parse_dependencies([text])


def test_what_is_said_of_where_is_read_and_the_rest_left_out():
    fields, *_ = session_options(
        constraint=["rack = r2|r1", "mem_gpu>=40G"],
        arch="x86_64",
        agent=["left", "right"],
        mode="single-node",
        spread_with=["web"],
    )

    assert fields["where"] == {
        "mode": "single-node",
        "constraints": ["rack=r1|r2", "mem_gpu>=40G", "architecture=x86_64"],
        "agents": ["left", "right"],
        "spread_with": ["web"],
    }
    assert "where" not in session_options()[0]


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"constraint": ["rack"]}, None, "constraint: 'rack' is not understood"),
        ({"constraint": [""]}, None, "constraint: '' is not understood"),
        ({"constraint": ["mem>=lots"]}, "constraint", "constraint: 'lots' is not a size"),
        ({"arch": ""}, "arch", "arch: '' is no architecture"),
        ({"arch": "a=b"}, "arch", "arch: 'a=b' is no architecture"),
        ({"mode": "all-over"}, "mode", "choose one of multi-node, single-node"),
    ],
)
def test_what_says_nothing_of_where_is_refused(said, field, words):
    with pytest.raises(InvalidRequestError, match=words) as caught:
        session_options(**said)

    assert caught.value.field == field


def test_labels_are_set_with_a_value_and_taken_away_with_a_dash():
    assert parse_labels(["rack=r1", "zone-", "os=Debian 13", "k-=a=b", "x="]) == {
        "rack": "r1",
        "zone": None,
        "os": "Debian 13",
        "k-": "a=b",
        "x": "",
    }


@pytest.mark.parametrize("words", [["rack"], [""], ["rack=r1", "rack-"], ["rack=r1", "rack=r2"]])
def test_what_is_no_label_is_refused(words):
    with pytest.raises(InvalidRequestError, match=r"is no label|is named twice"):
        parse_labels(words)


def test_the_options_become_base_units(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEPT", "yes")

    fields, dependencies, array = session_options(
        cpu="0.5",
        mem="4G",
        gpu="2",
        gpu_mem="40G",
        walltime="1h30m",
        pending_timeout="10m",
        grace="5s",
        env=["ADDED=1"],
        cwd="below",
        priority=20,
        group="gpu",
        depends_on=["abc"],
    )

    assert (fields["cpu_milli"], fields["mem_bytes"]) == (500, 4 * 2**30)
    assert (fields["gpu_shares"], fields["gpu_mem_bytes_min"]) == (2000, 40 * 2**30)
    assert (fields["walltime_s"], fields["pending_timeout_s"], fields["grace_s"]) == (5400, 600, 5)
    assert (fields["env"]["KEPT"], fields["env"]["ADDED"]) == ("yes", "1")
    assert fields["cwd"] == str(tmp_path / "below")
    assert (fields["priority"], fields["scaling_group"]) == (20, "gpu")
    assert dependencies == [(DependencyKind.AFTER_OK, "abc")]
    assert array is None


def test_saying_nothing_asks_for_one_core():
    fields, dependencies, array = session_options()

    assert (fields["cpu_milli"], fields["mem_bytes"], fields["gpu_shares"]) == (1000, 0, 0)
    assert fields["cwd"] == str(Path.cwd())
    assert "begin_at" not in fields
    assert dependencies == []
    assert array is None


def test_a_begin_time_is_sent_with_its_zone():
    fields, *_ = session_options(begin="+1h")

    begin = datetime.fromisoformat(fields["begin_at"])
    assert begin.tzinfo is not None
    assert begin > datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exits.UsageError("x"), 2),
        (SessionNotFoundError("x"), 3),
        (InvalidRequestError("x"), 4),
        (AlreadyRunningError("x"), 4),
        (ServerUnreachableError("x"), 5),
        (HomeError("x"), 5),
        (SokovanError("x"), 1),
    ],
)
def test_each_error_has_its_exit_code(error, code):
    assert exits.of_error(error) == code


@pytest.mark.parametrize(
    ("result", "reason", "exit_code", "code"),
    [
        ("SUCCESS", "SELF_TERMINATED", 0, 0),
        ("FAILURE", "KERNEL_FAILED", 3, 3),
        ("FAILURE", "KERNEL_FAILED", 143, 143),
        ("FAILURE", "KERNEL_FAILED", 0, 125),
        ("FAILURE", "EXIT_STATUS_LOST", None, 125),
        ("FAILURE", "COMMAND_NOT_FOUND", None, 127),
        ("FAILURE", "COMMAND_NOT_EXECUTABLE", None, 126),
        ("FAILURE", "DIRECTORY_NOT_FOUND", None, 125),
        ("UNDEFINED", "USER_REQUESTED", None, 125),
    ],
)
def test_run_exits_as_a_shell_would(result, reason, exit_code, code):
    kernel = {"exit_code": exit_code, "ended_at": "2026-11-23T00:00:01.000Z"}
    session = {"result": result, "reason": reason, "exit_code": exit_code, "kernels": [kernel]}

    assert exits.of_session(session) == code


def test_run_exits_with_the_code_of_the_kernel_that_failed_first():
    main = {"exit_code": 143, "ended_at": "2026-11-23T00:00:02.000Z"}
    sub = {"exit_code": 7, "ended_at": "2026-11-23T00:00:01.000Z"}
    session = {"result": "FAILURE", "reason": "KERNEL_FAILED", "kernels": [main, sub]}

    assert exits.of_session({**session, "exit_code": 143}) == 7


@pytest.mark.parametrize(
    ("array", "params", "read"),
    [
        (None, [], None),
        ("0-9", [], {"indexes": "0-9", "params": {}, "running_max": None}),
        ("0-9:3,20%16", [], {"indexes": "0-9:3,20", "params": {}, "running_max": 16}),
        (None, ["a=1,2", "b=x"], {"params": {"a": ["1", "2"], "b": ["x"]}}),
        ("%4", ["a=1,"], {"indexes": None, "params": {"a": ["1", ""]}, "running_max": 4}),
        (None, ["a=1", "b=2", "a=3"], {"params": {"a": ["3"], "b": ["2"]}}),
    ],
)
def test_what_makes_an_array_is_read(array, params, read):
    assert parse_array(array, params) == read


@pytest.mark.parametrize(
    ("array", "params", "field"),
    [
        ("", [], "array"),
        ("%4", [], "array"),
        ("0-9%", [], "array"),
        ("0-9%0", [], "array"),
        ("0-9", ["a=1"], "array"),
        (None, ["a"], "param"),
        (None, ["=1"], "param"),
    ],
)
def test_what_makes_no_array_names_the_option(array, params, field):
    with pytest.raises(InvalidRequestError) as caught:
        parse_array(array, params)

    assert caught.value.field == field


def test_an_inherited_variable_keeps_what_looks_like_a_placeholder():
    inherited = {"PROMPT": "{index} {{index}} ${index} {lr} {user}", "SAID": "{old}"}
    session = {"command": ["x"], "env": inherited | {"SAID": "{lr}"}, "cwd": "/", "umask": 0}

    body = array_body(session, {"env": inherited}, None, {"lr": ["1"]}, None)

    env = body["session"]["env"]
    template = SessionSpec(("x",), env=env)
    task = ArraySpec(template, params=(("lr", ("1",)),)).task(0, "A")
    assert task.env["PROMPT"] == inherited["PROMPT"]
    assert task.env["SAID"] == "1"


def test_a_secret_that_is_no_text_is_refused_with_its_field():
    assert _secret_of("schlüssel\n".encode()) == "schlüssel"
    with pytest.raises(exits.UsageError, match="not UTF-8") as refused:
        _secret_of(b"\xff\xfe\n")
    assert refused.value.field == "secret"
