"""What the users of a simulated run do: submit, and cancel, at times drawn from one seed."""

import random
from dataclasses import dataclass, replace
from typing import Any

from sokovan.domain.access import Caller, Role
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Capacity, Device, Request
from sokovan.domain.sessions import Dependency, DependencyKind, Limit, SessionId, SessionSpec
from sokovan.domain.statuses import SESSION_PATH, SessionStatus
from sokovan.simulator.runtime import Script

GIB = 1024**3
MOMENTS = tuple(SessionStatus(status) for status in SESSION_PATH[1:-1])
"""When it is worst to be cancelled."""
OWNERS = ("ada", "grace", "edsger")
ROOT = Caller("root", Role.ADMIN)
"""Who asks on behalf of them all."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One session that a user submits, what its kernels do, and when the user loses interest."""

    at: float
    """Seconds after the beginning."""
    spec: SessionSpec
    """`depends_on` names other wishes by their names, until those have an id."""
    scripts: tuple[Script, ...]
    """What each kernel does."""
    begin_after_s: float | None = None
    """How long after its submission it may begin."""
    release_at: float | None = None
    """When it is released, if it is held back at first."""
    cancel_at: float | None = None
    force: bool = False
    force_at: float | None = None
    """When the user, who has cancelled it already, has no patience left."""
    cancel_when: SessionStatus | None = None
    """The user cancels it at the very moment at which it comes to this status."""


def machines(rng: random.Random, count: int) -> list[Capacity]:
    """Draw what the agents have: some have GPUs, and no two need be alike."""
    found = []
    for index in range(count):
        gpus = rng.choice([1, 2, 4]) if index % 3 == 1 else 0
        found.append(
            Capacity(
                cpu_milli=rng.choice([4000, 8000]),
                mem_bytes=rng.choice([16, 32]) * GIB,
                devices=tuple(Device(n, "sim", rng.choice([16, 40]) * GIB) for n in range(gpus)),
            )
        )
    return found


def wishes(rng: random.Random, count: int, over_s: float, groups: tuple[str, ...]) -> list[Wish]:
    """Draw what users submit within `over_s` seconds, in order of time."""
    times = sorted(_moment(rng, over_s) for _ in range(count))
    made: list[Wish] = []
    for number, at in enumerate(times):
        made.append(_wish(rng, f"s{number}", at, groups, made))
    return made


def _moment(rng: random.Random, over_s: float) -> float:
    """Half of the submissions come in bursts on the ten minutes."""
    at = rng.uniform(0.0, over_s)
    return at if rng.random() < 0.5 else at // 600 * 600.0


def _wish(
    rng: random.Random, name: str, at: float, groups: tuple[str, ...], before: list[Wish]
) -> Wish:
    kernels = rng.choices([1, 2, 3, 5], [70, 15, 10, 5])[0]
    infeasible = rng.random() < 0.03
    spec = SessionSpec(
        command=("simulated",),
        name=name,
        owner=rng.choice(OWNERS),
        scaling_group=rng.choice(groups),
        priority=rng.choices([10, 0, 5, 50, 100], [60, 10, 10, 15, 5])[0],
        request=Request(cpu_milli=10**6) if infeasible else _request(rng),
        kernel_count=kernels,
        walltime_s=rng.choices([None, rng.uniform(30, 1800)], [75, 25])[0],
        pending_timeout_s=rng.choices([None, rng.uniform(60, 3600)], [85, 15])[0],
        requeue=rng.random() < 0.4,
        retries=rng.choices([0, 1, 2], [85, 10, 5])[0],
        grace_s=rng.choice([0.0, 10.0, 10.0, 60.0]),
        depends_on=_dependencies(rng, before),
        limits=_limits(rng),
        allow_infeasible=True,
        creation_id=name,
    )
    held = rng.random() < 0.05
    cancel_at = at + rng.expovariate(1 / 200) if rng.random() < 0.15 else None
    is_urgent = cancel_at is not None and rng.random() < 0.3
    return Wish(
        at,
        replace(spec, held=held),
        tuple(_script(rng) for _ in range(kernels)),
        release_at=at + rng.expovariate(1 / 300) if held else None,
        begin_after_s=rng.uniform(0, 900) if rng.random() < 0.05 else None,
        cancel_at=cancel_at,
        force=rng.random() < 0.3,
        force_at=(cancel_at or 0.0) + rng.choice([0.0, rng.expovariate(1 / 10)])
        if is_urgent
        else None,
        cancel_when=rng.choice(MOMENTS) if rng.random() < 0.06 else None,
    )


def _request(rng: random.Random) -> Request:
    gpu_shares = rng.choices([0, 1000, 500, 250, 2000], [80, 8, 6, 4, 2])[0]
    return Request(
        cpu_milli=rng.choice([100, 500, 1000, 2000, 3000]),
        mem_bytes=rng.choice([0, GIB // 2, GIB, 4 * GIB, 12 * GIB]),
        gpu_shares=gpu_shares,
        gpu_mem_bytes_min=rng.choice([0, 0, 24 * GIB]) if gpu_shares else 0,
    )


def _dependencies(rng: random.Random, before: list[Wish]) -> tuple[Dependency, ...]:
    if not before or rng.random() > 0.15:
        return ()
    others = rng.sample(before, min(len(before), rng.choice([1, 1, 2])))
    return tuple(
        Dependency(SessionId(other.spec.name), rng.choice(tuple(DependencyKind)))
        for other in others
    )


def _limits(rng: random.Random) -> dict[str, Limit]:
    if rng.random() > 0.05:
        return {}
    return {"start-sessions": Limit(attempts_max=2, phase_s_max=120.0)}


def _script(rng: random.Random) -> Script:
    kinds = ["ends", "brief", "fails", "will not start", "cannot"]
    kind = rng.choices(kinds, [60, 20, 12, 5, 3])[0]
    seconds = min(rng.expovariate(1 / 400), 3000.0)
    script = Script(
        seconds,
        ignores_term=rng.random() < 0.1,
        children_s=rng.choice([0.5, 30.0]) if rng.random() < 0.1 else 0.0,
        **_pull(rng),
    )
    if kind == "brief":
        code = rng.choices([0, 1], [4, 1])[0]
        return replace(script, seconds=rng.choice([0.0, 0.01]), exit_code=code)
    if kind == "fails":
        return replace(script, exit_code=rng.choice([1, 2, 77]))
    if kind == "will not start":
        return replace(script, start_failures=rng.choice([1, 2, 4, 9]))
    if kind == "cannot":
        return Script(refusal=EndReason.COMMAND_NOT_FOUND)
    return script


def _pull(rng: random.Random) -> dict[str, Any]:
    """Most images are there; others come slowly, at a later attempt, or never."""
    kind = rng.choices(["there", "slow", "fails", "never", "none"], [75, 15, 6, 2, 2])[0]
    pulls: dict[str, dict[str, Any]] = {
        "there": {},
        "slow": {"pull_s": rng.uniform(1.0, 600.0)},
        "fails": {"pull_failures": rng.choice([1, 3, 6]), "pull_s": 5.0},
        "never": {"pull_failures": 10**6},
        "none": {"has_no_image": True},
    }
    return pulls[kind]
