"""A program of its own: become a user, and run a command as that user.

The shell of a kernel's wrapper executes it, as root, where the kernel is another user's. It takes
the same steps in the same order as that shell takes for a kernel of the agent's own user, and
between them gives up being root for good. Whatever can fail does so before `started` is written.

It is run by path in an interpreter of its own, for every such kernel, so it imports little; and
everything at its beginning, as the user may not be able to read what Python is made of. Nobody of
the user's can look into it: the system lets no user trace a process that has changed its user and
executed nothing since, so it may still have the file `run` open.
"""

import ctypes
import errno
import posix
import resource
import sys
from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal  # type: ignore[import-not-found]
from collections.abc import Sequence

PASSED = "SOKOVAN_PASSED_"
"""Before the name of each variable that is meant for the command. So long as this is root, they
must mean nothing: not to the dynamic linker, nor to a shell, nor to Python."""
RUN_FD = 3
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
SHELL = "/bin/sh"
_CAPABILITY_VERSION = 0x20080522
_INHERITABLE = (2, 5)
"""Where they are in what the system tells: effective, permitted, inheritable ones, each twice."""
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}
_JOIN_SESSION_KEYRING = 1


def main(argv: Sequence[str]) -> None:
    """Become a user and execute a command; return only by failing.

    Args:
        argv: Its user and group, all its groups, its umask, its limit of memory in KiB or 0, how
            many files of control groups to join and these; then the directory to enter, the
            absolute path of the program, and the command as it was given.
    """
    uid, gid, groups, mask, data_kib, count, *rest = argv
    gates = rest[: int(count)]
    cwd, program, *command = rest[len(gates) :]
    head = PASSED.encode()
    ours = (n for n in posix.environ if n.startswith(head) and n != head)
    env = {name.removeprefix(head): posix.environ[name] for name in ours}
    doing = "it could not join its control group"
    try:
        for gate in gates:
            fd = posix.open(gate, posix.O_WRONLY)
            posix.write(fd, b"0")
            posix.close(fd)
        doing = f"it could not become the user {uid}"
        become(int(uid), int(gid), [int(group) for group in groups.split(",")])
        doing = cwd
        posix.chdir(cwd)
        doing = "it could not be limited"
        posix.umask(int(mask, 8))
        for number in (SIGPIPE, SIGXFSZ):  # Python ignores them
            signal(number, SIG_DFL)
        if data_bytes := int(data_kib) * 1024:
            _limit_memory(data_bytes)
        posix.write(RUN_FD, b"started\n")
        posix.close(RUN_FD)
    except (OSError, ValueError) as error:
        _fail(f"{doing}: {getattr(error, 'strerror', error)}", FAILED)
    try:
        _execute(program, command, env)
    except OSError as error:
        status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
        _fail(f"{program}: {error.strerror}", status)


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Become a user, with no way back, and with nothing of root's.

    A change of user takes all capabilities away but the inheritable ones, and leaves the keyring of
    the session, which would be shared by all kernels. Not every machine has either.

    Raises:
        OSError: The system refuses, or there is a way back.
    """
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        for index in _INHERITABLE:
            sets[index] = 0
        libc.capset(header, sets)
    if keyctl := _KEYCTL.get(posix.uname().machine):
        libc.syscall(keyctl, _JOIN_SESSION_KEYRING, None)
    posix.setgroups(groups)
    posix.setresgid(gid, gid, gid)
    posix.setresuid(uid, uid, uid)
    try:
        posix.setuid(0)
    except PermissionError:
        return
    raise OSError(errno.EPERM, "it would stay root")


def _limit_memory(data_bytes: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, hard))


def _execute(program: str, command: list[str], env: dict[bytes, bytes]) -> None:
    try:
        posix.execve(program, command, env)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    posix.execve(SHELL, [SHELL, program, *command[1:]], env)  # a script without a first line


def _fail(message: str, status: int) -> None:
    posix.write(2, f"sokovan: {message}\n".encode(errors="surrogateescape"))
    posix._exit(status)  # noqa: SLF001 (it is its name)


if __name__ == "__main__":
    main(sys.argv[1:])
