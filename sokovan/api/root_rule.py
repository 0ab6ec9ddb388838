"""Whether sessions of root are accepted: see the setting `allow_root`."""

import os
import pwd
from collections.abc import Callable, Sequence
from functools import lru_cache

from sokovan.config import AgentConfig
from sokovan.domain.errors import ForbiddenError
from sokovan.domain.sessions import SessionSpec


class RootRule:
    """Refuses sessions that would run as root by mistake.

    It knows the agents that this server keeps; those of other machines refuse by themselves.

    Args:
        agents: They run as the server's own user.
        users: Returns who holds a token that is good now.
        is_root: Whether that user is root; another one's agents run nothing as root anyway.
    """

    def __init__(
        self,
        agents: Sequence[AgentConfig],
        users: Callable[[], set[str]],
        *,
        is_root: bool | None = None,
    ) -> None:
        self._agents = agents
        self._users = users
        self._is_root = os.geteuid() == 0 if is_root is None else is_root

    def check(self, specs: Sequence[SessionSpec]) -> None:
        """Make sure that none of `specs` is root's, or that it may be.

        Raises:
            ForbiddenError: It may not.
        """
        if not self._is_root:
            return
        for owner, group in {(spec.owner, spec.scaling_group) for spec in specs}:
            if is_root(owner) and not self._may_run_in(group):
                raise ForbiddenError(
                    f"owner: sessions of {owner} are not run here, as others use this server too;"
                    ' submit as one of them, or have an administrator set allow_root = "yes" for'
                    " an agent",
                    field="owner",
                )

    def _may_run_in(self, scaling_group: str) -> bool:
        allowed = {a.allow_root for a in self._agents if a.scaling_group == scaling_group}
        if not allowed or "yes" in allowed:
            return True
        return "auto" in allowed and all(is_root(user) for user in self._users())


ANYBODY = RootRule((), set)
"""Refuses nobody: there are no agents that it would speak for."""


def is_root(user: str) -> bool:
    """Say whether a name is root's: its number decides, and it may have several names."""
    try:
        return _uid_of(user) == 0
    except (KeyError, ValueError):  # no such user, or not now; a name with a NUL
        return False


@lru_cache(1024)
def _uid_of(user: str) -> int:
    """Return the number of a user, looked up until it is found.

    To look through all users takes longer than much of a submission.
    """
    return pwd.getpwnam(user).pw_uid
