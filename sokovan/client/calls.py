"""Futures of calls that run as sessions, how their results are waited for, and what they need."""

import functools
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

NAME_LENGTH_MAX = 60


class SessionFuture(futures.Future[T]):
    """The result of a call that runs as a session.

    As any future of `concurrent.futures`, so `wait` and `as_completed` take it.
    """

    def __init__(
        self,
        key: str,
        session_id: str,
        *,
        cancel: Callable[["SessionFuture[Any]"], bool],
        stop: Callable[["SessionFuture[Any]", bool], None],
    ) -> None:
        super().__init__()
        self._cancel = cancel
        self._stop = stop
        self.key = key
        """What its files are called."""
        self.session_id = session_id
        """The session, as `sokovan show` and `Client.get` take it."""

    def cancel(self) -> bool:
        """Cancel the call unless it runs or is over, and say whether it is cancelled.

        The server is asked what the session does. It may begin just then: it is stopped again, and
        the call counts as cancelled.

        Raises:
            SokovanError: The server cannot be asked.
        """
        return self._cancel(self)

    def stop(self, *, force: bool = False) -> None:
        """Stop the session even if it runs; the future ends with `SessionDiedError`.

        Args:
            force: Kill it at once, without the grace between SIGTERM and SIGKILL.

        Raises:
            SokovanError: The server cannot be asked.
        """
        self._stop(self, force)

    def be_cancelled(self) -> None:
        """Count as cancelled from now on; for the owner."""
        super().cancel()
        self.set_running_or_notify_cancel()  # tells those in `wait` and `as_completed`


def in_order(submitted: Iterable[futures.Future[T]], timeout: float | None) -> Iterator[T]:
    """Return the results one after the other, as the `map` of any executor does; cancels none."""
    results: Iterator[T] = _Submitted(submitted).map(_nothing, submitted, timeout=timeout)
    return results


def _nothing(_: object) -> Any:
    """Stand for the function, which is called elsewhere."""


class _Submitted(futures.Executor):
    """Gives out futures that there are already, for the base's `map` to wait for in order."""

    def __init__(self, submitted: Iterable[futures.Future[Any]]) -> None:
        self._submitted = iter(submitted)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        return cast("futures.Future[Any]", _Awaited(next(self._submitted)))


class _Awaited:
    """A future that the base's `map` waits for, and does not cancel: that is done together."""

    def __init__(self, future: futures.Future[Any]) -> None:
        self.result = future.result

    def cancel(self) -> bool:
        return False


def itself(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function."""
    return function


def each(function: Callable[..., T], chunk: Iterable[Sequence[Any]]) -> list[T]:
    """Make several calls of a function."""
    return [function(*args) for args in chunk]


def name_of(fn: Callable[..., Any]) -> str:
    """Return what the sessions of a function are called."""
    named = fn.func if isinstance(fn, functools.partial) else fn
    return str(getattr(named, "__name__", type(named).__name__))[:NAME_LENGTH_MAX]


def module_path() -> list[str]:
    """Return where this program finds its own modules, besides those of its interpreter."""
    of_python = {
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    places = (Path(entry or os.curdir).absolute() for entry in sys.path)
    return [
        str(place)
        for place in places
        if place.is_dir() and not any(place.is_relative_to(root) for root in of_python)
    ]
