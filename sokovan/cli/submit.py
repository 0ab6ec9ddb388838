"""`run` and `submit`."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sokovan.cli import exits
from sokovan.cli.asked import Asked, asks_for_a_session
from sokovan.cli.options import Home, Json, Quiet, call_of

if TYPE_CHECKING:
    from sokovan.client import Client


@asks_for_a_session
def submit(
    ctx: typer.Context,
    asked: Asked,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Submit nothing; say whether it would start now, or why not.",
        ),
    ] = False,
    print_job: Annotated[
        bool, typer.Option("--print", help="Submit nothing; print this as a job file.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Submit a session and return; print its id.

    The current directory, environment and umask go with it. With `--dry-run` nothing is submitted:
    0 means that it would be accepted, whether it would start or wait, and 4 that it would not.

    `sokovan submit JOB.toml` submits what a job file says; options behind its name win over it.

    With `--array` or `--param` it is an array of sessions, with one id: `{index}` and `{NAME}` are
    replaced in the command, in `--env` and in `--name`, and ID_7 is the task with index 7.
    """
    from sokovan.cli.arrays import is_array
    from sokovan.cli.describe import short
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json, quiet)
    if print_job:
        asked.read()  # what makes no sense is said, not printed
        print(asked.written(), end="")
        return exits.SUCCESS
    with call.client() as client:
        session = _submit(client, asked, dry_run=dry_run)
        if dry_run:
            return _say_what_would_be(client, session, as_json=call.json)
    if call.json:
        print_json(session)
        return exits.SUCCESS
    print(session["id"])
    ref = short(session["id"])
    if is_array(session):
        call.hint(f"sokovan ls {ref}")
    else:
        call.hint(f"sokovan release {ref}" if session["held"] else f"sokovan logs -f {ref}")
    return exits.SUCCESS


@asks_for_a_session
def run(
    ctx: typer.Context,
    asked: Asked,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Submit a session, show its output, and exit with its command's exit code.

    Ctrl-C asks whether to leave it running or to cancel it; without a terminal, SIGINT and SIGTERM
    cancel it. 125 is an error of sokovan itself; 127 and 126 mean that the command was not found or
    may not be executed; 128 + n means signal n.
    """
    from sokovan.cli.attend import Attendance

    call = call_of(ctx, home, json, quiet)
    ctx.obj.failure_code = exits.RUN_FAILED
    if asked.read()[2] is not None:
        raise exits.UsageError(
            "--array: `run` attends one session; write `sokovan submit`, and then `sokovan wait @`",
            field="array",
        )
    with call.client() as client:
        session = _submit(client, asked)
        return Attendance(call, client, session).until_it_ends()


def _say_what_would_be(client: "Client", answer: dict[str, Any], *, as_json: bool) -> int:
    from sokovan.cli import arrays
    from sokovan.cli.explained import dry_run_lines
    from sokovan.cli.sessions import now_of
    from sokovan.cli.text import print_json, print_lines

    if as_json:
        print_json(answer)
    elif "first" in answer:
        print_lines(arrays.dry_run_lines(answer, dry_run_lines, now_of(client)))
    else:
        print_lines(dry_run_lines(answer, now_of(client)))
    return exits.SUCCESS if answer.get("first", answer)["accepted"] else exits.REFUSED


def _submit(client: "Client", asked: Asked, *, dry_run: bool = False) -> dict[str, Any]:
    from sokovan.cli.arrays import sessions_of
    from sokovan.client import is_utf8

    command = asked.command
    session, dependencies, array = asked.read()
    if dependencies:
        session["depends_on"] = [
            {"session_id": session_id, "kind": kind.value}
            for kind, ref in dependencies
            for session_id in sessions_of(client, ref)
        ]
    where = session.get("where") or {}
    for key in ("spread_with", "pack_with"):
        if key in where:
            where[key] = [_named(client, ref) for ref in where[key]]
    for variable in sorted(os.environ.keys() - session["env"].keys()):
        if is_utf8(variable + os.environ[variable]):
            continue  # it is about a task of an array, which the new session is not
        print(f"sokovan: {variable!r} is not UTF-8, and is left out", file=sys.stderr)
    with asked.located():
        if array is not None and dry_run:
            return client.dry_run_array(command, **array, suggest=True, **session)
        if array is not None:
            return client.submit_array(command, **array, **session)
        if dry_run:
            return client.dry_run(command, suggest=True, **session)
        return client.submit(command, **session)


def _named(client: "Client", ref: str) -> str:
    """Return a session's name, or the whole id where an id was begun, or @ was typed.

    A name need not be anybody's yet: the first of several sessions may name them all.
    """
    from sokovan.domain.errors import SessionNotFoundError

    if not ref.startswith("@") and client.list(live_only=False, name=ref, limit=1):
        return ref
    try:
        found: str = client.get(ref)["id"]
    except SessionNotFoundError:
        if ref.startswith("@"):
            raise
        return ref
    return found
