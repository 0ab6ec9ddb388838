"""Servers and agents that a session starts: no part of it, so that its end is not theirs.

A session may be what starts a server: its script submits another one while none runs. Whatever a
kernel's processes start is the kernel's, and is killed with it, but for these: they are started
without the variables of the kernel and with one of their own, by which agents know them; and right
at their start they leave the kernel's control groups and its limit on memory. Where they may not,
they do not start. Sessions of another home are left alone: what they start stays theirs. Decision
0012 says what else there was to choose from.
"""

import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

from sokovan.domain.errors import InsideSessionError

TOKEN_VARIABLE = "SOKOVAN_KERNEL_TOKEN"  # noqa: S105 (the name of a variable, not a secret)
"""Set for kernels, and for whatever they start."""
SERVICE_VARIABLE = "SOKOVAN_SERVICE"
"""Set for servers in the background and for agents: the directory of their home's agents."""
STARTED_BY_VARIABLE = "SOKOVAN_STARTED_BY"
"""The token of the kernel that started a server or an agent."""
KERNEL_VARIABLES = frozenset(
    {
        TOKEN_VARIABLE,
        "SOKOVAN_SESSION_ID",
        "SOKOVAN_SESSION_NAME",
        "SOKOVAN_KERNEL_ID",
        "SOKOVAN_KERNEL_INDEX",
        "SOKOVAN_KERNEL_ROLE",
        "SOKOVAN_KERNEL_COUNT",
    }
)
LEAF = "sokovan"
"""The group to go to where the one above ours may have no processes (version 2)."""


def environment(agents: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server or an agent that is started from here.

    Args:
        agents: The directory of its home's agents.
        env: The environment of whoever starts it, perhaps a kernel's.
    """
    service = {**env, SERVICE_VARIABLE: os.fspath(agents.resolve())}
    token = env.get(TOKEN_VARIABLE, "")
    if _is_kernel_of(agents, token):
        service = {name: value for name, value in service.items() if name not in KERNEL_VARIABLES}
        service[STARTED_BY_VARIABLE] = token
    return service


def leave(
    agents: Path, *, mount: str = "/sys/fs/cgroup", own: Path = Path("/proc/self/cgroup")
) -> None:
    """Leave whatever session of this home this process, a server or an agent, was started by.

    Args:
        agents: The directory of its home's agents.
        mount: Where control groups are mounted.
        own: Says which groups this process is in.

    Raises:
        InsideSessionError: It may not; it would be killed together with that session.
    """
    for hierarchy, path in _kernel_groups(agents, own):
        _enter_above(f"{mount}/{hierarchy}".rstrip("/"), path)
    if next(_kernel_groups(agents, own), None) is not None:
        raise _refusal()
    if STARTED_BY_VARIABLE in os.environ:
        _lift_limit()


def _is_kernel_of(agents: Path, token: str) -> bool:
    """Say whether a kernel of this home has that token, and has not been filed away."""
    if not token or "/" in token:
        return False
    return any((directory / "kernels" / token).is_dir() for directory in agents.glob("*"))


def _kernel_groups(agents: Path, own: Path) -> Iterator[tuple[str, str]]:
    """Yield each kernel's group that this process is in: its hierarchy, and what ours are below."""
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        parts = path.split("/")
        for depth, part in enumerate(parts):
            if part.startswith("k-") and _is_kernel_of(agents, part.removeprefix("k-")):
                hierarchy = controllers.partition(",")[0].removeprefix("name=")
                yield hierarchy, "/".join(parts[: depth - 1])
                break


def _enter_above(root: str, path: str) -> None:
    """Enter the group that ours were made in, or one of its own below it, where that is allowed."""
    above = Path(root + path)
    if not above.is_dir():  # not visible from inside some containers
        above = Path(root)
    for group in (above, above / LEAF):
        try:
            group.mkdir(exist_ok=True)
            (group / "cgroup.procs").write_text("0")
        except OSError:
            continue
        return


def _lift_limit() -> None:
    """Do without the limit on memory that kernels have where no control group limits it."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _refusal() -> InsideSessionError:
    return InsideSessionError(
        "no server runs, and this session may not start one that outlives it: its control group"
        " cannot be left; start it outside of any session: sokovan up"
    )
