"""What people read: columns, sentences, and nothing that upsets a terminal."""

import io
import json
import sys

import pytest

from sokovan.cli.describe import (
    agent_rows,
    kernel_sentence,
    outcome,
    session_lines,
    session_row,
    where_lines,
)
from sokovan.cli.explained import why_lines
from sokovan.cli.streams import Sink
from sokovan.cli.text import Cell, local_time, on_one_line, plain, print_json, print_rows, problem
from sokovan.client import Output
from sokovan.domain.errors import SessionNotFoundError

KERNEL = {
    "id": "abcdefghijkm.0",
    "role": "main",
    "index": 0,
    "status": "RUNNING",
    "agent": "local",
    "exit_code": None,
    "error": None,
    "cpu_milli": 500,
    "mem_bytes": 2**30,
    "gpu_shares": 2000,
    "devices": [[0, 1000], [1, 1000]],
}
SESSION = {
    "id": "abcdefghijkm",
    "name": "train",
    "owner": "ada",
    "status": "RUNNING",
    "result": "UNDEFINED",
    "reason": None,
    "priority": 10,
    "scaling_group": "default",
    "agents": ["local"],
    "exit_code": None,
    "created_at": "2026-11-23T11:00:00.000Z",
    "started_at": "2026-11-23T11:00:05.000Z",
    "ended_at": None,
    "kernels": [KERNEL, KERNEL | {"index": 1}],
    "command": ["python", "a b.py"],
    "cwd": "/home/ada",
    "wait": None,
}
NOW = 1795432505.0  # 2026-11-23T11:15:05Z


def a_session(**changes):
    return SESSION | changes


def test_a_row_adds_the_kernels_up():
    row = [cell if isinstance(cell, str) else cell.text for cell in session_row(a_session(), NOW)]

    assert row == [
        "abcdefgh",
        "train",
        "RUNNING",
        "-",
        "default",
        "1",
        "2G",
        "4",
        "local",
        "15m05s",
    ]


def test_an_ended_session_says_how_it_ended():
    ended = a_session(status="TERMINATED", reason="KERNEL_FAILED", result="FAILURE", exit_code=3)

    assert outcome(ended) == "KERNEL_FAILED (exit 3)"
    assert session_row(ended, NOW)[2] == Cell("TERMINATED", "red")


def test_show_has_only_what_there_is_to_say():
    names = [row[0] for row in session_lines(a_session(), NOW)]

    assert {"id", "status", "command", "created", "started", "kernel 0", "kernel 1"} <= set(names)
    assert not {"waits", "result", "exit code", "held", "ended", "retry of"} & set(names)


def test_show_says_what_few_sessions_have():
    rows = {
        row[0]: row[1]
        for row in session_lines(
            a_session(
                status="PENDING",
                wait={"code": "HELD", "sentence": "is held back"},
                held=True,
                requeue=True,
                requeues=2,
                retries=1,
                retry_of="zzz",
                begin_at="2026-11-23T12:15:05Z",
                walltime_s=5400.0,
                depends_on=[{"session_id": "yyy", "kind": "afterok"}],
            ),
            NOW,
        )
    }

    assert rows["waits"] == "is held back"
    assert rows["begin"].endswith("(in 1h00m)")
    assert rows["walltime"] == "1h30m"
    assert (rows["retry of"], rows["depends on"]) == ("zzz", "yyy (afterok)")


def test_a_kernel_is_a_sentence():
    assert kernel_sentence(KERNEL) == (
        "RUNNING, main; on local; 0.5 cpu, 1G mem, 2 gpu; devices 0,1"
    )
    assert kernel_sentence(KERNEL | {"exit_code": 1, "error": "no"}).endswith("exit 1; no")


