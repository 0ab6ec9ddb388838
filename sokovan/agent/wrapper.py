"""The shell text that runs every kernel, and what it is started with.

The wrapper is the parent of the command, leads its session, and outlives the agent. Its file `run`
gets three lines, each of them one `echo`: its own line of /proc (so that a later agent knows this
very process again), `started` once nothing can keep the command from being run, and the command's
status. A file with fewer lines says exactly how far it came. The file is made only where there is
none, so that one token never runs twice, whatever two agents may do.
"""

# These calls are made for every kernel, and pathlib takes longer than they do.
# ruff: noqa: PTH116, PTH118

import errno
import os
import signal
import stat
import sys
from collections.abc import Iterable, Mapping

from sokovan.agent import become
from sokovan.agent.output import STREAMS
from sokovan.agent.runtime import StartFailedError
from sokovan.agent.users import User, acting_as
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Device
from sokovan.outside import SERVICE_VARIABLE, TOKEN_VARIABLE
from sokovan.scheduler.messages import KernelToStart

_BEFORE = """\
sokovan_dir=$1
shift
set -C
exec 3>"$sokovan_dir/run" >>"$sokovan_dir/stdout" 2>>"$sokovan_dir/stderr" || exit 125
read -r sokovan_line </proc/$$/stat && echo "$sokovan_line" >&3 || exit 125
trap : TERM INT HUP QUIT
sokovan_status=0
exec 4>&2 2>/dev/null
(
    exec 2>&4 4>&-
"""
_STEPS = """\
    sokovan_mask=$1 sokovan_cwd=$2 sokovan_data=$3 sokovan_gates=$4
    shift 4
    while [ "$sokovan_gates" -gt 0 ]; do
        echo 0 >|"$1" || exit 125
        shift
        sokovan_gates=$((sokovan_gates - 1))
    done
    cd "$sokovan_cwd" || exit 125
    unset OLDPWD
    if [ "$sokovan_data" -gt 0 ]; then ulimit -S -d "$sokovan_data" || exit 125; fi
    umask "$sokovan_mask"
    echo started >&3 || exit 125
    exec "$@" 3>&-
"""
_AFTER = """\
) || sokovan_status=$?
echo "$sokovan_status" >&3
exit "$sokovan_status"
"""
WRAPPER = _BEFORE + _STEPS + _AFTER
"""Its variables have names that no environment has: an exported one would reach the command.

Its own stderr is closed off while it waits: a shell remarks on a child that a signal has ended.
The limit of memory is one that can be lifted again: by a server that the command starts.
"""
WRAPPER_OF_OTHERS = _BEFORE + '    exec "$@"\n' + _AFTER
"""For kernels of other users: it stays root, so that they can neither end it nor write for it, and
leaves the steps to another program, which becomes the user.
"""
BECOME = (sys.executable, "-I", "-S", become.__file__)
SHELL = "/bin/sh"
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_RESET = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
_RESET += [signal.SIGPIPE, signal.SIGXFSZ]
_PERMANENT = {
    errno.E2BIG: "its command line and environment are too long for this machine",
    errno.EINVAL: "its command line or environment cannot be passed on",
}


def find(command: tuple[str, ...], path: str, cwd: str) -> str:
    """Find what a command runs, so that an error is exact and comes before the start.

    Args:
        command: The program, as a name or a path, and its arguments.
        path: The PATH it is looked for on.
        cwd: The absolute directory it will run in.

    Returns:
        The program's absolute path.

    Raises:
        StartFailedError: The directory or the command is not there, or may not be used.
    """
    try:
        is_directory = stat.S_ISDIR(os.stat(cwd).st_mode)
    except OSError as error:
        raise _refusal(f"{cwd}: {error.strerror}", EndReason.DIRECTORY_NOT_FOUND) from error
    except ValueError as error:
        raise _refusal(f"{cwd!r}: {error}", EndReason.DIRECTORY_NOT_FOUND) from error
    if not is_directory or not _may_execute(cwd):
        what = "may not be entered" if is_directory else "is not a directory"
        raise _refusal(f"{cwd}: {what}", EndReason.DIRECTORY_NOT_FOUND)
    if not command or not command[0]:
        raise _refusal("no command was given", EndReason.COMMAND_NOT_FOUND)
    name = command[0]
    places = [""] if "/" in name else path.split(":")
    found = ""
    for place in places:
        candidate = os.path.join(cwd, place, name)
        try:
            if not stat.S_ISREG(os.stat(candidate).st_mode):
                found = found or f"{candidate}: not a file that can be run"
            elif _may_execute(candidate):
                return candidate
            else:
                found = f"{candidate}: permission to execute it is missing"
        except (OSError, ValueError):
            continue
    if not found:
        where = "" if "/" in name else " on the PATH of the session"
        raise _refusal(f"{name}: not found{where}", EndReason.COMMAND_NOT_FOUND)
    raise _refusal(found, EndReason.COMMAND_NOT_EXECUTABLE)


