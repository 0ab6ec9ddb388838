"""`sokovan.Executor`: functions that run as sessions, with futures for their results."""

import functools
import itertools
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from sokovan.client.calls import (
    SessionFuture,
    each,
    in_order,
    itself,
    module_path,
    name_of,
)
from sokovan.client.fields import SessionFields, SessionOptions, captured
from sokovan.client.spool import Spool, pickled
from sokovan.client.sync_client import Client
from sokovan.client.typed import options_of
from sokovan.client.watcher import UNSTARTED, Pending, Watcher
from sokovan.domain.errors import SokovanError

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

Call = tuple[tuple[Any, ...], Mapping[str, Any]]
"""The arguments of one call."""
BATCH_CALLS = 500
"""Most calls in one submission: each takes the environment along, and a body has a limit."""
CANCEL_THREADS = 8
"""How many requests cancel calls at a time: the server writes what comes together at once."""


class RemoteFunction(Generic[P, T]):
    """A function that is called here as ever, and as a session by `submit` and `map`."""

    def __init__(self, executor: "Executor", function: Callable[P, T]) -> None:
        self._executor = executor
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return itself, (self._function,)  # in a session it is the function alone

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> SessionFuture[T]:
        """Call it as a session; see `Executor.submit`."""
        return self._executor.submit(self._function, *args, **kwargs)

    def map(
        self, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Call it as sessions, once for each item; see `Executor.map`."""
        return self._executor.map(self._function, *iterables, timeout=timeout, chunksize=chunksize)


class Executor(futures.Executor):
    """Runs functions as sessions; a `concurrent.futures.Executor`.

        with Executor(cpu=2, gpu=1, time="1h") as executor:
            for score in executor.map(train, configs):
                print(score)

    A function, its arguments and its result travel as pickles (cloudpickle) in files below
    `directory`. A session has the current directory and environment of its submission, as with the
    command. Amounts are those of one call, as people type them.

    Args:
        cpu: Cores: `2` or `0.5`.
        mem: Memory: `"4G"`.
        gpu: GPUs: `1`, or `0.5` of one.
        gpu_mem: Least memory of each GPU: `"40G"`.
        time: Stop it after: `"1h30m"`, or seconds.
        group: The scaling group; left out, `default`.
        priority: 0 to 100; higher goes first.
        name: What its sessions are called; left out, as the function.
        env: Variables to set, beside those of this process.
        options: Whatever else `Client.submit` takes, such as `where` or `requeue`.
        python: The interpreter of the sessions; it needs Sokovan, and the same versions of Python
            and cloudpickle. Left out, this one.
        directory: Where the files go; yours, and seen by every agent at the same path. Left out,
            `python` in the home, which agents on this machine see.
        home: As for `Client`, and so are `url`, `token` and `ca_file`.
        url: Where the server listens.
        token: What to show it.
        ca_file: Whose certificates it may have.

    Raises:
        InvalidRequestError: Something given cannot be read; its `field` says what.
    """

    def __init__(  # noqa: PLR0913 (each is an option of the command, and passed by name)
        self,
        *,
        cpu: float | str = 1,
        mem: int | str | None = None,
        gpu: float | str = 0,
        gpu_mem: int | str | None = None,
        time: float | str | None = None,
        group: str | None = None,
        priority: int | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        options: SessionOptions | None = None,
        python: str | None = None,
        directory: Path | str | None = None,
        home: Path | str | None = None,
        url: str | None = None,
        token: str | None = None,
        ca_file: Path | str | None = None,
    ) -> None:
        self._options = options_of(
            cpu=cpu,
            mem=mem,
            gpu=gpu,
            gpu_mem=gpu_mem,
            time=time,
            group=group,
            priority=priority,
            options=options or {},
        )
        self._name = name
        self._env = dict(env or {})
        self._python = python or sys.executable
        self._new_client = functools.partial(Client, home, url=url, token=token, ca_file=ca_file)
        self._client = self._new_client()
        self._turn = threading.RLock()  # of the client, and of what is counted
        self._is_shut_down = False
        self._keys = itertools.count()
        self._spool = Spool.made_below(Path(directory or self._client.home / "python").expanduser())
        self._clean_up = weakref.finalize(self, self._spool.remove)
        self._watcher = Watcher(self._spool, self._new_client(), self._when_idle)

    # --- calling ----------------------------------------------------------------------------------

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> SessionFuture[T]:
        """Call a function as a session, and return the future of its result.

        It is on the server's disk when this returns. The future raises what the function raised,
        with the traceback there as its cause; `SessionDiedError` when the session ended before;
        `CallError` when the result cannot come back.

        Raises:
            CallError: The function or its arguments cannot be pickled.
            RuntimeError: The executor was shut down.
            SokovanError: The server refused it, or cannot be asked.
        """
        (future,) = self._submit(fn, [(args, kwargs)], name=self._name or name_of(fn))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Call a function as sessions, once for each item, and yield the results in that order.

        All are submitted before this returns, many in one request. The first exception ends it, and
        cancels the calls that have not begun.

        Args:
            fn: The function.
            iterables: One for each of its arguments; the shortest says how many calls there are.
            timeout: How long all of it may take, in seconds; then `TimeoutError` is raised.
            chunksize: How many calls one session makes, one after the other. More than 1 pays where
                a call takes less than the second that a session takes to begin.

        Raises:
            ValueError: `chunksize` is less than 1.
            Exception: As for `submit`.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        items = iter(zip(*iterables, strict=False))
        name = self._name or name_of(fn)
        if chunksize == 1:
            submitted = self._submit(fn, ((item, {}) for item in items), name=name)
            return self._in_order(submitted, timeout)
        chunks = iter(lambda: tuple(itertools.islice(items, chunksize)), ())
        several = functools.partial(each, fn)
        in_chunks = self._submit(several, (((chunk,), {}) for chunk in chunks), name=name)
        return itertools.chain.from_iterable(self._in_order(in_chunks, timeout))

    def remote(self, function: Callable[P, T]) -> RemoteFunction[P, T]:
        """Decorate a function, so that it has `submit` and `map` of this executor."""
        return RemoteFunction(self, function)

    # --- the end ----------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 (as its base has it)
        """Take no more calls, and remove the files once every future has its result.

        The program does not end before that either, as with the standard executors.

        Args:
            wait: Return only then.
            cancel_futures: Cancel the calls that have not begun.
        """
        with self._turn:
            self._is_shut_down = True
        if cancel_futures:
            self._cancel_waiting([call.future for call in self._watcher.awaited()])
        if wait:
            self._watcher.join()
        if not self._watcher.awaited():
            self._when_idle()

    def _when_idle(self) -> None:
        if self._is_shut_down:
            self._watcher.close()
            self._client.close()
            self._clean_up()

    # --- sessions ---------------------------------------------------------------------------------

    def _submit(
        self, fn: Callable[..., Any], calls: Iterable[Call], *, name: str
    ) -> list[SessionFuture[Any]]:
        """Submit calls of one function, in as few requests as they take."""
        self._check_open()
        function = self._spool.put_function(pickled(fn, what="the function"))
        here = captured()
        session: SessionFields = {"command": (), **here, **self._options, "name": name}
        session["env"] = {**session["env"], **self._env}
        submitted: list[SessionFuture[Any]] = []
        todo = iter(calls)
        try:
            while batch := list(itertools.islice(todo, BATCH_CALLS)):
                submitted += self._submit_batch(function, batch, session)
        except BaseException:
            self._cancel_waiting(submitted)
            raise
        return submitted

    def _submit_batch(
        self, function: str, batch: Sequence[Call], session: SessionFields
    ) -> list[SessionFuture[Any]]:
        keys: list[str] = []
        sessions: list[SessionFields] = []
        path = module_path()
        with self._turn:
            self._check_open()
            try:
                for call in batch:
                    keys.append(f"{next(self._keys)}")
                    arguments = pickled(call, what="an argument")
                    file = self._spool.put_call(keys[-1], function, arguments, path=path)
                    command = (self._python, "-u", "-m", "sokovan.client.worker", str(file))
                    sessions.append({**session, "command": command})
                views = self._client.submit_many(sessions)
            except BaseException:
                for key in keys:  # a session that was accepted all the same finds no call
                    self._spool.forget(key)
                raise
            made = []
            for key, view in zip(keys, views, strict=True):
                future: SessionFuture[Any] = SessionFuture(
                    key, view["id"], cancel=self._cancel, stop=self._stop
                )
                made.append(future)
                self._watcher.add(Pending(key, view["id"], session["name"], future))
        return made

    def _check_open(self) -> None:
        if self._is_shut_down:
            raise RuntimeError("cannot submit a call after the executor was shut down")

    def _in_order(
        self, submitted: Sequence[SessionFuture[T]], timeout: float | None
    ) -> Iterator[T]:
        results = in_order(submitted, timeout)  # here, so that its time begins now

        def until_the_first_error() -> Iterator[T]:
            try:
                yield from results
            finally:
                self._cancel_waiting([future for future in submitted if not future.done()])

        return until_the_first_error()

    # --- cancelling -------------------------------------------------------------------------------

    def _cancel(self, future: SessionFuture[Any]) -> bool:
        if future.done():
            return future.cancelled()
        if future.running():
            return False
        with self._turn:
            if self._client.get(future.session_id)["status"] not in UNSTARTED:
                return False
            return self._cancel_unstarted(self._client, future)

    def _cancel_unstarted(self, client: Client, future: SessionFuture[Any]) -> bool:
        outcome = client.cancel(future.session_id)["outcome"]
        if outcome == "already-ended" or self._watcher.take_unstarted(future.key) is None:
            return future.cancelled()
        self._spool.forget(future.key)
        future.be_cancelled()
        return True

    def _cancel_waiting(self, submitted: Sequence[SessionFuture[Any]]) -> None:
        """Cancel the calls that have not begun, several at a time."""
        if not submitted:
            return
        keys = {future.key for future in submitted}
        names = {call.name for call in self._watcher.awaited() if call.key in keys}

        def cancel(some: Sequence[SessionFuture[Any]]) -> None:
            with self._new_client() as client:
                for future in some:
                    self._cancel_unstarted(client, future)

        try:
            with self._turn:
                live = [view for name in names for view in self._client.list(name=name)]
            unstarted = {view["id"] for view in live if view["status"] in UNSTARTED}
            todo = [future for future in submitted if future.session_id in unstarted]
            parts = [part for n in range(CANCEL_THREADS) if (part := todo[n::CANCEL_THREADS])]
            with futures.ThreadPoolExecutor(CANCEL_THREADS) as threads:
                list(threads.map(cancel, parts))
        except SokovanError as error:  # what is being raised, or the end, matters more
            log.warning("not all calls that have not begun were cancelled: %s", error)

    def _stop(self, future: SessionFuture[Any], force: bool) -> None:  # noqa: FBT001 (a callback)
        with self._turn:
            self._client.cancel(future.session_id, force=force)
