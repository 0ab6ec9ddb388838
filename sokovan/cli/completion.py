"""What the shell's Tab offers: sessions, agents, groups, statuses, stages, settings.

A completion starts no server, prints nothing but what it offers, and gives up soon: whoever presses
Tab is in the middle of a line. Shells put what is offered into the line, and zsh evaluates the text
beside it; on a shared server both come from others, so only harmless characters are let through.
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sokovan.client import Client

ANSWER_S_MAX = 1.0
OFFERED_MAX = 200

_PLAIN = re.compile(r"[\w.+,/][\w.+,/-]*")
"""What a shell takes for one word, and for nothing else."""
_UNSAFE = re.compile(r"[^\w .+,/-]")

Offer = tuple[str, str]
"""What is put into the line, and what it is."""


class _FoundByName(str):
    """An id that is offered for the name that was typed, with which it does not begin."""

    __slots__ = ()

    def startswith(self, *_: Any) -> bool:  # Typer asks this of what we offer
        return True


def sessions(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the ids of sessions, newest first, by the first characters of an id or a name."""
    return _sessions(ctx, incomplete, live_only=False)


def live_sessions(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer those of sessions that have not ended."""
    return _sessions(ctx, incomplete, live_only=True)


def session_names(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the names that sessions have."""
    found = _asked(ctx, lambda client: client.list(live_only=False, limit=OFFERED_MAX))
    return _harmless((session["name"], session["status"]) for session in found)


def agents(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the names of agents."""
    found = _asked(ctx, lambda client: client.agents())
    return _harmless((agent["name"], agent["status"]) for agent in found)


def tokens(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the ids of tokens that can still be revoked."""
    found = _asked(ctx, lambda client: client.tokens())
    return _harmless(
        (token["id"], f"{token['user']} {token['role']} {token['label']}".strip())
        for token in found
        if token["state"] == "good"
    )


def webhooks(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the ids of webhooks."""
    found = _asked(ctx, lambda client: client.webhooks())
    return _harmless((webhook["id"], webhook["url"]) for webhook in found)


def event_kinds(incomplete: str) -> list[str]:
    """Offer the kinds of events."""
    from sokovan.domain.events import KINDS

    return [*KINDS]


def groups(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the names of scaling groups; those of the settings where no server runs."""
    if found := _asked(ctx, lambda client: client.groups()):
        policies = [(group["name"], group["policy"]) for group in found]
        return _harmless(
            (name, f"{policy['order']['value']}, {policy['ranking']['value']}")
            for name, policy in policies
        )
    with contextlib.suppress(Exception):
        from sokovan.config import load_config

        configured = load_config(_home(ctx)).groups
        return [(name, f"{group.order}, {group.ranking}") for name, group in configured.items()]
    return []


def settings(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Offer the names of settings."""
    with contextlib.suppress(Exception):
        from sokovan.sources import settings_of

        found = settings_of(_home(ctx))
        return [(setting.name, setting.source) for setting in found]
    return []


def statuses(incomplete: str) -> list[str]:
    """Offer statuses of sessions, in small letters to whoever types such."""
    from sokovan.domain.statuses import SessionStatus

    return [s.lower() if incomplete.islower() else str(s) for s in SessionStatus]


def stages(incomplete: str) -> list[Offer]:
    """Offer the stages that a limit may be set for."""
    from sokovan.scheduler.stages import LIMITED, STAGES

    takes = {stage.name: ", ".join(sorted(stage.takes)) for stage in STAGES}
    return [(f"{name}=", takes[name]) for name in LIMITED]


def _sessions(ctx: typer.Context, incomplete: str, *, live_only: bool) -> list[Offer]:
    found = _asked(ctx, lambda client: client.list(live_only=live_only, limit=OFFERED_MAX))
    given = ctx.params.get("refs") or ()
    offers = _harmless(
        (s["id"], f"{s['status']} {s['name']}".strip()) for s in found if s["id"] not in given
    )
    if any(session_id.startswith(incomplete) for session_id, _ in offers):
        return offers
    by_name = [s["id"] for s in found if s["name"].startswith(incomplete)]
    return [(_FoundByName(i), says) for i, says in offers if i in by_name]


def _asked(
    ctx: typer.Context, ask: "Callable[[Client], list[dict[str, Any]]]"
) -> list[dict[str, Any]]:
    """Ask the server, if one answers soon."""
    with contextlib.suppress(Exception):
        from sokovan.client import Client

        with Client(_named_home(ctx), timeout_s=ANSWER_S_MAX, retry_s=0) as client:
            return ask(client)
    return []


def _named_home(ctx: typer.Context) -> Path | None:
    """Return the home that the line names so far; without one, the environment says whom to ask."""
    at: Any = ctx
    while at is not None:
        if named := at.params.get("home"):
            return Path(named)
        at = at.parent
    return None


def _home(ctx: typer.Context) -> Path:
    from sokovan.client import home_of

    return home_of(_named_home(ctx))


def _harmless(offers: Iterable[Offer]) -> list[Offer]:
    """Return those offers that a shell may have, each once, first come first."""
    found: dict[str, str] = {}
    for word, says in offers:
        if _PLAIN.fullmatch(word):
            found.setdefault(word, _UNSAFE.sub("_", says))
    return list(found.items())
