"""The executor over a server that is made up, with the real worker run in this process."""

import os
import sys
import threading
from concurrent import futures

import pytest

from sokovan.client import executor as module
from sokovan.client import spool, worker
from sokovan.client.errors import CallError, RemoteTraceback, SessionDiedError
from sokovan.client.executor import Executor
from sokovan.client.fields import Output
from sokovan.client.spool import Spool
from sokovan.client.watcher import LATE_LOOKS, Watcher
from sokovan.domain.errors import (
    InvalidRequestError,
    ServerUnreachableError,
    SessionNotFoundError,
)


class MadeUp:
    """What a client says of sessions that run only when a test runs them."""

    def __init__(self, home):
        self.home = home
        self.sessions = {}
        self.asked = []
        self.is_cut_off = False
        self.refuses = None

    def submit_many(self, sessions):
        if self.refuses:
            raise self.refuses
        self.asked.append("submit_many")
        views = [
            {
                "id": f"s{len(self.sessions) + n}",
                "name": session["name"],
                "status": "PENDING",
                "reason": None,
                "exit_code": None,
                "started_at": None,
                "kernels": [{"error": None}],
                "submitted": session,
            }
            for n, session in enumerate(sessions)
        ]
        self.sessions |= {view["id"]: view for view in views}
        return views

    def list(self, *, name):
        self.asked.append("list")
        if self.is_cut_off:
            raise ServerUnreachableError("no server answers")
        ended = {"TERMINATED", "CANCELLED"}
        return [s for s in self.sessions.values() if s["name"] == name and s["status"] not in ended]

    def get(self, ref):
        self.asked.append("get")
        if ref not in self.sessions:
            raise SessionNotFoundError(f"there is no session {ref}")
        return self.sessions[ref]

    def cancel(self, ref, *, force=False):
        self.asked.append("cancel")
        self.sessions[ref]["status"] = "TERMINATING"
        return {"outcome": "cancelled"}

    def read_output(self, ref, *, stream, offset):
        return Output(data=b"one\ntwo\n", offset=0, size=8, ended=True)

    def close(self):
        """Nothing is open."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- what the tests do ---

    def run(self, session_id):
        """Run a session's command, as its agent would."""
        view = self.sessions[session_id]
        path = sys.path[:]
        view["started_at"], view["status"] = "now", "TERMINATED"
        view["exit_code"] = worker.main(spool.Path(view["submitted"]["command"][-1]))
        sys.path[:] = path

    def run_all(self):
        for session_id in self.sessions:
            self.run(session_id)

    def die(self, session_id, reason, code=None):
        self.sessions[session_id] |= {
            "status": "TERMINATED",
            "reason": reason,
            "exit_code": code,
            "started_at": "now",
        }


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = MadeUp(tmp_path)  # the tests say when its watcher looks
    monkeypatch.setattr(module, "Client", lambda *args, **kwargs: server)
    monkeypatch.setattr(Watcher, "_run", lambda self: setattr(self, "_thread", None))
    return server


@pytest.fixture
def executor(server):
    return Executor()


def look(executor):
    executor._watcher.look()


def ask(executor):
    executor._watcher.ask()


# --- results --------------------------------------------------------------------------------------


def test_a_result_comes_back(executor, server):
    future = executor.submit(divmod, 7, 2)
    server.run(future.session_id)
    look(executor)

    assert future.result(timeout=0) == (3, 1)
    assert server.sessions[future.session_id]["exit_code"] == 0


def test_an_exception_comes_back_with_the_traceback_there_as_its_cause(executor, server, capsys):
    def deep():
        return {}["missing"]

    def shallow():
        return deep()

    future = executor.submit(shallow)
    server.run(future.session_id)
    look(executor)

    error = future.exception(timeout=0)
    assert type(error) is KeyError
    assert isinstance(error.__cause__, RemoteTraceback)
    shown = str(error.__cause__)
    assert [name for name in ("_value", "shallow", "deep") if f"in {name}" in shown] == [
        "shallow",
        "deep",
    ]
    assert "KeyError: 'missing'" in capsys.readouterr().err
    assert server.sessions[future.session_id]["exit_code"] == 1


class PickyError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raise_picky():
    raise PickyError(1, 2)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (raise_picky, r"raised PickyError: 1 and 2, which stays there: .*missing 1 required"),
        (lambda: sys.exit(3), r"raised SystemExit: 3, which stays there"),
        (threading.Lock, r"the result, of type lock, cannot be pickled"),
    ],
)
def test_what_cannot_come_back_is_named(executor, server, function, says):
    future = executor.submit(function)
    server.run(future.session_id)
    look(executor)

    with pytest.raises(CallError, match=rf"session s0 .*{says}"):
        future.result(timeout=0)


