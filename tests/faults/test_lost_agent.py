"""An agent that falls silent: lost, given up, back again; with real processes."""

import signal

import pytest

from tests.faults.ground import RealHome, environment, real_home

pytestmark = [pytest.mark.real, pytest.mark.faults]

CONFIG = """
[scheduler]
agent_silence_s = 2.0
agent_call_timeout_s = 2.0
full_cycle_s = 2.0
[groups.default]
agent_grace_s = {grace_s}
[[agents]]
name = "a"
cpu = "4"
heartbeat_s = 0.5
cut_off_stop_s = 2.5
"""


def _submit(home: RealHome, **options):
    script = f"echo $SOKOVAN_KERNEL_TOKEN >> {home.home}/ran; sleep 300"
    view = home.client.submit(["/bin/sh", "-c", script], env=environment(home), cwd="/", **options)
    home.wait_for(lambda: home.client.get(view["id"])["status"] == "RUNNING", "start")
    home.wait_for((home.home / "ran").exists, "first line")
    return view["id"]


def _agent(home: RealHome):
    return home.client.agents()[0]


def test_a_session_of_an_agent_given_up_ends_and_its_kernel_is_stopped_when_the_agent_is_back():
    with real_home(CONFIG.format(grace_s=2.0)) as home:
        home.up()
        session_id = _submit(home)
        home.kill("agent", signal.SIGSTOP)
        home.wait_for(lambda: home.client.get(session_id)["ended_at"], "end")
        ended = home.client.get(session_id)
        while_lost = _agent(home)
        home.kill("agent", signal.SIGCONT)
        home.wait_for(
            lambda: _agent(home)["status"] == "ALIVE" and not _agent(home)["leftovers"],
            "leftover to be stopped",
        )

        assert (ended["reason"], ended["result"]) == ("AGENT_LOST", "FAILURE")
        assert (while_lost["status"], while_lost["leftovers"]) == ("GONE", 1)
        assert while_lost["held"]["cpu_milli"] == 1000
        assert _agent(home)["held"]["cpu_milli"] == 0
        assert home.clear_away() == []


def test_an_agent_that_is_back_within_its_grace_keeps_its_kernels():
    with real_home(CONFIG.format(grace_s=300.0)) as home:
        home.up()
        session_id = _submit(home)
        home.kill("agent", signal.SIGSTOP)
        home.wait_for(lambda: _agent(home)["status"] == "LOST", "silence to be noticed")
        home.kill("agent", signal.SIGCONT)
        home.wait_for(lambda: _agent(home)["status"] == "ALIVE", "return")

        assert home.client.get(session_id)["status"] == "RUNNING"
        home.client.cancel(session_id, force=True)
        assert home.client.wait(session_id)["reason"] == "USER_REQUESTED"
        assert len((home.home / "ran").read_text().splitlines()) == 1


def test_a_session_marked_for_requeue_runs_again_with_a_new_token():
    with real_home(CONFIG.format(grace_s=2.0)) as home:
        home.up()
        session_id = _submit(home, requeue=True)
        home.kill("agent", signal.SIGSTOP)
        home.wait_for(lambda: home.client.get(session_id)["requeues"] == 1, "requeue")
        home.kill("agent", signal.SIGCONT)
        home.wait_for(lambda: home.client.get(session_id)["status"] == "RUNNING", "second start")
        home.wait_for(lambda: not _agent(home)["leftovers"], "leftover to be stopped")
        ran = home.home / "ran"
        home.wait_for(lambda: len(ran.read_text().splitlines()) == 2, "second run")
        tokens = ran.read_text().splitlines()
        home.client.cancel(session_id, force=True)
        home.client.wait(session_id)

        assert len(tokens) == len(set(tokens)) == 2
        assert home.clear_away() == []
