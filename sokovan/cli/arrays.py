"""Arrays in the commands for sessions: what one session is asked, an array is asked as a whole."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sokovan.cli.streams import Sink
from sokovan.domain.errors import IsAnArrayError

if TYPE_CHECKING:
    from sokovan.cli.options import Call
    from sokovan.cli.progress import StatusLine
    from sokovan.cli.text import Row
    from sokovan.client import Client, Output

T = TypeVar("T")
View = Mapping[str, Any]

TASK_HEADERS = ("TASK", "NAME", "STATUS", "REASON", "AGENT", "TIME")
LEAST_OF_TASKS = ("TIME", "AGENT", "NAME")
REFRESH_S = 2.0
"""How often the line on a terminal is brought up to date."""
_ENDS = (("succeeded", "done"), ("failed", "failed"), ("cancelled", "cancelled"))


def either(ref: str, one: Callable[[str], T], many: Callable[[str], T]) -> T:
    """Ask something of a session; if it turns out to be an array, ask that of the array."""
    try:
        return one(ref)
    except IsAnArrayError:
        return many(ref)


def is_array(answer: View) -> bool:
    """Say whether an answer tells of an array, or is one."""
    return "array" in answer or "live" in answer


def name_of(array: View) -> str:
    """Return what may be typed for an array, or for the part that was asked for."""
    from sokovan.cli.describe import short

    part = "" if array["part"] is None else f"_{array['part']}"
    return f"{short(array['id'])}{part}"


def fixed(client: "Client", ref: str) -> str:
    """Return what a reference means now, in words that go on to mean that."""

    def of_array(ref: str) -> str:
        found = client.array(ref)
        return f"{found['id']}_{found['part']}" if found["part"] else str(found["id"])

    return either(ref, lambda ref: str(client.get(ref)["id"]), of_array)


def sessions_of(client: "Client", ref: str) -> list[str]:
    """Return the ids of what to depend on: a session, a whole array, or the tasks of a part."""

    def of_array(ref: str) -> list[str]:
        found = client.array(ref)
        if found["part"] is None:
            return [found["id"]]
        return [task["id"] for task in client.tasks(f"{found['id']}_{found['part']}")]

    return either(ref, lambda ref: [client.get(ref)["id"]], of_array)


# --- in words and columns -------------------------------------------------------------------------


def standing(array: View) -> str:
    """Say how many tasks are where: `1000 tasks: 16 running, 980 waiting, 4 done`."""
    live = array["live"]
    waiting = live.get("PENDING", 0) + live.get("DEPRIORITIZING", 0)
    counts = [(sum(live.values()) - waiting, "running"), (waiting, "waiting")]
    counts += [(array[end], word) for end, word in _ENDS]
    said = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"{array['size']} task{'' if array['size'] == 1 else 's'}: {said}"


def status_of(array: View) -> str:
    """Return the status that an array's line shows."""
    live = array["live"].keys()
    if not live:
        return "TERMINATED" if array["succeeded"] + array["failed"] else "CANCELLED"
    return "PENDING" if live <= {"PENDING", "DEPRIORITIZING"} else "RUNNING"


def array_row(array: View, now: float) -> "Row":
    """Return the one line of an array in `sokovan ls`."""
    from sokovan.cli.describe import short, status_cell
    from sokovan.cli.text import epoch
    from sokovan.domain.quantities import format_duration

    code = f" ({array['wait']['code']})" if array["wait"] else ""
    return (
        short(array["id"]),
        array["name"] or "-",
        status_cell({"status": status_of(array), "result": array["result"]}),
        f"{standing(array)}{code}",
        array["scaling_group"],
        *("-",) * 4,
        format_duration(max(0, int(now - epoch(array["created_at"])))),
    )


def task_row(task: View, now: float) -> "Row":
    """Return one line of `sokovan ls ARRAY`."""
    from sokovan.cli.describe import outcome, short, status_cell
    from sokovan.cli.text import epoch
    from sokovan.domain.quantities import format_duration

    ran = "-"
    if task["started_at"]:
        end = epoch(task["ended_at"]) if task["ended_at"] else now
        ran = format_duration(max(0, int(end - epoch(task["started_at"]))))
    return (
        f"{short(task['array_id'])}_{task['index']}",
        task["name"] or "-",
        status_cell(task),
        outcome(task) or "-",
        task["agent"] or "-",
        ran,
    )


