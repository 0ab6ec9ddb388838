"""What the future of a function that ran as a session may raise, beside the function's own."""

from sokovan.domain.errors import SokovanError


class CallError(SokovanError):
    """What a function returned or raised could not be brought back, or it could not be called."""

    code = "call-failed"


class SessionDiedError(CallError):
    """A session ended before its function did.

    Attributes:
        session_id: The session.
        reason: Why it ended, as in `docs/reference/reasons.md`; `None` if that is not known.
        exit_code: Of its process, where there is one.
        stderr: The end of what it wrote there.
    """

    code = "session-died"

    def __init__(
        self,
        message: str,
        *,
        session_id: str = "",
        reason: str | None = None,
        exit_code: int | None = None,
        stderr: str = "",
    ) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.reason = reason
        self.exit_code = exit_code
        self.stderr = stderr


class RemoteTraceback(Exception):  # noqa: N818 (it is the cause of an error, and shown as one)
    """The cause of an exception that a function raised in its session: the traceback there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
