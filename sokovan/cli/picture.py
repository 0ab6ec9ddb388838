"""What `sokovan top` draws: totals, agents, what runs and what waits, as lines that fit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from sokovan.cli.describe import STYLES, outcome, session_amounts, short, status_cell
from sokovan.cli.progress import start
from sokovan.cli.screen import cut, paint, table
from sokovan.cli.text import Cell, epoch, local_time, plain
from sokovan.domain.quantities import format_duration, format_milli, format_size
from sokovan.domain.statuses import WAITING

View = Mapping[str, Any]

WIDE = 400
"""Where nothing is to be cut."""
BAR_FROM, LONG_BAR_FROM = 60, 100
"""Widths of a terminal from which on there are bars, and long ones."""
ROOMY = 20
"""With fewer lines than this nothing is left empty."""
ROWS_MIN = 2
"""Lines that a part has at least; where there is less room, the first is left out."""
AGENT_HEADERS = ("AGENT", "STATUS", "GROUP", "CPU", "MEM", "GPU", "KERNELS")
LEAST_OF_AGENTS = ("GROUP", "KERNELS", "STATUS", "MEM", "GPU")
PLACED_HEADERS = ("ID", "NAME", "OWNER", "STATUS", "CPU", "MEM", "GPU", "AGENT", "FOR", "LEFT")
LEAST_OF_PLACED = ("OWNER", "MEM", "GPU", "CPU", "AGENT", "NAME", "FOR")
WAITING_HEADERS = ("ID", "NAME", "OWNER", "PLACE", "STARTS", "CPU", "MEM", "GPU", "WHY")
LEAST_OF_WAITING = ("OWNER", "MEM", "GPU", "CPU", "NAME", "WHY", "PLACE")


def picture(
    seen: View,
    now: float,
    *,
    width: int,
    height: int | None,
    stream: TextIO,
    trouble: str = "",
) -> Iterator[str]:
    """Yield the lines of one picture.

    Args:
        seen: What the API says at `/v1/overview`.
        now: By the clock of the server, in seconds since the epoch.
        width: Cells of a line.
        height: Most lines; `None`: as many as there is to show.
        stream: Where they go: it has colours, or not.
        trouble: What keeps the picture from being up to date.
    """
    bar = _Bar(width, stream)
    head = [*_head(seen, now, bar, stream), *([paint(trouble, "red", stream)] if trouble else [])]
    counts = seen["status"]["sessions"]
    waiting_total = sum(count for status, count in counts.items() if status in WAITING)
    parts = [
        (
            AGENT_HEADERS,
            LEAST_OF_AGENTS,
            [_agent_row(agent, bar) for agent in seen["agents"]],
            sum(seen["status"]["agents"].values()),
        ),
        (
            PLACED_HEADERS,
            LEAST_OF_PLACED,
            [_placed_row(session, now) for session in seen["placed"]],
            sum(counts.values()) - waiting_total,
        ),
        (
            WAITING_HEADERS,
            LEAST_OF_WAITING,
            [_waiting_row(turn, now) for turn in seen["waiting"]],
            waiting_total,
        ),
    ]
    parts = [part for part in parts if part[2]]
    gap = [] if height is not None and height < ROOMY else [""]
    while True:
        over = len(head) + len(parts) * (1 + len(gap))
        room = sum(len(part[2]) for part in parts) if height is None else height - over
        if room >= ROWS_MIN * len(parts) or len(parts) <= 1:
            break
        del parts[0]  # what waits is what one looks for
    lines = list(head)
    shares = _shares([len(rows) for _, _, rows, _ in parts], room)
    for (headers, least, rows, total), many in zip(parts, shares, strict=True):
        shown = rows if total <= many else rows[: max(1, many - 1)]
        plain_rows = [[_cell(item) for item in row] for row in shown]
        lines += [*gap, *table(headers, plain_rows, stream, least=least, room=width)]
        if total > len(shown):
            lines.append(paint(f"and {total - len(shown)} more", "dim", stream))
    yield from lines if height is None else lines[:height]


def _head(seen: View, now: float, bar: "_Bar", stream: TextIO) -> Iterator[str]:
    status = seen["status"]
    up = format_duration(status["uptime_s"])
    clock = local_time_of(now)
    yield cut(f"sokovan {status['version']}  {clock}  up {up}  {status['address']}", bar.room)
    capacity, held = seen["capacity"], seen["held"]
    amounts = [bar.milli("cpu", held["cpu_milli"], capacity["cpu_milli"])]
    amounts.append(bar.bytes("mem", held["mem_bytes"], capacity["mem_bytes"]))
    if capacity["gpu_shares"]:
        amounts.append(bar.milli("gpu", held["gpu_shares"], capacity["gpu_shares"]))
    yield cut("  ".join(amounts), bar.room)
    words = [f"{count} {name}" for name, count in status["sessions"].items() if count]
    agents = [f"{count} {name}" for name, count in status["agents"].items() if count]
    agents += [f"{status['drained']} drained"] if status["drained"] else []
    agents += [f"{status['leftovers']} leftovers"] if status["leftovers"] else []
    said = [f"sessions: {', '.join(words) or 'none'}", f"agents: {', '.join(agents) or 'none'}"]
    whole = "; ".join(said)
    for line in [whole] if len(whole) <= bar.room else said:
        yield paint(cut(line, bar.room), "bold", stream)


def local_time_of(now: float) -> str:
    """Return a time as this machine's clock shows it, without the day."""
    from datetime import UTC, datetime

    return local_time(datetime.fromtimestamp(now, UTC).isoformat()).partition(" ")[2]


