"""Completion as shells ask for it: with a real server, without one, and with one that hangs."""

import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from tests.end_to_end.test_command import Place, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

GIVES_UP_S = 15.0
"""An ordinary command would wait for longer than this."""


@pytest.fixture
def own():
    place = Place()
    yield place
    place.clean_up()


def offered(own, line, shell="bash"):
    """What is offered at the end of a line; nothing else may be printed."""
    asked = {"_SOKOVAN_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        asked |= {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run(
        [sys.executable, "-m", "sokovan"],
        env=own.env | asked,
        capture_output=True,
        text=True,
        timeout=GIVES_UP_S,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split() if shell == "bash" else done.stdout


def test_ids_and_names_complete_in_bash_and_zsh(own):
    until(lambda: own.json("agents"), "an agent")
    ended = own.submit("--name", "short", "--", "true")
    own("wait", ended)
    live = own.submit("--name", "long $(x)", "--", "sleep", "600")
    own.until_status(live, "RUNNING")

    assert offered(own, "sokovan show ") == [live, ended]
    assert offered(own, f"sokovan why {ended[:5]}") == [ended]
    assert offered(own, "sokovan cancel ") == [live]
    assert offered(own, f"sokovan wait {ended} ") == [live]
    assert offered(own, "sokovan logs -f lon") == [live]
    assert offered(own, "sokovan agents drain ") == ["local"]
    token = own.json("token", "create", "ann")["id"]
    assert offered(own, "sokovan token revoke ") == [token]
    assert offered(own, "sokovan ls --status run") == ["running"]
    assert offered(own, "sokovan ls --name ") == ["short"]
    assert f'"{live}":"RUNNING long __x_"' in offered(own, "sokovan show ", "zsh")

    os.kill(own.server_pid, signal.SIGSTOP)
    try:
        assert offered(own, "sokovan show ") == []
    finally:
        os.kill(own.server_pid, signal.SIGCONT)


def test_completion_starts_no_server(own):
    assert offered(own, "sokovan show ") == []
    assert offered(own, "sokovan ag") == ["agents"]
    assert offered(own, "sokovan submit --group ") == ["default"]
    assert list(own.path.iterdir()) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is what is tried")
def test_bash_completes_after_install_completion(own, tmp_path):
    shim = tmp_path / "bin/sokovan"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sokovan "$@"\n')
    shim.chmod(0o755)
    script = """
        sokovan --install-completion >/dev/null || exit
        source ~/.bashrc
        COMP_WORDS=(sokovan ls --status term); COMP_CWORD=3
        $(complete -p sokovan | sed 's/.*-F \\([^ ]*\\).*/\\1/') sokovan
        echo "${COMPREPLY[@]}"
    """

    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=own.env | {"HOME": str(tmp_path), "PATH": f"{shim.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ["terminating", "terminated"], done.stderr
