"""What a user writes, checked by mypy as the user's own code: the types that people rely on."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, as_completed
from typing import Any, assert_type

import sokovan
from sokovan import AsyncClient, CallError, Client, Executor, SessionDiedError, SokovanError
from sokovan.client import SessionOptions, View


def train(name: str, rate: float = 0.1) -> dict[str, float]:
    return {name: rate}


def with_client(client: Client) -> None:
    assert_type(client.submit(["true"], name="x", cpu_milli=500), View)
    assert_type(client.list(limit=1), list[View])
    assert_type(client.output("@"), Iterator[bytes])
    assert_type(client.shut_down(), int)
    options: SessionOptions = {"priority": 3}
    client.submit(["true"], **options)
    client.submit(["true"], cpu_mili=500)  # type: ignore[call-arg]
    client.submit(["true"], priority="high")  # type: ignore[arg-type]


async def with_async_client() -> None:
    async with AsyncClient() as client:
        assert_type(client, AsyncClient)
        assert_type(await client.wait("@", timeout_s=3), dict[str, Any])
        assert_type(client.output("@", follow=True), AsyncIterator[bytes])


def with_executor() -> None:
    with Executor(cpu=2, mem="4G", gpu=0.5, time="1h", priority=3) as executor:
        assert_type(executor, Executor)
        future = executor.submit(train, "a", rate=0.2)
        assert_type(future, sokovan.SessionFuture[dict[str, float]])
        assert_type(future.result(timeout=3), dict[str, float])
        assert_type(future.session_id, str)
        plain: Future[dict[str, float]] = future
        assert_type(next(as_completed([plain])).result(), dict[str, float])
        assert_type(executor.map(train, ["a", "b"]), Iterator[dict[str, float]])
        executor.submit(train, 3)  # type: ignore[arg-type]
        executor.submit(train, "a", speed=2)  # type: ignore[call-arg]

        @executor.remote
        def area(width: int, height: int) -> int:
            return width * height

        assert_type(area(2, 3), int)
        assert_type(area.submit(2, height=3).result(), int)
        assert_type(area.map([1], [2]), Iterator[int])
        area.submit("2", 3)  # type: ignore[arg-type]
    Executor(cpus=2)  # type: ignore[call-arg]


def with_errors(error: SokovanError) -> str:
    if isinstance(error, SessionDiedError):
        assert_type(error.exit_code, int | None)
        return error.stderr
    if isinstance(error, CallError):
        return error.message
    return error.code


def nothing_else() -> object:
    return sokovan.Clerk  # type: ignore[attr-defined]
