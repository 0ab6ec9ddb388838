"""Commands about the store itself: `db check upgrade prune`. None needs a server."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sokovan.cli import db_copies
from sokovan.cli.db_copies import counted, store_settings, teller
from sokovan.cli.options import Call, Home, Json, Quiet, call_of

if TYPE_CHECKING:
    from sokovan.simulator.survey import Survey
    from sokovan.store.pruning import Pruned

app = typer.Typer(help="Look after the store: the file sokovan.db in the home, or PostgreSQL.")
WORDS = {
    "sessions": "session",
    "kernels": "kernel",
    "holds": "hold",
    "agents": "agent",
    "history": "history line",
}
REST_S_MAX = 0.5


@app.callback()
def before() -> None:
    """Look after the store: the file sokovan.db in the home, or PostgreSQL."""


@app.command()
def check(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A backup, in place of the store of the home.", show_default=False
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Mend what follows from the rest; no server may run."),
    ] = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """Check that everything in the store agrees with everything else; change nothing.

    Works beside a running server, which goes on meanwhile; without one, none is started. Looks at
    every session, hold and history line: half a minute and 100 MB of memory for 100,000 sessions.
    Exits with 1 when something is wrong.

    With --repair, what can be mended without guessing is mended, in one transaction that counts
    only if the store is better for it. Whatever else is wrong stays, and is said.

    One thing is noted, and is no reason to exit with 1: that an agent holds more than it has. So it
    is when its settings gave it less while sessions ran on it, until they end.
    """
    from sokovan.cli.exits import UsageError
    from sokovan.cli.text import on_one_line, print_json
    from sokovan.simulator.survey import survey
    from sokovan.store.beside import read_beside, read_store

    call = call_of(ctx, home, json)
    did: tuple[str, ...] = ()
    if file is not None:
        if repair:
            raise UsageError("--repair is for the store of a home, and a backup stays as it is")
        found = read_beside(file, survey)
    elif repair:
        did, found = _repaired(call)
    else:
        found = read_store(call.home, store_settings(call), survey)
    if call.json:
        counts = dict(found.counts)
        counts["history_lines"] = counts.pop("history")
        said = {"violations": [*found.violations], "notes": [*found.notes]}
        if repair:
            said["repairs"] = [*did]
        print_json({"ok": not found.violations, **said, **counts})
    else:
        for sentence in did:
            print(on_one_line(f"mended: {sentence}"))
        for sentence in found.violations:
            print(on_one_line(sentence))
        for sentence in found.notes:
            print(on_one_line(f"note: {sentence}"))
        print(_summary(found))
        if found.violations:
            call.hint("sokovan db restore FILE" if repair else "sokovan db check --repair")
    return 1 if found.violations else 0


def _repaired(call: Call) -> "tuple[tuple[str, ...], Survey]":
    from sokovan.clock import SystemClock
    from sokovan.home import held
    from sokovan.simulator.mending import mend
    from sokovan.store.engine import Transaction
    from sokovan.store.opening import open_existing
    from sokovan.store.ownership import alone, closing
    from sokovan.store.schema import require_head

    config = store_settings(call)
    with (
        held(call.home),
        closing(open_existing(call.home, config)) as engine,
        alone(engine) as connection,
    ):
        require_head(connection)
        mended = mend(Transaction(connection), SystemClock().now())
    return mended.did, mended.after


def _summary(found: "Survey") -> str:
    looked_at = ", ".join(
        f"{n} {WORDS[table]}{'s' * (n != 1)}" for table, n in found.counts.items()
    )
    wrong = len(found.violations)
    verdict = "1 thing is wrong" if wrong == 1 else f"{wrong} things are wrong"
    return f"looked at {looked_at}: {verdict if wrong else 'all is well'}"


@app.command()
def upgrade(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what would be done; exit with 1 if anything.")
    ] = False,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Keep no copy of a SQLite store as it was.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Bring the store to the schema of this version; no server may run.

    A server does the same when it starts. Here it can be done at a time of your choice, with a copy
    of a SQLite store kept beside it. All of it is done, or nothing.
    """
    from sokovan.cli.text import print_json
    from sokovan.store.schema import HEAD

    call = call_of(ctx, home, json, quiet)
    before, kept = _version(call), None
    if before != HEAD and not check:
        kept = _upgraded(call, before, keep=not no_backup)
    if call.json:
        after = before if check else HEAD
        print_json(
            {"from": before, "to": HEAD, "schema": after, "backup": str(kept) if kept else None}
        )
    elif before == HEAD:
        call.say(f"the store has schema {HEAD} already, which is that of this version")
    elif check:
        call.say(f"the store has schema {before}, and would be brought to {HEAD}")
    else:
        call.say(f"brought the store from schema {before} to {HEAD}")
        if kept is not None:
            call.say(f"as it was, it is kept in {kept}")
    return 1 if check and before != HEAD else 0


