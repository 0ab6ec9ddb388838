"""Which kernel fits on which agent, and on which of its devices."""

import pytest

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.reasons import WaitReason
from sokovan.domain.resources import Usage
from sokovan.placement.fit import Refusal, could_ever_fit, devices_for, pack, refusal, taken
from sokovan.placement.rank import Preference
from sokovan.placement.snapshot import free_on
from tests.property.strategies import G, an_agent, need


def chosen(request, agent, **free):
    shares = {int(name.removeprefix("gpu")): amount for name, amount in free.items()}
    return devices_for(request, agent.capacity.devices, shares)


def test_a_kernel_that_fits_is_not_refused():
    agent = an_agent(cpu="2", mem=G, gpus=[16 * G])

    assert refusal(need("2", G, "1", 16 * G), agent, free_on(agent)) is None


def test_a_refusal_has_the_numbers():
    agent = an_agent(cpu="8")

    why = refusal(need("4"), agent, Usage(cpu_milli=2000))

    assert why == Refusal(WaitReason.TOO_LITTLE_CPU, "cpu", requested=4000, free=2000, total=8000)


@pytest.mark.parametrize("status", [AgentStatus.LOST, AgentStatus.GONE])
def test_an_agent_that_is_not_alive_gets_nothing(status):
    agent = an_agent(status=status)

    why = refusal(need("1"), agent, free_on(agent))

    assert why is not None
    assert why.code is WaitReason.AGENT_NOT_ALIVE


def test_the_largest_shortage_binds():
    agent = an_agent(cpu="8", mem=8 * G)

    why = refusal(need("4", 4 * G), agent, Usage(cpu_milli=3000, mem_bytes=G))

    assert why == Refusal(WaitReason.TOO_LITTLE_MEM, "mem", 4 * G, G, 8 * G)


def test_a_shortage_for_ever_binds_before_a_larger_one_that_will_pass():
    agent = an_agent(cpu="8", mem=8 * G)

    why = refusal(need("9", 4 * G), agent, Usage(cpu_milli=8000, mem_bytes=0))

    assert why is not None
    assert why.code is WaitReason.TOO_LITTLE_CPU
    assert why.for_ever


def test_whole_devices_are_taken_by_lowest_index_and_only_when_wholly_free():
    agent = an_agent(gpus=[G, G, G, G])

    devices = chosen(need(gpu="2"), agent, gpu0=1000, gpu1=999, gpu2=1000, gpu3=1000)

    assert devices == ((0, 1000), (2, 1000))


def test_a_part_of_a_device_goes_to_the_fullest_that_has_room():
    agent = an_agent(gpus=[G, G, G, G])

    devices = chosen(need(gpu="0.3"), agent, gpu0=1000, gpu1=299, gpu2=400, gpu3=400)

    assert devices == ((2, 300),)


def test_a_part_is_never_put_together_from_two_devices():
    agent = an_agent(gpus=[G, G])

    why = refusal(need(gpu="0.5"), agent, Usage(shares={0: 400, 1: 450}))

    assert why == Refusal(WaitReason.TOO_FEW_GPUS, "gpu", requested=500, free=450, total=2000)


def test_devices_with_too_little_memory_do_not_count():
    agent = an_agent(gpus=[16 * G, 80 * G, 80 * G])
    free = Usage(8000, 16 * G, {0: 1000, 1: 1000, 2: 500})

    assert chosen(need(gpu="1", gpu_mem=40 * G), agent, gpu0=1000, gpu1=1000, gpu2=500) == (
        (1, 1000),
    )
    assert refusal(need(gpu="2", gpu_mem=40 * G), agent, free) == Refusal(
        WaitReason.TOO_FEW_GPUS, "gpu", requested=2000, free=1000, total=2000
    )


def test_gpu_memory_is_the_reason_when_the_machine_has_devices_enough_but_too_small():
    agent = an_agent(gpus=[16 * G, 80 * G, 24 * G])

    why = refusal(need(gpu="2", gpu_mem=40 * G), agent, free_on(agent))

    assert why == Refusal(WaitReason.GPU_MEM_TOO_SMALL, "gpu_mem", 40 * G, 24 * G, 24 * G)


def test_too_few_devices_are_the_reason_when_smaller_ones_would_not_help():
    agent = an_agent(gpus=[16 * G])

    why = refusal(need(gpu="2", gpu_mem=40 * G), agent, free_on(agent))

    assert why == Refusal(WaitReason.TOO_FEW_GPUS, "gpu", requested=2000, free=0, total=0)


def test_a_tenth_and_two_tenths_exactly_fill_three_tenths():
    agent = an_agent(cpu="0.3", mem=0, gpus=[G])
    free = Usage(300, 0, {0: 300})

    for part in (need("0.1", gpu="0.1"), need("0.2", gpu="0.2")):
        devices = devices_for(part, agent.capacity.devices, free.shares)
        assert refusal(part, agent, free) is None
        assert devices is not None
        free = taken(free, part, devices)

    assert free == Usage(0, 0, {0: 0})


def test_unequal_kernels_are_tried_largest_first_when_their_own_order_fails():
    agents = [an_agent("a1", cpu="4"), an_agent("a2", cpu="3")]
    free = {agent.agent_id: free_on(agent) for agent in agents}

    packing = pack([need("2"), need("2"), need("3")], agents, free, Preference())

    assert packing.lacking is None
    assert packing.places == {0: ("a1", ()), 1: ("a1", ()), 2: ("a2", ())}


def test_what_fits_is_counted_even_when_not_all_kernels_do():
    agents = [an_agent(cpu="4")]

    packing = pack(
        [need("3"), need("3"), need("1")], agents, {"a1": free_on(agents[0])}, Preference()
    )

    assert sorted(packing.places) == [0, 2]
    assert packing.lacking == need("3")
    assert packing.free["a1"].cpu_milli == 0


def test_a_lost_agent_may_return_and_a_gone_one_does_not():
    assert could_ever_fit([need("8")], [an_agent(status=AgentStatus.LOST)])
    assert not could_ever_fit([need("8")], [an_agent(status=AgentStatus.GONE)])


def test_kernels_that_fit_one_by_one_may_not_fit_at_once():
    assert could_ever_fit([need("5")] * 2, [an_agent("a1"), an_agent("a2")])
    assert not could_ever_fit([need("5")] * 2, [an_agent("a1")])