def test_why_names_the_numbers():
    lack = {"code": "TOO_LITTLE_MEM", "slot": "mem", "requested": 2**32, "free": 2**30}
    answer = {
        "session": SESSION,
        "sentence": "waits for 4G of memory",
        "code": "TOO_LITTLE_MEM",
        "facts": {
            "position": 3,
            "queue_length": 9,
            "ahead": {"total": 2, "by_higher_priority": 2, "by_earlier_submission": 0},
            "agents": [
                {
                    "agent": "local",
                    "status": "ALIVE",
                    "code": "TOO_LITTLE_MEM",
                    "lacks": [lack | {"total": 2**33}],
                }
            ],
            "agents_total": 8,
            "holders": [
                {
                    "session_id": "zzzzzzzzzzzz",
                    "agent": "local",
                    "leftover": True,
                    "cpu_milli": 1000,
                    "mem_bytes": 0,
                    "gpu_shares": 0,
                }
            ],
        },
    }

    assert list(why_lines(answer, NOW)) == [
        "abcdefgh: waits for 4G of memory",
        "  place 3 of 9 in the queue; before it: 2 by higher priority",
        "  agents:",
        "    local (ALIVE): mem: 4G asked, 1G of 8G free",
        "    and 3 more (--json names them)",
        "  what it waits for is held by:",
        "    zzzzzzzz on local: 1 cpu, a leftover that is being stopped",
    ]


def test_why_counts_the_drained_agents():
    def drained(**agents):
        facts = {
            "agents": [
                {"agent": "left", "status": "ALIVE", "drained": True, "code": "AGENT_DRAINED",
                 "lacks": []}
            ],
            "drained_for": agents,
        }  # fmt: skip
        return list(
            why_lines({"session": SESSION, "sentence": "waits", "code": "", "facts": facts}, NOW)
        )

    assert drained(**{"new disk": 1})[2:] == [
        "    left (ALIVE, drained): has room",
        "  1 agent is drained: new disk",
    ]
    assert drained(**{"": 2, "new disk": 1})[3:] == [
        "  2 agents are drained",
        "  1 agent is drained: new disk",
    ]


AGENT = {
    "name": "left",
    "status": "ALIVE",
    "scaling_group": "default",
    "drained_since": None,
    "drain_reason": None,
    "capacity": {"cpu_milli": 2000, "mem_bytes": 2**30},
    "held": {"cpu_milli": 500, "mem_bytes": 0},
    "devices": [],
    "kernels": 1,
    "leftovers": 0,
}


def texts(row):
    return [cell if isinstance(cell, str) else cell.text for cell in row]


def test_agents_say_that_they_are_drained_where_one_is():
    drained = AGENT | {"drained_since": "2026-11-23T11:00:00.000Z"}

    headers, (row,) = agent_rows([AGENT])
    assert list(headers) == [
        "AGENT",
        "STATUS",
        "GROUP",
        "CPU HELD",
        "MEM HELD",
        "GPU HELD",
        "KERNELS",
    ]
    assert texts(row) == ["left", "ALIVE", "default", "0.5/2", "0B/1G", "-", "1"]

    headers, rows = agent_rows([AGENT, drained, drained | {"drain_reason": "new disk"}])
    assert headers[-1] == "DRAINED"
    assert [texts(row)[-1] for row in rows] == ["-", "yes", "new disk"]
    assert {len(row) for row in rows} == {len(headers)}


def test_agents_show_their_labels_where_one_has_any():
    labelled = AGENT | {"labels": {"zone": "north", "rack": "r1"}}

    headers, rows = agent_rows([AGENT, labelled])

    assert headers[-1] == "LABELS"
    assert [texts(row)[-1] for row in rows] == ["-", "rack=r1,zone=north"]
    drained = labelled | {"drained_since": "2026-11-23T11:00:00.000Z"}
    headers, (row,) = agent_rows([drained])
    assert list(headers[-2:]) == ["LABELS", "DRAINED"]
    assert texts(row)[-2:] == ["rack=r1,zone=north", "yes"]


def test_show_says_where_a_session_may_go_in_the_words_of_the_options():
    where = {
        "mode": "single-node",
        "kernels_per_agent_max": 2,
        "same": "rack",
        "constraints": ["gpu_model=A100|H100", "mem_gpu>=40G"],
        "agents": ["left", "right"],
        "spread_with": ["web"],
    }

    assert list(where_lines({})) == []
    assert list(where_lines(where)) == [
        ("mode", "single-node"),
        ("constraint", "gpu_model=A100|H100, mem_gpu>=40G"),
        ("agent", "left, right"),
        ("kernels per agent", "at most 2"),
        ("same", "rack"),
        ("spread with", "web"),
    ]


