"""The part of `sokovan.Client` about agents, groups, tokens and what was done with them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from sokovan.client.addresses import GROUPS, agent_path, group_path, items_of, token_path
from sokovan.client.fields import Setting, View, Views


class Administration(ABC):
    """What is asked about the server's agents and users."""

    @abstractmethod
    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        wait_s: float = 0.0,
        once: bool = False,
    ) -> View:
        """Send a request, and return what it is answered with."""

    # --- all at once ------------------------------------------------------------------------------

    def overview(self, *, limit: int = 20) -> View:
        """Return all at a glance, at most `limit` agents and sessions of each kind.

        `status`, `capacity`, `held`, `agents`, `placed` and `waiting`.
        """
        return self._ask("GET", "/v1/overview", params={"limit": limit})

    # --- agents: each by its id, or a name that only one has --------------------------------------

    def agents(self) -> Views:
        """Return every agent: what it has, what is held, what is free."""
        return items_of(self._ask("GET", "/v1/agents"))

    def drain(self, agent: str, *, reason: str = "") -> View:
        """Give an agent no new kernels, until `undrain`; those it has go on."""
        return self._ask("POST", agent_path(agent, "drain"), body={"reason": reason})

    def undrain(self, agent: str) -> View:
        """Give an agent new kernels again."""
        return self._ask("POST", agent_path(agent, "undrain"))

    def label(self, agent: str, labels: Mapping[str, str | None]) -> View:
        """Set labels of an agent, whatever its settings say; `None` takes one away."""
        return self._ask("POST", agent_path(agent, "label"), body={"labels": dict(labels)})

    def remove_agent(self, agent: str, *, force: bool = False) -> View:
        """Forget an agent that is GONE, and return what it was.

        Args:
            agent: The agent.
            force: Forget the kernels, too, that may still run there.
        """
        return self._ask("DELETE", agent_path(agent), params={"force": force})

    # --- scaling groups ---------------------------------------------------------------------------

    def groups(self) -> Views:
        """Return every scaling group: what its agents have, who waits, and its policy."""
        return items_of(self._ask("GET", GROUPS))

    def group(self, name: str) -> View:
        """Return one scaling group."""
        return self._ask("GET", group_path(name))

    def create_group(self, name: str, policy: Mapping[str, Setting] | None = None) -> View:
        """Make a scaling group, beside those of the settings.

        Args:
            name: What it is called.
            policy: By the names of settings below `[groups.NAME]`: `order`, `ageing_s`; a limit is
                `limits.start-sessions.phase_s_max`.
        """
        body = {"name": name, "policy": dict(policy or {})}
        return self._ask("POST", GROUPS, body=body, once=True)

    def set_group(self, name: str, policy: Mapping[str, Setting | None]) -> View:
        """Set some of a group's policy, whatever the settings say; `None` takes that back."""
        return self._ask("PATCH", group_path(name), body={"policy": dict(policy)})

    def remove_group(self, name: str) -> View:
        """Forget a group that has neither agents nor live sessions; return what it was."""
        return self._ask("DELETE", group_path(name))

    # --- users ------------------------------------------------------------------------------------

    def whoami(self) -> View:
        """Return who this client's token says that it is: `user`, `role`, `token_id`, `address`."""
        return self._ask("GET", "/v1/whoami")

    def tokens(self) -> Views:
        """Return one's own tokens, for an administrator all; never their secrets."""
        return items_of(self._ask("GET", "/v1/tokens"))

    def create_token(
        self, user: str, *, role: str = "user", label: str = "", lifetime_s: float | None = None
    ) -> View:
        """Make a token; `token` of the answer is shown this once.

        Args:
            user: Whose it is: a name, such as a Unix user's.
            role: `user`, `read-only` or `admin`.
            label: What it is for, in words.
            lifetime_s: When it ends; left out, never.
        """
        body = {"user": user, "role": role, "label": label, "lifetime_s": lifetime_s}
        return self._ask("POST", "/v1/tokens", body=body, once=True)

    def revoke_token(self, token_id: str) -> View:
        """Have a token let nobody in any more, at once."""
        return self._ask("DELETE", token_path(token_id))

    def audit(self, *, user: str | None = None, limit: int = 100) -> Views:
        """Return who changed what, and from where, newest first: at most `limit` lines, to 1000."""
        params: dict[str, Any] = {"limit": limit}
        if user is not None:
            params["user"] = user
        return items_of(self._ask("GET", "/v1/audit", params=params))
