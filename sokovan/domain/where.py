"""What a session says of where its kernels may go, beyond the amounts that they ask for."""

import re
from dataclasses import dataclass
from enum import StrEnum

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import parse_milli, parse_size


class ClusterMode(StrEnum):
    """How the kernels of one session may be spread over agents."""

    MULTI_NODE = "multi-node"
    """On any agents."""
    SINGLE_NODE = "single-node"
    """All of them on one agent."""


class Comparison(StrEnum):
    """What a constraint asks of an attribute."""

    IS = "="
    IS_NOT = "!="
    AT_LEAST = ">="
    AT_MOST = "<="


DEVICE_ATTRIBUTES = ("gpu_model", "mem_gpu")
"""Attributes of single devices: only those that meet such a constraint are given to a kernel."""
AGENT_ATTRIBUTES = ("agent", "architecture", "cpu", "mem", "gpus")
"""What every agent has besides its labels: name, machine, cores, bytes, number of devices."""
SIZES = ("mem", "mem_gpu")
"""Attributes written like 40G."""
NUMBERS = ("cpu", "gpus", *SIZES)
"""Attributes that are numbers on every agent or device."""
ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}", re.ASCII)
"""How the name of an attribute or a label looks."""
LABEL_VALUE = re.compile(r"[A-Za-z0-9_./:-][A-Za-z0-9_./: -]{0,126}", re.ASCII)
"""How the value of a label looks."""
_CONSTRAINT = re.compile(r"\s*([^\s=!<>]+)\s*(!=|>=|<=|=)\s*(.*?)\s*", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Constraint:
    """One condition on an attribute of agents or devices, such as `gpu_model=H100|H200`.

    Attributes:
        attribute: A label, or one of `AGENT_ATTRIBUTES` and `DEVICE_ATTRIBUTES`.
        comparison: `=` and `!=` compare texts, `>=` and `<=` compare numbers.
        values: The alternatives of `=` (any of them) and `!=` (none of them); one for the others.
    """

    attribute: str
    comparison: Comparison
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.attribute}{self.comparison.value}{'|'.join(self.values)}"

    @property
    def is_of_devices(self) -> bool:
        """Whether single devices meet it, or whole agents."""
        return self.attribute in DEVICE_ATTRIBUTES

    @property
    def number(self) -> int:
        """The value as a number: bytes for sizes, else thousandths."""
        return number_of(self.attribute, self.values[0])


def number_of(attribute: str, text: str) -> int:
    """Read the value of an attribute as a number: bytes for sizes, else thousandths.

    Raises:
        InvalidRequestError: It is not a number.
    """
    if attribute in SIZES:
        return parse_size(text, field="constraint")
    return parse_milli(text, field="constraint")


def parse_constraint(text: str) -> Constraint:
    """Read a constraint such as `rack=r1|r2`, `gpu_model!=T4` or `mem_gpu>=40G`.

    Raises:
        InvalidRequestError: It is not understood; the message names the part and the fix.
    """
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"constraint: {text[:80]!r} is not understood; write ATTRIBUTE=VALUE, !=, >= or <=,"
            " such as gpu_model=H100 or mem_gpu>=40G"
        )
    attribute, comparison, rest = match[1], Comparison(match[2]), match[3]
    if not ATTRIBUTE.fullmatch(attribute):
        raise InvalidRequestError(
            f"constraint: {attribute[:80]!r} is no attribute; write letters, digits, _, - and .,"
            " a letter first"
        )
    values = tuple(sorted({value.strip() for value in rest.split("|")}))
    if not all(LABEL_VALUE.fullmatch(value) for value in values):
        raise InvalidRequestError(
            f"constraint: {text[:80]!r} has no proper value; write such as rack=r1, or rack=r1|r2"
            " for either"
        )
    constraint = Constraint(attribute, comparison, values)
    if comparison in {Comparison.AT_LEAST, Comparison.AT_MOST}:
        if len(values) > 1:
            raise InvalidRequestError(
                f"constraint: {text[:80]!r} compares with several numbers; name one"
            )
        _ = constraint.number
    elif attribute in NUMBERS:
        for value in values:
            number_of(attribute, value)
    return constraint


@dataclass(frozen=True, slots=True)
class Where:
    """All that a session says of where it may go. Equal for most, and cheap to compare.

    Agents are named by name or id; sessions by name or id.
    """

    mode: ClusterMode = ClusterMode.MULTI_NODE
    kernels_per_agent_max: int | None = None
    """Of this session, on one agent."""
    same: str = ""
    """All kernels go on agents with one value of this label, such as `rack`; empty: any."""
    constraints: tuple[Constraint, ...] = ()
    """Sorted; all must be met."""
    agents: tuple[str, ...] = ()
    """Only these; empty: any."""
    prefer: tuple[str, ...] = ()
    """These first, while they have room."""
    exclude: tuple[str, ...] = ()
    """None of these."""
    spread_with: tuple[str, ...] = ()
    """Where kernels of these sessions are only when nothing else fits."""
    pack_with: tuple[str, ...] = ()
    """Where kernels of these sessions are first, while there is room."""

    @property
    def is_anywhere(self) -> bool:
        """Whether nothing is said at all."""
        return self is ANYWHERE or self == ANYWHERE


ANYWHERE = Where()


def contradiction(where: Where) -> str | None:
    """Say what of a session's wishes can never be met together, or `None`."""
    both = sorted(set(where.agents) & set(where.exclude))
    if both:
        return f"agents: {both[0]!r} is both required and excluded; drop one of them"
    if where.mode is ClusterMode.SINGLE_NODE and where.kernels_per_agent_max is not None:
        return (
            "kernels_per_agent_max: single-node puts all kernels on one agent; drop one of the two"
        )
    both = sorted(set(where.spread_with) & set(where.pack_with))
    if both:
        return f"spread_with: {both[0]!r} is also in pack_with; drop one of them"
    for attribute in sorted({c.attribute for c in where.constraints}):
        problem = _clash([c for c in where.constraints if c.attribute == attribute])
        if problem:
            return f"constraint: {problem}"
    return None


def _clash(of_one: list[Constraint]) -> str | None:
    """Constraints on one attribute that no value meets."""
    shown = " and ".join(str(c) for c in of_one)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
    allowed: set[str | int] | None = None
    for c in of_one:
        if c.comparison is Comparison.IS:
            allowed = _meant(c) if allowed is None else allowed & _meant(c)
    refused = {v for c in of_one if c.comparison is Comparison.IS_NOT for v in _meant(c)}
    # A model such as NVIDIA H100 has several names: it may be each of two texts.
    if of_one[0].attribute != "gpu_model" and allowed is not None and not allowed - refused:
        return f"{shown} cannot both be met; drop one of them"
    least = [c.number for c in of_one if c.comparison is Comparison.AT_LEAST]
    most = [c.number for c in of_one if c.comparison is Comparison.AT_MOST]
    if least and most and max(least) > min(most):
        return f"{shown} cannot both be met; drop one of them"
    return None


def _meant(constraint: Constraint) -> set[str | int]:
    """Return the alternatives as they are compared: 2 and 2.0 are the same number of cores."""
    if constraint.attribute in NUMBERS:
        return {number_of(constraint.attribute, text) for text in constraint.values}
    return set(constraint.values)
