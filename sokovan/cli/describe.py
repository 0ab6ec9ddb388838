"""Sessions, history and agents in words and columns, from what the API says of them."""

from collections.abc import Iterator, Mapping, Sequence
from shlex import join
from typing import Any

from sokovan.cli.text import Cell, Row, epoch, local_time
from sokovan.domain.quantities import format_duration, format_milli, format_size
from sokovan.domain.statuses import FINAL, SessionResult, SessionStatus

View = Mapping[str, Any]

SESSION_HEADERS = (
    "ID",
    "NAME",
    "STATUS",
    "REASON",
    "GROUP",
    "CPU",
    "MEM",
    "GPU",
    "AGENT",
    "AGE",
)
AGENT_HEADERS = ("AGENT", "STATUS", "GROUP", "CPU HELD", "MEM HELD", "GPU HELD", "KERNELS")
HISTORY_HEADERS = ("TIME", "WHAT", "FROM", "TO", "REASON", "DETAIL")
LEAST_OF_SESSIONS = ("GROUP", "MEM", "GPU", "CPU", "AGE", "AGENT", "NAME")
LEAST_OF_AGENTS = ("LABELS", "GROUP", "KERNELS", "MEM HELD", "GPU HELD", "DRAINED")
LEAST_OF_HISTORY = ("FROM", "WHAT", "DETAIL", "REASON")
"""What a narrow terminal does without, in this order."""
SHORT_ID = 8
"""Characters of an id in a table: nearly always a prefix that only one of a million has."""
UNSTARTED = frozenset(
    {
        SessionStatus.PENDING,
        SessionStatus.DEPRIORITIZING,
        SessionStatus.SCHEDULED,
        SessionStatus.PREPARING,
        SessionStatus.PREPARED,
        SessionStatus.CREATING,
    }
)
"""A session that has not begun."""
STYLES = {
    "PENDING": "yellow",
    "DEPRIORITIZING": "yellow",
    "SCHEDULED": "cyan",
    "PREPARING": "cyan",
    "PREPARED": "cyan",
    "CREATING": "cyan",
    "RUNNING": "green",
    "TERMINATING": "magenta",
    "CANCELLED": "dim",
    "ALIVE": "green",
    "LOST": "red",
    "GONE": "dim",
}


def short(session_id: str) -> str:
    """Return the part of an id that is shown in tables and may be typed."""
    return session_id[:SHORT_ID]


def status_cell(session: View) -> Cell:
    """Return a session's status with its colour; an ended one has that of its result."""
    status = session["status"]
    if status == "TERMINATED":
        return Cell(status, "" if session["result"] == SessionResult.SUCCESS else "red")
    return Cell(status, STYLES.get(status, ""))


def session_row(session: View, now: float) -> Row:
    """Return one line of `sokovan ls`."""
    return (
        short(session["id"]),
        session["name"] or "-",
        status_cell(session),
        outcome(session) or "-",
        session["scaling_group"],
        *session_amounts(session),
        ",".join(session["agents"]) or "-",
        format_duration(max(0, int(now - epoch(session["created_at"])))),
    )


def session_amounts(session: View) -> tuple[str, str, str]:
    """Write the cpu, memory and GPUs of all kernels of a session together."""
    cpu, mem, gpu = (
        sum(kernel[slot] for kernel in session["kernels"])
        for slot in ("cpu_milli", "mem_bytes", "gpu_shares")
    )
    return (
        format_milli(cpu),
        format_size(mem) if mem else "-",
        format_milli(gpu) if gpu else "-",
    )


def outcome(session: View) -> str:
    """Say why a session waits, or how it ended."""
    reason = session["reason"] or ""
    if session["status"] in FINAL and session["exit_code"]:
        return f"{reason} (exit {session['exit_code']})"
    return reason


def session_lines(session: View, now: float) -> Iterator[Row]:
    """Yield what `sokovan show` says, name and value."""
    yield "id", session["id"]
    if session["name"]:
        yield "name", session["name"]
    yield "status", Cell(f"{session['status']}", status_cell(session).style)
    if session["wait"]:
        yield "waits", session["wait"]["sentence"]
    elif session["reason"]:
        yield "reason", session["reason"]
    if session["status"] in FINAL:
        yield "result", session["result"]
    if session["exit_code"] is not None:
        yield "exit code", str(session["exit_code"])
    if session["command"] is not None:  # it is the caller's own
        yield "command", join(session["command"])
        yield "directory", session["cwd"]
    yield "owner", session["owner"]
    yield "group", session["scaling_group"]
    yield "priority", str(session["priority"])
    for name in ("created_at", "begin_at", "started_at", "ended_at"):
        if session.get(name):
            ago = format_duration(abs(int(now - epoch(session[name]))))
            when = f"in {ago}" if epoch(session[name]) > now + 1 else f"{ago} ago"
            yield name.removesuffix("_at"), f"{local_time(session[name])} ({when})"
    for name in ("walltime_s", "pending_timeout_s"):
        if session.get(name):
            yield name.removesuffix("_s").replace("_", " "), format_duration(session[name])
    yield from _special(session)
    for kernel in session["kernels"]:
        yield f"kernel {kernel['index']}", kernel_sentence(kernel)


