"""What a transaction has changed, as other managers are told of it: a hint, and never the truth.

Whoever hears of it reads the rows. A hint that is lost costs the time until the next look.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

IDS_PER_MESSAGE_MAX = 400
"""PostgreSQL takes messages of up to 8000 bytes."""


@dataclass(slots=True)
class News:
    """What is to be read again."""

    sessions: set[str] = field(default_factory=set)
    """By id, with their kernels and holds."""
    agents: bool = False
    groups: bool = False
    """Which there are, and their policies."""
    leases: bool = False
    """Some were given up."""
    tokens: bool = False

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) for f in fields(self))

    def add(self, other: "News") -> None:
        """Take over what `other` says, too."""
        self.sessions |= other.sessions
        for name in _FLAGS:
            setattr(self, name, getattr(self, name) or getattr(other, name))

    def messages(self, sender: str) -> Iterator[str]:
        """Yield texts that say all of it, each short enough for one message."""
        ids = sorted(self.sessions)
        flags = [name for name in _FLAGS if getattr(self, name)]
        for first in range(0, len(ids) or 1, IDS_PER_MESSAGE_MAX):
            part = ids[first : first + IDS_PER_MESSAGE_MAX]
            yield json.dumps([sender, part, [] if first else flags], separators=(",", ":"))


_FLAGS = [f.name for f in fields(News) if f.name != "sessions"]


def read_message(text: str) -> tuple[str, News]:
    """Return who has sent a message, and what it says; what is not understood says nothing."""
    try:
        said: Any = json.loads(text)
        sender, ids, flags = said
        known = {name: True for name in flags if name in _FLAGS}
        return str(sender), News({str(i) for i in ids}, **known)
    except (ValueError, TypeError):
        return "", News()
