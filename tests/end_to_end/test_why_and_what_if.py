"""A waiting session is explained by a real server, and starts once it does what was suggested."""

import json

import pytest

from tests.end_to_end.test_command import Place, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

TWO_CORES = """
[[agents]]
name = "left"
cpu = "2"
gpus = "none"
"""


@pytest.fixture
def own():
    place = Place()
    (place.path / "config.toml").write_text(TWO_CORES)
    yield place
    place.clean_up()


def test_a_session_starts_once_it_does_what_was_suggested(own):
    until(lambda: [one for one in own.json("agents") if one["status"] == "ALIVE"], "an agent")
    holder = own.submit("--cpu", "1.5", "--time", "10m", "--", "sleep", "600")
    own.until_status(holder, "RUNNING")
    waits = own.submit("--cpu", "2", "--", "true")

    why = own.json("why", waits)
    eta = own.json("eta", waits)
    before = own.json("ls", "-a")

    assert (why["code"], why["facts"]["position"]) == ("TOO_LITTLE_CPU", 1)
    assert [one["session_id"] for one in why["facts"]["holders"]] == [holder]
    assert eta["reserved"]
    assert eta["starts_at"] > own.show(holder)["started_at"]
    (one,) = why["suggestions"]
    assert one["change"] == "ask for 0.5 cores instead of 2 (--cpu 0.5)"
    assert one["as_new"]
    assert one["change"] in own("why", waits).stdout
    assert "enough" not in own("why", waits, "--no-suggest").stdout
    assert own("eta", waits).stdout.startswith(f"{waits[:8]}: is to start in ")

    larger = json.loads(own("submit", "--dry-run", "--json", "--cpu", "0.501", "--", "true").stdout)
    assert (larger["accepted"], larger["starts_now"]) == (True, False)
    never = own("submit", "--dry-run", "--cpu", "9", "--", "true", code=4).stdout
    assert never.startswith("would be refused, unless --allow-infeasible is said: it can never")
    # The one that waits has left's two cores reserved, from ten minutes on: a short one may go.
    fits = own("submit", "--dry-run", "--time", "5m", *option(one), "--", "true").stdout
    assert fits.splitlines() == ["would start now on left", "  kernel 0 on left"]
    assert [s["id"] for s in own.json("ls", "-a")] == [s["id"] for s in before]

    own("cancel", waits)
    done = own("run", *option(one), "--", "echo", "started").stdout

    assert done == "started\n"
    assert own.show(holder)["status"] == "RUNNING"


def option(suggestion):
    """The words in brackets: what to type."""
    return suggestion["change"].rpartition("(")[2].removesuffix(")").split()