def array_lines(array: View, now: float) -> "Iterator[Row]":
    """Yield what `sokovan show` says of an array, name and value."""
    from shlex import join

    from sokovan.cli.text import epoch, local_time
    from sokovan.domain.quantities import format_duration

    yield "array", array["id"]
    if array["part"]:
        yield "tasks shown", array["part"]
    if array["name"]:
        yield "name", array["name"]
    yield "tasks", standing(array)
    if array["wait"]:
        yield "waits", array["wait"]["sentence"]
    if array["ended_at"]:
        yield "result", array["result"]
    if failure := array["first_failure"]:
        code = f", exit {failure['exit_code']}" if failure["exit_code"] else ""
        task = f"{array['id']}_{failure['index']}"
        yield "first failure", f"{task} ({failure['reason']}{code})"
    if array["command"] is not None:
        yield "command", join(array["command"])
    if array["indexes"]:
        yield "indexes", array["indexes"]
    for name, values in array["params"].items():
        yield f"{{{name}}}", ", ".join(values)
    if array["running_max"]:
        yield "at once", f"at most {array['running_max']}"
    yield "owner", array["owner"]
    yield "group", array["scaling_group"]
    for name in ("created_at", "ended_at"):
        if array[name]:
            ago = format_duration(max(0, int(now - epoch(array[name]))))
            yield name.removesuffix("_at"), f"{local_time(array[name])} ({ago} ago)"


def why_lines(answer: View) -> Iterator[str]:
    """Yield what `sokovan why` says of an array."""
    array = answer["array"]
    yield f"{name_of(array)}: {answer['sentence']}"
    for reason in answer["waiting"]:
        yield f"  {reason['tasks']} wait, {reason['code']}: the first {reason['sentence']}"
    if answer["waiting"]:
        first = answer["waiting"][0]["first"]
        yield f"  `sokovan why {first[:8]}` says more of the first of them"


def outcome_sentence(answer: View, words: Mapping[str, str]) -> str:
    """Say what has become of the tasks of an array, in the words of a command."""
    outcomes = answer["outcomes"]
    said = ", ".join(f"{count} {words.get(name, name)}" for name, count in outcomes.items())
    return f"{name_of(answer['array'])}: {said or 'nothing to do'}"


def dry_run_lines(answer: View, lines: Callable[[View, float], Iterator[str]], now: float) -> Any:
    """Yield what `sokovan submit --dry-run` says of an array."""
    from shlex import join

    size = answer["size"]
    yield f"{size} task{'' if size == 1 else 's'}; the first is {join(answer['command'])}"
    yield from lines(answer["first"], now)


# --- waiting and reading --------------------------------------------------------------------------


def wait_for(
    client: "Client", ref: str, timeout_s: float | None, line: "StatusLine | None"
) -> dict[str, Any]:
    """Return an array once all its tasks have ended, or as it is after `timeout_s`."""
    began = time.perf_counter()
    while True:
        left_s = None if timeout_s is None else timeout_s - (time.perf_counter() - began)
        slice_s = (
            left_s if line is None else min(REFRESH_S, REFRESH_S if left_s is None else left_s)
        )
        array = client.wait_array(ref, None if slice_s is None else max(0.0, slice_s))
        is_late = timeout_s is not None and time.perf_counter() - began >= timeout_s
        if array["ended_at"] or is_late:
            return array
        ref = f"{array['id']}_{array['part']}" if array["part"] else array["id"]
        if line is not None:
            line.show(f"{name_of(array)}: {standing(array)}")


def exit_code_of(client: "Client", array: View) -> int:
    """Return the exit code for an array: that of the first task by index that failed."""
    from sokovan.cli import exits

    if not array["ended_at"]:
        return exits.TIMEOUT
    if not array["first_failure"]:
        return exits.SUCCESS
    return exits.of_session(client.get(array["first_failure"]["id"]))


def print_logs(
    call: "Call",
    client: "Client",
    ref: str,
    *,
    kernel: int,
    streams: Sequence[str],
    follow: bool,
) -> None:
    """Print what the tasks of an array have written, one after the other, by index.

    Each line has its task's index before it. Those that have not begun are waited for with
    `follow`, and left out without.
    """
    from sokovan.cli.attend import copy_stream
    from sokovan.cli.outputs import print_stream

    sink = Sink(json=call.json, prefixed=True, source="task")
    for task in client.tasks(ref):
        if not (follow or task["started_at"]):
            continue
        only = _OneTask(sink, task["index"])
        for stream in streams:
            if follow:
                copy_stream(client, task["id"], only, kernel=kernel, stream=stream)
            else:
                print_stream(client, task["id"], only, kernel, stream, 0)


class _OneTask(Sink):
    """Writes the output of one task as that of its index."""

    def __init__(self, sink: Sink, index: int) -> None:
        super().__init__(json=False, prefixed=True)
        self._sink = sink
        self._index = index

    def write(self, kernel: int, stream: str, piece: "Output") -> None:
        """Write a piece."""
        self._sink.write(self._index, stream, piece)

    def end(self, kernel: int, stream: str) -> None:
        """Write what was kept back for want of a line's end."""
        self._sink.end(self._index, stream)