def _special(session: View) -> Iterator[Row]:
    """Yield what few sessions have."""
    if session.get("held"):
        yield "held", f"yes; sokovan release {short(session['id'])} lets it go"
    if session.get("requeue"):
        yield "requeue", "when its agent is lost"
    if session.get("requeues"):
        yield "requeued", f"{session['requeues']} times"
    if session.get("retries"):
        yield "retries left", str(session["retries"])
    if session.get("array_id"):
        yield "task of", f"{session['array_id']}, with index {session['array_index']}"
    if session.get("retry_of"):
        yield "retry of", session["retry_of"]
    yield from where_lines(session.get("where") or {})
    for dependency in session.get("depends_on", ()):
        yield "depends on", f"{dependency['session_id']} ({dependency['kind']})"


def where_lines(where: View) -> Iterator[Row]:
    """Yield what a session says of where it may go, in the words of the options."""
    most = where.get("kernels_per_agent_max")
    for name, value in (
        ("mode", where.get("mode")),
        ("constraint", where.get("constraints")),
        ("agent", where.get("agents")),
        ("prefer", where.get("prefer")),
        ("exclude", where.get("exclude")),
        ("kernels per agent", f"at most {most}" if most else None),
        ("same", where.get("same")),
        ("spread with", where.get("spread_with")),
        ("pack with", where.get("pack_with")),
    ):
        if value:
            yield name, value if isinstance(value, str) else ", ".join(value)


def kernel_sentence(kernel: View) -> str:
    """Describe one kernel: status, place, what it was given, how it ended."""
    words = [f"{kernel['status']}, {kernel['role']}"]
    if kernel["agent"]:
        words.append(f"on {kernel['agent']}")
    words.append(amounts(kernel))
    if kernel["devices"]:
        words.append("devices " + ",".join(str(index) for index, _ in kernel["devices"]))
    if kernel["exit_code"] is not None:
        words.append(f"exit {kernel['exit_code']}")
    if kernel["error"]:
        words.append(kernel["error"])
    return "; ".join(words)


def amounts(view: View) -> str:
    """Write the amounts of a kernel: `1 cpu, 4G mem, 0.5 gpu`."""
    parts = [f"{format_milli(view['cpu_milli'])} cpu"]
    if view["mem_bytes"]:
        parts.append(f"{format_size(view['mem_bytes'])} mem")
    if view["gpu_shares"]:
        parts.append(f"{format_milli(view['gpu_shares'])} gpu")
    return ", ".join(parts)


def history_row(item: View) -> Row:
    """Return one line of `sokovan history`."""
    kernel = item["kernel_id"]
    return (
        local_time(item["at"], timespec="milliseconds"),
        "session" if kernel is None else f"kernel {kernel.rpartition('.')[2]}",
        item["from_status"] or "-",
        Cell(item["to_status"] or "-", STYLES.get(item["to_status"] or "", "")),
        item["reason"] or "-",
        item["detail"] or "",
    )


def agent_rows(agents: Sequence[View]) -> tuple[Sequence[str], list[Row]]:
    """Return what `sokovan agents` prints; labels and drains only where there are any."""
    headers: Sequence[str] = AGENT_HEADERS
    rows: list[Row] = [agent_row(agent) for agent in agents]
    if any(agent.get("labels") for agent in agents):
        headers = (*headers, "LABELS")
        rows = [(*row, labels_text(agent) or "-") for row, agent in zip(rows, agents, strict=True)]
    if any(agent["drained_since"] for agent in agents):
        headers = (*headers, "DRAINED")
        rows = [(*row, _drained_cell(agent)) for row, agent in zip(rows, agents, strict=True)]
    return headers, rows


def _drained_cell(agent: View) -> Cell:
    return Cell(agent["drain_reason"] or "yes", "yellow") if agent["drained_since"] else Cell("-")


def labels_text(agent: View) -> str:
    """Write an agent's labels: `rack=r1,zone=north`."""
    return ",".join(f"{name}={value}" for name, value in sorted(agent.get("labels", {}).items()))


def agent_row(agent: View) -> Row:
    """Return one line of `sokovan agents`: what is held, of how much."""
    held, capacity, devices = agent["held"], agent["capacity"], agent["devices"]
    shares = sum(device["shares_held"] for device in devices)
    return (
        agent["name"],
        Cell(agent["status"], STYLES.get(agent["status"], "")),
        agent["scaling_group"],
        f"{format_milli(held['cpu_milli'])}/{format_milli(capacity['cpu_milli'])}",
        f"{format_size(held['mem_bytes'])}/{format_size(capacity['mem_bytes'])}",
        f"{format_milli(shares)}/{len(devices)}" if devices else "-",
        str(agent["kernels"]) + (f" +{agent['leftovers']} leftover" if agent["leftovers"] else ""),
    )
