"""Policies of scaling groups: what the settings say and, on top of it, what an administrator sets.

A policy is written flat, by the names that settings have below `[groups.NAME]`: `order`,
`limits.start-sessions.phase_s_max`. An administrator's word is checked as the settings are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from sokovan.config import NAME, NOT_LESS, Config, GroupConfig
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import ConfigError, InvalidRequestError
from sokovan.domain.sessions import Limit
from sokovan.scheduler.stages import LIMITED
from sokovan.settings import Reader, brief

Policy = Mapping[str, Any]
LIMITS = "limits"
_PARTS = tuple(f.name for f in fields(Limit))
SETTINGS = tuple(f.name for f in fields(GroupConfig) if f.name != LIMITS)
"""What every policy has; limits come on top."""


def policy_of(group: ScalingGroup) -> dict[str, Any]:
    """Return a group's policy as the settings would say it; limits only where there are any."""
    policy = {name: getattr(group, name) or 0 for name in SETTINGS}  # 0 there is `None` here
    policy |= {name: getattr(group, name).value for name in ("order", "ranking", "backfill")}
    for stage, limit in group.limits.items():
        for part in _PARTS:
            if (value := getattr(limit, part)) is not None:
                policy[f"{LIMITS}.{stage}.{part}"] = value
    return policy


def with_policy(group: ScalingGroup, said: Policy) -> ScalingGroup:
    """Return a group with what is said of its policy; its round-robin cursor stays.

    Raises:
        InvalidRequestError: A setting does not exist, or cannot have that value.
    """
    if not said:
        return group
    table: dict[str, Any] = {LIMITS: {}}
    try:
        for key, value in {**policy_of(group), **said}.items():
            if key in SETTINGS:
                table[key] = value
            else:
                stage, part = _limit_of(key)
                table[LIMITS].setdefault(stage, {})[part] = value
        config: GroupConfig = Reader(NOT_LESS).table(GroupConfig, table)
        found = config.as_group(group.name)
        check_stages(found)
    except ConfigError as error:
        message = error.message.removeprefix(f"groups.{group.name}.")
        field = f"policy.{message.partition(':')[0]}"
        raise InvalidRequestError(message, field=field) from None
    return replace(found, last_agent_id=group.last_agent_id)


def changed(said: Policy, changes: Policy) -> dict[str, Any]:
    """Return what is said of a policy after `changes`, of which `None` takes a setting back.

    Raises:
        InvalidRequestError: There is no such setting to take back.
    """
    for key in changes:
        if key not in SETTINGS:
            try:
                _limit_of(key)
            except ConfigError as error:
                raise InvalidRequestError(error.message, field=f"policy.{key}") from None
    return {key: value for key, value in {**said, **changes}.items() if value is not None}


def check_stages(group: ScalingGroup) -> None:
    """Make sure that limits are those of stages that have any.

    Raises:
        ConfigError: They are not.
    """
    for stage in group.limits:
        if stage not in LIMITED:
            raise ConfigError(
                f"groups.{group.name}.limits.{stage}: no stage {stage!r} has a limit;"
                f" choose one of {', '.join(LIMITED)}"
            )


def check_name(name: str) -> None:
    """Make sure that a group may be called that.

    Raises:
        InvalidRequestError: It may not.
    """
    if not NAME.fullmatch(name):
        raise InvalidRequestError(
            f"name: {brief(name)} is no name; write 1 to 64 letters, digits, _, - and ., the first"
            " of them not a .",
            field="name",
        )


def check_agents(config: Config, groups: Iterable[ScalingGroup]) -> None:
    """Make sure that the agents of the settings are in groups that there are, and fit those.

    Args:
        config: The settings.
        groups: All groups, wherever they come from.

    Raises:
        ConfigError: They do not.
    """
    by_name = {group.name: group for group in groups}
    for agent in config.agents:
        group = by_name.get(agent.scaling_group)
        if group is None:
            raise ConfigError(
                f"agents: {agent.name!r} is in the group {agent.scaling_group!r}, which there is"
                f" not; add a section [groups.{agent.scaling_group}] to config.toml, or, before you"
                f" name it there, `sokovan groups create {agent.scaling_group}`"
            )
        check_grace(config, group)


def check_grace(config: Config, group: ScalingGroup) -> None:
    """Make sure that a group's agents stop what will be started elsewhere before it is.

    Raises:
        ConfigError: They do not.
    """
    given_up_s = config.scheduler.agent_silence_s + group.agent_grace_s
    for agent in config.agents:
        if agent.scaling_group == group.name and agent.cut_off_stop_s >= given_up_s:
            raise ConfigError(
                f"agents: {agent.name!r} is given up after {given_up_s:g} s of silence, of which"
                f" {group.agent_grace_s:g} s are the agent_grace_s of its group; make its"
                " cut_off_stop_s shorter, so that it stops what will be started elsewhere"
            )


def _limit_of(key: str) -> tuple[str, str]:
    """Return the stage and the part of a limit's key."""
    first, _, rest = key.partition(".")
    stage, _, part = rest.partition(".")
    if first != LIMITS or not stage or part not in _PARTS:
        raise ConfigError(
            f"{key}: no such setting; there are {', '.join(SETTINGS)}, and for the limits of"
            f" stages {' and '.join(f'{LIMITS}.STAGE.{part}' for part in _PARTS)}"
        )
    return stage, part
