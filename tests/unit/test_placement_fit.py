"""Which kernel fits on which agent, and on which of its devices; which kernels fit at once."""

import pytest

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.reasons import WaitReason
from sokovan.domain.where import ANYWHERE, ClusterMode, Where
from sokovan.placement.binding import Looks, never_fits
from sokovan.placement.filters import filter_of
from sokovan.placement.fit import choose_devices
from sokovan.placement.needs import Demand, Need
from sokovan.placement.placer import Placer
from sokovan.placement.rank import CONCENTRATED
from tests.property.strategies import G, a_hold, an_agent, machines_of, need

ON_ONE = Where(mode=ClusterMode.SINGLE_NODE)


def a_need(request, where=ANYWHERE) -> Need:
    return Need(request, filter_of(request, where))


def look(request, agent, *holds, **fields) -> Looks:
    """What one agent has to say to `request`."""
    machines = machines_of([agent], holds, **fields)
    return Looks(a_need(request), machines, machines.room())


def refusal(request, agent, *holds, **fields):
    """The binding reason and its numbers (requested, free, total), or `None` when it fits."""
    looks = look(request, agent, *holds, **fields)
    if looks.fits[0] and looks.serving[0]:
        return None
    code = looks.code_of(0)
    return code, looks.numbers(looks.worst_of(0), 0) if looks.serving[0] else None


def chosen(request, agent, *holds):
    """The devices that `request` gets on the agent, by index."""
    machines = machines_of([agent], holds)
    devices = choose_devices(a_need(request), machines, machines.room(), 0, CONCENTRATED)
    return machines.index_of(0, devices)


def shares_held(**held):
    """A hold that leaves so much of each device."""
    devices = tuple((int(name[3:]), 1000 - left) for name, left in held.items() if left < 1000)
    return a_hold("a1", need(), devices)


def placed(*requests, agents, holds=(), where=ANYWHERE, **fields):
    """The agents of the kernels, or `None` when they do not fit at once."""
    machines = machines_of(agents, holds, **fields)
    places = Placer(machines, machines.room(), CONCENTRATED).place(Demand(requests, where))
    return None if places is None else [machines.agents[place.row].agent_id for place in places]


def could_ever_fit(requests, agents, where=ANYWHERE):
    return never_fits(Demand(requests, where), machines_of(agents)) is None


# --- one kernel on one agent ----------------------------------------------------------------------


def test_a_kernel_that_fits_is_not_refused():
    agent = an_agent(cpu="2", mem=G, gpus=[16 * G])

    assert refusal(need("2", G, "1", 16 * G), agent) is None


def test_a_refusal_has_the_numbers():
    why = refusal(need("4"), an_agent(cpu="8"), a_hold("a1", need("6")))

    assert why == (WaitReason.TOO_LITTLE_CPU, (4000, 2000, 8000))


def test_an_agent_that_is_lost_gets_nothing():
    assert refusal(need("1"), an_agent(status=AgentStatus.LOST)) == (
        WaitReason.AGENT_NOT_ALIVE,
        None,
    )


def test_an_agent_that_is_gone_is_not_there():
    assert machines_of([an_agent(status=AgentStatus.GONE)]).agents == []


def test_the_largest_shortage_binds():
    agent = an_agent(cpu="8", mem=8 * G)

    why = refusal(need("4", 4 * G), agent, a_hold("a1", need("5", 7 * G)))

    assert why == (WaitReason.TOO_LITTLE_MEM, (4 * G, G, 8 * G))


def test_a_shortage_for_ever_binds_before_a_larger_one_that_will_pass():
    looks = look(need("9", 4 * G), an_agent(cpu="8", mem=8 * G), a_hold("a1", need(mem=8 * G)))

    assert looks.code_of(0) is WaitReason.TOO_LITTLE_CPU
    assert not looks.able[0]


def test_an_agent_with_as_many_kernels_as_it_may_have_refuses_the_next():
    holds = [a_hold("a1", need(), token=f"t{n}") for n in range(2)]

    assert refusal(need("1"), an_agent(), *holds, kernels_max=3) is None
    assert refusal(need("1"), an_agent(), *holds, kernels_max=2) == (
        WaitReason.TOO_MANY_KERNELS,
        (1, 0, 2),
    )