def _version(call: Call) -> str:
    from sokovan.store.opening import open_existing
    from sokovan.store.ownership import closing, reading
    from sokovan.store.schema import check_version

    engine = open_existing(call.home, store_settings(call))
    with closing(engine), reading(engine) as connection:
        return check_version(connection)


def _upgraded(call: Call, before: str, *, keep: bool) -> Path | None:
    from sokovan.clock import SystemClock
    from sokovan.home import held
    from sokovan.store.backups import back_up
    from sokovan.store.files import aside
    from sokovan.store.opening import FILE, open_existing
    from sokovan.store.ownership import alone, closing
    from sokovan.store.schema import upgrade

    config, kept = store_settings(call), None
    with held(call.home), closing(open_existing(call.home, config)) as engine:
        if keep and not config.url:
            kept = aside(call.home / FILE, f"schema-{before}", SystemClock().now())
            back_up(call.home, config, kept)
        with alone(engine) as connection:
            upgrade(connection)
    return kept


@app.command()
def prune(
    ctx: typer.Context,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="DURATION",
            help="Sessions that ended longer ago, such as 30d.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count what would be removed.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Remove sessions that ended long ago, with their kernels and their history.

    Works beside a running server, a few sessions at a time. A session goes together with its
    retries, an array as a whole. What a live session depends on stays, and so does what a webhook
    has not been told. Their output is the agents', which keep it for `output_keep_days`.
    """
    from dataclasses import asdict

    from sokovan.cli.text import print_json
    from sokovan.clock import SystemClock
    from sokovan.domain.quantities import parse_duration
    from sokovan.store.pruning import Pruned

    call = call_of(ctx, home, json, quiet)
    before = SystemClock().now() - parse_duration(older_than, field="older-than")
    tell, total = teller(call), Pruned()
    try:
        for pruned in _pruned(call, before, dry_run=dry_run):
            total += pruned
            tell(f"removed {total.sessions} sessions")
    finally:
        tell("")
    if call.json:
        print_json({"dry_run": dry_run, **asdict(total)})
    call.say(
        f"{'would remove' if dry_run else 'removed'} {counted(total.sessions, 'session')},"
        f" {counted(total.arrays, 'array')}, {counted(total.kernels, 'kernel')} and"
        f" {counted(total.history_lines, 'history line')}"
    )
    if total.untold:
        call.say(
            f"{counted(total.untold, 'old session')} kept until every webhook was told of the end;"
            " `sokovan webhooks ls` says which one is behind"
        )
    return 0


def _pruned(call: Call, before: float, *, dry_run: bool) -> "Iterator[Pruned]":
    """Remove what is old, piece by piece; others may write in between."""
    from sokovan.clock import SystemClock
    from sokovan.store.engine import Transaction
    from sokovan.store.opening import open_existing
    from sokovan.store.ownership import closing, reading, writing
    from sokovan.store.pruning import find_old, prune
    from sokovan.store.schema import require_head

    clock, after = SystemClock(), -1
    with closing(open_existing(call.home, store_settings(call))) as engine:
        with reading(engine) as connection:
            require_head(connection)
        while True:
            with reading(engine) as connection:
                found = find_old(Transaction(connection), before, after)
            for part in found.parts():
                began_at = clock.now()
                with (reading if dry_run else writing)(engine) as connection:
                    pruned = prune(Transaction(connection), part, before, dry_run=dry_run)
                yield pruned
                if not dry_run:
                    time.sleep(min(clock.now() - began_at, REST_S_MAX))
            if found.after is None:
                return
            after = found.after


app.command()(db_copies.backup)
app.command()(db_copies.restore)
app.command()(db_copies.move)
