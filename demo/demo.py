"""A tour of Sokovan in under a minute: real sessions, in a home that is cleared away after.

Everything shown is the `sokovan` command, run as a user would run it.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOKOVAN = Path(sys.executable).with_name("sokovan")
CORES = len(os.sched_getaffinity(0))


def main() -> int:
    """Run the tour."""
    home = tempfile.mkdtemp(prefix="sokovan-demo-")
    os.environ.update(SOKOVAN_HOME=home, COLUMNS="110")
    for elsewhere in ("SOKOVAN_URL", "SOKOVAN_TOKEN"):
        os.environ.pop(elsewhere, None)
    try:
        tour()
        return 0
    except subprocess.CalledProcessError as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        print((Path(home) / "server.log").read_text(errors="replace")[-2000:], file=sys.stderr)
        return 1
    finally:
        subprocess.run([SOKOVAN, "down"], check=False)
        shutil.rmtree(home, ignore_errors=True)


def tour() -> None:
    """Show a success, a failure, a wait that explains itself, and a session of two kernels."""
    say("A session that succeeds: output comes to you, and so does the exit code.")
    sokovan("run", "--name", "hello", "--", "sh", "-c", "echo hello from $SOKOVAN_SESSION_ID")

    say("A session that fails with code 3, and its way through the eight statuses.")
    sokovan("run", "--name", "fails", "--", "sh", "-c", "echo oops >&2; exit 3", expect=3)
    sokovan("history", "@")

    say("A session that takes every core, and one that has to wait for it. Why?")
    busy = "sleep 4; echo big is done"
    sokovan("submit", "--name", "big", "--cpu", str(CORES), "--", "sh", "-c", busy)
    sokovan("submit", "--name", "small", "--cpu", "1", "--", "echo", "small had its turn")
    sokovan("ls")
    sokovan("why", "@")
    sokovan("wait", "@")
    sokovan("logs", "@~1")
    sokovan("logs", "@")

    say("One session, two kernels: `main` decides when it is over.")
    each = "echo kernel $SOKOVAN_KERNEL_INDEX of $SOKOVAN_KERNEL_COUNT is $SOKOVAN_KERNEL_ROLE"
    words = ["--name", "pair", "--kernels", "2", "--cpu", str(min(0.5, CORES / 2))]
    sokovan("run", *words, "--", "sh", "-c", f"{each}; sleep 1")

    say("One submission, many tasks: a sweep over two parameters, which is one line to look at.")
    sweep = ["--param", "lr=0.1,0.01", "--param", "bs=32,64", "--", "echo", "lr={lr} bs={bs}"]
    sokovan("submit", "--name", "sweep", "--cpu", "0.1", *sweep)
    sokovan("wait", "@")
    sokovan("ls", "-a", "--name", "sweep")
    sokovan("logs", "@")

    say("A request that no agent could ever fit is refused at once, with the numbers.")
    sokovan("submit", "--cpu", str(CORES + 100), "--", "true", expect=4)

    say("All of it, and the machine it ran on.")
    sokovan("ls", "-a")
    sokovan("agents")


def say(text: str) -> None:
    """Announce a part of the tour."""
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def sokovan(*words: str, expect: int = 0) -> None:
    """Show a command, run it, show what it prints; it must end with the code `expect`."""
    print(f"\n$ sokovan {shlex.join(words)}", flush=True)
    done = subprocess.run([SOKOVAN, *words], check=False)
    if expect:
        print(f"(exit code {done.returncode})", flush=True)
    if done.returncode != expect:
        raise subprocess.CalledProcessError(done.returncode, ["sokovan", *words])


if __name__ == "__main__":
    raise SystemExit(main())
