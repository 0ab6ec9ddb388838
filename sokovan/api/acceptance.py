"""What a submission must fulfil to be accepted. Pure; each refusal names the field and the fix."""

import math
import re
from collections.abc import Callable, Mapping

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import (
    InfeasibleRequestError,
    InvalidRequestError,
    UnknownGroupError,
)
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.sessions import SESSION_PRIORITY_MAX, SESSION_PRIORITY_MIN, SessionSpec
from sokovan.placement.binding import never_fits
from sokovan.placement.needs import Demand
from sokovan.placement.sentences import sentence
from sokovan.placement.snapshot import Snapshot
from sokovan.scheduler.stages import LIMITED

_ENV_NAME = re.compile(r"[^=\0]+")
DEPENDENCIES_MAX = 1000


def check(
    spec: SessionSpec,
    groups: Mapping[str, ScalingGroup],
    snapshot_of: Callable[[str], Snapshot | None],
) -> None:
    """Refuse a submission that makes no sense.

    Args:
        spec: What was submitted.
        groups: The scaling groups by name.
        snapshot_of: What is known of a group, by its name.

    Raises:
        UnknownGroupError: There is no such group.
        InfeasibleRequestError: No agent of the group could ever fit it.
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
    snapshot = snapshot_of(spec.scaling_group)
    if spec.allow_infeasible or snapshot is None:
        return
    wait = never_fits(Demand([spec.request] * spec.kernel_count, spec.where), snapshot.machines)
    if wait is not None:
        raise InfeasibleRequestError(
            f"{sentence(wait)}; ask for less, or submit with allow_infeasible (--allow-infeasible)"
            " to wait for an agent that can",
            field="request",
        )


def _check_command(spec: SessionSpec) -> None:
    _require(bool(spec.command and spec.command[0]), "command", "is empty; name a program to run")
    for name in spec.env:
        _require(
            _ENV_NAME.fullmatch(name) is not None,
            "env",
            f"{name!r} cannot be the name of a variable; it must not be empty nor contain =",
        )
    _require(spec.cwd.startswith("/"), "cwd", f"{spec.cwd!r} is not an absolute path")


def _check_numbers(spec: SessionSpec, group: ScalingGroup) -> None:
    _require(
        SESSION_PRIORITY_MIN <= spec.priority <= SESSION_PRIORITY_MAX,
        "priority",
        f"{spec.priority} is outside {SESSION_PRIORITY_MIN} to {SESSION_PRIORITY_MAX}",
    )
    _require(
        1 <= spec.kernel_count <= group.kernels_max,
        "kernels",
        f"{spec.kernel_count} is outside 1 to {group.kernels_max},"
        f" the most that the group {group.name} allows",
    )
    for field in ("walltime_s", "pending_timeout_s"):
        seconds = getattr(spec, field)
        _require(
            seconds is None or (math.isfinite(seconds) and seconds > 0),
            field,
            f"{seconds} is not a time; it must be above 0 seconds",
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
        f"{request.gpu_shares / DEVICE_SHARES} devices: ask for whole ones, or for less than one",
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
        f"{len(spec.depends_on)} dependencies are more than {DEPENDENCIES_MAX}",
    )
    for name, limit in spec.limits.items():
        _require(
            name in LIMITED,
            "limits",
            f"no stage {name!r} has a limit; choose one of {', '.join(LIMITED)}",
        )
        _require(
            (limit.attempts_max is None or limit.attempts_max >= 1)
            and (limit.phase_s_max is None or limit.phase_s_max > 0),
            "limits",
            f"{name}: attempts_max must be at least 1 and phase_s_max above 0",
        )


def _require(holds: bool, field: str, message: str) -> None:
    if not holds:
        raise InvalidRequestError(f"{field}: {message}", field=field)
