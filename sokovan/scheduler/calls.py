"""Asking several agents at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

from sokovan.domain.errors import AgentError
from sokovan.domain.sessions import AgentId, SessionId
from sokovan.scheduler.messages import Answer, KernelReport

T = TypeVar("T")
Answers = Callable[[AgentId, Sequence[KernelReport]], Awaitable[None]]
"""Takes what an agent answered; an answer is a report like any other."""
_KEPT: ContextVar[list[Answer] | None] = ContextVar("kept", default=None)


@contextmanager
def kept_answers(answers: list[Answer] | None) -> Iterator[None]:
    """Have answers that come meanwhile put into a list, for who asks to save with what it decides.

    `None` has each of them recorded by itself.
    """
    before = _KEPT.set(answers)
    try:
        yield
    finally:
        _KEPT.reset(before)


def keep(answer: Answer) -> bool:
    """Put an answer to the others, if they are kept; say whether they are."""
    kept = _KEPT.get()
    if kept is not None:
        kept.append(answer)
    return kept is not None


async def ask_agents(
    asked: Mapping[AgentId, Sequence[T]],
    call: Callable[[AgentId, Sequence[T]], Awaitable[Sequence[KernelReport]]],
    answers: Answers,
) -> dict[AgentId, AgentError]:
    """Make one call to each agent, all at the same time, and hand on what they answer.

    Where several are asked, what one answers is not kept until the slowest has.

    Returns:
        What went wrong, by agent.
    """

    async def one(agent_id: AgentId) -> AgentError | None:
        try:
            reports = await call(agent_id, asked[agent_id])
        except AgentError as error:
            return error
        await answers(agent_id, reports)
        return None

    with kept_answers(None) if len(asked) > 1 else nullcontext():
        errors = await asyncio.gather(*(one(agent_id) for agent_id in asked))
    return {a: error for a, error in zip(asked, errors, strict=True) if error is not None}


def by_agent(pairs: Iterable[tuple[AgentId, T]]) -> dict[AgentId, list[T]]:
    """Group what is asked by the agent it is asked of."""
    grouped: dict[AgentId, list[T]] = {}
    for agent_id, item in pairs:
        grouped.setdefault(agent_id, []).append(item)
    return grouped


def raise_for(
    errors: Mapping[AgentId, AgentError], sessions_on: Mapping[AgentId, Iterable[SessionId]]
) -> None:
    """Raise one error for all of `errors`, naming the sessions concerned.

    Raises:
        AgentError: When there are errors.
    """
    if errors:
        message = "; ".join(f"agent {agent_id}: {error}" for agent_id, error in errors.items())
        failed = [session_id for agent_id in errors for session_id in sessions_on[agent_id]]
        raise AgentError(message, list(dict.fromkeys(failed)))
