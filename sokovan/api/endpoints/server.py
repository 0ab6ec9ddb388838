"""The server itself: its state, its end."""

import os
from collections.abc import Callable
from typing import Annotated

from fastapi import Query
from pydantic_core import to_json
from starlette.background import BackgroundTask
from starlette.responses import Response

from sokovan.api import answers
from sokovan.api.asked import Stopping, Who, json_of
from sokovan.api.operation import Operation
from sokovan.api.service import Service
from sokovan.domain.access import Role

LISTED_MAX = 100
"""Most agents, and sessions of a kind, that are told at a glance: it is for people."""


class ServerEndpoints:
    """What is asked about the server."""

    operations = (
        Operation("GET", "/status", "status", (answers.Status,)),
        Operation("GET", "/overview", "overview", (answers.Overview,)),
        Operation("POST", "/shutdown", "stop", (answers.Stopping,), needs=Role.ADMIN),
    )

    def __init__(self, service: Service, stopping: Stopping, shutdown: Callable[[], None]) -> None:
        self._service = service
        self._stopping = stopping
        self._shutdown = shutdown

    async def status(self) -> Response:
        """Return pid, version, address, uptime and counts."""
        return json_of(await self._service.status())

    async def overview(
        self, who: Who, limit: Annotated[int, Query(ge=1, le=LISTED_MAX)] = 20
    ) -> Response:
        """Return all at a glance: totals, and at most `limit` agents and sessions of a kind."""
        return json_of(await self._service.overview(caller=who, limit=limit))

    async def stop(self) -> Response:
        """Stop the server; kernels are not touched."""
        already = self._stopping.told.is_set()
        self._stopping.told.set()
        task = None if already else BackgroundTask(self._stop)
        return Response(
            to_json({"pid": os.getpid()}), media_type="application/json", background=task
        )

    async def _stop(self) -> None:
        self._shutdown()
