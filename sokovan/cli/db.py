"""Commands about the store itself: `db check`. They need no server, and disturb none."""

from typing import TYPE_CHECKING

import typer

from sokovan.cli.options import Home, Json, call_of

if TYPE_CHECKING:
    from sokovan.simulator.survey import Survey

app = typer.Typer(help="Look after the store, the file sokovan.db in the home.")
WORDS = {
    "sessions": "session",
    "kernels": "kernel",
    "holds": "hold",
    "agents": "agent",
    "history": "history line",
}


@app.callback()
def before() -> None:
    """Look after the store, the file sokovan.db in the home."""


@app.command()
def check(ctx: typer.Context, json: Json = False, home: Home = None) -> int:
    """Check that everything in the store agrees with everything else; change nothing.

    Works beside a running server, which goes on meanwhile; without one, none is started. Looks at
    every session, hold and history line: half a minute and 100 MB of memory for 100,000 sessions.
    Exits with 1 when something is wrong.

    One thing is noted, and is no reason to exit with 1: that an agent holds more than it has. So it
    is when its settings gave it less while sessions ran on it, until they end.
    """
    from sokovan.cli.text import on_one_line, print_json
    from sokovan.simulator.survey import survey
    from sokovan.store.beside import read_beside

    call = call_of(ctx, home, json)
    found = read_beside(call.home / "sokovan.db", survey)
    if call.json:
        counts = dict(found.counts)
        counts["history_lines"] = counts.pop("history")
        said = {"violations": [*found.violations], "notes": [*found.notes]}
        print_json({"ok": not found.violations, **said, **counts})
    else:
        for sentence in found.violations:
            print(on_one_line(sentence))
        for sentence in found.notes:
            print(on_one_line(f"note: {sentence}"))
        print(_summary(found))
    return 1 if found.violations else 0


def _summary(found: "Survey") -> str:
    looked_at = ", ".join(
        f"{n} {WORDS[table]}{'s' * (n != 1)}" for table, n in found.counts.items()
    )
    wrong = len(found.violations)
    verdict = "1 thing is wrong" if wrong == 1 else f"{wrong} things are wrong"
    return f"looked at {looked_at}: {verdict if wrong else 'all is well'}"