def test_what_cannot_be_sent_is_refused_before_anything_is(executor, server):
    with pytest.raises(CallError, match="an argument cannot be pickled"):
        executor.submit(print, threading.Lock())

    assert server.asked == []
    assert list(executor._spool.root.glob("calls/*")) == []


def test_results_of_map_are_in_the_order_of_its_items(executor, server):
    results = executor.map(pow, range(5), [2] * 4)
    for session_id in reversed(server.sessions):
        server.run(session_id)
        look(executor)

    assert list(results) == [0, 1, 4, 9]


def test_a_session_makes_as_many_calls_as_the_chunk_has(executor, server):
    results = executor.map(pow, range(5), [2] * 5, chunksize=2)
    server.run_all()
    look(executor)

    assert list(results) == [0, 1, 4, 9, 16]
    assert len(server.sessions) == 3
    assert {session["name"] for session in server.sessions.values()} == {"pow"}


def test_the_first_exception_of_map_cancels_what_has_not_begun(executor, server):
    results = executor.map(divmod, [1, 2, 3, 4], [1, 0, 1, 1])
    first, second, third, _ = server.sessions
    server.run(first)
    server.run(second)
    server.sessions[third]["status"] = "RUNNING"
    look(executor)

    assert next(results) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert server.asked.count("cancel") == 1
    assert [call.session_id for call in executor._watcher.awaited()] == [third]


def test_map_waits_no_longer_than_it_may(executor, server):
    with pytest.raises(TimeoutError):
        next(executor.map(abs, [1], timeout=0))


def test_a_thousand_futures_cost_two_requests_and_each_look_at_them_one(executor, server):
    submitted = executor._submit(abs, (((n,), {}) for n in range(1000)), name="abs")
    ask(executor)

    assert server.asked == ["submit_many", "submit_many", "list"]
    assert len(submitted) == len(executor._watcher.awaited()) == 1000
    assert len(list(executor._spool.root.glob("functions/*"))) == 1


def test_a_batch_that_is_refused_takes_those_before_it_back(executor, server):
    def calls():
        for n in range(501):
            server.refuses = InvalidRequestError("no more") if n == 500 else None
            yield (n,), {}

    with pytest.raises(InvalidRequestError):
        executor._submit(abs, calls(), name="abs")

    assert server.asked.count("cancel") == 500
    assert executor._watcher.awaited() == []
    assert list(executor._spool.root.glob("calls/*")) == []


# --- sessions -------------------------------------------------------------------------------------


def test_a_session_that_died_says_why_and_what_it_wrote_last(executor, server):
    future = executor.submit(abs, 1)
    server.die(future.session_id, "KERNEL_FAILED", 137)
    ask(executor)

    error = future.exception(timeout=0)
    assert isinstance(error, SessionDiedError)
    assert (error.session_id, error.reason, error.exit_code) == ("s0", "KERNEL_FAILED", 137)
    assert error.stderr == "one\ntwo"
    assert "session s0 (abs) ended before its function did: KERNEL_FAILED" in str(error)


def test_a_session_that_nobody_knows_any_more_is_over(executor, server):
    future = executor.submit(abs, 1)
    server.sessions.clear()
    ask(executor)

    assert isinstance(future.exception(timeout=0), SessionDiedError)


@pytest.mark.parametrize("comes", [True, False])
def test_a_result_may_be_late_on_another_machines_disk_but_not_for_ever(executor, server, comes):
    future = executor.submit(abs, -1)
    server.die(future.session_id, "SELF_TERMINATED", 0)
    for _ in range(LATE_LOOKS):
        ask(executor)
    assert not future.done()

    if comes:
        server.run(future.session_id)
        look(executor)
    ask(executor)
    assert future.done()
    assert (future.exception() is None) is comes


def test_without_a_server_results_come_all_the_same(executor, server, caplog):
    first, second = executor.submit(abs, -1), executor.submit(abs, -2)
    server.is_cut_off = True
    ask(executor)
    ask(executor)
    server.run(first.session_id)
    look(executor)

    assert (first.result(timeout=0), second.done()) == (1, False)
    assert len(caplog.records) == 1


def test_a_future_runs_when_its_session_does(executor, server):
    future = executor.submit(abs, 1)
    ask(executor)
    assert not future.running()

    server.sessions[future.session_id]["status"] = "RUNNING"
    ask(executor)
    assert future.running()


def test_a_call_that_waits_is_cancelled_and_everybody_hears_of_it(executor, server):
    future = executor.submit(abs, 1)

    assert future.cancel()
    assert future.cancel()
    assert futures.wait([future], timeout=0).done == {future}
    assert server.asked.count("cancel") == 1


@pytest.mark.parametrize("is_known", [True, False])
def test_a_call_that_runs_is_not_cancelled(executor, server, is_known):
    future = executor.submit(abs, 1)
    server.sessions[future.session_id]["status"] = "RUNNING"
    if is_known:
        ask(executor)

    assert not future.cancel()
    assert "cancel" not in server.asked


