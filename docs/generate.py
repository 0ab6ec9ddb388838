"""Writes the reference pages that follow from the code (`make docs`); a test finds stale ones.

With `--check` it writes nothing and exits 1 when a page is stale.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import typer.main

from sokovan import config
from sokovan.api.assembly import Core, assemble
from sokovan.api.metrics import table
from sokovan.api.service import SESSION_FIELDS
from sokovan.cli.examples import EXAMPLES
from sokovan.cli.examples import lines_of as example_lines
from sokovan.cli.main import app as command
from sokovan.clock import ManualClock
from sokovan.domain import errors, reasons, statuses
from sokovan.domain.sessions import Limit
from sokovan.scheduler import stages
from sokovan.scheduler.stages import PROMOTIONS, STAGES, Stage, TransitionStatus
from sokovan.sources import field_meanings

REFERENCE = Path(__file__).parent / "reference"
GENERATED = "<!-- Written by docs/generate.py; run `make docs` after changing the code. -->\n"


def pages() -> dict[str, Callable[[], str]]:
    """Return what makes each page, by file name."""
    return {
        "states.md": states_page,
        "settings.md": settings_page,
        "reasons.md": reasons_page,
        "errors.md": errors_page,
        "command.md": command_page,
        "sessions.md": fields_page,
        "metrics.md": metrics_page,
        "openapi.json": openapi_file,
    }


def main() -> int:
    """Write the pages, or check them."""
    stale = []
    for name, make in pages().items():
        path, text = REFERENCE / name, make()
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}; run `make docs`")
    return 1 if stale else 0


# --- the state machine ----------------------------------------------------------------------------


def states_page() -> str:
    """Return the stage table and its diagram."""
    lines = [
        "# Statuses and stages",
        GENERATED,
        f"A session goes {' → '.join(statuses.SESSION_PATH)}.",
        "CANCELLED is the end of one that was never placed.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> PENDING",
        *(f"    {line}" for line in _arrows()),
        "    PENDING --> CANCELLED: cancelled by its user",
        "    DEPRIORITIZING --> CANCELLED: cancelled by its user",
        "    TERMINATED --> [*]",
        "    CANCELLED --> [*]",
        "```",
        "",
        "## Stages",
        "",
        "A stage acts on the sessions in the statuses it takes.",
        "The clock alone acts on those in the statuses it awaits.",
        "",
        "| stage | takes | awaits | success | expired | give up | attempts | phase limit |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(stage) for stage in STAGES),
        "",
        "## Promotions",
        "",
        "They follow from the kernels' statuses, in the transaction that changes these.",
        "",
        "| name | takes | to | when |",
        "|---|---|---|---|",
        *(f"| {p.name} | {_names(p.takes)} | {p.to} | {p.when} |" for p in PROMOTIONS),
        "",
        "## All statuses",
        "",
        f"Session: {_all(statuses.SessionStatus)}.",
        f"Final: {_names(statuses.FINAL)}.",
        f"Kernel: {_all(statuses.KernelStatus)}.",
        f"Result: {_all(statuses.SessionResult)}.",
        "",
    ]
    return "\n".join(lines)


def _arrows() -> Iterator[str]:
    for stage in STAGES:
        if stage.success:
            for status in sorted(stage.takes):
                yield f"{status} --> {stage.success.session}: {stage.name}"
        if stage.expired:
            for status in sorted(stage.takes | stage.awaits):
                yield f"{status} --> {stage.expired.session}: {stage.name} expired"
        if stage.give_up and stage.give_up != stage.expired:
            for status in sorted(stage.takes):
                yield f"{status} --> {stage.give_up.session}: {stage.name} gave up"
    for promotion in PROMOTIONS:
        for status in sorted(promotion.takes):
            yield f"{status} --> {promotion.to}: {promotion.name}"


def _row(stage: Stage) -> str:
    cells = [
        stage.name,
        _names(stage.takes),
        _names(stage.awaits) + (" with a walltime" if stage.limit_is_walltime else ""),
        _target(stage.success),
        _target(stage.expired),
        _target(stage.give_up),
        _limit(stage.limit.attempts_max, ""),
        "the session's walltime"
        if stage.limit_is_walltime
        else "a reported failure expires at once"
        if stage.limit == stages.EXPIRE_AT_ONCE
        else _limit(stage.limit.phase_s_max, " s"),
    ]
    return f"| {' | '.join(cells)} |"


def _target(target: TransitionStatus | None) -> str:
    if target is None:
        return "–"
    return f"{target.session}/{target.kernel or 'unchanged'}"


def _names(found: Any) -> str:
    return ", ".join(s for s in statuses.SessionStatus if s in found) or "–"


def _all(kind: Any) -> str:
    return ", ".join(kind)


def _limit(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:g}{unit}"


# --- settings, reasons, errors --------------------------------------------------------------------


def settings_page() -> str:
    """Return every setting with its default and meaning."""
    lines = [
        "# Settings",
        GENERATED,
        "They are read from `config.toml` in the home when the server starts.",
        "The environment wins: `SOKOVAN_STORE_SYNCHRONOUS` is `synchronous` of `[store]`.",
        "`[scheduler]`, `[store]` and `[api]` can be set there.",
        "",
    ]
    for title, kind in (
        ("[scheduler]", config.SchedulerConfig),
        ("[store]", config.StoreConfig),
        ("[api]", config.ApiConfig),
        ("[[agents]]", config.AgentConfig),
        ("[groups.NAME]", config.GroupConfig),
    ):
        says = field_meanings(kind)
        lines += [f"## `{title}`", "", kind.__doc__ or "", "", "| setting | default | meaning |"]
        lines += ["|---|---|---|"]
        for f in fields(kind):
            default = f.default if f.default is not MISSING else {}
            lines.append(f"| `{f.name}` | `{json.dumps(default)}` | {says[f.name]} |")
        lines.append("")
    parts = ", ".join(f"`{f.name}`" for f in fields(Limit))
    names = ", ".join(f"`{stage.name}`" for stage in STAGES)
    lines += [f"Limits have {parts}; stages are {names}.", ""]
    return "\n".join(lines)


def reasons_page() -> str:
    """Return every reason with its meaning."""
    lines = ["# Reasons", GENERATED]
    for kind in (reasons.EndReason, reasons.WaitReason, reasons.MoveReason):
        says = field_meanings(kind)
        lines += [f"## {kind.__name__}", "", (kind.__doc__ or "").strip(), ""]
        lines += ["| reason | meaning |", "|---|---|"]
        lines += [f"| `{member.value}` | {says[member.name]} |" for member in kind]
        lines.append("")
    return "\n".join(lines)


def errors_page() -> str:
    """Return every error code with its meaning."""
    lines = [
        "# Errors",
        GENERATED,
        "The API answers errors as `application/problem+json`.",
        "It has `type, title, status, detail, code` and, where one is at fault, `field`.",
        "With `--json` the command prints that object on stderr.",
        "",
        "| code | HTTP status | meaning |",
        "|---|---|---|",
    ]
    found = [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.SokovanError)
    ]
    for kind in sorted(found, key=lambda kind: kind.code):
        meaning = (kind.__doc__ or "").strip().splitlines()[0]
        lines.append(f"| `{kind.code}` | {kind.http_status} | {meaning} |")
    return "\n".join([*lines, ""])


def metrics_page() -> str:
    """Return every metric with its meaning, and what the values of its labels are."""
    lines = [
        "# Metrics",
        GENERATED,
        "What `/metrics` tells; [monitoring](../guides/monitoring.md) says how to have it read.",
        "Gauges are up to 5 seconds old.",
        "Counters and histograms begin with 0 when the server starts.",
        "A histogram has `_bucket`, `_sum` and `_count`.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in table.METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    lines += ["", "## Labels", "", "| label | its values |", "|---|---|"]
    lines += [f"| `{name}` | {values} |" for name, values in table.LABELS.items()]
    lines += [
        "",
        "No label names a session, a user or an address.",
        "",
        "## Of the process",
        "",
        "`process_*` and `python_*` are those of any Python program that Prometheus reads.",
        "They tell of memory, CPU time, open files and garbage collection.",
        "",
    ]
    return "\n".join(lines)


# --- command and API ------------------------------------------------------------------------------


def fields_page() -> str:
    """Return the stable fields of a session."""
    lines = [
        "# A session as JSON",
        GENERATED,
        "What the API sends and `--json` prints; names and meanings stay.",
        "Amounts are in base units: milli-cores, bytes, shares of 1/1000 device.",
        "",
        "| field | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in SESSION_FIELDS.items()),
        "",
    ]
    return "\n".join(lines)


def command_page() -> str:
    """Return the help of every command."""
    # Typer brings a Click of its own, so commands and options are told by what they offer.
    group: Any = typer.main.get_command(command)
    context = group.make_context("sokovan", [], resilient_parsing=True)
    lines = ["# The `sokovan` command", GENERATED, *_params(group), ""]
    lines += _commands(group, context)
    return "\n".join(lines)


def _commands(group: Any, context: Any) -> Iterator[str]:
    """Yield the help of the commands of a group, and of those below them."""
    for name in sorted(group.commands):
        sub = group.commands[name]
        if not sub.hidden:
            inner = sub.make_context(name, [], parent=context, resilient_parsing=True)
            yield from (f"## `{inner.command_path}`", "", _sentences(sub.help or ""), "")
            yield from ("```", " ".join(sub.get_usage(inner).split()), "```", "")
            if params := _params(sub):
                yield from (*params, "")
            if found := EXAMPLES.get(inner.command_path.partition(" ")[2]):
                yield from ("Examples:", "", "```", *example_lines(found), "```", "")
            if hasattr(sub, "commands"):
                yield from _commands(sub, inner)


def _sentences(text: str) -> str:
    """Put each sentence of a help text on a line of its own."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    joined = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return re.sub(r"(?<=[.!?]) (?=[A-Z])", "\n", joined)


def _params(sub: Any) -> list[str]:
    rows = []
    for param in sub.params:
        if param.param_type_name == "option" and not param.hidden:
            names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
            if param.metavar:
                names += f" {param.metavar}"
            rows.append(f"| {names} | {' '.join((param.help or '').split())} |")
    return ["| option | meaning |", "|---|---|", *rows] if rows else []


def openapi_file() -> str:
    """Return the OpenAPI description of the API."""
    nothing: Any = None  # the document needs no server
    core = Core(nothing, nothing, nothing, ManualClock(), nothing, nothing, nothing)
    api = assemble(core, config.Config(), "token", shutdown=lambda: None)
    return json.dumps(api.app.openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
