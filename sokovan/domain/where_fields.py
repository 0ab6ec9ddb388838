"""`Where` as plain fields and back: how the API, the store and `show` write it."""

from collections.abc import Mapping
from typing import Any

from sokovan.domain.where import ANYWHERE, ClusterMode, Where, parse_constraint

_LISTS = ("agents", "prefer", "exclude", "spread_with", "pack_with")


def fields_of(where: Where) -> dict[str, Any]:
    """Return what is said of where, what is not left out; nothing at all for `ANYWHERE`."""
    if where is ANYWHERE:
        return {}
    mode = where.mode.value if where.mode is not ANYWHERE.mode else ""
    every = {
        "mode": mode,
        "kernels_per_agent_max": where.kernels_per_agent_max,
        "same": where.same,
        "constraints": [str(constraint) for constraint in where.constraints],
        **{name: list(getattr(where, name)) for name in _LISTS},
    }
    return {name: value for name, value in every.items() if value}


def where_of(fields: Mapping[str, Any]) -> Where:
    """Return the `Where` that `fields` say; repeated and unknown ones are left out.

    Raises:
        InvalidRequestError: A constraint is not understood.
        TypeError: Something is of the wrong kind.
        ValueError: There is no such mode.
    """
    most = fields.get("kernels_per_agent_max")
    if most is not None and type(most) is not int:
        raise TypeError("kernels_per_agent_max: not a whole number")
    constraints = {parse_constraint(text) for text in _texts(fields, "constraints")}
    same = fields.get("same", "")
    if not isinstance(same, str):
        raise TypeError("same: not a text")
    where = Where(
        mode=ClusterMode(fields.get("mode", ANYWHERE.mode)),
        kernels_per_agent_max=most,
        same=same,
        constraints=tuple(sorted(constraints)),
        **{name: _texts(fields, name) for name in _LISTS},
    )
    return ANYWHERE if where == ANYWHERE else where


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = fields.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise TypeError(f"{name}: not a list of texts")
    return tuple(dict.fromkeys(found))
