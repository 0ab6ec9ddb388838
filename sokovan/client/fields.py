"""The shapes of what a program says to the server, and of a piece of output."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Required, TypedDict

from sokovan.domain.errors import InvalidRequestError

View = dict[str, Any]
"""One thing, as the API describes it; `docs/reference/sessions.md` lists a session's fields."""
Views = list[View]
Setting = str | int | float
"""The value of a group's setting."""


class DependencyFields(TypedDict, total=False):
    """Another session to wait for."""

    session_id: Required[str]
    kind: str
    """`afterok` (the default), `afterany` or `afternotok`."""


class LimitFields(TypedDict, total=False):
    """How often a stage tries, and how long one of its phases may last."""

    attempts_max: int | None
    phase_s_max: float | None


class WhereFields(TypedDict, total=False):
    """Where a session's kernels may go; `docs/guides/choosing-where.md` explains it."""

    mode: str
    """`multi-node` (the default) or `single-node`."""
    kernels_per_agent_max: int | None
    same: str
    """A label of which all its agents have one value."""
    constraints: Sequence[str]
    """Such as `rack=r1|r2` or `mem_gpu>=40G`; all must be met."""
    agents: Sequence[str]
    """Only these, by name or id."""
    prefer: Sequence[str]
    exclude: Sequence[str]
    spread_with: Sequence[str]
    """Sessions by name or id."""
    pack_with: Sequence[str]


class SessionOptions(TypedDict, total=False):
    """What may be said of a session beside its command; what is left out has the API's default."""

    name: str
    owner: str
    scaling_group: str
    priority: int
    """0 to 100; the default is 10."""
    cpu_milli: int
    """Thousandths of a core for each kernel; the default is 1000."""
    mem_bytes: int
    gpu_shares: int
    """Thousandths of a GPU for each kernel: a multiple of 1000, or less than 1000."""
    gpu_mem_bytes_min: int
    kernels: int
    env: Mapping[str, str]
    """The whole environment; left out, it is this process's."""
    cwd: str
    """Left out, it is this process's."""
    umask: int
    """Left out, it is this process's."""
    walltime_s: float | None
    pending_timeout_s: float | None
    begin_at: str | None
    """RFC 3339, with its zone."""
    held: bool
    requeue: bool
    retries: int
    grace_s: float
    depends_on: Sequence[DependencyFields]
    """`#0` as a session id names the first session of the same submission."""
    where: WhereFields | None
    limits: Mapping[str, LimitFields]
    allow_infeasible: bool
    creation_id: str
    """The same one again yields the same session; left out, each call makes its own."""


class EditOptions(TypedDict, total=False):
    """What may be changed of a session that waits; what is left out stays, `None` is none."""

    name: str
    priority: int
    cpu_milli: int
    mem_bytes: int
    gpu_shares: int
    gpu_mem_bytes_min: int
    walltime_s: float | None
    """Of a session that runs, only this may be changed."""
    pending_timeout_s: float | None
    begin_at: str | None
    requeue: bool
    retries: int
    grace_s: float
    where: WhereFields | None
    """What is left out of it stays, too; `None` takes back all that was said."""
    allow_infeasible: bool


class RedoOptions(EditOptions, total=False):
    """What is to be different when a session is submitted again."""

    scaling_group: str
    held: bool
    creation_id: str
    """The same one again yields the same session; left out, each call makes its own."""


class SessionFields(SessionOptions, total=False):
    """A session to submit."""

    command: Required[Sequence[str]]


class ArrayFields(TypedDict, total=False):
    """What makes a session an array of them."""

    indexes: str | None
    """Such as `0-999`, `0-100:5` or `1,3,7`; without `params`."""
    params: Mapping[str, Sequence[str]] | None
    """The values of each parameter; the first one changes slowest."""
    running_max: int | None
    """How many tasks may be at work at once."""


class EventOptions(TypedDict, total=False):
    """Which events are asked for; what is left out lets all through."""

    session: str | None
    """An id, a prefix that only one id has, `@`, or `@~2`."""
    owner: str | None
    group: str | None
    name: str | None
    kinds: Sequence[str]
    """Such as `session.running`; `session` and `kernel` stand for all of theirs."""


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of a kernel's output."""

    data: bytes
    offset: int
    """Where `data` begins, in bytes from the start of the stream."""
    size: int
    """How long the stream is by now."""
    ended: bool
    """Whether the kernel is over, so that nothing will follow `size`."""

    @property
    def end(self) -> int:
        """Where `data` ends: the offset to read on from."""
        return self.offset + len(self.data)

    @property
    def is_last(self) -> bool:
        """Whether nothing is left to read."""
        return self.ended and self.end >= self.size


OF_A_TASK = ("SOKOVAN_ARRAY_", "SOKOVAN_PARAM_")
"""How the variables begin that only a task of an array has."""


def captured() -> SessionOptions:
    """Return what a session takes from this process unless it says otherwise.

    Variables of the environment that are not UTF-8 are left out: the API could not carry them. So
    are those that tell a task of an array which one it is: what it submits is not that task.

    Raises:
        InvalidRequestError: The current directory was removed.
    """
    status = Path("/proc/self/status").read_text()  # os.umask() would have to change it
    umask = next(line.split()[1] for line in status.splitlines() if line.startswith("Umask:"))
    env = {
        name: value
        for name, value in os.environ.items()
        if is_utf8(name + value) and not name.startswith(OF_A_TASK)
    }
    try:
        cwd = str(Path.cwd())
    except OSError as error:
        raise InvalidRequestError(
            f"cwd: the current directory cannot be used ({error.strerror}); change to one that can",
            field="cwd",
        ) from None
    return {"env": env, "cwd": cwd, "umask": int(umask, 8)}


def is_utf8(text: str) -> bool:
    """Say whether a text from the operating system was UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
