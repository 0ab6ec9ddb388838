"""Whether a request that failed is sent again, and how soon."""

import httpx

from sokovan.client.connection import ServerStoppedError, UntrustedServerError
from sokovan.domain.errors import ServerUnreachableError, SokovanError, StoreUnavailableError

REVIVALS_MAX = 3
"""How often one request may bring the server back before it gives up."""
CUT_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""What a connection that was open before fails with."""
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, type(None))
"""What fails before anything was sent; without a cause, no address was known."""
RETRY_S = 10.0
"""How long the pauses of a request are at most when nothing else is said."""
PAUSE_S = 0.1
PAUSE_S_MAX = 2.0


class Tries:
    """Decides for one request, by the first of these rules that fits its failure.

    - The connection was cut: it is sent again at once, and once only.
    - The store was unavailable: it is sent again after 0.1 s, 0.2 s, 0.4 s … and at most 2 s.
    - The server said when to come back (429 or 503 with Retry-After): it is sent again then.
    - Anything else, a server that was stopped on purpose or is not trusted: it is not sent again.

    The pauses of one request are no longer than `retry_s` together. A request that must not be done
    twice is sent again only when it was never sent: after `revive` has brought a server back.

    Args:
        once: It must not be done twice.
        retry_s: How long its pauses may be together, in seconds; 0 makes none.
    """

    def __init__(self, *, once: bool, retry_s: float) -> None:
        self._once = once
        self._left_s = retry_s
        self._was_cut = False
        self._pauses = 0
        self._revivals = 0

    def pause_s(self, error: SokovanError) -> float | None:
        """Return how long to pause before it is sent again, or `None` when it is not."""
        if self._once or isinstance(error, ServerStoppedError):
            return None
        if isinstance(error.__cause__, CUT_OFF):  # perhaps an idle connection was closed just then
            was_cut, self._was_cut = self._was_cut, True
            return None if was_cut else 0.0
        pause_s = error.retry_after_s
        if isinstance(error, StoreUnavailableError):  # for how long, the server can only guess
            pause_s = min(PAUSE_S * 2**self._pauses, PAUSE_S_MAX)
        if pause_s is None or pause_s > self._left_s:
            return None
        self._pauses += 1
        self._left_s -= pause_s
        return pause_s

    def may_revive(self, error: SokovanError) -> bool:
        """Say whether to bring the server back and send it again."""
        if not isinstance(error, ServerUnreachableError):
            return False
        if isinstance(error, ServerStoppedError | UntrustedServerError):
            return False
        if self._once and not isinstance(error.__cause__, NOT_SENT):
            return False
        self._revivals += 1
        return self._revivals <= REVIVALS_MAX
