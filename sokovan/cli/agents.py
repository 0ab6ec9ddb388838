"""Commands about the agents: `agents`, and `agents drain undrain label remove`."""

import sys
from typing import Annotated

import typer

from sokovan.cli import completion
from sokovan.cli.options import Home, Json, Quiet, call_of

app = typer.Typer()
Agent = Annotated[
    str,
    typer.Argument(
        metavar="AGENT",
        help="Name of the agent, or its id where several have that name.",
        show_default=False,
        autocompletion=completion.agents,
    ),
]


@app.callback(invoke_without_command=True)
def agents(ctx: typer.Context, json: Json = False, home: Home = None) -> int:
    """List the agents: what each has, and what is held of it."""
    from sokovan.cli.describe import LEAST_OF_AGENTS, agent_rows
    from sokovan.cli.text import print_json, print_rows

    call = call_of(ctx, home, json)
    if ctx.invoked_subcommand is not None:
        return 0
    with call.client() as client:
        found = client.agents()
    if call.json:
        print_json(found)
    elif found:
        headers, rows = agent_rows(found)
        print_rows(rows, headers=headers, least=LEAST_OF_AGENTS)
    else:
        print("no agents yet; one joins within seconds of the server's start", file=sys.stderr)
    return 0


@app.command()
def drain(
    ctx: typer.Context,
    agent: Agent,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; shown to those who wait for it.")
    ] = "",
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Give an agent nothing new, until `undrain`; what runs there, or was placed there, goes on."""
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json, quiet)
    with call.client() as client:
        found = client.drain(agent, reason=reason)
    if call.json:
        print_json(found)
    kernels = found["kernels"]
    still = f"{kernels} kernel{'s' * (kernels != 1)} on it go{'es' * (kernels == 1)} on"
    call.say(f"{found['name']} gets nothing new; {still if kernels else 'nothing is on it'}")
    call.hint(f"sokovan agents undrain {found['name']}")
    return 0


@app.command()
def undrain(
    ctx: typer.Context, agent: Agent, json: Json = False, quiet: Quiet = False, home: Home = None
) -> int:
    """Put a drained agent into service again."""
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json, quiet)
    with call.client() as client:
        found = client.undrain(agent)
    if call.json:
        print_json(found)
    call.say(f"{found['name']} takes new sessions; it is {found['status']}")
    call.hint("sokovan agents")
    return 0


@app.command()
def label(
    ctx: typer.Context,
    agent: Agent,
    labels: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE...",
            help="Labels to set; NAME- takes one away.",
            show_default=False,
        ),
    ],
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Say what constraints may name of an agent; this wins over its settings, and stays."""
    from sokovan.cli.describe import labels_text
    from sokovan.cli.exits import UsageError
    from sokovan.cli.parsing import parse_labels
    from sokovan.cli.text import print_json
    from sokovan.domain.errors import InvalidRequestError

    call = call_of(ctx, home, json, quiet)
    try:
        changes = parse_labels(labels)
    except InvalidRequestError as error:
        raise UsageError(error.message, field=error.field) from None
    with call.client() as client:
        found = client.label(agent, changes)
    if call.json:
        print_json(found)
    call.say(f"{found['name']} has {labels_text(found) or 'no labels'}")
    if found["labels"]:
        some = labels_text(found).partition(",")[0]
        call.hint(f"sokovan submit --constraint {some} -- COMMAND")
    return 0


@app.command()
def remove(
    ctx: typer.Context,
    agent: Agent,
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Forget the kernels, too, that may still run on it."),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Forget an agent that is GONE. Should it come back, it joins as a new one."""
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json, quiet)
    with call.client() as client:
        found = client.remove_agent(agent, force=force)
    if call.json:
        print_json(found)
    left = found["leftovers"]
    more = f", and {left} kernel{'s' * (left != 1)} that may still run there" if left else ""
    call.say(f"{found['name']} is forgotten{more}")
    call.hint("sokovan agents")
    return 0
