"""Commands about what happens: `events`, and `webhooks ls add rm test`."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sokovan.cli import completion, exits
from sokovan.cli.options import Home, Json, call_of

if TYPE_CHECKING:
    from sokovan.client import Client, EventOptions

app = typer.Typer(no_args_is_help=True)

LAST = 10
LAST_MAX = 1000

Owner = Annotated[
    str | None,
    typer.Option("--owner", "-u", metavar="USER", help="Only of this user's sessions."),
]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="GROUP",
        help="Only of this group's sessions.",
        autocompletion=completion.groups,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        "-n",
        metavar="NAME",
        help="Only of sessions of this name.",
        autocompletion=completion.session_names,
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="Only these, such as session.running, or session or kernel for all of theirs;"
        " repeatable.",
        autocompletion=completion.event_kinds,
        show_default=False,
    ),
]
Webhook = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of a webhook.",
        autocompletion=completion.webhooks,
        show_default=False,
    ),
]


def events(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")
    ] = False,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="ID",
            help="Only of this session.",
            autocompletion=completion.sessions,
        ),
    ] = None,
    owner: Owner = None,
    group: Group = None,
    name: Name = None,
    kinds: Kinds = None,
    after: Annotated[
        int | None,
        typer.Option(
            "--after", metavar="N", min=0, help="Begin behind this event; 0 is the beginning."
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--last",
            metavar="N",
            min=0,
            max=LAST_MAX,
            help=f"Begin with so many that there are; {LAST} when --after is left out, too.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    home: Home = None,
) -> int:
    """Print what happens to sessions and kernels: the last events, and with -f what follows.

    Each has a number; `--after` goes on behind one, and misses nothing.

    With --json, one object per line.
    """
    from json import dumps

    call = call_of(ctx, home, json)
    if after is not None and last is not None:
        raise exits.UsageError("--last goes without --after; leave one out", field="last")
    asked: EventOptions = {"session": session, "owner": owner, "group": group, "name": name}
    asked["kinds"] = kinds or ()
    seen = False
    with call.client() as client:
        for event in _told(client, asked, after, LAST if last is None else last, follow=follow):
            seen = True
            if call.json:
                print(dumps(event, ensure_ascii=False), flush=True)
            else:
                print(_line(event), flush=True)
    if not seen and not call.json:
        print("nothing has happened that fits; `sokovan events -f` waits", file=sys.stderr)
    return 0


def _told(
    client: "Client", asked: "EventOptions", after: int | None, last: int, *, follow: bool
) -> Iterator[dict[str, Any]]:
    """Yield the events that are asked for."""
    if after is None:
        page = client.read_events(last=last, **asked) if last else client.read_events(**asked)
        yield from page["items"]
        after = page["next_after"]
        if not follow:
            return
    yield from client.events(after=after, follow=follow, **asked)


def _line(event: dict[str, Any]) -> str:
    """Write an event on one line, in columns that need not know what comes later."""
    from sokovan.cli.text import local_time, on_one_line

    kernel = event["kernel_id"]
    columns = (
        (local_time(event["at"], timespec="milliseconds"), 23),
        (str(event["id"]), 7),
        (event["session_id"], 12),
        (event["name"], 12),
        ("session" if kernel is None else f"kernel {kernel.rpartition('.')[2]}", 8),
        (event["from_status"] or "-", 14),
        (event["to_status"], 14),
        (event["reason"], 0),
        (event["detail"], 0),
    )
    return "  ".join(on_one_line(text).ljust(width) for text, width in columns).rstrip()


# --- webhooks -------------------------------------------------------------------------------------


@app.command()
def ls(ctx: typer.Context, json: Json = False, home: Home = None) -> int:
    """List the webhooks, and which of them fail; never their secrets."""
    from sokovan.cli.text import print_json, print_rows

    call = call_of(ctx, home, json)
    with call.client() as client:
        found = client.webhooks()
    if call.json:
        print_json(found)
    elif found:
        headers = ("ID", "STATE", "URL", "EVENTS", "TOLD", "LAST ERROR")
        print_rows([_row(webhook) for webhook in found], headers=headers)
    else:
        print("no webhooks; next: sokovan webhooks add URL", file=sys.stderr)
    return 0


@app.command()
def add(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where to send to.", show_default=False)
    ],
    kinds: Kinds = None,
    owner: Owner = None,
    group: Group = None,
    name: Name = None,
    secret: Annotated[
        bool,
        typer.Option("--secret-stdin", help="Read the secret from stdin; else one is made."),
    ] = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """Have the server send events to an address from now on; its secret is printed this once."""
    from sokovan.cli.text import plain, print_json

    call = call_of(ctx, home, json)
    given = _secret_of(sys.stdin.buffer.readline()) if secret else None
    with call.client() as client:
        made = client.add_webhook(
            url, kinds=kinds or (), owner=owner, group=group, name=name, secret=given
        )
    if call.json:
        print_json(made)
        return 0
    print(made["secret"])
    print(
        plain(
            f"webhook {made['id']} is told from now on; its secret, which signs the messages, is"
            f" not shown again; next: sokovan webhooks test {made['id']}"
        ),
        file=sys.stderr,
    )
    return 0


def _secret_of(line: bytes) -> str:
    try:
        return line.decode().strip()
    except UnicodeDecodeError:
        raise exits.UsageError(
            "the secret on stdin is not UTF-8; give text, such as what `openssl rand -hex 32` says",
            field="secret",
        ) from None


@app.command()
def rm(ctx: typer.Context, webhook_id: Webhook, json: Json = False, home: Home = None) -> int:
    """Send nothing more to a webhook."""
    from sokovan.cli.text import plain, print_json

    call = call_of(ctx, home, json)
    with call.client() as client:
        gone = client.remove_webhook(webhook_id)
    if call.json:
        print_json(gone)
    else:
        print(plain(f"webhook {gone['id']} is told nothing more"))
    return 0


@app.command("test")
def try_out(ctx: typer.Context, webhook_id: Webhook, json: Json = False, home: Home = None) -> int:
    """Send a webhook a signed message without events, and say what it answers."""
    from sokovan.cli.text import plain, print_json

    call = call_of(ctx, home, json)
    with call.client() as client:
        found = client.test_webhook(webhook_id)
    if call.json:
        print_json(found)
    elif found["ok"]:
        print(f"it answered {found['status']} after {found['took_s']:.2f} s")
    else:
        print(plain(f"it does not work: {found['error']}"), file=sys.stderr)
    return exits.SUCCESS if found["ok"] else exits.REFUSED


def _row(webhook: dict[str, Any]) -> list[Any]:
    from sokovan.cli.text import Cell, local_time

    named = [*webhook["kinds"]]
    named += [f"{key}={webhook[key]}" for key in ("owner", "group", "name") if webhook[key]]
    since = webhook["failing_since"]
    return [
        webhook["id"],
        Cell(f"fails since {local_time(since)}", "red") if since else Cell("well", "green"),
        webhook["url"],
        " ".join(named) or "all",
        str(webhook["position"]),
        webhook["last_error"] or "-",
    ]
