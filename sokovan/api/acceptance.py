"""What a submission must fulfil to be accepted. Pure; each refusal names the field and the fix."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import filterfalse

from sokovan.domain.cluster import Agent, ScalingGroup
from sokovan.domain.errors import (
    InfeasibleRequestError,
    InvalidRequestError,
    UnknownGroupError,
)
from sokovan.domain.labels import check_label_name
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.sessions import (
    DEPENDENCIES_MAX,
    SESSION_PRIORITY_MAX,
    SESSION_PRIORITY_MIN,
    SessionSpec,
)
from sokovan.domain.where import Where, contradiction
from sokovan.placement.binding import never_fits
from sokovan.placement.looks import label
from sokovan.placement.machines import Machines
from sokovan.placement.needs import Demand
from sokovan.placement.sentences import sentence
from sokovan.scheduler.stages import LIMITED

NAMED_MAX = 10
"""How many agents a refusal names."""


@lru_cache(1024)
def _names_a_variable(name: str) -> bool:
    """Say whether a name can be one; most sessions have the same variables."""
    return re.fullmatch(r"[^=\0]+", name) is not None


def check_all(
    specs: Sequence[SessionSpec],
    groups: Mapping[str, ScalingGroup],
    machines_of: Callable[[str], Machines],
) -> list[InfeasibleRequestError | None]:
    """Refuse submissions that make no sense; say of each what refuses it that could never fit.

    Args:
        specs: What was submitted together.
        groups: The scaling groups by name.
        machines_of: The agents of a group.

    Raises:
        UnknownGroupError: There is no such group.
        InvalidRequestError: Anything else.
    """
    machines = {name: machines_of(name) for name in {spec.scaling_group for spec in specs}}
    known: dict[tuple[object, ...], InfeasibleRequestError | None] = {}
    found: list[InfeasibleRequestError | None] = []
    for spec in specs:
        group = spec.scaling_group
        check(spec, groups, machines[group])
        asked = group, spec.request, spec.kernel_count, spec.where
        if not spec.allow_infeasible and asked not in known:
            known[asked] = infeasible(spec, machines[group])
        found.append(None if spec.allow_infeasible else known[asked])
    return found


def check(spec: SessionSpec, groups: Mapping[str, ScalingGroup], machines: Machines) -> None:
    """Refuse a submission that makes no sense.

    Args:
        spec: What was submitted.
        groups: The scaling groups by name.
        machines: The agents of the group of `spec`.

    Raises:
        UnknownGroupError: There is no such group.
        InvalidRequestError: Anything else.
    """
    group = groups.get(spec.scaling_group)
    if group is None:
        raise UnknownGroupError(
            f"scaling_group: there is no group {spec.scaling_group!r};"
            f" choose one of {', '.join(sorted(groups))}",
            field="scaling_group",
        )
    _check_command(spec)
    _check_numbers(spec, group)
    _check_limits(spec)
    _check_where(spec, machines.agents)


def infeasible(spec: SessionSpec, machines: Machines) -> InfeasibleRequestError | None:
    """Return what refuses a submission that could not run even if all agents were empty."""
    wait = never_fits(Demand([spec.request] * spec.kernel_count, spec.where), machines)
    if wait is None:
        return None
    return InfeasibleRequestError(
        f"{sentence(wait)}; ask for less, or submit with allow_infeasible (--allow-infeasible)"
        " to wait for an agent that can",
        field="request",
    )


def _check_command(spec: SessionSpec) -> None:
    _require(bool(spec.command and spec.command[0]), "command", "is empty; name a program to run")
    for name in filterfalse(_names_a_variable, spec.env):
        raise InvalidRequestError(
            f"env: {name!r} cannot be the name of a variable; it must not be empty nor contain =",
            field="env",
        )
    _require(spec.cwd.startswith("/"), "cwd", "{!r} is not an absolute path", spec.cwd)


def _check_numbers(spec: SessionSpec, group: ScalingGroup) -> None:
    _require(
        SESSION_PRIORITY_MIN <= spec.priority <= SESSION_PRIORITY_MAX,
        "priority",
        "{} is outside {} to {}",
        spec.priority,
        SESSION_PRIORITY_MIN,
        SESSION_PRIORITY_MAX,
    )
    _require(
        1 <= spec.kernel_count <= group.kernels_max,
        "kernels",
        "{} is outside 1 to {}, the most that the group {} allows",
        spec.kernel_count,
        group.kernels_max,
        group.name,
    )
    for field in ("walltime_s", "pending_timeout_s"):
        seconds = getattr(spec, field)
        _require(
            seconds is None or (math.isfinite(seconds) and seconds > 0),
            field,
            "{} is not a time; it must be above 0 seconds",
            seconds,
        )
    _require(
        math.isfinite(spec.grace_s) and spec.grace_s >= 0, "grace_s", "must be 0 seconds or more"
    )
    _require(spec.begin_at is None or math.isfinite(spec.begin_at), "begin_at", "is not a moment")
    _require(spec.retries >= 0, "retries", "must be 0 or more")
    request = spec.request
    for field in ("cpu_milli", "mem_bytes", "gpu_shares", "gpu_mem_bytes_min"):
        _require(getattr(request, field) >= 0, field, "must be 0 or more")
    _require(
        not (request.devices_whole and request.device_fraction),
        "gpu_shares",
        "{} devices: ask for whole ones, or for less than one",
        request.gpu_shares / DEVICE_SHARES,
    )
    _require(
        not request.gpu_mem_bytes_min or request.gpu_shares > 0,
        "gpu_mem_bytes_min",
        "is a condition on the GPU asked for; ask for one (--gpu 1)",
    )


def _check_limits(spec: SessionSpec) -> None:
    _require(
        len(spec.depends_on) <= DEPENDENCIES_MAX,
        "depends_on",
        "{} dependencies are more than {}",
        len(spec.depends_on),
        DEPENDENCIES_MAX,
    )
    for name, limit in spec.limits.items():
        _require(
            name in LIMITED,
            "limits",
            "no stage {!r} has a limit; choose one of {}",
            name,
            ", ".join(LIMITED),
        )
        _require(
            (limit.attempts_max is None or limit.attempts_max >= 1)
            and (limit.phase_s_max is None or limit.phase_s_max > 0),
            "limits",
            "{}: attempts_max must be at least 1 and phase_s_max above 0",
            name,
        )


def _check_where(spec: SessionSpec, agents: Sequence[Agent]) -> None:
    where = spec.where
    if where.is_anywhere:
        return
    name, _, problem = (contradiction(where) or "").partition(": ")
    _require(not problem, f"where.{'constraints' if name == 'constraint' else name}", problem)
    most = where.kernels_per_agent_max
    _require(most is None or most >= 1, "where.kernels_per_agent_max", "must be 1 or more")
    if where.same:
        check_label_name(where.same, field="where.same")
    for constraint in where.constraints:
        _require(
            not constraint.is_of_devices or spec.request.gpu_shares > 0,
            "where.constraints",
            "{} is a condition on the GPU asked for; ask for one (--gpu 1)",
            str(constraint)[:80],
        )
    if not spec.allow_infeasible and agents:
        _check_agents(where, spec.scaling_group, agents)


def _check_agents(where: Where, scaling_group: str, agents: Sequence[Agent]) -> None:
    """Refuse names that no agent of the group has: most likely they are misspelt."""
    known = {name for agent in agents for name in (agent.name, agent.agent_id)}
    names = sorted({label(agent) for agent in agents})
    some = ", ".join(names[:NAMED_MAX]) + " …" * (len(names) > NAMED_MAX)
    for field in ("agents", "prefer", "exclude"):
        for name in getattr(where, field):
            _require(
                name in known,
                f"where.{field}",
                f"the group {scaling_group} has no agent {name!r}; it has {some}; name one of them,"
                " or submit with allow_infeasible (--allow-infeasible) to have it count when it"
                " comes",
            )


def _require(holds: bool, field: str, message: str, *facts: object) -> None:
    """Refuse what does not hold; `message` is filled in with `facts`, if there are any, then."""
    if not holds:
        words = message.format(*facts) if facts else message
        raise InvalidRequestError(f"{field}: {words}", field=field)