class _Bar:
    """Draws how much of something is held, as wide as there is room for."""

    def __init__(self, room: int, stream: TextIO) -> None:
        self.room = room
        self._length = 0 if room < BAR_FROM else 5 if room < LONG_BAR_FROM else 10
        is_unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self._full, self._empty = ("█", "░") if is_unicode else ("#", ".")

    def milli(self, name: str, held: int, total: int) -> str:
        return self._drawn(name, held, total, f"{format_milli(held)}/{format_milli(total)}")

    def bytes(self, name: str, held: int, total: int) -> str:
        return self._drawn(name, held, total, f"{format_size(held)}/{format_size(total)}")

    def _drawn(self, name: str, held: int, total: int, words: str) -> str:
        full = min(self._length, -(-held * self._length // total)) if total else 0
        bar = self._full * full + self._empty * (self._length - full)
        return " ".join(part for part in (name, bar, words) if part)


def _agent_row(agent: View, bar: _Bar) -> Sequence[Cell | str]:
    held, capacity, devices = agent["held"], agent["capacity"], agent["devices"]
    gpu = bar.milli(
        "",
        sum(device["shares_held"] for device in devices),
        sum(device["shares"] for device in devices),
    )
    drained = agent["drained_since"] is not None
    return (
        agent["name"],
        Cell("drained", "yellow")
        if drained and agent["status"] == "ALIVE"
        else Cell(agent["status"], STYLES.get(agent["status"], "")),
        agent["scaling_group"],
        bar.milli("", held["cpu_milli"], capacity["cpu_milli"]),
        bar.bytes("", held["mem_bytes"], capacity["mem_bytes"]),
        gpu if devices else "-",
        str(agent["kernels"]),
    )


def _placed_row(session: View, now: float) -> Sequence[Cell | str]:
    began = session["started_at"]
    ran_s = max(0, int(now - epoch(began))) if began else None
    left = "-"
    if session["walltime_s"] is not None and ran_s is not None:
        left = format_duration(max(0, int(session["walltime_s"]) - ran_s))
    return (
        short(session["id"]),
        session["name"] or "-",
        session["owner"],
        status_cell(session),
        *session_amounts(session),
        ",".join(session["agents"]) or "-",
        "-" if ran_s is None else format_duration(ran_s),
        left,
    )


def _waiting_row(turn: View, now: float) -> Sequence[Cell | str]:
    session = turn["session"]
    place, length = turn["position"], turn["queue_length"]
    begins = start(turn["starts_at"], now, reserved=turn["reserved"]).removeprefix("starts ")
    wait = session["wait"]
    return (
        short(session["id"]),
        session["name"] or "-",
        session["owner"],
        "-" if place is None else f"{place} of {length}",
        begins or "-",
        *session_amounts(session),
        Cell(wait["sentence"] if wait else outcome(session), "yellow"),
    )


def _cell(item: Cell | str) -> Cell:
    cell = Cell(item) if isinstance(item, str) else item
    return Cell(plain(cell.text), cell.style)


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """Share lines out: who wants few has them all, the others the same."""
    given = [0] * len(wanted)
    left = max(0, room)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for number, i in enumerate(order):
        given[i] = min(wanted[i], left // (len(order) - number))
        left -= given[i]
    return given
