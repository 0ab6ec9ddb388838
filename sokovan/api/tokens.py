"""Who holds which token: made, shown once, expiring, revoked; and what was done with them."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import replace

from sokovan.api.guard import home_token
from sokovan.api.service import View
from sokovan.clock import Clock
from sokovan.domain.access import Caller, Role
from sokovan.domain.errors import TokenNotFoundError
from sokovan.identity import IdSource
from sokovan.store.audit import audit_lines, note
from sokovan.store.engine import Database, Transaction
from sokovan.store.queries import stamp
from sokovan.store.tokens import KeptToken, all_tokens, save_revoked, save_token

PREFIX = "sokovan_"
"""What every token begins with, so that scanners for leaked secrets know one."""


class Tokens:
    """The tokens of a server: the home's own, which is a file, and those in the store.

    Args:
        database: Where they are kept.
        clock: Ends them.
        ids: Mints their ids; secrets come from the operating system.
        home: What the home's file `token` holds.
    """

    def __init__(self, database: Database, clock: Clock, ids: IdSource, home: str) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._by_home = home_token(home)
        self._kept: dict[str, KeptToken] = {}

    async def load(self) -> None:
        """Read the tokens that there are; nobody but the home's user is let in before."""
        self._put(await self._database.read(all_tokens))

    def identify(self, given: bytes, address: str) -> Caller | None:
        """Say whose a token is; `None` when it is nobody's, or no good any more."""
        caller = self._by_home(given, address)
        if caller is not None:
            return caller
        token_id, _, secret = given.decode("latin-1").removeprefix(PREFIX).partition("_")
        kept = self._kept.get(token_id)
        if kept is None or not hmac.compare_digest(kept.digest, _digest(secret)):
            return None
        if not kept.is_good(self._clock.now()):
            return None
        return Caller(kept.user, kept.role, kept.token_id, address)

    def users(self) -> set[str]:
        """Return who holds a token that is good now."""
        now = self._clock.now()
        return {token.user for token in self._kept.values() if token.is_good(now)}

    async def create(
        self,
        user: str,
        role: Role,
        *,
        caller: Caller,
        label: str = "",
        lifetime_s: float | None = None,
    ) -> View:
        """Make a token; `token` of the answer is the only time that it is shown.

        Args:
            user: Whose it is.
            role: What it is good for.
            caller: Who asks.
            label: What it is for, in words.
            lifetime_s: When it ends; `None` is never.
        """
        now = self._clock.now()
        secret = secrets.token_urlsafe(32)
        kept = KeptToken(
            token_id=self._ids.session_id(),
            user=user,
            role=role,
            label=label,
            digest=_digest(secret),
            created_at=now,
            created_by=caller.user,
            expires_at=None if lifetime_s is None else now + lifetime_s,
        )

        def job(tx: Transaction) -> None:
            save_token(tx, kept)
            note(tx, now, caller, "token create", kept.token_id, f"for {user}, {role}")
            tx.after_commit(lambda: self._put([kept]))

        await self._database.write(job)
        return self._view(kept) | {"token": f"{PREFIX}{kept.token_id}_{secret}"}

    async def listed(self, *, caller: Caller) -> list[View]:
        """Return the tokens that the caller may see: its user's own, or all; never the secrets."""
        return [self._view(t) for t in self._kept.values() if caller.may_read(t.user)]

    async def revoke(self, token_id: str, *, caller: Caller) -> View:
        """Have a token let nobody in any more, at once.

        Raises:
            TokenNotFoundError: The caller may see no such token.
        """
        kept = self._kept.get(token_id)
        if kept is None or not caller.may_change(kept.user):
            raise TokenNotFoundError(
                f"there is no token {token_id!r}; `sokovan token ls` lists those you may revoke"
            )
        now = self._clock.now()

        def job(tx: Transaction) -> None:
            save_revoked(tx, token_id, now)
            note(tx, now, caller, "token revoke", token_id, f"of {kept.user}")
            tx.after_commit(lambda: self._put([replace(kept, revoked_at=now)]))

        if kept.revoked_at is None:
            await self._database.write(job)
        return self._view(self._kept[token_id])

    async def audit(
        self, *, limit: int, user: str | None = None, before: int | None = None
    ) -> View:
        """Return who changed what, newest first: `{"items": [...], "next_cursor": str | None}`."""
        lines = await self._database.read(
            lambda tx: audit_lines(tx, limit=limit + 1, user=user, before=before)
        )
        more = len(lines) > limit
        items = [{**line, "at": stamp(line["at"])} for line in lines[:limit]]
        return {"items": items, "next_cursor": str(items[-1]["line"]) if more else None}

    def _put(self, tokens: Iterable[KeptToken]) -> None:
        self._kept |= {token.token_id: token for token in tokens}

    def _view(self, token: KeptToken) -> View:
        if token.revoked_at is not None:
            state = "revoked"
        else:
            state = "good" if token.is_good(self._clock.now()) else "expired"
        return {
            "id": token.token_id,
            "user": token.user,
            "role": token.role.value,
            "label": token.label,
            "state": state,
            "created_at": stamp(token.created_at),
            "created_by": token.created_by,
            "expires_at": stamp(token.expires_at),
            "revoked_at": stamp(token.revoked_at),
        }


def _digest(secret: str) -> str:
    """Return the SHA-256 of a secret; it has 256 bits of its own, so that no salt is needed."""
    return hashlib.sha256(secret.encode("latin-1", "replace")).hexdigest()
