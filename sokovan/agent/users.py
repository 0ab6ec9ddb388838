"""Whose Unix user a kernel runs as: its owner's, where the agent is root.

An agent of an ordinary user runs kernels of that user and of nobody else. The owner is looked up
on the agent's machine, anew for every kernel: users and their groups change.
"""

import contextlib
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sokovan.agent.runtime import StartFailedError
from sokovan.domain.reasons import EndReason

ROOT = 0


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine, who is not the agent's own."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return variables with those of identity this user's.

        HOME and SHELL are left as they are in an environment that was this user's already.
        """
        identity = {"HOME": self.home, "SHELL": self.shell}
        if env.get("LOGNAME", env.get("USER")) == self.name:
            identity |= {name: env[name] for name in identity if name in env}
        return {**env, **identity, "USER": self.name, "LOGNAME": self.name}


def user_of(owner: str, *, root_allowed: bool) -> User | None:
    """Return the user that a kernel is to run as; `None` is the agent's own.

    Args:
        owner: The owner of its session; nobody in particular when it is empty.
        root_allowed: Whether root's kernels are run, under whatever name.

    Raises:
        StartFailedError: There is no such user here, or this agent runs nothing as that user.
    """
    own = os.geteuid()
    try:
        found = pwd.getpwnam(owner) if owner else None
    except (KeyError, ValueError):
        if owner != str(own):  # a container may run as a number that has no name
            raise StartFailedError(
                f"owner: {owner!r} is no user of the agent's machine",
                permanent=True,
                reason=EndReason.USER_UNKNOWN,
            ) from None
        found = None
    uid = found.pw_uid if found else own
    if uid == ROOT and not root_allowed:
        raise _refusal("owner: this agent runs nothing as root (its setting allow_root is `no`)")
    if found is None or uid == own:
        return None
    if own != ROOT:
        raise _refusal(
            f"owner: this agent runs as the user {own} and serves nobody else; kernels of"
            f" {owner!r} need one that runs as root, or as that user"
        )
    groups = tuple(os.getgrouplist(owner, found.pw_gid))
    home, shell = found.pw_dir or "/", found.pw_shell or "/bin/sh"
    return User(owner, uid, found.pw_gid, groups, home, shell)


@contextlib.contextmanager
def acting_as(user: User | None) -> Iterator[None]:
    """Look at files with the rights of a user, not root's, which may be more or (NFS) fewer.

    Only the effective ids change, so that meanwhile nobody may signal or trace this process.

    Raises:
        StartFailedError: The system lets this agent become nobody else, as in some containers.
    """
    if user is None:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        try:
            os.setgroups(user.groups)
            os.setegid(user.gid)
            os.seteuid(user.uid)
        except OSError as error:
            why = f"owner: this agent may not become {user.name!r}: {error.strerror}"
            raise _refusal(why) from error
        yield
    finally:
        os.seteuid(ROOT)
        os.setegid(group)
        if os.getgroups() != groups:
            os.setgroups(groups)


def _refusal(message: str) -> StartFailedError:
    return StartFailedError(message, permanent=True, reason=EndReason.USER_REFUSED)
