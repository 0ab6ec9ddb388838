"""What people read of `why`, `eta` and a dry run."""

import json

import pytest

from sokovan.cli import exits
from sokovan.cli.explained import dry_run_lines, eta_lines, why_lines
from sokovan.cli.main import run
from sokovan.cli.text import local_time

NOW = 1795432505.0
SESSION = {"id": "abcdefghijkm"}
AT = "2026-11-23T12:15:05.000Z"
LACKS = {"slot": "cpu", "requested": 4000, "free": 1000, "total": 8000}
CLOSEST = {"agent": "left", "status": "ALIVE", "code": "TOO_LITTLE_CPU", "lacks": [LACKS]}
KIND = {
    "agents": 40,
    "cpu_milli": 8000,
    "mem_bytes": 2**34,
    "devices": [{"model": "H100", "mem_bytes": 80 * 2**30, "count": 2}],
    "refused_by": {"AGENT_DRAINED": 1, "TOO_LITTLE_CPU": 36},
    "with_room": 3,
    "closest": CLOSEST,
}
FACTS = {
    "examined": True,
    "not_examined_because": None,
    "position": 2,
    "ahead": {"total": 1, "by_higher_priority": 0, "by_smaller_share": 1},
    "queue_length": 9,
    "agents": [CLOSEST] * 20,
    "agents_total": 40,
    "kinds": [KIND],
    "kinds_total": 1,
    "drained_for": {},
    "holders": [],
    "holders_total": 0,
    "reservation": None,
    "reservation_because": "only the first has one",
}
RESERVED = {"starts_at": NOW + 3600, "ends_at": NOW + 7200, "agents": [{"agent": "left"}] * 2}
SUGGESTIONS = [
    {"change": "ask for 1 core instead of 4 (--cpu 1)", "as_new": True},
    {"change": "ask for 2 GPUs instead of 3 (--gpu 2)", "as_new": False},
]


def an_answer(facts=None, **changes):
    given = {"session": SESSION, "sentence": "waits", "code": "TOO_LITTLE_CPU"}
    return given | {"facts": FACTS | (facts or {}), "suggestions": None} | changes


def test_many_agents_are_told_by_kind():
    assert list(why_lines(an_answer(), NOW)) == [
        "abcdefgh: waits",
        "  place 2 of 9 in the queue; before it: 1 by smaller share",
        "  no reservation: only the first has one",
        "  agents, by kind:",
        (
            "    40 with 8 cpu, 16G mem, 2 gpu of 80G (H100):"
            " 1 AGENT_DRAINED, 36 TOO_LITTLE_CPU, 3 with room;"
            " the closest, left: cpu: 4 asked, 1 of 8 free"
        ),
    ]


def test_a_reservation_and_what_helps_are_told():
    facts = {"reservation": RESERVED, "reservation_because": "it is the first", "kinds": []}
    answer = an_answer(facts | {"agents": []}, suggestions=SUGGESTIONS)

    assert list(why_lines(answer, NOW))[2:] == [
        "  reserved: left, in 1h00m: it is the first",
        "  to start it now, any one of these is enough:",
        "    ask for 1 core instead of 4 (--cpu 1)",
        (
            "    ask for 2 GPUs instead of 3 (--gpu 2);"
            " in its present place alone: submitted anew, it would wait"
        ),
    ]


def test_nothing_helps_and_nobody_has_looked():
    facts = {"examined": False, "not_examined_because": "x is ahead", "kinds": [], "agents": []}

    lines = list(why_lines(an_answer(facts, suggestions=[]), NOW))

    assert lines[1] == "  not examined in the last pass, because x is ahead"
    assert lines[-1] == "  no single change would start it now"


@pytest.mark.parametrize(
    ("until", "said"), [(NOW + 90, "should end in 1m30s"), (NOW, "may end at any moment")]
)
def test_holders_are_told_with_their_ends(until, said):
    holder = {"session_id": "z" * 12, "agent": "left", "leftover": False, "until": until}
    holder |= {"cpu_milli": 500, "mem_bytes": 0, "gpu_shares": 0}

    lines = list(why_lines(an_answer({"holders": [holder], "holders_total": 1}), NOW))

    assert lines[-1] == f"    zzzzzzzz on left: 0.5 cpu, {said}"


