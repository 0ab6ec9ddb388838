"""`ls`: sessions and arrays, or the tasks of one."""

import sys
from typing import Annotated

import typer

from sokovan.cli import completion
from sokovan.cli.options import Call, Home, Json, call_of
from sokovan.cli.sessions import now_of

LISTED_MAX = 1000


def ls(
    ctx: typer.Context,
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="[ARRAY]",
            help="Only the tasks of an array, each on a line: ID, or ID_0-9,20 for some.",
            show_default=False,
        ),
    ] = None,
    all: Annotated[bool, typer.Option("--all", "-a", help="Ended sessions too.")] = False,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            "-s",
            metavar="STATUS",
            help="Only these; repeatable.",
            autocompletion=completion.statuses,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", "-n", help="Only of this name.", autocompletion=completion.session_names
        ),
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", "-u", help="Only of this user.")] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Only of this group.", autocompletion=completion.groups),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help=f"At most so many, the newest; {LISTED_MAX} if left out, and every task of ARRAY.",
        ),
    ] = None,
    expand: Annotated[
        bool, typer.Option("--expand", "-x", help="Each task of an array on a line of its own.")
    ] = False,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="KEY",
            help="By number, priority, status_since or name; -priority: the highest first.",
        ),
    ] = None,
    json: Json = False,
    home: Home = None,
) -> int:
    """List sessions, newest first: those that have not ended. An array is one line.

    With `--status` and `--sort`, the tasks of arrays are listed one by one.
    """
    from sokovan.cli.arrays import array_row, is_array
    from sokovan.cli.describe import LEAST_OF_SESSIONS, SESSION_HEADERS, session_row
    from sokovan.cli.text import print_json, print_rows

    call = call_of(ctx, home, json)
    statuses = [item.upper() for item in status or ()]
    if ref is not None:
        return _ls_tasks(call, ref, statuses, limit)
    limit = limit or LISTED_MAX
    expand = expand or bool(status or sort)
    with call.client() as client:
        found = client.list(
            live_only=not (all or status),
            status=statuses,
            name=name,
            owner=owner,
            group=group,
            tasks=expand,
            limit=limit,
            sort=sort,
        )
        if not expand:
            found += client.arrays(
                live_only=not all, name=name, owner=owner, group=group, limit=limit
            )
            found = sorted(found, key=lambda one: one["number"], reverse=True)[:limit]
        now = now_of(client)
    if call.json:
        print_json(found)
    elif found:
        rows = [(array_row if is_array(one) else session_row)(one, now) for one in found]
        print_rows(rows, headers=SESSION_HEADERS, least=LEAST_OF_SESSIONS)
        if len(found) == limit:
            _say(f"these are the {'first' if sort else 'newest'} {limit}; --limit N shows more")
    elif all or status or name or owner or group:
        _say("no such sessions")
    else:
        _say("no live sessions; `sokovan ls -a` shows ended ones")
    return 0


def _ls_tasks(call: Call, ref: str, statuses: list[str], limit: int | None) -> int:
    from sokovan.cli.arrays import LEAST_OF_TASKS, TASK_HEADERS, task_row
    from sokovan.cli.text import print_json, print_rows

    with call.client() as client:
        found = client.tasks(ref, status=statuses, limit=limit)
        now = now_of(client)
    if call.json:
        print_json(found)
    elif found:
        rows = [task_row(task, now) for task in found]
        print_rows(rows, headers=TASK_HEADERS, least=LEAST_OF_TASKS)
        if len(found) == limit:
            _say(f"these are the first {limit}; a larger --limit shows more")
    else:
        _say("no such tasks")
    return 0


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
