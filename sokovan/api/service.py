"""What the server can do for its users, apart from how they ask for it.

Every answer is JSON-able: the same object that the API sends and the command prints with `--json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sokovan.domain.access import Caller
from sokovan.domain.sessions import SessionSpec
from sokovan.scheduler.messages import OutputChunk

View = dict[str, Any]


class Service(Protocol):
    """The requests that users may make.

    `ref` is a session id, or a prefix that only one has, or `@` for the caller's last submitted
    session and `@~2` for the one two before. Everybody sees the shape of every session; its
    command, directory, output and errors are for its owner and for administrators, and so is
    changing it.

    Raises:
        SokovanError: With a stable code, for everything that is the request's fault.
    """

    async def submit(self, specs: Sequence[SessionSpec], *, caller: Caller) -> list[View]:
        """Accept sessions, all or none; they are on disk when this returns.

        A dependency named `#0` means the first session of the same submission.
        """
        ...

    async def sessions(
        self,
        *,
        caller: Caller,
        live_only: bool = True,
        statuses: Sequence[str] = (),
        owner: str | None = None,
        name: str | None = None,
        scaling_group: str | None = None,
        array: str | None = None,
        tasks: bool = True,
        limit: int = 1000,
        cursor: str | None = None,
        sort: str = "-number",
    ) -> View:
        """List sessions, newest first: `{"items": [...], "next_cursor": str | None}`.

        With `array`, only tasks of that array, or of a part of it; without `tasks`, none.
        """
        ...

    async def session(self, ref: str, *, caller: Caller) -> View:
        """Return one session."""
        ...

    async def history(self, ref: str, *, caller: Caller) -> list[View]:
        """Return every recorded change of a session and its kernels, oldest first.

        Items: `at, session_id, kernel_id, from_status, to_status, reason, detail, stage`.
        """
        ...

    async def why(self, ref: str, *, caller: Caller, suggest: bool = False) -> View:
        """Explain where a session stands: `session`, `sentence`, `code` and `facts`.

        With `suggest`, `suggestions` say what would start a waiting one now; otherwise it is null.
        """
        ...

    async def eta(self, ref: str, *, caller: Caller) -> View:
        """Say when a session should start, or has started.

        `session`, `starts_at`, `ends_at`, `not_before`, `reserved`, `agents`, `sentence`,
        `position` and `queue_length`.
        """
        ...

    async def dry_run(
        self, specs: Sequence[SessionSpec], *, caller: Caller, suggest: bool = False
    ) -> list[View]:
        """Say what would become of sessions, were they submitted together now; nothing changes.

        Each: `accepted`, `starts_now`, `agents`, `sentence`, `code`, `facts`, `eta` and
        `suggestions`.
        """
        ...

    async def cancel(self, ref: str, *, caller: Caller, force: bool = False) -> View:
        """Ask for a session's end: `session` and `outcome`.

        The outcome is `cancelled`, `terminating` or `already-ended`.
        """
        ...

    async def set_held(self, ref: str, *, caller: Caller, held: bool) -> View:
        """Hold a waiting session back, or release it; return the session."""
        ...

    async def wait(self, ref: str, *, caller: Caller, timeout_s: float) -> View:
        """Return the session once it has ended, or as it is after `timeout_s`."""
        ...

    async def output(
        self,
        ref: str,
        *,
        caller: Caller,
        kernel_index: int = 0,
        stream: str = "stdout",
        offset: int = 0,
        bytes_max: int = 1 << 20,
        wait_s: float = 0.0,
    ) -> OutputChunk:
        """Read a kernel's output; empty, with `ended` false, while there is no kernel yet.

        A negative offset counts from the end. Waits up to `wait_s` for something to answer.
        """
        ...

    async def ready(self) -> None:
        """Return if the server can do its work.

        Raises:
            StoreUnavailableError: It cannot.
        """
        ...

    async def status(self) -> View:
        """Return pid, version, address, uptime and counts: `sessions` and `agents` by status."""
        ...

    async def overview(self, *, caller: Caller, limit: int) -> View:
        """Return all at a glance, at most `limit` of each kind: what `sokovan top` shows.

        `status`, `capacity`, `held`, `agents`, `placed` sessions and `waiting` ones, the latter
        as `session`, `position`, `queue_length`, `starts_at` and `reserved`.
        """
        ...

    async def agents(self) -> list[View]:
        """Return every agent with capacity, what is held, what is free, and status."""
        ...

    async def set_drained(
        self, agent: str, *, caller: Caller, drained: bool, reason: str = ""
    ) -> View:
        """Give an agent no new kernels, or some again; return the agent.

        `agent` is an id, or a name that only one has.
        """
        ...

    async def set_labels(
        self, agent: str, changes: Mapping[str, str | None], *, caller: Caller
    ) -> View:
        """Change what an administrator says of an agent; `None` takes a label away.

        `agent` is an id, or a name that only one has.
        """
        ...

    async def remove_agent(self, agent: str, *, caller: Caller, force: bool = False) -> View:
        """Forget an agent that is GONE, with `force` its leftovers too; return what it was."""
        ...


SESSION_FIELDS: Mapping[str, str] = {
    "id": "session id",
    "name": "name given by the user",
    "owner": "user name",
    "status": "session status",
    "result": "UNDEFINED, SUCCESS or FAILURE",
    "reason": "why it ended; while it waits, why it waits; otherwise null",
    "priority": "0 to 100",
    "scaling_group": "name of the group",
    "agents": "names of the agents its kernels are on",
    "exit_code": "of the main kernel; null until known",
    "created_at": "RFC 3339 UTC",
    "started_at": "RFC 3339 UTC or null",
    "ended_at": "RFC 3339 UTC or null",
    "kernels": "list of kernels: id, role, index, status, agent, token, exit_code, reason, error, "
    "cpu_milli, mem_bytes, gpu_shares, gpu_mem_bytes_min, devices, started_at, ended_at",
    "command": "list of strings; null for those who may not see it",
    "cwd": "working directory; null for those who may not see it",
    "cpu_milli": "milli-cores that each kernel asks for",
    "mem_bytes": "bytes that each kernel asks for",
    "gpu_shares": "shares that each kernel asks for: 1000 is a whole device",
    "gpu_mem_bytes_min": "memory that each of its devices must have",
    "status_since": "RFC 3339 UTC",
    "number": "order of acceptance",
    "walltime_s": "seconds or null",
    "pending_timeout_s": "seconds or null",
    "begin_at": "RFC 3339 UTC or null",
    "held": "whether its user holds it back",
    "requeue": "whether it goes back to PENDING when its agent is lost",
    "requeues": "how often it went back to PENDING",
    "retries": "how many new sessions may follow a failure by exit code",
    "array_id": "the array that it is a task of; null where it is none",
    "array_index": "its index there",
    "retry_of": "session id or null",
    "depends_on": "list of {session_id, kind}, those not met yet",
    "where": "where its kernels may go, what is said of it: mode, kernels_per_agent_max, same, "
    "constraints, agents, prefer, exclude, spread_with, pack_with; null when they may go anywhere",
    "wait": "while it waits: {code, sentence, facts, since}; otherwise null",
}
"""The stable fields of a session, for the reference."""
