"""Tokens as they are kept: of the secret, only its digest."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update

from sokovan.domain.access import Role
from sokovan.store.engine import Transaction
from sokovan.store.tables import tokens


@dataclass(frozen=True, slots=True)
class KeptToken:
    """One token; times are seconds since the epoch."""

    token_id: str
    user: str
    role: Role
    label: str
    digest: str
    created_at: float
    created_by: str
    expires_at: float | None = None
    revoked_at: float | None = None

    def is_good(self, now: float) -> bool:
        """Say whether it lets anybody in."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def all_tokens(tx: Transaction) -> list[KeptToken]:
    """Return every token, oldest first; those that are no good any more too."""
    order = (tokens.c.created_at, tokens.c.token_id)
    return [_token_of(row) for row in tx.execute(select(tokens).order_by(*order))]


def save_token(tx: Transaction, token: KeptToken) -> None:
    """Write a new token."""
    values = {
        "token_id": token.token_id,
        "user": token.user,
        "role": token.role.value,
        "label": token.label,
        "digest": token.digest,
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }
    tx.execute(insert(tokens), [values])
    tx.news.tokens = True


def save_revoked(tx: Transaction, token_id: str, at: float) -> None:
    """Note that a token is no good any more."""
    known = tokens.c.token_id == token_id
    tx.execute(update(tokens).where(known).values(revoked_at=at))
    tx.news.tokens = True


def _token_of(row: Row[Any]) -> KeptToken:
    return KeptToken(
        token_id=row.token_id,
        user=row.user,
        role=Role(row.role),
        label=row.label,
        digest=row.digest,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