def environment(order: KernelToStart, devices: Iterable[Device]) -> dict[str, str]:
    """Return all that a kernel finds in its environment.

    Args:
        order: Its order; its variables come first, ours win.
        devices: What the agent has. With none, CUDA_VISIBLE_DEVICES is left as submitted.
    """
    env = dict(order.env)
    env.pop(SERVICE_VARIABLE, None)  # no kernel is an agent or a server
    env["SOKOVAN_SESSION_ID"] = order.session_id
    env["SOKOVAN_KERNEL_ID"] = order.kernel_id
    env[TOKEN_VARIABLE] = order.token
    env["SOKOVAN_KERNEL_INDEX"] = str(order.index)
    env["SOKOVAN_KERNEL_ROLE"] = order.role
    env["SOKOVAN_KERNEL_COUNT"] = str(order.kernel_count)
    env["SOKOVAN_SESSION_NAME"] = order.name
    env.setdefault("PATH", DEFAULT_PATH)  # else every shell would have an idea of its own
    names = {device.index: device.uuid or str(device.index) for device in devices}
    if names:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(
            names.get(index, str(index)) for index, _ in order.devices
        )
    return env


def directory(order: KernelToStart) -> str:
    """Return the absolute directory a kernel runs in."""
    return os.path.join("/", order.cwd)


def spawn(
    order: KernelToStart,
    *,
    folder: str,
    env: Mapping[str, str],
    gates: list[str],
    data_bytes_max: int = 0,
    user: User | None = None,
) -> int:
    """Start the wrapper of a kernel.

    Args:
        order: What to run.
        folder: The kernel's directory, where `run`, `stdout` and `stderr` go.
        env: The complete environment.
        gates: Files of control groups to join.
        data_bytes_max: Most private memory of each process; 0 means no limit.
        user: Whose kernel it is; `None` is the agent's own user.

    Returns:
        The wrapper's pid.

    Raises:
        StartFailedError: It does not run.
    """
    cwd = directory(order)
    with acting_as(user):
        program = find(order.command, env["PATH"], cwd)
    name, *arguments = order.command
    if name.startswith("-"):  # `exec` would take it for an option
        name = program
    mask, data = f"{order.umask:04o}", str(data_bytes_max // 1024)
    joining = [str(len(gates)), *gates]
    if user is None:
        argv = [SHELL, "-c", WRAPPER, "sokovan", folder, mask, cwd, data, *joining]
    else:
        argv = [SHELL, "-c", WRAPPER_OF_OTHERS, "sokovan", folder, *BECOME, str(user.uid)]
        argv += [str(user.gid), ",".join(map(str, user.groups)), mask, data, *joining]
        argv += [cwd, program]
        env = _passed({**user.environment(env), "PWD": cwd})
    argv += [name, *arguments]
    try:
        if user is not None:
            _give_output(folder, user)
        # Faster than subprocess. The agent stands still until the child has become the shell, so
        # whatever the wrapper can do itself, it does: umask, directory, output.
        return os.posix_spawn(
            SHELL,
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=_RESET,
        )
    except OSError as error:
        if error.errno in _PERMANENT:
            raise _refusal(_PERMANENT[error.errno], EndReason.COMMAND_NOT_EXECUTABLE) from error
        raise StartFailedError(f"it could not be started: {error.strerror}") from error
    except ValueError as error:  # a NUL, or a name with `=`
        raise _refusal(
            f"its command or environment cannot be passed on: {error}",
            EndReason.COMMAND_NOT_EXECUTABLE,
        ) from error


def _may_execute(path: str) -> bool:
    return os.access(path, os.X_OK, effective_ids=True)


def _passed(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that is safe for root: what is another's is only carried along.

    The directory it was left for is not, as in other kernels.
    """
    passed = {f"{become.PASSED}{n}": value for n, value in env.items() if n != "OLDPWD"}
    return {TOKEN_VARIABLE: env[TOKEN_VARIABLE], **passed}


def _give_output(folder: str, user: User) -> None:
    """Make the files of output the user's, who can then open /dev/stdout, as any other owner can.

    They lie where the user cannot go: no other way leads to them.
    """
    for stream in STREAMS:
        fd = os.open(f"{folder}/{stream}", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.fchown(fd, user.uid, user.gid)
        finally:
            os.close(fd)


def _refusal(message: str, reason: EndReason) -> StartFailedError:
    return StartFailedError(message, permanent=True, reason=reason)
