"""Joins the parts of the scheduler; the manager and the simulator both do it here."""

from collections.abc import Callable

from sokovan.config import Config
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.coordinator import Chore, Coordinator
from sokovan.scheduler.events import AgentEvents
from sokovan.scheduler.handlers.base import ClockOnlyHandler
from sokovan.scheduler.handlers.kernel.sweep_stale_kernels import (
    SweepStaleKernelsLifecycleHandler,
)
from sokovan.scheduler.handlers.lifecycle.check_precondition import (
    CheckPreconditionLifecycleHandler,
)
from sokovan.scheduler.handlers.lifecycle.deprioritize_sessions import (
    DeprioritizeSessionsLifecycleHandler,
)
from sokovan.scheduler.handlers.lifecycle.schedule_sessions import (
    ScheduleSessionsLifecycleHandler,
)
from sokovan.scheduler.handlers.lifecycle.start_sessions import StartSessionsLifecycleHandler
from sokovan.scheduler.handlers.lifecycle.terminate_sessions import (
    TerminateSessionsLifecycleHandler,
)
from sokovan.scheduler.handlers.maintenance.sweep_sessions import SweepSessionsLifecycleHandler
from sokovan.scheduler.launcher import AgentLauncher
from sokovan.scheduler.moves import Applied
from sokovan.scheduler.ports import AgentGateway, SchedulerStore, StageObserver
from sokovan.scheduler.provisioner import PlacementProvisioner
from sokovan.scheduler.stages import ENFORCE_WALLTIME
from sokovan.scheduler.terminator import AgentTerminator

PRUNE_EVERY_S = 3600.0
DAY_S = 86400.0


def join(
    coordinator: Coordinator,
    store: SchedulerStore,
    gateway: AgentGateway,
    events: AgentEvents,
    config: Config,
    *,
    post_processors: tuple[Callable[[Applied], None], ...] = (),
    observer: StageObserver | None = None,
    chores: tuple[Chore, ...] = (),
) -> None:
    """Give the coordinator every handler and chore."""
    scheduler = config.scheduler
    launcher = AgentLauncher(gateway, events.answered)
    terminator = AgentTerminator(gateway, events.answered)

    async def prune() -> None:
        await store.prune(config.store.keep_days * DAY_S)

    async def stop_leftovers() -> None:
        agents = store.live.agents
        await terminator.stop_leftovers(
            [
                hold
                for hold in store.live.leftovers()
                if (agent := agents.get(AgentId(hold.agent_id))) is None
                or store.leads(agent.scaling_group)
            ]
        )

    coordinator.set_up(
        handlers=(
            SweepSessionsLifecycleHandler(repository=store),
            DeprioritizeSessionsLifecycleHandler(repository=store),
            ScheduleSessionsLifecycleHandler(
                provisioner=PlacementProvisioner(scheduler.full_cycle_s), repository=store
            ),
            CheckPreconditionLifecycleHandler(launcher=launcher, repository=store),
            StartSessionsLifecycleHandler(launcher=launcher, repository=store),
            TerminateSessionsLifecycleHandler(terminator=terminator, repository=store),
            ClockOnlyHandler(ENFORCE_WALLTIME),
            SweepStaleKernelsLifecycleHandler(gateway=gateway, answers=events.answered),
        ),
        chores=(
            Chore("stop-leftovers", scheduler.full_cycle_s, stop_leftovers),
            Chore("refresh", scheduler.refresh_cycle_s, store.refresh),
            *chores,
            *((Chore("prune", PRUNE_EVERY_S, prune),) if config.store.keep_days else ()),
        ),
        post_processors=post_processors,
        observer=observer,
    )


def events_for(coordinator: Coordinator, store: SchedulerStore) -> AgentEvents:
    """Return where the agents' homes bring what agents say."""
    return AgentEvents(
        store,
        coordinator.tell,
        coordinator.hint,
        lambda: coordinator.hint_chore("stop-leftovers"),
        coordinator.beside,
    )
