"""What people type for amounts, sizes and times, as exact integers and seconds, and back."""

import re
from decimal import Decimal, InvalidOperation

from sokovan.domain.errors import InvalidRequestError

_SIZES = {
    "": 1,
    "B": 1,
    **{unit: 1024**n for n, unit in enumerate(("K", "M", "G", "T", "P"), 1)},
    **{f"{unit}I": 1024**n for n, unit in enumerate(("K", "M", "G", "T", "P"), 1)},
    **{f"{unit}IB": 1024**n for n, unit in enumerate(("K", "M", "G", "T", "P"), 1)},
    **{f"{unit}B": 1000**n for n, unit in enumerate(("K", "M", "G", "T", "P"), 1)},
}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AMOUNT_MAX = 2**53
DEVICE_SHARES = 1000
"""Shares of one whole device."""


def parse_milli(text: str, *, field: str) -> int:
    """Read a number of cores or devices such as `0.5` as thousandths, exactly.

    Raises:
        InvalidRequestError: Not a number, negative, too large, or finer than one thousandth.
    """
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0 or number > _AMOUNT_MAX:
        raise InvalidRequestError(
            f"{field}: {text!r} is not an amount; write a number such as 2 or 0.5", field=field
        )
    milli = number * 1000
    if milli != milli.to_integral_value():
        raise InvalidRequestError(
            f"{field}: {text!r} is finer than one thousandth; use at most three decimals",
            field=field,
        )
    return int(milli)


def parse_size(text: str, *, field: str) -> int:
    """Read a size such as `512M` or `4G` as bytes; K, M, G, T, P are powers of 1024, KB, MB … of 1000.

    Raises:
        InvalidRequestError: Not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    unit = _SIZES.get(match[2].upper()) if match else None
    size = Decimal(match[1]) * unit if match and unit else None
    if size is None or size > _AMOUNT_MAX:
        raise InvalidRequestError(
            f"{field}: {text!r} is not a size; write a number and a unit, such as 512M or 4G",
            field=field,
        )
    return int(size)


def parse_duration(text: str, *, field: str) -> float:
    """Read a duration such as `90`, `90s`, `15m`, `1h30m`, `2d`, `01:30:00` or `1-12:00:00` as seconds.

    Raises:
        InvalidRequestError: Not a duration.
    """
    plain = text.strip()
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", plain, re.ASCII)
    if clock:
        days, first, second, third = clock.groups()
        if third is None and days is None:
            hours, minutes, seconds = 0, int(first), int(second)
        else:
            hours, minutes, seconds = int(first), int(second), int(third or 0)
        return float(int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw]?)", plain, re.ASCII)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        raise InvalidRequestError(
            f"{field}: {text!r} is not a duration; write 90s, 15m, 1h30m, 2d or 01:30:00",
            field=field,
        )
    if len(parts) > 1 and any(not unit for _, unit in parts):
        raise InvalidRequestError(
            f"{field}: {text!r} leaves out a unit; write for example 1h30m", field=field
        )
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in parts))


def format_milli(milli: int) -> str:
    """Write thousandths as people do: `500` is `0.5`, `2000` is `2`."""
    return f"{Decimal(milli) / 1000:f}"


def format_size(size: int) -> str:
    """Write bytes with the largest unit that leaves at least 1, to one decimal."""
    for exponent, unit in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if size >= 1024**exponent:
            return f"{size / 1024**exponent:.1f}".removesuffix(".0") + unit
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """Write seconds with at most two units: `3:05` is `3m05s`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s" if seconds >= 10 or seconds == whole else f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
