"""What is said while one waits, and after: where a session stands, and what to do next."""

import io
import json
import sys
from pathlib import Path

import pytest

from sokovan.cli.options import Call
from sokovan.cli.picture import picture
from sokovan.cli.progress import Progress, StatusLine, reason, standing
from sokovan.domain.resources import Request
from tests.build import a_spec
from tests.fuzz.ground import House
from tests.fuzz.terminal import Terminal

NOW = 1795432505.0  # 2026-11-23T11:15:05Z


def an_answer(**changes):
    session = {
        "id": "abcdefghijkm",
        "status": "PENDING",
        "wait": {"code": "TOO_LITTLE_CPU", "sentence": "waits for 4 cores"},
        "agents": [],
        "started_at": None,
    }
    answer = {
        "session": session,
        "position": 3,
        "queue_length": 12,
        "starts_at": "2026-11-23T11:45:05Z",
        "ends_at": None,
        "reserved": True,
        "sentence": "is to start in 30m",
    }
    return answer | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "place 3 of 12, starts in 30m00s; waits for 4 cores"),
        ({"reserved": False}, "place 3 of 12, starts in about 30m00s; waits for 4 cores"),
        ({"starts_at": None}, "place 3 of 12; waits for 4 cores"),
        ({"starts_at": "2026-11-23T11:15:00Z"}, "place 3 of 12, starts at any moment; waits"),
        ({"position": None, "starts_at": None}, "waits for 4 cores"),
    ],
)
def test_the_place_comes_first_where_the_rest_may_be_cut_off(changes, said):
    assert standing(an_answer(**changes), NOW).startswith(said)


def test_the_reason_comes_first_where_it_is_written_once():
    assert reason(an_answer(), NOW) == "waits for 4 cores (place 3 of 12, starts in 30m00s)"


def test_what_runs_says_for_how_long():
    session = {
        "status": "RUNNING",
        "agents": ["left"],
        "started_at": "2026-11-23T11:12:00Z",
        "wait": None,
    }
    answer = an_answer(session=session, ends_at="2026-11-23T12:00:00Z")

    assert standing(answer, NOW) == "runs on left for 3m05s, 44m55s left at most"
    assert standing(answer | {"ends_at": None}, NOW) == "runs on left for 3m05s"


class Screen(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_line_is_written_over_and_taken_away(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    line = StatusLine(screen)

    line.clear()
    line.show("place 3 of 12, starts soon")
    line.show("place 2 of 12")
    line.clear()
    line.clear()

    assert screen.getvalue() == "\r\x1b[Kplace 3 of 12, sta…\r\x1b[Kplace 2 of 12\r\x1b[K"


class Server:
    """A client's server that tells one thing after another."""

    server_time = NOW

    def __init__(self, *codes):
        self.codes = [*codes]
        self.waited = []

    def session(self):
        code = self.codes[0]
        status = code if code in {"RUNNING", "TERMINATED"} else "PENDING"
        wait = {"code": code, "sentence": f"waits: {code}"} if status == "PENDING" else None
        return {"id": "abcdefghijkm", "status": status, "wait": wait}

    def wait(self, ref, timeout_s):
        self.waited.append(timeout_s)
        found = self.session()
        if len(self.codes) > 1:
            del self.codes[0]
        return found

    def eta(self, ref):
        return an_answer(session=self.session())


def test_without_a_terminal_a_line_is_written_for_each_reason():
    server = Server("A", "A", "A", "B", "RUNNING", "TERMINATED")
    said = []

    ended = Progress(None, said.append).until_it_ends(server, "@")

    assert ended["status"] == "TERMINATED"
    assert [line.split(" (")[0] for line in said] == ["abcdefgh: waits: A", "abcdefgh: waits: B"]
    assert server.waited[0] == 1
    assert all(seconds >= 15 for seconds in server.waited[1:])


def test_a_time_limit_is_kept():
    server = Server("A")

    found = Progress(None, lambda _: None).until_it_ends(server, "@", timeout_s=20.0)

    assert found["status"] == "PENDING"
    assert 20 <= sum(server.waited) < 21


# --- with the real service ------------------------------------------------------------------------


@pytest.fixture
def terminal(tmp_path):
    house = House()
    house.inhabit()
    tmp_path.chmod(0o700)
    yield Terminal(tmp_path, house)
    house.close()


def test_quiet_commands_print_the_id_or_nothing(terminal):
    code, out, err = terminal.type("submit", "-q", "--hold", "--", "true")
    ref = out.strip()
    assert (code, out, err) == (0, f"{ref}\n", "")
    for words in (
        ["hold", "--quiet", ref],
        ["release", "-q", ref],
        ["cancel", "-q", ref],
        ["wait", "-q", ref],
        ["agents", "label", "-q", "a1", "rack=r1"],
        ["agents", "drain", "-q", "a1"],
        ["agents", "undrain", "-q", "a1"],
    ):
        assert terminal.type(*words)[1:] == ("", ""), words


@pytest.mark.parametrize(
    ("out", "err", "call", "said"),
    [
        (Screen(), Screen(), {}, "next: sokovan why @\n"),
        (io.StringIO(), Screen(), {}, ""),
        (Screen(), io.StringIO(), {}, ""),
        (Screen(), Screen(), {"quiet": True}, ""),
        (Screen(), Screen(), {"json": True}, ""),
    ],
)
def test_what_to_do_next_is_for_people_alone(monkeypatch, out, err, call, said):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    Call(Path("/home"), **({"json": False} | call)).hint("sokovan why @")

    assert err.getvalue() == said


def test_the_picture_has_everything_and_fits(terminal):
    house = terminal.house
    never = house.submit(a_spec(name="서버", request=Request(900_000), allow_infeasible=True))
    held = house.submit(a_spec(owner="ann", held=True))

    code, out, _ = terminal.type("top", "--json")
    seen = json.loads(out)
    _, text, _ = terminal.type("top", "--once")

    assert code == 0
    assert {never, held} <= {turn["session"]["id"] for turn in seen["waiting"]}
    for part in ("sokovan ", "a1", "서버", "PENDING", "is held back"):
        assert part in text
    for width in (100, 40, 20):
        for height in (50, 24, 12, 7, 3):
            drawn = [*picture(seen, NOW, width=width, height=height, stream=io.StringIO())]
            assert len(drawn) <= height
            assert all(len(line) <= width for line in drawn if line.isascii())
    low = [*picture(seen, NOW, width=100, height=7, stream=Screen(), trouble="no server")]
    assert " more" in "".join(low)
    assert "no server" in "".join(low)
