"""Who asks, and what they may do."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a token is good for; each may do what the ones before it may."""

    READ_ONLY = "read-only"
    """Look at everything that its user may see; change nothing."""
    USER = "user"
    """Submit sessions, and change its user's own."""
    ADMIN = "admin"
    """Everything: others' sessions, agents, groups, tokens, the server."""

    def includes(self, other: "Role") -> bool:
        """Say whether this role may do what `other` may."""
        return _RANK[self] >= _RANK[other]


_RANK = {role: n for n, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes a request."""

    user: str
    role: Role = Role.USER
    token_id: str | None = None
    """Which of the user's tokens; `None` is the home's own, or no token at all."""
    address: str = ""
    """Where the request came from."""

    def may_read(self, owner: str) -> bool:
        """Say whether the caller may see all of what belongs to `owner`, not only its shape."""
        return self.role is Role.ADMIN or self.user == owner

    def may_change(self, owner: str) -> bool:
        """Say whether the caller may change what belongs to `owner`."""
        return self.role is Role.ADMIN or (self.role is Role.USER and self.user == owner)
