"""What happens to the machines of a simulated run: crashes, cuts, clocks, coming and going."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from sokovan.domain.cluster import AgentRanking, Backfill, QueueOrder
from sokovan.domain.errors import AgentNotFoundError, SokovanError
from sokovan.domain.resources import Capacity, Device
from sokovan.domain.sessions import AgentId
from sokovan.simulator.faults import NO_FAULTS
from sokovan.simulator.workload import ROOT, machines
from sokovan.simulator.world import World

REBOOTS = 0.3
"""How often a clock is wrong because its machine was started anew."""
ASK_AGAIN_S = 60.0
"""How long an administrator waits before asking again for what was refused."""
MANAGER = "manager"
"""Where the manager runs, among the machines whose clocks are set."""

POLICIES: Mapping[str, Sequence[str | float | None]] = {
    "order": [*QueueOrder, None],
    "ranking": [*AgentRanking, None],
    "backfill": [*Backfill, None],
    "ageing_s": [0, 60, None],
    "walltime_default_s": [300, 3600, None],
    "agent_kernels_max": [3, 8, None],
}
"""What becomes of groups in mid-run; `None` takes it back. The judge has all other settings from
the beginning."""


class Trouble:
    """All that happens to machines.

    Args:
        world: Where they stand.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._network = world.network
        self._fate = world.fate("machines")
        self._policies = world.rng("policies")
        self._added = 0

    def plan(self, moments: Callable[[str], Sequence[float]]) -> None:
        """Plan all of it; `moments` draws the times of what happens so often in an hour."""
        planned: dict[str, Callable[[], Awaitable[None]]] = {
            "manager_crashes_per_hour": self._world.kill_manager,
            "agent_crashes_per_hour": self._crash,
            "reboots_per_hour": self._reboot,
            "agent_cuts_per_hour": self._cut_off,
            "one_way_cuts_per_hour": self._cut_one_way,
            "clock_steps_per_hour": self._step_clock,
            "machines_added_per_hour": self._add,
            "machines_resized_per_hour": self._resize,
            "machines_replaced_per_hour": self._replace,
            "machines_returned_per_hour": self._be_removed_and_return,
            "store_outages_per_hour": self._fill_disk,
            "drains_per_hour": self._drain,
            "policy_changes_per_hour": self._change_policy,
        }
        for rate, happen in planned.items():
            for at in moments(rate):
                self._world.later(at, "", happen)

    async def make_peace(self) -> None:
        """Have nothing go wrong any more, and everything mended."""
        world, network = self._world, self._network
        world.note("from here on, nothing goes wrong")
        world.faults = NO_FAULTS
        world.disk.free(world.clock.now())
        await world.start_manager()
        network.deaf.clear()
        network.mute.clear()
        for agent_id, place in network.places.items():
            await network.revive(agent_id)
            if not place.is_reachable:
                network.mend(agent_id)

    def _some_agent(self, *, is_up: bool = False) -> AgentId:
        """Choose an agent; of those that are up, as long as any is."""
        places = self._network.places
        up = [agent_id for agent_id, place in places.items() if place.agent is not None]
        return self._fate.rng.choice(up if is_up and up else list(places))

    def _count(self, what: str, note: str) -> None:
        self._world.counts[what] += 1
        self._world.note(note)

    # --- going down -------------------------------------------------------------------------------

    async def _crash(self) -> None:
        self._go_down(self._some_agent(is_up=True), "agent_crashes", "crashes")

    async def _reboot(self) -> None:
        agent_id = self._some_agent(is_up=True)
        if self._go_down(agent_id, "reboots", "reboots"):
            self._world.runtimes[agent_id].reboot()

    def _go_down(self, agent_id: AgentId, what: str, verb: str) -> bool:
        if self._network.places[agent_id].agent is None:
            return False
        down_s = self._fate.seconds("agent_down_s")
        self._count(what, f"{agent_id} {verb} for {down_s:.1f} s")
        self._network.crash(agent_id)
        self._world.later(down_s, f"{agent_id} is started", lambda: self._network.revive(agent_id))
        return True

    # --- the disk ---------------------------------------------------------------------------------

    async def _fill_disk(self) -> None:
        """Have every write to the store refused for some minutes, whatever manager runs."""
        if self._world.disk.is_full:
            return
        full_s = self._fate.seconds("store_outage_s")
        self._count("store_outages", f"the disk is full for {full_s:.1f} s")
        self._world.disk.is_full = True

        async def free() -> None:
            self._world.disk.free(self._world.clock.now())

        self._world.later(full_s, "the disk is no longer full", free)

    # --- being cut off ----------------------------------------------------------------------------

    async def _cut_off(self) -> None:
        agent_id, cut_s = self._some_agent(), self._fate.seconds("agent_cut_s")
        if not self._network.places[agent_id].is_reachable:
            return

        async def mend() -> None:
            if agent_id in self._network.places:
                self._network.mend(agent_id)

        self._count("agent_cuts", f"{agent_id} is cut off for {cut_s:.1f} s")
        self._network.cut_off(agent_id)
        self._world.later(cut_s, f"{agent_id} can be reached again", mend)

    async def _cut_one_way(self) -> None:
        agent_id, cut_s = self._some_agent(), self._fate.seconds("agent_cut_s")
        what = self._fate.rng.choice(["deaf", "mute"])
        concerned: set[AgentId] = getattr(self._network, what)

        async def mend() -> None:
            concerned.discard(agent_id)

        self._count("one_way_cuts", f"{agent_id} is {what} for {cut_s:.1f} s")
        concerned.add(agent_id)
        self._world.later(cut_s, f"{agent_id} is no longer {what}", mend)

    # --- clocks -----------------------------------------------------------------------------------

    async def _step_clock(self) -> None:
        where = self._fate.rng.choice([MANAGER, *self._network.places])
        step_s = self._fate.seconds("clock_step_s")
        self._count("clock_steps", f"the clock of {where} is set by {step_s:+.0f} s")
        if where == MANAGER:
            self._world.set_clock(step_s, reboots=self._fate.rng.random() < REBOOTS)
        else:
            self._world.runtimes[AgentId(where)].step_clock(step_s)

    # --- coming and going -------------------------------------------------------------------------

    async def _add(self) -> None:
        self._added += 1
        group = self._fate.rng.choice(list(self._world.groups))
        (capacity,) = machines(self._fate.rng, 1)
        agent_id = AgentId(f"added-{self._added}")
        self._count("machines_added", f"{agent_id} is added")
        self._world.add_machine(agent_id, capacity, group)

    async def _resize(self) -> None:
        """Have a machine come back with more, or with less, than is in use."""
        agent_id = self._some_agent(is_up=True)
        place = self._network.places[agent_id]
        capacity = self._resized(place.hello.capacity)
        if not self._go_down(agent_id, "machines_resized", "is taken down to be resized"):
            return
        self._world.runtimes[agent_id].machine = capacity
        place.hello = replace(place.hello, capacity=capacity)

    def _resized(self, before: Capacity) -> Capacity:
        factor = self._fate.rng.choice([0.25, 0.5, 2.0])
        devices: tuple[Device, ...] = before.devices[: max(1, int(len(before.devices) * factor))]
        return replace(
            before,
            cpu_milli=int(before.cpu_milli * factor),
            mem_bytes=int(before.mem_bytes * factor),
            devices=devices,
        )

    async def _replace(self) -> None:
        """Have a machine go for ever, and another one stand at its address."""
        agent_id = self._some_agent(is_up=True)
        place = self._network.places[agent_id]
        if place.agent is None:
            return
        self._added += 1
        other = AgentId(f"instead-{self._added}")
        self._count("machines_replaced", f"{agent_id} is replaced by {other}")
        hello: Any = place.hello
        self._network.crash(agent_id)
        self._world.runtimes[agent_id].reboot()
        self._network.remove(agent_id)
        self._world.add_machine(other, hello.capacity, hello.scaling_group, hello.address)
        self._world.later(ASK_AGAIN_S, "", lambda: self._forget(agent_id))

    async def _be_removed_and_return(self) -> None:
        """Have a machine lose power until its agent is removed, and come back some time after."""
        agent_id = self._some_agent(is_up=True)
        place = self._network.places[agent_id]
        if place.agent is None:
            return
        self._count("machines_returned", f"{agent_id} is down until it has been removed")
        self._network.crash(agent_id)
        self._world.runtimes[agent_id].reboot()

        async def remove() -> None:
            if place.agent is None:  # else somebody has started it
                with suppress(AgentNotFoundError):
                    await self._world.operations.remove_agent(agent_id, caller=ROOT, force=True)
            self._world.later(
                self._fate.seconds("agent_down_s"),
                f"{agent_id} is started",
                lambda: self._network.revive(agent_id),
            )

        self._world.later(ASK_AGAIN_S, "", lambda: self._ask_until_done(remove))

    async def _forget(self, agent_id: AgentId) -> None:
        """Have an agent removed that will not come back, as soon as it counts as gone."""

        async def ask() -> None:
            with suppress(AgentNotFoundError):  # it never introduced itself
                await self._world.operations.remove_agent(agent_id, caller=ROOT, force=True)

        await self._ask_until_done(ask)

    async def _drain(self) -> None:
        """Have an agent drained; and undrained some time after that has been done."""
        agent_id, drained_s = self._some_agent(), self._fate.seconds("drained_s")
        self._count("drains", f"{agent_id} is to be drained for {drained_s:.1f} s")

        async def set_drained(*, drained: bool) -> None:
            with suppress(AgentNotFoundError):
                await self._world.operations.set_drained(agent_id, caller=ROOT, drained=drained)

        async def drain() -> None:
            await set_drained(drained=True)
            undrain = partial(self._ask_until_done, partial(set_drained, drained=False))
            self._world.later(drained_s, f"{agent_id} is to be undrained", undrain)

        await self._ask_until_done(drain)

    async def _change_policy(self) -> None:
        """Have an administrator give a group another policy; once is enough."""
        world = self._world
        if world.manager is None:
            return
        name = self._policies.choice(list(world.groups))
        key = self._policies.choice(list(POLICIES))
        value = self._policies.choice(POLICIES[key])
        self._count("policy_changes", f"{key} of the group {name} is to be {value}")
        await world.manager.groups.set_policy(name, {key: value}, caller=ROOT)

    async def _ask_until_done(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask the manager for something, and again until it has been done."""
        again = partial(self._ask_until_done, ask)
        try:
            await ask()
        except SokovanError:
            self._world.later(ASK_AGAIN_S, "", again)
        except BaseException:  # the manager died
            self._world.later(ASK_AGAIN_S, "", again)
            raise
