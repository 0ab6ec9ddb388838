"""The command `doctor`: what is missing on this machine, and how to mend it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from sokovan.cli.options import Home, Json, call_of

if TYPE_CHECKING:
    from sokovan.cli.checks import Check, Finding, Ground

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def checks() -> "dict[str, Check]":
    """Return every check by its name, in the order in which they are made."""
    from sokovan.cli.checks import kernels, machine, place

    return {
        "versions": machine.versions,
        "settings": place.settings,
        "home": place.directory,
        "token": place.token,
        "disk": place.disk,
        "store": place.store,
        "clock": machine.clock,
        "control groups": kernels.control_groups,
        "gpus": kernels.gpus,
        "logout": kernels.logout,
        "open files": machine.open_files,
        "processes": machine.processes,
        "memory": machine.memory,
        "shared memory": machine.shared_memory,
        "server": place.server,
    }


def doctor(ctx: typer.Context, json: Json = False, home: Home = None) -> int:
    """Look what is missing on this machine, and say how to mend it.

    Needs no server, and starts none; what it tries, it undoes. Exits with 1 when there is a
    problem; a warning is no reason to.
    """
    from sokovan.cli.checks import Ground, State
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json)
    ground = Ground(call.home)
    found = [(name, f) for name, check in checks().items() for f in _findings(check, ground)]
    states = [finding.state for _, finding in found]
    if call.json:
        said = [
            {"check": name, "state": f.state, "says": f.says, "mend": f.mend} for name, f in found
        ]
        print_json({"ok": State.PROBLEM not in states, "findings": said})
    else:
        _print(found)
        counts = ", ".join(
            f"{n} {state}{'s' * (n != 1)}"
            for state in (State.PROBLEM, State.WARNING)
            if (n := states.count(state))
        )
        print(f"{len(found)} findings: {counts or 'all is well'}")
    return 1 if State.PROBLEM in states else 0


def _findings(check: "Check", ground: "Ground") -> "Iterator[Finding]":
    """Yield what a check finds; what keeps one from looking must not keep the others."""
    from sokovan.cli.checks import problem

    try:
        yield from check(ground)
    except Exception as error:  # noqa: BLE001 (a machine may be broken in ways nobody thought of)
        yield problem(
            f"this could not be looked at: {type(error).__name__}: {error}",
            "this is a bug of `sokovan doctor`, unless the machine is very strange",
        )


def _print(found: "list[tuple[str, Finding]]") -> None:
    from sokovan.cli.text import Cell, Row, print_rows

    rows: list[Row] = []
    for name, finding in found:
        rows.append((Cell(finding.state, STYLES[finding.state]), name, finding.says))
        if finding.mend:
            rows.append(("", "", f"→ {finding.mend}"))
    print_rows(rows)