def test_whole_devices_are_taken_by_lowest_index_and_only_when_wholly_free():
    agent = an_agent(gpus=[G, G, G, G])

    devices = chosen(need(gpu="2"), agent, shares_held(gpu1=999))

    assert devices == ((0, 1000), (2, 1000))


def test_a_part_of_a_device_goes_to_the_fullest_that_has_room():
    agent = an_agent(gpus=[G, G, G, G])

    devices = chosen(need(gpu="0.3"), agent, shares_held(gpu1=299, gpu2=400, gpu3=400))

    assert devices == ((2, 300),)


def test_a_part_is_never_put_together_from_two_devices():
    why = refusal(need(gpu="0.5"), an_agent(gpus=[G, G]), shares_held(gpu0=400, gpu1=450))

    assert why == (WaitReason.TOO_FEW_GPUS, (500, 450, 2000))


def test_devices_with_too_little_memory_do_not_count():
    agent = an_agent(gpus=[16 * G, 80 * G, 80 * G])
    half = shares_held(gpu2=500)

    assert chosen(need(gpu="1", gpu_mem=40 * G), agent, half) == ((1, 1000),)
    assert refusal(need(gpu="2", gpu_mem=40 * G), agent, half) == (
        WaitReason.TOO_FEW_GPUS,
        (2000, 1000, 2000),
    )


def test_gpu_memory_is_the_reason_when_the_machine_has_devices_enough_but_too_small():
    why = refusal(need(gpu="2", gpu_mem=40 * G), an_agent(gpus=[16 * G, 80 * G, 24 * G]))

    assert why == (WaitReason.GPU_MEM_TOO_SMALL, (40 * G, 24 * G, 24 * G))


def test_too_few_devices_are_the_reason_when_smaller_ones_would_not_help():
    why = refusal(need(gpu="2", gpu_mem=40 * G), an_agent(gpus=[16 * G]))

    assert why == (WaitReason.TOO_FEW_GPUS, (2000, 0, 0))


def test_a_tenth_and_two_tenths_exactly_fill_three_tenths():
    machines = machines_of([an_agent(cpu="0.3", mem=0, gpus=[G])], [shares_held(gpu0=300)])
    room = machines.room()
    placer = Placer(machines, room, CONCENTRATED)

    for part in (need("0.1", gpu="0.1"), need("0.2", gpu="0.2")):
        assert placer.place(Demand([part], ANYWHERE)) is not None

    assert (room.cpu[0], room.shares[0, 0]) == (0, 0)
    assert placer.place(Demand([need("0.001")], ANYWHERE)) is None


def test_what_a_placer_took_it_gives_back():
    machines = machines_of([an_agent(gpus=[G, G])], [shares_held(gpu1=300)])
    room = machines.room()
    placer = Placer(machines, room, CONCENTRATED)
    demand = Demand([need("1", G, "1"), need("1", gpu="0.3")], ANYWHERE)

    places = placer.place(demand)
    assert places is not None
    placer.give_back(demand.needs, places)

    before = machines.room()
    for slot in ("cpu", "mem", "shares", "gpu", "whole", "top", "kernels"):
        assert (getattr(room, slot) == getattr(before, slot)).all()


# --- all kernels of a session ---------------------------------------------------------------------


def test_unequal_kernels_are_tried_largest_first_when_their_own_order_fails():
    agents = [an_agent("a1", cpu="4"), an_agent("a2", cpu="3")]

    assert placed(need("2"), need("2"), need("3"), agents=agents) == ["a1", "a1", "a2"]


def test_what_fits_is_counted_even_when_not_all_kernels_do():
    machines = machines_of([an_agent(cpu="4")])
    room = machines.room()
    demand = Demand([need("3"), need("3"), need("1")], ANYWHERE)

    places, lacking = Placer(machines, room, CONCENTRATED).partly(demand)

    assert sorted(places) == [0, 2]
    assert lacking is not None
    assert lacking.request == need("3")
    assert room.cpu[0] == 0


def test_nothing_is_taken_when_one_kernel_has_no_place():
    machines = machines_of([an_agent(cpu="4")])
    room = machines.room()

    assert (
        Placer(machines, room, CONCENTRATED).place(Demand([need("3"), need("3")], ANYWHERE)) is None
    )
    assert room.cpu[0] == 4000


