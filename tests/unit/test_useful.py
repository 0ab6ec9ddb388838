"""What the ranking `useful` takes for typical."""

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.useful import usual_of
from tests.property.strategies import G, a_hold, a_session, a_snapshot, an_agent, need

ONE_GPU, HALF_A_GPU = need(gpu="1"), need(gpu="0.5")


def asked(usual):
    return {ask.gpu_shares: count for (ask, _), count in usual.counts}


def test_those_that_wait_and_those_that_run_say_what_is_typical():
    waiting = [a_session(f"w{n}", ONE_GPU, number=n) for n in range(16)]
    running = a_session("r1", HALF_A_GPU, status=SessionStatus.RUNNING)
    snapshot = a_snapshot(
        *waiting,
        agents=[an_agent(gpus=[G])],
        holds=(a_hold("a1", HALF_A_GPU, ((0, 500),)),),
        running=(running,),
    )

    assert asked(usual_of(snapshot)) == {1000: 16, 500: 1}


def test_what_another_group_runs_is_not_typical_of_this_one():
    waiting = [a_session(f"w{n}", ONE_GPU, number=n) for n in range(16)]
    snapshot = a_snapshot(*waiting, agents=[an_agent(gpus=[G])], group=ScalingGroup("default"))
    there = [
        a_session(f"t{n}", HALF_A_GPU, scaling_group="other", status=SessionStatus.RUNNING)
        for n in range(50)
    ]
    snapshot.running = {session.session_id: session for session in there}  # as the server keeps it
    for session in there:
        hold = a_hold("elsewhere", HALF_A_GPU, token=session.session_id)
        snapshot.machines.put_hold(hold)

    usual = usual_of(snapshot)

    assert usual.made_from == 16
    assert asked(usual) == {1000: 16}