def an_eta(**changes):
    given = {"starts_at": None, "ends_at": None, "not_before": None, "agents": []}
    return given | {"session": SESSION, "sentence": "so it is", "reserved": False} | changes


def test_a_start_is_told_by_the_clock_on_the_wall():
    at = local_time(AT)

    known = an_eta(starts_at=AT, ends_at=AT, agents=[{"agent": "left"}] * 2)
    assert list(eta_lines(known, NOW)) == ["abcdefgh: so it is", f"  {at}, until {at}, on left"]
    assert list(eta_lines(an_eta(not_before=AT), NOW))[1:] == [f"  not before {at}"]
    assert list(eta_lines(an_eta(), NOW)) == ["abcdefgh: so it is"]


def a_dry_run(**changes):
    given = {"accepted": True, "starts_now": False, "agents": [], "eta": None}
    return an_answer() | given | {"facts": {}} | changes


def test_a_dry_run_that_would_start_says_where():
    agents = [
        {"agent": "left", "devices": [[0, 1000], [2, 1000]]},
        {"agent": "right", "devices": []},
    ]
    started = a_dry_run(starts_now=True, sentence="would start now on left, right", agents=agents)

    assert list(dry_run_lines(started, NOW)) == [
        "would start now on left, right",
        "  kernel 0 on left, devices 0,2",
        "  kernel 1 on right",
    ]


def test_a_dry_run_that_would_not_says_why():
    never = a_dry_run(accepted=False, code="NEVER_FITS", sentence="can never start here")
    never["eta"] = {"sentence": "not known"}
    failed = a_dry_run(code="DEPENDENCY_FAILED", sentence="would be cancelled at once")

    assert list(dry_run_lines(never, NOW)) == [
        "would be refused, unless --allow-infeasible is said: it can never start here"
    ]
    assert list(dry_run_lines(failed, NOW)) == ["would be cancelled at once"]
    assert list(dry_run_lines(a_dry_run(eta={"sentence": "in about 5m"}), NOW)) == [
        "would wait: it waits",
        "  start: in about 5m",
    ]


class Answering:
    """Stands in for the client; notes what it is asked."""

    server_time = NOW

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def why(self, ref, *, suggest):
        self.asked.append(("why", ref, suggest))
        return self.answer

    def why_array(self, ref):
        raise AssertionError(f"{ref} is no array")

    def eta(self, ref):
        self.asked.append(("eta", ref))
        return self.answer

    def dry_run(self, command, *, suggest, **options):
        self.asked.append(("dry-run", command, suggest, options["cpu_milli"], options.get("held")))
        return self.answer


@pytest.fixture
def ask(monkeypatch, tmp_path, capsys):
    def ask(answer, *argv):
        client = Answering(answer)
        monkeypatch.setattr("sokovan.cli.options.Call.client", lambda call: client)
        code = run([argv[0], "--home", str(tmp_path), *argv[1:]])
        return code, capsys.readouterr().out, client.asked

    return ask


def test_why_looks_for_what_helps_unless_told_not_to(ask):
    code, out, asked = ask(an_answer(suggestions=SUGGESTIONS), "why", "@")

    assert (code, asked) == (exits.SUCCESS, [("why", "@", True)])
    assert "    ask for 1 core instead of 4 (--cpu 1)\n" in out
    assert ask(an_answer(), "why", "@", "--no-suggest")[2] == [("why", "@", False)]
    assert json.loads(ask(an_answer(), "why", "--json", "@")[1]) == an_answer()


def test_eta_is_asked_for_and_printed(ask):
    assert ask(an_eta(), "eta", "@~1") == (0, "abcdefgh: so it is\n", [("eta", "@~1")])
    assert json.loads(ask(an_eta(), "eta", "--json", "@")[1]) == an_eta()


def test_a_dry_run_submits_nothing(ask):
    code, out, asked = ask(a_dry_run(), "submit", "--dry-run", "--hold", "--cpu", "2", "--", "true")

    assert (code, out) == (exits.SUCCESS, "would wait: it waits\n")
    assert asked == [("dry-run", ["true"], True, 2000, True)]
    refused = a_dry_run(accepted=False)
    assert ask(refused, "submit", "--dry-run", "--json", "--", "true")[0] == exits.REFUSED
