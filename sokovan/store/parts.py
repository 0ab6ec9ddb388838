"""Small structures that lie in one column as JSON text, and back; nothing at all is NULL."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sokovan.domain.resources import Capacity, Device, DeviceShares
from sokovan.domain.sessions import Attempts, Limit
from sokovan.domain.where import ANYWHERE, Where
from sokovan.domain.where_fields import fields_of, where_of

dumps = json.JSONEncoder(separators=(",", ":")).encode
"""Writes JSON without spaces."""


def known_of(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of `data` this version of `kind` has a place for."""
    return {name: data[name] for name in kind.__dataclass_fields__ if name in data}


def check_numbers(*numbers: float) -> None:
    """Raise a TypeError unless these are numbers: SQLite keeps whatever it is given."""
    sum(numbers)


def attempts_of(parts: Iterable[Any]) -> Attempts:
    """Read the failed attempts of one stage."""
    count, last_at, retry_at, *_ = parts
    return Attempts(int(count), float(last_at), float(retry_at))


def capacity_of(data: Mapping[str, Any]) -> Capacity:
    """Read what an agent has."""
    amounts = known_of(Capacity, data)
    devices = tuple(Device(**known_of(Device, device)) for device in data.get("devices", ()))
    check_numbers(*(device.index for device in devices))
    return Capacity(**amounts | {"devices": devices})


def limits_text(limits: Mapping[str, Limit]) -> str | None:
    """Write a session's own limits."""
    if not limits:
        return None
    return dumps({name: [limit.attempts_max, limit.phase_s_max] for name, limit in limits.items()})


def limits_of(text: str | None) -> dict[str, Limit]:
    """Read a session's own limits."""
    return {name: Limit(*parts[:2]) for name, parts in json.loads(text).items()} if text else {}


def devices_text(devices: DeviceShares) -> str | None:
    """Write the devices of a kernel or a hold."""
    return dumps(devices) if devices else None


def devices_of(text: str | None) -> DeviceShares:
    """Read the devices of a kernel or a hold."""
    return tuple((int(index), int(shares)) for index, shares in json.loads(text)) if text else ()


def where_text(where: Where) -> str | None:
    """Write where a session may go."""
    return None if where.is_anywhere else dumps(fields_of(where))


def read_where(text: str | None) -> Where:
    """Read where a session may go."""
    return where_of(json.loads(text)) if text else ANYWHERE


def labels_text(labels: Mapping[str, str]) -> str | None:
    """Write labels."""
    return dumps(dict(labels)) if labels else None


def labels_of(text: str | None) -> dict[str, str]:
    """Read labels."""
    labels = json.loads(text) if text else {}
    if not all(isinstance(value, str) for value in labels.values()):
        raise TypeError("labels are texts by name")
    return dict(labels)
