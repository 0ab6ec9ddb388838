"""Commands that copy a store: `db backup restore move`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sokovan.cli.options import Call, Home, Json, Quiet, call_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from sokovan.config import StoreConfig

KERNELS = ("stop", "leave")
_NAMED_MAX = 5
Nul = Annotated[
    bool,
    typer.Option(
        "--replace-nul",
        help="Write U+FFFD for NUL characters, which PostgreSQL cannot keep; else they are named.",
    ),
]


def backup(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What to write.", show_default=False)
    ],
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the file if it exists.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Write the store into a file, as it is at one moment; a server may run meanwhile.

    The file is one of SQLite, whatever database the store is in: `db check FILE` looks through it,
    and `db restore FILE` puts it back into either. Only you can read it, as it has secrets of
    webhooks in it. The token and config.toml of the home, and output, are not in it.
    """
    from sokovan.cli.text import print_json
    from sokovan.store.backups import back_up

    call = call_of(ctx, home, json, quiet)
    tell = teller(call)
    try:
        counts = back_up(call.home, store_settings(call), file, force=force, tell=tell)
    finally:
        tell("")
    size = file.stat().st_size
    if call.json:
        print_json({"file": str(file), "bytes": size, **shown(counts)})
    call.say(f"wrote {what(counts)} into {file} ({size:,} bytes)")
    return 0


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Replace a store that has sessions; it is kept aside."),
    ] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Even if something is wrong in the backup.")
    ] = False,
    kernels: Annotated[
        str | None,
        typer.Option(
            "--kernels",
            metavar="WHAT",
            help="Of kernels that run and are not in the backup: stop or leave.",
            show_default=False,
        ),
    ] = None,
    replace_nul: Nul = False,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Put a backup in the place of the store; no server may run.

    It is looked through first, and brought to the schema of this version. A store that has sessions
    is replaced with --force only, and kept.

    Whatever came after the backup is forgotten: sessions, tokens, settings of groups. Kernels that
    were started since still run, and the backup knows nothing of them; say with --kernels what is
    to become of them. With `stop` they are stopped when the server starts, and sessions of theirs
    that the backup has run again after that. With `leave` they run on, count nowhere, and their
    sessions may run a second time beside them.
    """
    from sokovan.cli.exits import UsageError
    from sokovan.cli.text import print_json
    from sokovan.clock import SystemClock
    from sokovan.home import held, prepare_home
    from sokovan.store.backups import restore_database, restore_file
    from sokovan.store.copying import as_it_is, without_nul

    call = call_of(ctx, home, json, quiet)
    if kernels not in (None, *KERNELS):
        raise UsageError(f"--kernels: it is {' or '.join(KERNELS)}, not {kernels[:40]!r}")
    prepare_home(call.home)
    config, now, tell = store_settings(call), SystemClock().now(), teller(call)
    finish = _Finish(call, kernels, damaged=damaged, now=now)
    try:
        with held(call.home):
            if not force:
                _refuse_sessions(call, config)
            if config.url:
                mend = without_nul if replace_nul else as_it_is
                done = restore_database(
                    call.home, config, file, now=now, finish=finish, mend=mend, tell=tell
                )
            else:
                done = restore_file(call.home, file, now=now, finish=finish)
    finally:
        tell("")
    if call.json:
        kept = str(done.kept) if done.kept else None
        print_json(
            {"file": str(file), "kept": kept, "to_stop": finish.to_stop} | shown(done.counts)
        )
    call.say(f"restored {what(done.counts)} from {file}")
    if done.kept is not None:
        call.say(f"what was there is kept in {done.kept}")
    if finish.to_stop:
        call.say(f"{counted(finish.to_stop, 'kernel')} will be stopped when the server starts")
    return 0


class _Finish:
    """Looks through what is restored, and settles what becomes of kernels that it lacks."""

    def __init__(self, call: Call, kernels: str | None, *, damaged: bool, now: float) -> None:
        self._call, self._kernels, self._damaged, self._now = call, kernels, damaged, now
        self.to_stop = 0

    def __call__(self, connection: "Connection") -> None:
        from sokovan.domain.errors import IllegalStateError, StoreDamagedError
        from sokovan.simulator.survey import survey
        from sokovan.store.engine import Transaction
        from sokovan.store.strangers import stop_strangers, strangers

        wrong = survey(Transaction(connection)).violations
        if wrong and not self._damaged:
            raise StoreDamagedError(
                f"{counted(len(wrong), 'thing')} in the backup does not agree with the rest, first:"
                f" {wrong[0]}; take another backup, or add --damaged and mend the store with"
                " `sokovan db check --repair`"
            )
        found = strangers(self._call.home, connection)
        if found and self._kernels is None:
            ids = list(dict.fromkeys(kernel.session_id for kernel in found))
            more = f" and {len(ids) - _NAMED_MAX} more" if len(ids) > _NAMED_MAX else ""
            raise IllegalStateError(
                f"{counted(len(found), 'kernel')} may run that the backup knows nothing of, of"
                f" session {', '.join(ids[:_NAMED_MAX])}{more}; add --kernels stop to have them"
                " stopped when the server starts, or --kernels leave to let them run uncounted"
            )
        if self._kernels == "stop":
            stop_strangers(connection, found, self._now)
            self.to_stop = len(found)


def _refuse_sessions(call: Call, config: "StoreConfig") -> None:
    from sqlalchemy import inspect

    from sokovan.domain.errors import IllegalStateError, StoreUnavailableError
    from sokovan.store.opening import FILE, name_of, open_store
    from sokovan.store.ownership import closing, reading

    if not config.url and not (call.home / FILE).exists():
        return
    try:
        with closing(open_store(call.home, config)) as engine, reading(engine) as connection:
            found = 0
            if inspect(connection).has_table("sessions"):
                found = connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar_one()
    except StoreUnavailableError as error:
        raise StoreUnavailableError(
            f"{error.message}; add --force to have the backup in its place, it is kept aside"
        ) from error
    if found:
        raise IllegalStateError(
            f"{name_of(call.home, config)} has {counted(found, 'session')}; add --force to have the"
            " backup in its place, it is kept aside"
        )


def move(
    ctx: typer.Context,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL|file",
            help="PostgreSQL, postgresql://USER@HOST:PORT/NAME; or `file`, sokovan.db in the home.",
            show_default=False,
        ),
    ],
    replace_nul: Nul = False,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Copy the store into another database, and use that from now on; no server may run.

    All rows go, with their numbers. A digest of every table, worked out on both sides, proves that
    nothing is lost; only then the home uses the copy. What was used so far is kept: the file under
    another name, a database as it is.
    """
    from sokovan.cli.text import print_json
    from sokovan.clock import SystemClock
    from sokovan.config import load_config
    from sokovan.home import held
    from sokovan.store.copying import as_it_is, without_nul
    from sokovan.store.moving import move_store
    from sokovan.store.opening import name_of

    call = call_of(ctx, home, json, quiet)
    config, tell = store_settings(call), teller(call)
    mend = without_nul if replace_nul else as_it_is
    here = name_of(call.home, config)
    try:
        with held(call.home):
            now = SystemClock().now()
            moved = move_store(call.home, config, to, now=now, mend=mend, tell=tell)
    finally:
        tell("")
    there = name_of(call.home, load_config(call.home).store)
    if call.json:
        kept = str(moved.kept) if moved.kept else None
        print_json(
            {"from": here, "to": there, "kept": kept, "tables": dict(moved.digests)}
            | shown(moved.counts)
        )
    call.say(f"moved {what(moved.counts)} from {here} to {there}; both were compared, and agree")
    if moved.kept is not None:
        call.say(f"the file is kept as {moved.kept}")
    elif config.url:
        call.say(f"{here} is left as it is; let no other home go on with it")
    return 0


# --- what these commands share ------------------------------------------------------------------


def store_settings(call: Call) -> "StoreConfig":
    """Return what the settings of a home say of its store."""
    from sokovan.config import load_config

    return load_config(call.home).store


def teller(call: Call) -> Callable[[str], None]:
    """Return what shows a person how far a command is, on one line; an empty text clears it."""
    from sokovan.cli.progress import status_line

    line = None if call.json or call.quiet else status_line()

    def tell(text: str) -> None:
        if line is not None:
            if text:
                line.show(text)
            else:
                line.clear()

    return tell


def counted(number: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{number} {noun}{'s' * (number != 1)}"


def what(counts: Mapping[str, int]) -> str:
    """Say in words how much a store has."""
    return (
        f"{counted(counts['sessions'], 'session')} and {counted(counts['history'], 'history line')}"
    )


def shown(counts: Mapping[str, int]) -> dict[str, int]:
    """Return how much a store has, by table, as programs are told."""
    found = dict(counts)
    found["history_lines"] = found.pop("history")
    return found
