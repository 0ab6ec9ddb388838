"""What the command exits with."""

from collections.abc import Mapping
from typing import Any

from sokovan.domain.errors import (
    AgentNotFoundError,
    GroupNotFoundError,
    HomeError,
    InvalidRequestError,
    ServerUnreachableError,
    SessionNotFoundError,
    SokovanError,
    TokenNotFoundError,
    WebhookNotFoundError,
)
from sokovan.domain.reasons import EndReason
from sokovan.domain.statuses import SessionResult

SUCCESS = 0
INTERNAL = 1
"""Sokovan is at fault: a bug."""
USAGE = 2
NOT_FOUND = 3
REFUSED = 4
UNREACHABLE = 5
TIMEOUT = 124
"""`wait --timeout` saw no end in time, as timeout(1) says it."""
RUN_FAILED = 125
"""`run` or `wait` has no exit code of a command to hand on."""
NOT_EXECUTABLE = 126
COMMAND_NOT_FOUND = 127
SIGNAL_BASE = 128


NAMES_NOTHING = (
    SessionNotFoundError,
    AgentNotFoundError,
    GroupNotFoundError,
    TokenNotFoundError,
    WebhookNotFoundError,
)


class UsageError(InvalidRequestError):
    """Something on the command line makes no sense."""


def of_error(error: SokovanError) -> int:
    """Return the exit code for an error."""
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, NAMES_NOTHING):
        return NOT_FOUND
    if isinstance(error, ServerUnreachableError | HomeError):
        return UNREACHABLE
    return INTERNAL if error.code == SokovanError.code else REFUSED


def of_session(session: Mapping[str, Any]) -> int:
    """Return the exit code for a session that has ended: its command's, as a shell would say it.

    A session that failed although its main kernel has no failing code of its own (it was stopped
    before it began, its status is lost, another kernel failed) gives 125.
    """
    if session["reason"] == EndReason.COMMAND_NOT_FOUND:
        return COMMAND_NOT_FOUND
    if session["reason"] == EndReason.COMMAND_NOT_EXECUTABLE:
        return NOT_EXECUTABLE
    if session["result"] == SessionResult.SUCCESS:
        return SUCCESS
    failed = [kernel for kernel in session["kernels"] if kernel["exit_code"]]
    if failed and session["reason"] == EndReason.KERNEL_FAILED:
        first = min(failed, key=lambda kernel: kernel["ended_at"])
        return int(first["exit_code"])
    code: int | None = session["exit_code"]
    return code or RUN_FAILED