def test_why_without_facts_is_one_line():
    answer = {"session": SESSION, "sentence": "it runs on local", "code": "RUNNING", "facts": {}}

    assert list(why_lines(answer, NOW)) == ["abcdefgh: it runs on local"]


def test_a_terminal_is_told_nothing_by_a_name():
    assert plain("a\x1b[31mb\tc") == "a�[31mb�c"
    assert plain("réseau 서버") == "réseau 서버"
    assert on_one_line("a\n  b\x07") == "a b�"


def test_columns_into_a_pipe_are_whole_and_plain(capsys):
    print_rows([("a" * 200, Cell("red", "red")), ("b", "c\n")], headers=("ONE", "TWO"))

    out = capsys.readouterr().out
    assert out.splitlines() == [
        "ONE" + " " * 199 + "TWO",
        "a" * 200 + "  red",
        "b" + " " * 201 + "c�",
    ]


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_columns_on_a_terminal_have_colour_unless_it_is_refused(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = {}
    for refused in (False, True):
        if refused:
            monkeypatch.setenv("NO_COLOR", "1")
        screen = Screen()
        monkeypatch.setattr(sys, "stdout", screen)
        print_rows([("a" * 200, Cell("failed", "red"))], headers=("ONE", "TWO"))
        shown[refused] = screen.getvalue()

    assert "\x1b[31m" in shown[False]
    assert "\x1b[31m" not in shown[True]
    assert len(shown[True].splitlines()[1]) <= 80
    assert "failed" in shown[True]


def test_json_is_one_line_in_a_pipe_and_indented_on_a_screen(capsys, monkeypatch):
    print_json({"a": "é"})
    assert capsys.readouterr().out == '{"a": "é"}\n'

    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    print_json({"a": 1})
    assert screen.getvalue() == '{\n  "a": 1\n}\n'


def test_a_problem_has_what_the_api_sends():
    assert json.loads(problem(SessionNotFoundError("none", field="ref"))) == {
        "type": "urn:sokovan:error:session-not-found",
        "title": "Session not found",
        "status": 404,
        "detail": "none",
        "code": "session-not-found",
        "field": "ref",
    }


def test_times_are_shown_as_the_clock_here_shows_them(monkeypatch):
    shown = local_time("2026-11-23T11:00:00.123456Z", timespec="milliseconds")

    assert shown.endswith(".123")
    assert len(local_time("2026-11-23T11:00:00.123456Z")) == len("2026-11-23 11:00:00")


def piece(data, offset=0):
    return Output(data, offset, offset + len(data), ended=False)


def test_lines_of_several_kernels_are_not_torn(capfdbinary):
    sink = Sink(json=False, prefixed=True)

    sink.write(0, "stdout", piece(b"on"))
    sink.write(1, "stdout", piece(b"two\n"))
    sink.write(0, "stdout", piece(b"e\nrest"))
    sink.end(0, "stdout")
    sink.end(1, "stdout")

    assert capfdbinary.readouterr().out == b"[1] two\n[0] one\n[0] rest\n"


def test_a_line_without_an_end_is_not_kept_for_ever(capfdbinary):
    sink = Sink(json=False, prefixed=True)

    sink.write(0, "stderr", piece(b"x" * 100_000))

    assert capfdbinary.readouterr().err == b"[0] " + b"x" * 100_000 + b"\n"


def test_pieces_in_json_do_not_tear_characters(capsys):
    sink = Sink(json=True, prefixed=False)
    whole = "é".encode()

    sink.write(0, "stdout", piece(b"a" + whole[:1]))
    sink.write(0, "stdout", piece(whole[1:] + b"\xff", offset=2))

    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["text"], first["offset"]) == ("a", 0)
    assert (second["text"], second["offset"]) == ("é�", 2)


@pytest.mark.parametrize("prefixed", [False, True])
def test_an_empty_piece_prints_nothing(capfdbinary, prefixed):
    Sink(json=False, prefixed=prefixed).write(0, "stdout", piece(b""))

    assert capfdbinary.readouterr() == (b"", b"")
