"""What monitoring asks, outside of `/v1`: is the server there, is it ready, how does it do."""

from fastapi import Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from sokovan.api.asked import Stopping
from sokovan.api.operation import Operation
from sokovan.api.problems import ServerStoppingError
from sokovan.api.service import Service

OPENMETRICS, PLAIN = "application/openmetrics-text", "text/plain"


class ProbeEndpoints:
    """What monitoring asks."""

    operations = (
        Operation(
            "GET",
            "/metrics",
            "metrics",
            content={
                "content": {kind: {"schema": {"type": "string"}} for kind in (PLAIN, OPENMETRICS)}
            },
        ),
    )

    def __init__(self, service: Service, stopping: Stopping, registry: CollectorRegistry) -> None:
        self._service = service
        self._stopping = stopping
        self._registry = registry

    async def healthz(self) -> Response:
        """Answer that the server is there; needs no token and tells nothing."""
        return Response("ok\n", media_type=PLAIN)

    async def readyz(self) -> Response:
        """Answer whether the server can do its work; needs no token."""
        if self._stopping.told.is_set():
            raise ServerStoppingError
        await self._service.ready()
        return Response("ready\n", media_type=PLAIN)

    async def metrics(self, request: Request) -> Response:
        """Return all metrics as Prometheus reads them."""
        # Not all that is sent: a version that is none would be an error.
        encode, kind = choose_encoder(
            OPENMETRICS if OPENMETRICS in request.headers.get("accept", "") else PLAIN
        )
        return Response(encode(self._registry), headers={"content-type": kind})
