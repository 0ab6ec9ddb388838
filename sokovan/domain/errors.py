"""Every error raised on purpose, with a stable code.

A code is part of the public interface: programs match on it, `docs/reference/errors.md` explains
it.
"""

from collections.abc import Sequence
from typing import ClassVar


class SokovanError(Exception):
    """A request that cannot be done, and what to do about it.

    Attributes:
        code: Stable, kebab-case name of the kind of error.
        http_status: What the API answers with.
        field: The submitted field at fault, where there is one.
        retry_after_s: When to try again, where the server said so, in seconds from its answer.
    """

    code: ClassVar[str] = "internal-error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s: float | None = None


class InvalidRequestError(SokovanError):
    """Something in the request is malformed or out of range."""

    code = "invalid-request"
    http_status = 422


class InfeasibleRequestError(SokovanError):
    """No agent of the group could ever fit the request."""

    code = "infeasible-request"
    http_status = 422


class UnknownGroupError(SokovanError):
    """The scaling group does not exist."""

    code = "unknown-group"
    http_status = 422


class SessionNotFoundError(SokovanError):
    """No session has this id."""

    code = "session-not-found"
    http_status = 404


class AgentNotFoundError(SokovanError):
    """No agent has this id or name."""

    code = "agent-not-found"
    http_status = 404


class TokenNotFoundError(SokovanError):
    """No token has this id, or it is somebody else's."""

    code = "token-not-found"
    http_status = 404


class WebhookNotFoundError(SokovanError):
    """No webhook has this id."""

    code = "webhook-not-found"
    http_status = 404


class EventsGoneError(SokovanError):
    """What follows the event that was named is not kept, or no such event was ever told."""

    code = "events-gone"
    http_status = 410


class GroupNotFoundError(SokovanError):
    """There is no scaling group of this name."""

    code = "group-not-found"
    http_status = 404


class AmbiguousIdError(SokovanError):
    """More than one session starts with this prefix, or more than one agent has this name."""

    code = "ambiguous-id"
    http_status = 409


class IsAnArrayError(SokovanError):
    """An array was named, or a part of one, where one session is meant: write `ID_7` for a task."""

    code = "is-an-array"
    http_status = 409


class CreationConflictError(SokovanError):
    """The same creation id was used before for a different submission."""

    code = "creation-conflict"
    http_status = 409


class IllegalStateError(SokovanError):
    """The session, or the agent, is not in a status in which this can be done."""

    code = "illegal-state"
    http_status = 409


class UnauthorizedError(SokovanError):
    """The token is missing or wrong."""

    code = "unauthorized"
    http_status = 401


class ForbiddenError(SokovanError):
    """The token is good, but not for this: another role is needed, or another owner."""

    code = "forbidden"
    http_status = 403


class TooManyRequestsError(SokovanError):
    """A caller asks more often than the server allows; try again after `Retry-After`."""

    code = "too-many-requests"
    http_status = 429


class StoreUnavailableError(SokovanError):
    """The store cannot be used at present: a full disk, a locked file, a database that is away."""

    code = "store-unavailable"
    http_status = 503


class CommitUnknownError(StoreUnavailableError):
    """Whether it was written is not known: ask again, a submission with the same creation id."""

    code = "commit-unknown"


class StoreDamagedError(SokovanError, ValueError):
    """A row of the store cannot be read: it is damaged, or no version of Sokovan wrote it."""

    code = "store-damaged"
    http_status = 500


class OutputUnavailableError(SokovanError):
    """The agent that keeps the output does not answer, or the output is gone."""

    code = "output-unavailable"
    http_status = 503


class ServerUnreachableError(SokovanError):
    """No server answers for this home."""

    code = "server-unreachable"
    http_status = 503


class ConfigError(SokovanError):
    """The configuration names something that does not exist or makes no sense."""

    code = "invalid-config"
    http_status = 500


class HomeError(SokovanError):
    """The home directory cannot be used: not writable, not a directory, not ours."""

    code = "unusable-home"
    http_status = 500


class AlreadyRunningError(SokovanError):
    """Another server holds this home."""

    code = "already-running"
    http_status = 409


class InsideSessionError(SokovanError):
    """A session would have to start the server, and it would end together with that session."""

    code = "inside-session"
    http_status = 409


class AddressInUseError(SokovanError):
    """The address asked for is taken."""

    code = "address-in-use"
    http_status = 500


class SchemaTooNewError(SokovanError):
    """The store was written by a newer Sokovan."""

    code = "schema-too-new"
    http_status = 500


class SchemaTooOldError(SokovanError):
    """The store was written by an older Sokovan, and no server of this version has opened it."""

    code = "schema-too-old"
    http_status = 500


class LeaseLostError(SokovanError):
    """Another manager drives this scaling group now; this one's moves are refused.

    Args:
        message: What happened.
        groups: Which groups.
    """

    code = "lease-lost"
    http_status = 503

    def __init__(self, message: str, groups: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.groups = tuple(groups)


class AgentError(SokovanError):
    """An agent refused, failed or did not answer.

    Args:
        message: What happened.
        session_ids: The sessions that failed; `None` means the whole batch.
    """

    code = "agent-error"
    http_status = 502

    def __init__(self, message: str, session_ids: Sequence[str] | None = None) -> None:
        super().__init__(message)
        self.session_ids = None if session_ids is None else tuple(session_ids)
