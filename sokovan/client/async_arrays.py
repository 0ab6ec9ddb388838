"""The part of `sokovan.AsyncClient` about arrays: many sessions from one template.

`sync_arrays.py` is written from this file by `scripts/sync_client.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from sokovan.client.addresses import (
    ARRAYS,
    ARRAYS_DRY_RUN,
    PAGE_SESSIONS,
    WAIT_SLICE_S,
    array_body,
    array_path,
)
from sokovan.client.async_administration import AsyncAdministration
from sokovan.client.fields import SessionFields, SessionOptions, View, Views, captured


class AsyncArrays(AsyncAdministration):
    """What is asked about arrays.

    `ref` is an array's id, or a prefix that only one id has, or `@` for the last submission when
    that was an array; `ID_0-9,20` means some of its tasks. A single task, `ID_7`, is a session.
    """

    async def submit_array(
        self,
        command: Sequence[str],
        *,
        indexes: str | None = None,
        params: Mapping[str, Sequence[str]] | None = None,
        running_max: int | None = None,
        **options: Unpack[SessionOptions],
    ) -> View:
        """Submit an array, all of its tasks or none; it is on the server's disk when this returns.

        `{index}` and the `{name}` of a parameter are replaced in the words of the command, in the
        values of the environment, and in the name.

        Args:
            command: Of every task.
            indexes: Such as `0-999`, `0-100:5` or `1,3,7`; without `params`.
            params: The values of each parameter: there is a task for each combination, of which the
                first parameter changes slowest.
            running_max: How many tasks may be at work at once.
            options: As for `submit`.
        """
        session: SessionFields = {"command": command, **options}
        body = array_body(session, captured(), indexes, params, running_max)
        return await self._ask("POST", ARRAYS, body=body)

    async def dry_run_array(
        self,
        command: Sequence[str],
        *,
        indexes: str | None = None,
        params: Mapping[str, Sequence[str]] | None = None,
        running_max: int | None = None,
        suggest: bool = False,
        **options: Unpack[SessionOptions],
    ) -> View:
        """Say what would become of an array's first task, were it submitted now: `size`, `first`.

        The arguments are those of `submit_array` and of `dry_run`.
        """
        session: SessionFields = {"command": command, **options}
        body = array_body(session, captured(), indexes, params, running_max)
        return await self._ask("POST", ARRAYS_DRY_RUN, body=body, params={"suggest": suggest})

    async def arrays(
        self,
        *,
        live_only: bool = True,
        owner: str | None = None,
        name: str | None = None,
        group: str | None = None,
        limit: int | None = None,
    ) -> Views:
        """List arrays, newest first: at most `limit` of them, all when it is left out."""
        named = {"owner": owner, "name": name, "group": group}
        params: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        return await self._pages(ARRAYS, params | {"live_only": live_only}, limit)

    async def array(self, ref: str) -> View:
        """Return an array, or some of its tasks: how many are where, and which one failed first."""
        return await self._ask("GET", array_path(ref))

    async def tasks(
        self, ref: str, *, status: Sequence[str] = (), limit: int | None = None
    ) -> Views:
        """List the tasks of an array by index, without what they run; `get` says all of one."""
        params = {"status": [*status]}
        return await self._pages(array_path(ref, "tasks"), params, limit, size=None)

    async def why_array(self, ref: str) -> View:
        """Explain where the tasks stand: `sentence`, and `waiting`, by reason."""
        return await self._ask("GET", array_path(ref, "why"))

    async def wait_array(self, ref: str, timeout_s: float | None = None) -> View:
        """Return the array once all its tasks have ended, or as it is after `timeout_s`."""
        left = timeout_s
        while True:
            slice_s = WAIT_SLICE_S if left is None else min(left, WAIT_SLICE_S)
            path = array_path(ref, "wait")
            array = await self._ask("GET", path, wait_s=slice_s, params={"timeout_s": slice_s})
            if array["ended_at"] is not None:
                return array
            part = array["part"]  # what `@` means may have changed meanwhile
            ref = array["id"] if part is None else f"{array['id']}_{part}"
            if left is not None:
                left -= slice_s
                if left <= 0:
                    return array

    async def cancel_array(self, ref: str, *, force: bool = False) -> View:
        """Ask for the end of all tasks: `array` and, with their numbers, `outcomes`.

        Args:
            ref: The array, or a part of it.
            force: Kill their kernels at once, without the grace.
        """
        return await self._ask("POST", array_path(ref, "cancel"), body={"force": force})

    async def hold_array(self, ref: str) -> View:
        """Hold the tasks back that wait; `outcomes` says how many."""
        return await self._ask("POST", array_path(ref, "hold"))

    async def release_array(self, ref: str) -> View:
        """Let held tasks take part again; `outcomes` says how many."""
        return await self._ask("POST", array_path(ref, "release"))

    async def _pages(
        self,
        path: str,
        params: Mapping[str, Any],
        limit: int | None,
        *,
        size: int | None = PAGE_SESSIONS,
    ) -> Views:
        """Return what is listed there, page after page, at most `limit` of it.

        Without a `size`, a page has as much as the server sends at once.
        """
        found: Views = []
        cursor: dict[str, Any] = {}
        while limit is None or len(found) < limit:
            if limit is not None:
                size = min(PAGE_SESSIONS, limit - len(found))
            most = {} if size is None else {"limit": size}
            page = await self._ask("GET", path, params={**params, **cursor, **most})
            found += page["items"]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        return found