def test_a_call_that_runs_can_be_stopped(executor, server):
    future = executor.submit(abs, 1)
    future.stop()
    server.die(future.session_id, "USER_REQUESTED")
    ask(executor)

    with pytest.raises(SessionDiedError, match="somebody cancelled it"):
        future.result(timeout=0)


def test_a_call_that_ended_is_not_cancelled(executor, server):
    future = executor.submit(abs, -1)
    server.run(future.session_id)
    look(executor)

    assert not future.cancel()
    assert future.result() == 1


# --- the executor ---------------------------------------------------------------------------------


def test_its_sessions_have_what_was_typed(server, monkeypatch):
    monkeypatch.setenv("KEPT", "kept")
    executor = Executor(
        cpu=0.5,
        mem="4G",
        gpu=2,
        gpu_mem="40G",
        time="1h",
        group="g",
        priority=7,
        name="mine",
        env={"ADDED": "a"},
        options={"requeue": True},
        python="/usr/bin/python3",
    )
    executor.submit(abs, 1)

    said = server.sessions["s0"]["submitted"]
    assert (said["cpu_milli"], said["mem_bytes"], said["gpu_shares"]) == (500, 4 << 30, 2000)
    assert (said["gpu_mem_bytes_min"], said["walltime_s"]) == (40 << 30, 3600)
    assert (said["scaling_group"], said["priority"], said["name"]) == ("g", 7, "mine")
    assert (said["env"]["ADDED"], said["env"]["KEPT"], said["requeue"]) == ("a", "kept", True)
    assert said["command"][:4] == ("/usr/bin/python3", "-u", "-m", "sokovan.client.worker")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"cpu": "many"}, "cpu"),
        ({"mem": "4 apples"}, "mem"),
        ({"options": {"kernels": 2}}, "options"),
    ],
)
def test_what_cannot_be_meant_is_refused(server, options, field):
    with pytest.raises(InvalidRequestError) as caught:
        Executor(**options)

    assert caught.value.field == field


def test_a_directory_that_cannot_be_used_is_named(server):
    with pytest.raises(InvalidRequestError, match="every agent"):
        Executor(directory="/proc/nowhere")


def test_after_its_end_it_takes_no_call_and_leaves_no_file(server):
    with Executor() as executor:
        executor.submit(abs, 1)
        root = executor._spool.root
        executor.shutdown(wait=False, cancel_futures=True)

    assert not root.exists()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(abs, 1)


def test_a_decorated_function_is_called_here_and_as_sessions(executor, server):
    @executor.remote
    def double(number):
        """Twice as much."""
        return double.__wrapped__(number) if number is None else 2 * number

    future, results = double.submit(2), double.map([3, 4])
    server.run_all()
    look(executor)

    assert (double(1), double.__doc__) == (2, "Twice as much.")
    assert (future.result(timeout=0), list(results)) == (4, [6, 8])


# --- files ----------------------------------------------------------------------------------------


def test_nothing_is_read_that_another_user_could_have_written(tmp_path):
    made = Spool.made_below(tmp_path)
    file = made.put_call("0", "f", b"", path=[])
    made.get_call("0")

    file.chmod(0o620)
    with pytest.raises(CallError, match="0 is not read"):
        made.get_call("0")
    file.chmod(0o600)
    made.root.chmod(0o710)
    with pytest.raises(CallError, match="mode 0700"):
        made.get_call("0")
    made.root.chmod(0o700)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CallError, match="cannot be read"):
        made.get_call("0")


def test_what_another_python_pickled_is_not_read(executor, server, monkeypatch):
    future = executor.submit(abs, -1)
    monkeypatch.setitem(spool.VERSIONS, "python", "2.7")
    server.run(future.session_id)
    monkeypatch.undo()
    look(executor)

    with pytest.raises(CallError, match=r"python 2\.7, and here is python 3"):
        future.result(timeout=0)


def test_a_session_whose_program_is_gone_says_so(executor, server, capsys):
    future = executor.submit(abs, -1)
    file = server.sessions[future.session_id]["submitted"]["command"][-1]
    executor._spool.forget("0")

    assert worker.main(spool.Path(file)) == 1
    assert "the program that submitted this has ended" in capsys.readouterr().err


def test_a_session_finds_the_modules_that_its_program_finds(
    executor, server, monkeypatch, tmp_path
):
    (tmp_path / "of_the_user.py").write_text("def answer(): return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from of_the_user import answer

    future = executor.submit(answer)
    monkeypatch.undo()
    del sys.modules["of_the_user"]
    server.run(future.session_id)
    look(executor)

    assert future.result(timeout=0) == 42


def test_its_files_are_its_users_alone(executor):
    executor.submit(abs, 1)

    for path in [executor._spool.root, *executor._spool.root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_uid == os.geteuid()
