"""The kinds of events: each line of history is one."""

from collections.abc import Sequence

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.statuses import KernelStatus, SessionStatus

SESSION, KERNEL = "session", "kernel"
"""Whose event it is; as a kind, all of it."""
WAITING = "waiting"
"""A session is still PENDING, and something was noted: why it waits, most often."""
NOTED = "noted"
"""Nothing moved, and something was noted: a try that failed, a stop that is now forced."""
KINDS = (
    SESSION,
    *(f"{SESSION}.{status.lower()}" for status in SessionStatus),
    f"{SESSION}.{WAITING}",
    f"{SESSION}.{NOTED}",
    KERNEL,
    *(f"{KERNEL}.{status.lower()}" for status in KernelStatus),
)
"""What may be asked for: `session` stands for everything that begins with it, and so does `kernel`.
"""


def kind_of(kernel_id: str | None, from_status: str | None, to_status: str) -> str:
    """Return the kind of a line of history, such as `session.running`."""
    if kernel_id is not None:
        return f"{KERNEL}.{to_status.lower()}"
    if from_status != to_status:
        return f"{SESSION}.{to_status.lower()}"
    return f"{SESSION}.{WAITING if to_status == SessionStatus.PENDING else NOTED}"


def check_kinds(kinds: Sequence[str], *, field: str) -> tuple[str, ...]:
    """Return kinds, each once.

    Raises:
        InvalidRequestError: One does not exist.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidRequestError(
                f"{field}: there is no event {kind[:60]!r}; choose from {', '.join(KINDS)}",
                field=field,
            )
    return tuple(dict.fromkeys(kinds))
