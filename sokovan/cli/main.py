"""The `sokovan` command: its subcommands, and what becomes of errors.

A command's module imports what it needs inside its functions: `sokovan ls` is typed often, and must
not wait for what only the server needs.
"""

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sokovan import __version__
from sokovan.cli import (
    agents,
    change,
    config,
    db,
    doctor,
    events,
    examples,
    exits,
    groups,
    listing,
    machine,
    outputs,
    sessions,
    sim,
    start,
    submit,
    tokens,
    top,
)
from sokovan.cli.asked import JobCommand
from sokovan.cli.options import Home, Said
from sokovan.domain.errors import SokovanError

start.leave_out_what_is_not_needed()

app = typer.Typer(
    name="sokovan",
    help="Run sessions on shared machines: submit them, see why they wait, read what they say.",
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

OUTPUT_FAILED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})

COMMAND_FOLLOWS = {"allow_interspersed_args": False}
"""Options end where the session's own command begins."""

app.command("run", cls=JobCommand, context_settings=COMMAND_FOLLOWS)(submit.run)
app.command("submit", cls=JobCommand, context_settings=COMMAND_FOLLOWS)(submit.submit)
app.command("ls")(listing.ls)
app.command("show")(sessions.show)
app.command("history")(sessions.history)
app.command("why")(sessions.why)
app.command("eta")(sessions.eta)
app.command("logs")(outputs.logs)
app.command("wait")(sessions.wait)
app.command("cancel")(sessions.cancel)
app.command("hold")(sessions.hold)
app.command("release")(sessions.release)
app.command("edit")(change.edit)
app.command("redo")(change.redo)
app.command("status")(machine.status)
app.command("top")(top.top)
app.add_typer(agents.app, name="agents")
app.add_typer(groups.app, name="groups")
app.add_typer(tokens.app, name="token", help="Make, list and revoke tokens of users.")
app.command("audit")(tokens.audit)
app.command("events")(events.events)
app.add_typer(events.app, name="webhooks", help="Have others told of events, over HTTP.")
app.command("up")(machine.up)
app.command("down")(machine.down)
app.command("config")(config.config)
app.command("doctor")(doctor.doctor)
app.command("sim")(sim.sim)
app.add_typer(db.app, name="db")
examples.add_examples(app)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"sokovan {__version__}")
        raise typer.Exit


@app.callback()
def before(
    ctx: typer.Context,
    home: Home = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take what is said before the command's name."""
    ctx.obj.home = home


def main() -> None:
    """Run the command line, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are one line on stderr."""
    said = Said()
    _mend_streams()
    try:
        command = start.only_what_is_asked_for(app, argv)
        words = [*argv] or ["--help"]
        code = command(args=words, prog_name="sokovan", standalone_mode=False, obj=said)
        sys.stdout.flush()
    except SokovanError as error:
        _say(error, as_json=said.json)
        return said.failure_code or exits.of_error(error)
    except (KeyboardInterrupt, typer.Abort):
        return exits.SIGNAL_BASE + 2
    except BrokenPipeError:
        _say_no_more()  # whoever read our output has seen enough
        return exits.SIGNAL_BASE + 13
    except Exception as error:  # noqa: BLE001 - the last line of defence: never a traceback
        return _unexpected(error, argv, said)
    return code if isinstance(code, int) else exits.SUCCESS


def _mend_streams() -> None:
    """Do without streams that are closed; print what the terminal's encoding lacks as an escape."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say_no_more() -> None:
    """Drop what is still to be written to stdout; Python would try, and complain, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(error: Exception, argv: Sequence[str], said: Said) -> int:
    """Handle what the option parser complains about, and our own bugs."""
    message = getattr(error, "format_message", None)
    if message is not None:
        path = getattr(getattr(error, "ctx", None), "command_path", None) or "sokovan"
        line = " ".join(str(message()).split())
        if line[-1:] not in {"", ".", "?", "!"}:
            line += ";"
        usage = exits.UsageError(f"{line} see `{path} --help`")
        _say(usage, as_json=said.json or "--json" in argv)
        return exits.RUN_FAILED if path == "sokovan run" else exits.USAGE
    if os.environ.get("SOKOVAN_DEBUG") == "1":
        raise error
    if isinstance(error, OSError) and error.errno in OUTPUT_FAILED:
        _say_no_more()
        trouble = SokovanError(f"the output cannot be written: {error.strerror}")
    else:
        trouble = SokovanError(
            f"{type(error).__name__}: {error} (this is a bug; SOKOVAN_DEBUG=1 shows where, and the"
            " server's side is in server.log)"
        )
    _say(trouble, as_json=said.json)
    return said.failure_code or exits.INTERNAL


def _say(error: SokovanError, *, as_json: bool) -> None:
    """Write an error to stderr: one line, or its problem object."""
    from sokovan.cli.text import on_one_line, problem

    if as_json:
        print(problem(error), file=sys.stderr)
    else:
        print(f"error: {on_one_line(error.message)}", file=sys.stderr)