def test_a_lost_agent_may_return_and_a_gone_one_does_not():
    small = an_agent("a2", cpu="1")

    assert could_ever_fit([need("8")], [small, an_agent(status=AgentStatus.LOST)])
    assert not could_ever_fit([need("8")], [small, an_agent(status=AgentStatus.GONE)])


def test_kernels_that_fit_one_by_one_may_not_fit_at_once():
    assert could_ever_fit([need("5")] * 2, [an_agent("a1"), an_agent("a2")])
    assert not could_ever_fit([need("5")] * 2, [an_agent("a1")])


# --- single-node, so many on one agent, the same label --------------------------------------------


def test_single_node_puts_all_kernels_on_one_agent():
    agents = [an_agent("a1", cpu="3"), an_agent("a2", cpu="4")]

    assert placed(need("2"), need("2"), agents=agents, where=ON_ONE) == ["a2", "a2"]
    assert placed(need("2"), need("3"), agents=agents, where=ON_ONE) is None
    assert placed(need("2"), need("3"), agents=agents) == ["a1", "a2"]


@pytest.mark.parametrize("first", [0, 1])
def test_single_node_gives_a_kernel_that_needs_large_devices_those(first):
    """Whoever minds which device it gets chooses first, and nobody needs more than it asked for."""
    wanted = [need(gpu="1", gpu_mem=80 * G), need(gpu="2")]
    if first:
        wanted.reverse()

    assert placed(*wanted, agents=[an_agent(gpus=[80 * G, 16 * G, 16 * G])], where=ON_ONE)


def test_single_node_puts_whole_devices_before_parts_of_them():
    agent = an_agent(gpus=[G, G])

    assert placed(need(gpu="0.5"), need(gpu="1"), need(gpu="0.5"), agents=[agent], where=ON_ONE)


def test_single_node_counts_the_kernels_of_an_agent():
    agents = [an_agent("a1"), an_agent("a2")]
    two = [need("1")] * 2

    assert placed(*two, agents=agents, holds=[a_hold("a1")], where=ON_ONE, kernels_max=2) == [
        "a2",
        "a2",
    ]
    assert placed(*two, agents=agents, where=ON_ONE, kernels_max=1) is None


@pytest.mark.parametrize(("most", "on"), [(1, None), (2, ["a1", "a1", "a2"]), (3, ["a1"] * 3)])
def test_so_many_kernels_of_one_session_go_on_one_agent(most, on):
    where = Where(kernels_per_agent_max=most)

    assert placed(*[need("1")] * 3, agents=[an_agent("a1"), an_agent("a2")], where=where) == on


def racks(*values):
    return [
        an_agent(f"a{n}", cpu="2", labels={"rack": value} if value else {})
        for n, value in enumerate(values)
    ]


def test_kernels_share_one_value_of_a_label():
    where = Where(same="rack")

    assert placed(*[need("2")] * 2, agents=racks("r1", "r2", "r1"), where=where) == ["a0", "a2"]
    assert placed(*[need("2")] * 2, agents=racks("r1", "r2", "r3"), where=where) is None
    assert placed(*[need("2")] * 2, agents=racks("", "", "r3"), where=where) is None


def test_a_lone_kernel_needs_no_label():
    assert placed(need("2"), agents=racks(""), where=Where(same="rack", prefer=("a0",))) == ["a0"]
    assert placed(need("2"), agents=racks(""), where=Where(same="rack")) == ["a0"]


def test_of_the_values_that_have_room_the_one_with_a_preferred_agent_is_taken():
    where = Where(same="rack", prefer=("a3",))

    found = placed(*[need("2")] * 2, agents=racks("r1", "r1", "r2", "r2"), where=where)

    assert sorted(found) == ["a2", "a3"]


def test_what_goes_together_may_never_fit():
    two = [need("2")] * 2

    assert not could_ever_fit(two, racks("r1", "r2"), Where(same="rack"))
    assert not could_ever_fit(two, racks("r1", "r1"), ON_ONE)
    assert not could_ever_fit([need("1")] * 2, racks("r1"), Where(kernels_per_agent_max=1))
