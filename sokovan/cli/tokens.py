"""Commands about users' access: `token create ls revoke`, and `audit`."""

import sys
from typing import Annotated, Any

import typer

from sokovan.cli import completion, exits
from sokovan.cli.options import Home, Json, call_of
from sokovan.domain.errors import InvalidRequestError

app = typer.Typer(no_args_is_help=True)

LIFETIME = "365d"
NEVER = "never"


@app.command()
def create(
    ctx: typer.Context,
    user: Annotated[
        str, typer.Argument(metavar="USER", help="Whose it is: a Unix user.", show_default=False)
    ],
    role: Annotated[
        str,
        typer.Option("--role", metavar="ROLE", help="user, read-only, or admin."),
    ] = "user",
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What it is for.")] = "",
    expires: Annotated[
        str, typer.Option("--expires", metavar="DURATION", help="Good for so long; or `never`.")
    ] = LIFETIME,
    json: Json = False,
    home: Home = None,
) -> int:
    """Make a token for a user; it is printed this once, and only its digest is kept."""
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json)
    lifetime_s = _lifetime(expires)
    with call.client() as client:
        made = client.create_token(user, role=role, label=label, lifetime_s=lifetime_s)
        url = client.status()["address"]
    if call.json:
        print_json(made)
        return 0
    print(made["token"])
    print(
        f"token {made['id']} of {user} ({made['role']}), good until"
        f" {made['expires_at'] or 'it is revoked'}; it is not shown again. For {user}:\n"
        f"  export SOKOVAN_URL={url} SOKOVAN_TOKEN=...",
        file=sys.stderr,
    )
    return 0


@app.command()
def ls(
    ctx: typer.Context,
    all: Annotated[
        bool, typer.Option("--all", "-a", help="Those that are expired or revoked, too.")
    ] = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """List your tokens, for an administrator everybody's; never the secrets."""
    from sokovan.cli.text import print_json, print_rows

    call = call_of(ctx, home, json)
    with call.client() as client:
        found = [token for token in client.tokens() if all or token["state"] == "good"]
    if call.json:
        print_json(found)
    elif found:
        headers = ("ID", "USER", "ROLE", "STATE", "CREATED", "EXPIRES", "LABEL")
        print_rows([_row(token) for token in found], headers=headers)
    else:
        print(
            "no tokens but the home's own, in the file `token`; next: sokovan token create USER",
            file=sys.stderr,
        )
    return 0


@app.command()
def revoke(
    ctx: typer.Context,
    token_ids: Annotated[
        list[str],
        typer.Argument(
            metavar="ID...",
            help="Ids of tokens.",
            show_default=False,
            autocompletion=completion.tokens,
        ),
    ],
    json: Json = False,
    home: Home = None,
) -> int:
    """Have tokens let nobody in any more, at once."""
    from sokovan.cli.text import plain, print_json

    call = call_of(ctx, home, json)
    with call.client() as client:
        for token_id in token_ids:
            revoked = client.revoke_token(token_id)
            if call.json:
                print_json(revoked)
            else:
                print(plain(f"token {token_id} of {revoked['user']} lets nobody in any more"))
    return 0


def audit(
    ctx: typer.Context,
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="USER", help="Only of this user.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=1000, help="At most so many lines.")
    ] = 50,
    json: Json = False,
    home: Home = None,
) -> int:
    """List who changed what, and from where, newest first; for administrators."""
    from sokovan.cli.text import local_time, print_json, print_rows

    call = call_of(ctx, home, json)
    with call.client() as client:
        found = client.audit(user=user, limit=limit)
    if call.json:
        print_json(found)
    elif found:
        headers = ("AT", "USER", "TOKEN", "FROM", "DID", "TO", "DETAIL")
        rows = [
            [
                local_time(line["at"]),
                line["user"],
                line["token_id"] or "home",
                line["address"],
                line["action"],
                line["target"],
                line["detail"],
            ]
            for line in found
        ]
        print_rows(rows, headers=headers)
    else:
        print("nothing was changed yet", file=sys.stderr)
    return 0


def _lifetime(text: str) -> float | None:
    from sokovan.domain.quantities import parse_duration

    if text == NEVER:
        return None
    try:
        return parse_duration(text, field="expires")
    except InvalidRequestError as error:
        raise exits.UsageError(f"--{error.message}, or {NEVER}", field="expires") from None


def _row(token: dict[str, Any]) -> list[str]:
    from sokovan.cli.text import local_time

    return [
        token["id"],
        token["user"],
        token["role"],
        token["state"],
        local_time(token["created_at"]),
        local_time(token["expires_at"]) if token["expires_at"] else NEVER,
        token["label"],
    ]
