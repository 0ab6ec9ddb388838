"""Labels and wishes as they are typed, with the real service behind the command."""

import json

import pytest

from tests.build import A1, a_spec
from tests.fuzz.ground import House
from tests.fuzz.terminal import Terminal


@pytest.fixture
def terminal(tmp_path):
    house = House()
    house.inhabit()
    tmp_path.chmod(0o700)
    yield Terminal(tmp_path, house)
    house.close()


def where_of_last(terminal):
    code, out, _ = terminal.type("show", "@", "--json")
    assert code == 0
    return json.loads(out)["where"]


def submit(terminal, *options):
    return terminal.type("submit", "--hold", *options, "--", "true")


def test_an_agent_is_labelled_and_shows_it(terminal):
    assert terminal.type("agents", "label", A1, "zone=north", "rack=r1")[:2] == (
        0,
        "a1 has rack=r1,zone=north\n",
    )
    code, out, _ = terminal.type("agents", "label", A1, "zone-", "--json")
    assert (code, json.loads(out)["labels"]) == (0, {"rack": "r1"})

    headers, line = terminal.type("agents")[1].splitlines()
    assert headers.split()[-1] == "LABELS"
    assert line.split()[-1] == "rack=r1"
    assert terminal.type("agents", "label", A1, "rack-")[1] == "a1 has no labels\n"
    assert "LABELS" not in terminal.type("agents")[1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["rack"], 2, "'rack' is no label; write NAME=VALUE, or NAME- to take one away"),
        (["rack=r1", "rack-"], 2, "'rack' is named twice"),
        (["rack="], 4, "'' cannot be the value of rack"),
        (["gpu_model=H100"], 4, "every agent has gpu_model by itself"),
        (["-"], 4, "'' cannot be the name of a label"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_is_no_label_is_said(terminal, words, code, said):
    found, _, err = terminal.type("agents", "label", A1, *words)

    assert found == code
    assert said in err
    assert len(err.splitlines()) == 1


def test_the_options_say_where_a_session_may_go(terminal):
    submit(
        terminal, "-C", "rack!=r9", "--constraint", "mem>=1G", "--agent", A1, "--prefer", A1,
        "--kernels-per-agent", "2", "--same", "rack", "--allow-infeasible", "--exclude", "a9",
    )  # fmt: skip

    assert where_of_last(terminal) == {
        "kernels_per_agent_max": 2,
        "same": "rack",
        "constraints": ["mem>=1G", "rack!=r9"],
        "agents": [A1],
        "prefer": [A1],
        "exclude": ["a9"],
    }
    shown = terminal.type("show", "@")[1]
    assert "constraint         mem>=1G, rack!=r9\n" in shown
    assert "kernels per agent  at most 2\n" in shown
    submit(terminal)
    assert where_of_last(terminal) is None
    assert "constraint" not in terminal.type("show", "@")[1]


def test_sessions_are_named_by_name_by_id_or_by_the_last_submitted(terminal):
    (first,) = (terminal.house.submit(a_spec(name="web", owner="ann", held=True)),)
    submit(terminal, "--name", "db")
    _, out, _ = terminal.type("show", "@", "--json")
    last = json.loads(out)["id"]

    submit(terminal, "--spread-with", "web", "--spread-with", first[:8], "--pack-with", "@")

    assert where_of_last(terminal) == {"spread_with": ["web", first], "pack_with": [last]}


def test_the_first_of_several_may_name_what_is_not_there_yet(terminal):
    code, _, _ = submit(terminal, "--name", "replica", "--spread-with", "replica")

    assert code == 0
    assert where_of_last(terminal) == {"spread_with": ["replica"]}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["-C", "rack"], 2, "--constraint: 'rack' is not understood; write ATTRIBUTE=VALUE"),
        (["--arch", "a b="], 2, "--arch: 'a b=' is no architecture"),
        (["--mode", "all-over"], 2, "--mode: 'all-over' does not exist"),
        (["--kernels-per-agent", "0"], 2, "should be greater than or equal to 1"),
        (["--agent", "nobody"], 4, "where.agents: the group default has no agent 'nobody'"),
        (["--agent", A1, "--exclude", A1], 4, "'a1' is both required and excluded"),
        (["-C", "a=1", "-C", "a=2"], 4, "a=1 and a=2 cannot both be met"),
        (["-C", "gpu_model=H100"], 4, "ask for one (--gpu 1)"),
        (["--pack-with", "@~999"], 3, "has not submitted so many sessions"),
    ],
)
def test_a_wish_that_makes_no_sense_is_said_in_one_line(terminal, options, code, said):
    found, _, err = submit(terminal, *options)

    assert found == code
    assert said in err
    assert len(err.splitlines()) == 1
