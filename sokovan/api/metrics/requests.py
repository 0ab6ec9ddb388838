"""How many requests there are, and how long they take: around everything else of the API."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sokovan.api.metrics.meters import Meters
from sokovan.api.metrics.table import OTHER
from sokovan.clock import Clock


class MeasuredRequests:
    """Counts and measures every request, by the operation that it reached."""

    def __init__(self, app: ASGIApp, meters: Meters, clock: Clock) -> None:
        self._app = app
        self._meters = meters
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status: int | None = None
        began_at = self._clock.now()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            operation = getattr(scope.get("route"), "operation_id", None) or OTHER
            self._meters.answered(operation, status, self._clock.now() - began_at)
