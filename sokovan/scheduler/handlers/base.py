"""What a handler is: a stage, and one thing to do for the sessions that it takes."""

from collections.abc import Sequence
from typing import Protocol

from sokovan.domain.sessions import SessionWithKernels
from sokovan.scheduler.results import NOTHING, SessionExecutionResult
from sokovan.scheduler.stages import Stage


class LifecycleHandler(Protocol):
    """Does a stage's work for sessions of one scaling group, and reports what became of them.

    A handler changes no status, counts no attempt, reads no clock and catches nothing: `settle`
    and the coordinator do.
    """

    stage: Stage

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        """Act on `sessions`, all in a status that the stage takes."""
        ...


class ClockOnlyHandler(LifecycleHandler):
    """For a stage that only the clock drives: there is nothing to do but to wait."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        return NOTHING
