"""Arrays: submitted, listed, looked at, ended as a whole or in part."""

from typing import Annotated

from fastapi import Query, Request
from pydantic import AfterValidator
from starlette.responses import Response

from sokovan.api import array_models as models
from sokovan.api.array_models import ArrayBody, read_array
from sokovan.api.arrays import Arrays
from sokovan.api.asked import WaitS, Who, body_of, json_of
from sokovan.api.models import CancelBody, read_cancel
from sokovan.api.operation import Operation
from sokovan.api.texts import NAME_LENGTH_MAX, Cursor, printable
from sokovan.config import ApiConfig
from sokovan.domain.access import Role
from sokovan.domain.arrays import ArraySpec
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.statuses import SessionStatus
from sokovan.store.array_queries import ArrayFilter

PAGE = 1000
"""Arrays in a page when the request does not say; of tasks, as many as may be."""
CHANGED = (models.ArrayChanged,)
Name = Annotated[str | None, Query(max_length=NAME_LENGTH_MAX), AfterValidator(printable)]
Limit = Annotated[int | None, Query(ge=1, le=2**31)]
_STATUSES = tuple(status.value for status in SessionStatus)


class ArrayEndpoints:
    """What is asked about arrays."""

    operations = (
        Operation(
            "POST",
            "/arrays",
            "submit_array",
            (models.Array,),
            (ArrayBody,),
            Role.USER,
            status=201,
            may_conflict=True,
        ),
        Operation("POST", "/arrays/dry-run", "dry_run_array", (models.ArrayDryRun,), (ArrayBody,)),
        Operation("GET", "/arrays", "arrays", (models.ArrayPage,)),
        Operation("GET", "/arrays/{ref}", "array", (models.ArrayDetail,), names_one=True),
        Operation("GET", "/arrays/{ref}/tasks", "tasks", (models.TaskPage,), names_one=True),
        Operation("GET", "/arrays/{ref}/why", "why_array", (models.ArrayWhy,), names_one=True),
        Operation(
            "GET", "/arrays/{ref}/wait", "wait_for_array", (models.ArrayDetail,), names_one=True
        ),
        Operation(
            "POST",
            "/arrays/{ref}/cancel",
            "cancel_array",
            CHANGED,
            (CancelBody,),
            Role.USER,
            body_may_be_empty=True,
            names_one=True,
        ),
        Operation(
            "POST", "/arrays/{ref}/hold", "hold_array", CHANGED, needs=Role.USER, names_one=True
        ),
        Operation(
            "POST",
            "/arrays/{ref}/release",
            "release_array",
            CHANGED,
            needs=Role.USER,
            names_one=True,
        ),
    )

    def __init__(self, arrays: Arrays, config: ApiConfig) -> None:
        self._arrays = arrays
        self._config = config

    async def submit_array(self, request: Request, caller: Who) -> Response:
        """Accept an array, all of its tasks or none; they are on disk when this answers."""
        array = await self._read(request, caller.user)
        return json_of(await self._arrays.submit(array, caller=caller), status=201)

    async def dry_run_array(self, request: Request, caller: Who, suggest: bool = False) -> Response:
        """Say what would become of an array, were it submitted now; nothing changes."""
        array = await self._read(request, caller.user)
        return json_of(await self._arrays.dry_run(array, caller=caller, suggest=suggest))

    async def arrays(
        self,
        caller: Who,
        *,
        live_only: bool = True,
        owner: Name = None,
        name: Name = None,
        group: Name = None,
        limit: Limit = None,
        cursor: Cursor | None = None,
    ) -> Response:
        """List arrays, newest first: those that have not ended, unless asked for all."""
        size = self._page(limit)
        asked = ArrayFilter(live_only, owner, name, group, size, cursor)
        return json_of(await self._arrays.arrays(asked, caller=caller))

    async def array(self, ref: str, caller: Who) -> Response:
        """Return an array, or some of its tasks: `ID_0-9,20`."""
        return json_of(await self._arrays.array(ref, caller=caller))

    async def tasks(
        self,
        ref: str,
        caller: Who,
        *,
        status: Annotated[list[SessionStatus] | None, Query()] = None,
        limit: Limit = None,
        cursor: Cursor | None = None,
    ) -> Response:
        """List the tasks of an array by index; of a task that was retried, the last try."""
        page = await self._arrays.tasks(
            ref,
            caller=caller,
            statuses=status or (),
            limit=self._page(limit, otherwise=self._config.page_sessions_max),
            after=None if cursor is None else int(cursor),
        )
        return json_of(page)

    async def why_array(self, ref: str, caller: Who) -> Response:
        """Explain where the tasks of an array stand, and for which reasons how many wait."""
        return json_of(await self._arrays.why(ref, caller=caller))

    async def wait_for_array(
        self, request: Request, ref: str, caller: Who, timeout_s: WaitS = 30.0
    ) -> Response:
        """Return an array once all its tasks have ended, or as it is after `timeout_s`."""
        asked = self._arrays.wait(ref, caller=caller, timeout_s=timeout_s)
        return json_of(await request.app.state.stopping.unless(asked))

    async def cancel_array(self, request: Request, ref: str, caller: Who) -> Response:
        """Ask for the end of an array, or of some of its tasks."""
        how = read_cancel(await body_of(request))
        return json_of(await self._arrays.cancel(ref, caller=caller, force=how.force))

    async def hold_array(self, ref: str, caller: Who) -> Response:
        """Hold the tasks of an array back that wait."""
        return json_of(await self._arrays.set_held(ref, caller=caller, held=True))

    async def release_array(self, ref: str, caller: Who) -> Response:
        """Let the held tasks of an array take part again."""
        return json_of(await self._arrays.set_held(ref, caller=caller, held=False))

    async def _read(self, request: Request, user: str) -> ArraySpec:
        body = await body_of(request, self._config.body_bytes_max)
        return read_array(body, owner=user, tasks_max=self._config.array_tasks_max)

    def _page(self, limit: int | None, otherwise: int = PAGE) -> int:
        most = self._config.page_sessions_max
        if limit is not None and limit > most:
            raise InvalidRequestError(
                f"limit: {limit} is more than the {most} that a page may have; follow next_cursor",
                field="limit",
            )
        return limit or min(otherwise, most)
