"""The `sokovan` command with a real server, a real agent and real processes."""

import contextlib
import json
import os
import platform
import pty
import pwd
import re
import select
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from tests import warm
from tests.control_groups import clear_control_groups

pytestmark = [pytest.mark.real, pytest.mark.slow]

DEADLINE_S = 60.0
ANSI = re.compile(r"\x1b\[[0-9;]*m")
STABLE = {
    "id",
    "name",
    "owner",
    "status",
    "result",
    "reason",
    "priority",
    "scaling_group",
    "agents",
    "exit_code",
    "created_at",
    "started_at",
    "ended_at",
    "kernels",
}
WAY = [
    "PENDING",
    "SCHEDULED",
    "PREPARING",
    "PREPARED",
    "CREATING",
    "RUNNING",
    "TERMINATING",
    "TERMINATED",
]


def until(condition, what):
    """Return what `condition` gives as soon as it is true."""
    for _ in range(int(DEADLINE_S / 0.05)):
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    return pytest.fail(f"{what} did not happen within {DEADLINE_S:.0f} s")


class Place:
    """A home of its own, the commands given to it, and the end of all its processes."""

    def __init__(self):
        # A short path: the agent's socket lies below it.
        self.path = Path(tempfile.mkdtemp(prefix="sk-", dir="/tmp"))
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("SOKOVAN_")}
        self.env |= {"SOKOVAN_HOME": str(self.path), "NO_COLOR": "1"}
        self._started = []

    def argv(self, *args):
        return [sys.executable, "-m", "sokovan", *args]

    def __call__(self, *args, code=0, env=None, stdin=""):
        """Run a command to its end."""
        env = self.env | (env or {})
        done = warm.run(args, env, stdin=stdin, timeout_s=DEADLINE_S)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def start(self, *args, env=None, **more):
        """Start a command and leave it running."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            self.argv(*args), env=self.env | (env or {}), start_new_session=True, **(pipes | more)
        )
        self._started.append(process)
        return process

    def json(self, *args, code=0):
        return json.loads(self(*args, "--json", code=code).stdout)

    def submit(self, *args):
        return self("submit", *args).stdout.strip()

    def show(self, ref):
        return self.json("show", ref)

    def until_status(self, ref, *wanted):
        def there():
            session = self.show(ref)
            return session if session["status"] in wanted else None

        return until(there, f"{ref} in {wanted}")

    @property
    def server_pid(self):
        return json.loads((self.path / "server.json").read_text())["pid"]

    def kill_server(self):
        pid = self.server_pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid), f"the end of {pid}")

    def processes(self):
        """Yield the processes that have this home on their command line or in their environment."""
        mark = os.fsencode(self.path)
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if mark in said and is_alive(int(entry.name)):
                    yield int(entry.name)

    def clean_up(self):
        def killed():
            left = list(self.processes())
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            clear_control_groups(self.path)
            return not left

        until(killed, f"the end of everything in {self.path}")
        for process in self._started:
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        shutil.rmtree(self.path)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def shared():
    """A home for tests that do nothing to the server."""
    place = Place()
    until(lambda: place.json("agents"), "an agent")
    yield place
    place.clean_up()


@pytest.fixture
def own():
    """A home for this test alone."""
    place = Place()
    yield place
    place.clean_up()


# --- run ------------------------------------------------------------------------------------------


def test_run_prints_what_the_command_prints_and_exits_with_its_code(shared):
    done = shared("run", "--", "sh", "-c", "echo hi; echo oops >&2; exit 3", code=3)

    assert (done.stdout, done.stderr) == ("hi\n", "oops\n")


def test_run_needs_no_dashes_before_a_plain_command(shared):
    assert shared("run", "echo", "--json", "-x").stdout == "--json -x\n"


def test_a_second_pair_of_dashes_belongs_to_the_command(shared):
    done = shared("run", "--", "sh", "-c", 'printf "%s " "$@"', "sh", "a", "--", "b")

    assert done.stdout == "a -- b "


def test_run_hands_on_large_output_whole(shared):
    done = shared("run", "--", "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x")

    assert len(done.stdout) == 5_000_000


def test_a_session_is_where_it_was_submitted(shared, tmp_path):
    done = subprocess.run(
        shared.argv("run", "--env", "ADDED=a b", "--", "sh", "-c", "pwd; umask; echo $ADDED $KEPT"),
        env=shared.env | {"KEPT": "kept"},
        cwd=tmp_path,
        umask=0o027,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.stdout.splitlines() == [str(tmp_path), "0027", "a b kept"]


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        (["/nonexistent/program"], 127, "COMMAND_NOT_FOUND"),
        (["no-such-program-anywhere"], 127, "COMMAND_NOT_FOUND"),
        (["/etc/passwd"], 126, "COMMAND_NOT_EXECUTABLE"),
    ],
)
def test_a_command_that_cannot_run_gives_the_code_a_shell_gives(shared, command, code, reason):
    done = shared("run", "--", *command, code=code)

    assert done.stdout == ""
    assert reason in done.stderr


def test_a_directory_that_is_not_there_is_said(shared):
    done = shared("run", "--cwd", "/nonexistent", "--", "true", code=125)

    assert "DIRECTORY_NOT_FOUND" in done.stderr


def test_a_signal_is_128_and_its_number(shared):
    shared("run", "--", "sh", "-c", "kill -9 $$", code=137)


def test_several_kernels_have_their_numbers_before_their_lines(shared):
    done = shared("run", "--cpu", "0.1", "--kernels", "2", "--", "sh", "-c", "echo one; echo two")

    assert sorted(done.stdout.splitlines()) == ["[0] one", "[0] two", "[1] one", "[1] two"]


def test_run_in_json_is_lines_of_output_and_the_session(shared):
    done = shared("run", "--json", "--", "sh", "-c", "printf '\\303\\251'; exit 1", code=1)

    *pieces, session = [json.loads(line) for line in done.stdout.splitlines()]
    assert pieces == [{"kernel": 0, "stream": "stdout", "offset": 0, "text": "é"}]
    assert (session["status"], session["exit_code"]) == ("TERMINATED", 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_terminal_a_signal_cancels(shared, number):
    running = shared.start(
        "run", "--name", f"cancel-{number}", "--", "sh", "-c", "echo on; sleep 600"
    )
    assert running.stdout.readline() == b"on\n"

    running.send_signal(number)

    running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 128 + number
    (session,) = shared.json("ls", "-a", "--name", f"cancel-{number}")
    assert (session["status"], session["reason"]) == ("TERMINATED", "USER_REQUESTED")


class Terminal:
    """A command whose stdin, stdout and stderr are a terminal."""

    def __init__(self, place, *args):
        self._ours, its = pty.openpty()
        env = {"TERM": "xterm", "COLUMNS": "100"}
        self.process = place.start(*args, stdin=its, stdout=its, stderr=its, env=env)
        os.close(its)
        self._seen = b""

    def until(self, text):
        """Read on until `text` was shown, and return all that was."""
        for _ in range(1000):
            if text.encode() in self._seen:
                return self._seen.decode()
            if not select.select([self._ours], [], [], DEADLINE_S)[0]:
                break
            try:
                self._seen += os.read(self._ours, 65536)
            except OSError:  # Linux says so when nobody holds the other end any more
                break
        return pytest.fail(f"{text!r} was not shown, only {self._seen!r}")

    def press(self, keys):
        os.write(self._ours, keys.encode())

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def end(self):
        code = self.process.wait(DEADLINE_S)
        os.close(self._ours)
        return code


def test_ctrl_c_on_a_terminal_lets_one_detach(shared):
    terminal = Terminal(shared, "run", "--name", "left", "--", "sh", "-c", "echo on; sleep 600")
    terminal.until("on\r\n")

    terminal.interrupt()
    terminal.until("[d]etach")
    terminal.press("d\n")

    terminal.until("sokovan logs -f")
    assert terminal.end() == 130
    (session,) = shared.json("ls", "--name", "left")
    assert session["status"] == "RUNNING"
    shared("cancel", session["id"])


def test_a_second_ctrl_c_on_a_terminal_cancels(shared):
    terminal = Terminal(shared, "run", "--name", "ended", "--", "sh", "-c", "echo on; sleep 600")
    terminal.until("on\r\n")

    terminal.interrupt()
    terminal.until("[d]etach")
    terminal.interrupt()

    assert terminal.end() == 130
    (session,) = shared.json("ls", "-a", "--name", "ended")
    assert session["reason"] == "USER_REQUESTED"


def test_enter_after_ctrl_c_stays_with_the_session(shared, tmp_path):
    terminal = Terminal(shared, "run", "--", *waits_for(tmp_path / "go", "exit 6"))
    terminal.until("on\r\n")

    terminal.interrupt()
    terminal.until("[d]etach")
    terminal.press("\n")
    (tmp_path / "go").touch()

    assert terminal.end() == 6


def test_a_terminal_shows_where_a_session_stands_until_it_begins(shared):
    terminal = Terminal(shared, "run", "--hold", "--name", "stands", "--", "echo", "begun")

    terminal.until("is held back")
    (session,) = shared.json("ls", "--name", "stands")
    shared("release", session["id"])
    shown = terminal.until("begun\r\n")

    assert terminal.end() == 0
    assert shown.endswith("\r\x1b[Kbegun\r\n")


def test_top_gives_the_terminal_back_as_it_was(shared):
    held = shared.submit("--hold", "--name", "on-top", "--", "true")
    terminal = Terminal(shared, "top", "--every", "0.5")

    terminal.until("on-top")
    terminal.press("q")

    assert terminal.until("\x1b[?1049l").startswith("\x1b[?1049h")
    assert terminal.end() == 0
    shared("cancel", held)


def test_a_job_file_is_run(shared, tmp_path):
    job = tmp_path / "job.toml"
    job.write_text('command = "echo $WHO $1; pwd"\ncwd = "."\n[env]\nWHO = "ann"\n')

    done = shared("run", str(job), "--env", "WHO=ben", "--", "2")

    assert done.stdout == f"ben 2\n{tmp_path}\n"
    printed = shared("submit", "--print", str(job), "--", "2").stdout
    assert shared("run", "--file", "-", code=0, stdin=printed).stdout == f"ann 2\n{tmp_path}\n"


def test_a_list_on_a_terminal_fits_its_width(shared):
    held = shared.submit("--hold", "--name", "n" * 200, "--", "true")
    terminal = Terminal(shared, "ls", "--owner", pwd.getpwuid(os.geteuid()).pw_name)

    shown = terminal.until("PENDING")

    assert terminal.end() == 0
    assert "nnn…" in shown
    assert max(map(len, ANSI.sub("", shown).splitlines())) <= 100
    shared("cancel", held)


def test_a_second_signal_kills_what_ignores_the_first(shared):
    script = "trap '' TERM INT; echo on; while :; do sleep 1; done"
    running = shared.start("run", "--name", "stubborn", "--grace", "10m", "--", "sh", "-c", script)
    assert running.stdout.readline() == b"on\n"

    running.send_signal(signal.SIGTERM)
    until(lambda: shared.json("ls", "--name", "stubborn")[0]["status"] != "RUNNING", "a cancel")
    time.sleep(0.5)  # what comes sooner is taken for an echo of the first
    running.send_signal(signal.SIGTERM)

    running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 143


def test_a_reader_that_goes_away_ends_the_session(shared):
    endless = shared.argv(
        "run", "--name", "piped", "--", "sh", "-c", "while echo y; do sleep 0.01; done"
    )

    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shlex.join(endless)} | head -n 1"],
        env=shared.env,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("y\n", 141)
    (session,) = shared.json("ls", "-a", "--name", "piped")
    assert session["status"] == "TERMINATED"


def test_run_says_why_it_waits(shared):
    holder = shared.submit("--cpu", "0", "--", "sleep", "600")
    running = shared.start("run", "--depends-on", holder, "--", "echo", "done")

    note = running.stderr.readline().decode()
    shared("cancel", holder)
    _, rest = running.communicate(timeout=DEADLINE_S)

    assert holder in note
    assert running.returncode == 125
    assert b"DEPENDENCY_FAILED" in rest


def test_the_errors_of_run_itself_are_125(shared):
    assert "amount" in shared("run", "--cpu", "many", "--", "true", code=125).stderr
    assert "priority" in shared("run", "--priority", "999", "--", "true", code=125).stderr
    shared("run", code=125)


# --- submit, and looking at it --------------------------------------------------------------------


def test_a_session_goes_the_whole_way_and_history_shows_it(shared):
    done = shared("submit", "--name", "tour", "--", "sh", "-c", "exit 0")
    session_id = done.stdout.strip()

    assert session_id in done.stdout
    assert done.stderr == ""  # what to do next is for people: there is no terminal
    assert shared.json("wait", session_id)["result"] == "SUCCESS"
    changes = shared.json("history", session_id)
    assert [item["to_status"] for item in changes if item["kernel_id"] is None] == WAY
    text = shared("history", session_id).stdout
    assert all(status in text for status in WAY)


def test_what_a_session_did_is_in_the_metrics(shared):
    shared("run", "--", "true")
    url = json.loads((shared.path / "server.json").read_text())["url"]
    token = (shared.path / "token").read_text().strip()

    assert httpx.get(f"{url}/readyz").text == "ready\n"
    answer = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {token}"})
    counts = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if line[0] != "#")
    success = 'group="default",reason="SELF_TERMINATED",result="SUCCESS"'
    started = 'group="default",outcome="success",stage="start-sessions"'
    assert float(counts[f"sokovan_sessions_ended_total{{{success}}}"]) >= 1
    assert float(counts[f"sokovan_stage_outcomes_total{{{started}}}"]) >= 1
    assert float(counts["sokovan_store_commit_jobs_count"]) >= 1


def test_a_header_without_an_end_is_not_waited_for(shared):
    shared("status")
    server = json.loads((shared.path / "server.json").read_text())["url"]
    host, _, port = server.removeprefix("http://").rpartition(":")

    with socket.create_connection((host, int(port)), timeout=30) as talk:
        talk.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-Long: " + b"a" * 200_000)
        answer = talk.recv(1000)

    assert answer.startswith(b"HTTP/1.1 431 ")


def test_a_session_has_its_stable_fields(shared):
    session_id = shared.submit("--name", "fields", "--cpu", "0.5", "--mem", "64M", "--", "true")

    session = shared.json("wait", session_id)

    assert session.keys() >= STABLE
    assert (session["name"], session["exit_code"], session["reason"]) == (
        "fields",
        0,
        "SELF_TERMINATED",
    )
    (kernel,) = session["kernels"]
    assert (kernel["cpu_milli"], kernel["mem_bytes"]) == (500, 64 * 2**20)
    assert session["created_at"] <= session["started_at"] <= session["ended_at"]
    assert session["created_at"].endswith("Z")


def test_show_names_what_matters(shared):
    session_id = shared.submit("--name", "shown", "--", "sh", "-c", "exit 7")
    shared("wait", session_id, code=7)

    text = shared("show", session_id).stdout

    assert session_id in text
    assert "KERNEL_FAILED" in text
    assert "sh -c 'exit 7'" in text


def test_ls_shows_live_sessions_and_all_of_them_when_asked(shared):
    live = shared.submit("--name", "listed", "--hold", "--", "true")
    ended = shared.submit("--name", "listed", "--", "true")
    shared("wait", ended)

    assert [s["id"] for s in shared.json("ls", "--name", "listed")] == [live]
    assert [s["id"] for s in shared.json("ls", "-a", "--name", "listed")] == [ended, live]
    header, line = shared("ls", "--name", "listed").stdout.splitlines()
    assert header.split()[:4] == ["ID", "NAME", "STATUS", "REASON"]
    assert line.split()[1:4] == ["listed", "PENDING", "HELD"]
    shared("cancel", live)


def test_prefixes_and_at_signs_name_sessions(own):
    ids = [own.submit("--", "true") for _ in range(3)]

    assert own.show("@")["id"] == ids[2]
    assert own.show("@~2")["id"] == ids[0]
    assert own.show(ids[1][:8])["id"] == ids[1]
    assert own.json("wait", "@", "@~1")[1]["id"] == ids[1]
    assert "error: " in own("show", "@~3", code=3).stderr
    assert "error: " in own("show", "zzzz", code=3).stderr


def test_a_session_that_must_wait_says_for_what(shared):
    session_id = shared.submit("--cpu", "10000", "--allow-infeasible", "--", "true")

    answer = shared.json("why", session_id)

    assert answer["code"] == "NEVER_FITS"
    assert "10000 cores" in answer["sentence"]
    assert "10000 cores" in shared("why", session_id).stdout
    shared("cancel", session_id)


def test_logs_come_from_their_streams(shared):
    session_id = shared.submit(
        "--", "sh", "-c", "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done"
    )
    shared("wait", session_id)

    whole = shared("logs", session_id)
    tail = shared("logs", "--tail", "2", session_id)
    only = shared("logs", "--stream", "stderr", "--tail", "1", session_id)
    followed = shared("logs", "-f", session_id)

    assert whole.stdout == "".join(f"out {i}\n" for i in range(1, 6))
    assert whole.stderr == "".join(f"err {i}\n" for i in range(1, 6))
    assert (tail.stdout, tail.stderr) == ("out 4\nout 5\n", "err 4\nerr 5\n")
    assert (only.stdout, only.stderr) == ("", "err 5\n")
    assert followed.stdout == whole.stdout
    (piece,) = map(json.loads, shared("logs", "--json", "--tail", "1", "--stream", "stdout",
                                      session_id).stdout.splitlines())  # fmt: skip
    assert piece == {"kernel": 0, "stream": "stdout", "offset": 24, "text": "out 5\n"}


def test_the_logs_of_a_session_that_never_ran_are_empty(shared):
    session_id = shared.submit("--hold", "--", "true")
    shared("cancel", session_id)

    assert shared("logs", "-f", session_id).stdout == ""


def test_wait_gives_up_when_told_to_and_hands_on_the_code(shared):
    session_id = shared.submit("--hold", "--", "sh", "-c", "exit 5")

    shared("wait", "--timeout", "0.2", session_id, code=124)
    shared("release", session_id)
    shared("wait", session_id, code=5)


def test_hold_and_release(shared):
    session_id = shared.submit("--begin", "+1h", "--", "true")

    assert shared.json("hold", session_id)["held"] is True
    assert shared.json("release", session_id)["held"] is False
    shared("cancel", session_id)
    assert "error: " in shared("hold", session_id, code=4).stderr


def test_a_waiting_session_is_edited_and_submitted_again(shared, tmp_path):
    first = shared.submit("--hold", "--env", "MARK=kept", "--", "sh", "-c", "echo $MARK; exit $#")

    shared("edit", first, "--priority", "50", "--time", "1h", "--exclude", "nobody", code=4)
    shared("edit", first, "--priority", "50", "--time", "1h", "--constraint", "agent=local")
    shared("edit", first, code=2)
    shown = shared.show(first)
    shared("cancel", first)
    late = shared("edit", first, "--priority", "60", code=4)
    again = shared("redo", first).stdout.strip()

    assert (shown["priority"], shown["walltime_s"]) == (50, 3600)
    assert shown["where"] == {"constraints": ["agent=local"]}
    assert "is CANCELLED; only a PENDING one can be edited" in late.stderr
    shared("wait", again)
    assert shared("logs", again).stdout == "kept\n"
    assert shared.show(again)["priority"] == 50
    reasons = [line["reason"] for line in shared.json("history", again)]
    assert reasons[:3] == ["submitted", "submitted", "submitted-again"]


def test_a_running_session_ends_when_its_walltime_is_made_shorter(shared):
    session_id = shared.submit("--time", "1h", "--", "sleep", "600")
    shared.until_status(session_id, "RUNNING")

    shared("edit", session_id, "--time", "1s")

    shared("wait", session_id, code=143)
    assert shared.show(session_id)["reason"] == "WALLTIME_EXCEEDED"


def test_cancel_says_what_became_of_it(shared):
    waiting = shared.submit("--hold", "--", "true")
    running = shared.submit("--", "sleep", "600")
    shared.until_status(running, "RUNNING")

    assert shared.json("cancel", waiting)["outcome"] == "cancelled"
    assert shared.json("cancel", "--force", running)["outcome"] == "terminating"
    assert shared.json("wait", running, code=137)["reason"] == "USER_REQUESTED"
    assert shared.json("cancel", running)["outcome"] == "already-ended"
    assert "ended already" in shared("cancel", running).stdout


def test_a_dependency_may_be_named_by_prefix(shared):
    first = shared.submit("--", "sh", "-c", "exit 1")
    after = shared.submit("--depends-on", f"afterany:{first[:9]}", "--", "true")
    never = shared.submit("--depends-on", first[:9], "--", "true")

    assert shared.json("wait", after)["result"] == "SUCCESS"
    assert shared.json("wait", never, code=125)["reason"] == "DEPENDENCY_FAILED"


def test_the_walltime_ends_a_session(shared):
    done = shared("run", "--time", "1s", "--", "sleep", "600", code=143)

    assert "WALLTIME_EXCEEDED" in done.stderr


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (["--group", "nowhere"], "scaling_group"),
        (["--cpu", "100000"], "cores"),
        (["--priority", "101"], "priority"),
        (["--time", "0"], "walltime_s"),
        (["--kernels", "100000"], "kernels"),
        (["--limit", "no-such-stage=10s"], "no-such-stage"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_field(shared, args, field):
    done = shared("submit", *args, "--", "true", code=4)
    problem = json.loads(shared("submit", "--json", *args, "--", "true", code=4).stderr)

    assert done.stderr.startswith("error: ")
    assert field in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert problem["status"] == 422
    assert field in problem["detail"]


@pytest.mark.parametrize("args", [["--cpu", "x"], ["--env", "A"], ["--begin", "soon"], ["--nope"]])
def test_what_cannot_be_read_is_a_usage_error(shared, args):
    done = shared("submit", *args, "--", "true", code=2)

    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


# --- the server -----------------------------------------------------------------------------------


def test_status_and_agents_describe_what_is_there(shared):
    held = shared.submit("--hold", "--", "true")

    found = shared.json("status")
    (agent,) = shared.json("agents")
    shared("cancel", held)

    assert found["pid"] == shared.server_pid
    assert found["sessions"]["PENDING"] >= 1
    assert str(found["pid"]) in shared("status").stdout
    assert agent["status"] == "ALIVE"
    assert agent["name"] in shared("agents").stdout


def test_status_and_down_start_nothing(own):
    assert "no server runs" in own("status", code=5).stderr
    assert "no server runs" in own("down").stdout
    assert own.json("down") == {"stopped": False, "pid": None, "live_sessions": []}
    assert list(own.path.iterdir()) == []


def waits_for(file, then):
    """Return a command that goes on when a file is there."""
    return ["sh", "-c", f"echo on; until [ -e {file} ]; do sleep 0.05; done; {then}"]


def test_sessions_go_on_without_the_server(own, tmp_path):
    go = tmp_path / "go"
    session_id = own.submit("--name", "survivor", "--", *waits_for(go, "exit 9"))
    own.until_status(session_id, "RUNNING")
    pid = own.server_pid

    stopped = own("down")

    assert f"pid {pid}" in stopped.stdout
    assert "survivor" in stopped.stdout
    assert not is_alive(pid)
    go.touch()
    own("wait", session_id, code=9)
    assert own.server_pid != pid
    assert own("logs", session_id).stdout == "on\n"


def test_a_killed_server_loses_nothing(own, tmp_path):
    go = tmp_path / "go"
    session_id = own.submit("--", *waits_for(go, "exit 9"))
    own.until_status(session_id, "RUNNING")
    own.kill_server()

    assert own.show(session_id)["status"] == "RUNNING"
    go.touch()
    own("wait", session_id, code=9)
    assert own("logs", session_id).stdout == "on\n"


def test_run_goes_on_when_the_server_is_killed(own):
    script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done; exit 4"
    running = own.start("run", "--", "sh", "-c", script)
    assert running.stdout.readline() == b"1\n"

    own.kill_server()

    out, _ = running.communicate(timeout=DEADLINE_S)
    assert out == b"2\n3\n4\n5\n6\n"
    assert running.returncode == 4


def test_run_ends_when_the_server_is_stopped_and_starts_no_other(own):
    running = own.start("run", "--", "sh", "-c", "echo on; sleep 600")
    assert running.stdout.readline() == b"on\n"

    own("down")

    _, said = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 125
    assert b"the server was stopped" in said
    own("status", code=5)


def test_many_first_commands_start_one_server(own):
    started = [own.start("submit", "--", "true") for _ in range(6)]

    for process in started:
        _, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, said
    assert len(own.json("ls", "-a")) == 6
    assert (own.path / "server.log").read_text().count("already runs") == 0


def test_the_foreground_server_says_where_it_is_and_heeds_a_signal(own):
    server = own.start("up")
    line = next(line for line in server.stdout if b"Ctrl-C" in line).decode()

    assert f"pid {server.pid}" in line
    assert own.json("status")["pid"] == server.pid
    assert "already runs" in own("up", code=4).stderr
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=DEADLINE_S)
    assert server.returncode == 0


def test_a_port_that_is_taken_is_said(own):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        foreground = own("up", "--port", str(port), code=4)
        background = own("ls", code=5, env={"SOKOVAN_API_PORT": str(port)})

    assert str(port) in foreground.stderr
    assert str(port) in background.stderr
    assert "address-in-use" in background.stderr


def test_a_home_that_is_no_directory_is_said(own):
    file = own.path / "file"
    file.write_text("")

    for command in (["ls"], ["submit", "--", "true"], ["up"]):
        assert "is not a directory" in own("--home", str(file), *command, code=5).stderr
    assert "error: " in own("ls", "--home", str(file / "below"), code=5).stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_said(own):
    own.path.chmod(0o500)

    assert "cannot be written" in own("ls", code=5).stderr
    own.path.chmod(0o700)


def test_a_home_that_others_can_write_is_refused(own):
    own.path.chmod(0o777)

    assert "chmod 700" in own("ls", code=5).stderr


def test_a_configuration_that_makes_no_sense_is_said(own):
    (own.path / "config.toml").write_text("[scheduler]\nhint = 1\n")

    assert "no such setting" in own("up", code=4).stderr
    assert "no such setting" in own("ls", code=5).stderr


def _contents(store):
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return list(connection.iterdump())


def test_a_store_of_a_newer_version_is_said_and_left_alone(own):
    own("submit", "--hold", "--", "true")
    own("down")
    store = own.path / "sokovan.db"
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = _contents(store)

    assert "a newer Sokovan has used it" in own("up", code=4).stderr
    assert "schema-too-new" in own("ls", code=5).stderr
    assert _contents(store) == before


# --- the store ------------------------------------------------------------------------------------


def test_the_store_can_be_checked_while_the_server_works(own):
    running = own.submit("--", "sleep", "600")
    held = own.submit("--hold", "--", "true")
    own("wait", own.submit("--", "true"))
    own.until_status(running, "RUNNING")
    busy = [own.start("run", "--cpu", "0.1", "--", "true") for _ in range(3)]

    seen = [own.json("db", "check") for _ in range(5)]

    for process in busy:
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
    assert [found["violations"] for found in seen] == [[]] * 5
    last = own.json("db", "check")
    assert (last["sessions"], last["holds"], last["agents"]) == (6, 1, 1)
    assert own.show(running)["status"] == "RUNNING"
    own("cancel", "--force", running, held)


def test_the_check_of_a_store_starts_no_server_and_finds_what_is_wrong(own):
    own("wait", own.submit("--", "true"))
    own("down")
    before = {path.name for path in own.path.iterdir()}

    assert own("db", "check").stdout.endswith("all is well\n")
    with contextlib.closing(sqlite3.connect(own.path / "sokovan.db")) as connection:
        connection.execute("DELETE FROM history WHERE to_status = 'RUNNING'")
        connection.commit()
    found = own("db", "check", code=1).stdout.splitlines()

    assert "history has a gap before" in found[0]
    assert found[-1].endswith("things are wrong")
    assert {path.name for path in own.path.iterdir()} == before
    assert own("status", code=5).stdout == ""


# --- groups ---------------------------------------------------------------------------------------


def test_a_group_made_by_command_drives_sessions_and_outlives_the_server(own):
    own("groups", "create", "night", "order=lifo", "ageing_s=1h")
    own("groups", "create", "night", code=4)
    own("groups", "set", "default", "kernels_max=1")
    own("groups", "set", "default", "order=best", code=4)
    own("groups", "show", "nowhere", code=3)
    own("down")
    (own.path / "config.toml").write_text('[[agents]]\nname = "n"\nscaling_group = "night"\n')

    until(lambda: an_agent(own, "n")["status"] == "ALIVE", "n has come")

    assert own("run", "--group", "night", "--", "echo", "hi").stdout == "hi\n"
    own("run", "--kernels", "2", "--", "true", code=125)
    policy = own.json("groups", "show", "night")["policy"]
    assert policy["ageing_s"] == {"value": 3600, "source": "groups set"}
    assert "config.toml puts the agent n into" in own("groups", "rm", "night", code=4).stderr
    lines = own("groups").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["GROUP", "default", "night"]


# --- agents out of service ------------------------------------------------------------------------

SOON_GONE = """
[scheduler]
agent_silence_s = 4.0
[groups.default]
agent_grace_s = 1.0
"""
LEFT = """
[[agents]]
name = "left"
cpu = "1"
gpus = "none"
heartbeat_s = 0.5
cut_off_stop_s = 4.0
"""
RIGHT = LEFT.replace("left", "right").replace('cpu = "1"', 'cpu = "2"')


def an_agent(place, name):
    (found,) = [agent for agent in place.json("agents") if agent["name"] == name]
    return found


def test_a_drained_agent_gets_nothing_new_whatever_restarts(own):
    (own.path / "config.toml").write_text(LEFT + RIGHT)
    until(lambda: len(own.json("agents")) == 2, "both agents")
    running = own.submit("--cpu", "2", "--", "sleep", "600")
    own.until_status(running, "RUNNING")

    assert (
        "1 kernel on it goes on" in own("agents", "drain", "right", "--reason", "new disk").stdout
    )
    waits = own.submit("--cpu", "2", "--", "true")
    own("run", "--", "true")  # there is another agent

    line = own("agents").stdout.splitlines()[2]
    assert line.split()[:2] == ["right", "ALIVE"]
    assert line.endswith("new disk")
    said = own("why", waits).stdout
    assert "waits for an agent that is drained: only right (new disk) could take it" in said
    assert "1 agent is drained: new disk" in said

    before = an_agent(own, "right")
    own.kill_server()
    for pid in own.processes():
        with contextlib.suppress(OSError):
            if b"sokovan.agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    after = until(
        lambda: (now := an_agent(own, "right"))["incarnation"] > before["incarnation"] and now,
        "right has joined again",
    )

    assert (after["drained_since"], after["drain_reason"]) == (before["drained_since"], "new disk")
    own("cancel", "--force", running)
    own("wait", running, code=137)
    assert own.show(waits)["reason"] == "AGENT_DRAINED"

    own("agents", "undrain", "right")

    own("wait", waits)
    assert own.show(waits)["agents"] == ["right"]
    assert "DRAINED" not in own("agents").stdout


def test_labels_come_from_the_settings_and_an_administrator_s_stay(own):
    labels = 'labels = {{rack = "r1", disk = "{disk}", os = "Debian 13"}}\n'
    (own.path / "config.toml").write_text(LEFT + labels.format(disk="ssd"))
    until(lambda: own.json("agents"), "the agent")
    assert own("agents", "label", "left", "rack=r2", "os-").stdout == "left has disk=ssd,rack=r2\n"
    running = own.submit("-C", "rack=r2", "--prefer", "left", "--", "sleep", "600")
    own.until_status(running, "RUNNING")

    own("down")
    (own.path / "config.toml").write_text(LEFT + labels.format(disk="nvme"))

    until(lambda: an_agent(own, "left")["labels"]["disk"] == "nvme", "the new settings")
    left = an_agent(own, "left")
    assert left["labels"] == {"disk": "nvme", "rack": "r2"}
    assert left["architecture"] == platform.machine()
    shown = own.show(running)
    assert shown["status"] == "RUNNING"  # it outlives the agent's change of settings
    assert shown["where"] == {"constraints": ["rack=r2"], "prefer": ["left"]}
    assert "--constraint: 'rack' is not" in own("submit", "-C", "rack", "--", "true", code=2).stderr
    assert "has no agent 'x'" in own("submit", "--agent", "x", "--", "true", code=4).stderr


def test_an_agent_that_is_gone_is_removed_and_may_come_back_as_a_new_one(own):
    config = own.path / "config.toml"
    config.write_text(SOON_GONE + LEFT + RIGHT)
    until(lambda: len(own.json("agents")) == 2, "both agents")
    done = own.submit("--cpu", "2", "--", "true")
    own("wait", done)
    own("agents", "drain", "right")
    assert "take it out of config.toml" in own("agents", "remove", "right", code=4).stderr
    assert "there is no agent" in own("agents", "remove", "middle", code=3).stderr

    own("down")
    config.write_text(SOON_GONE + LEFT)
    until(lambda: an_agent(own, "right")["status"] == "GONE", "right is given up")
    assert own("agents", "remove", "right").stdout == "right is forgotten\n"

    assert [agent["name"] for agent in own.json("agents")] == ["left"]
    assert own.show(done)["result"] == "SUCCESS"
    assert own.json("db", "check")["ok"]

    own("down")
    config.write_text(LEFT + RIGHT)
    right = until(lambda: len(own.json("agents")) == 2 and an_agent(own, "right"), "right is back")
    assert (right["status"], right["drained_since"], right["incarnation"]) == ("ALIVE", None, 1)


def test_an_agent_that_is_removed_while_it_hangs_joins_anew(own):
    (own.path / "config.toml").write_text(SOON_GONE + LEFT)
    own("run", "--", "true")
    (pid,) = (
        pid
        for pid in own.processes()
        if b"sokovan.agent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(pid, signal.SIGSTOP)
    until(lambda: an_agent(own, "left")["status"] == "GONE", "left is given up")
    own("agents", "remove", "left")
    assert own.json("agents") == []

    os.kill(pid, signal.SIGCONT)

    until(lambda: own.json("agents"), "left has joined again")
    assert own("run", "--", "echo", "hi").stdout == "hi\n"


def test_only_the_owner_can_read_what_is_secret(own):
    own("ls")

    for name in ("", "token", "server.json", "server.log"):
        assert (own.path / name).stat().st_mode & 0o077 == 0, name


def test_the_version_is_printed(own):
    assert own("--version").stdout.startswith("sokovan ")
