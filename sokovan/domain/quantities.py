"""What people type for amounts, sizes and times, as exact integers and seconds, and back."""

import re
from decimal import Decimal

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
_SECONDS_MAX = 10**10
DEVICE_SHARES = 1000
"""Shares of one whole device."""


def parse_milli(text: str, *, field: str) -> int:
    """Read a number of cores or devices such as `0.5` as thousandths, exactly.

    Raises:
        InvalidRequestError: Not a number, negative, too large, or finer than one thousandth.
    """
    match = re.fullmatch(r"\s*(?=\.?\d)(\d{0,16})(?:\.(\d*))?\s*", text, re.ASCII)
    whole, decimals = (match[1] or "0", (match[2] or "").rstrip("0")) if match else ("", "")
    if not whole or Decimal(f"{whole}.{decimals}") > _AMOUNT_MAX:
        raise InvalidRequestError(
            f"{field}: {text!r} is not an amount; write a number such as 2 or 0.5", field=field
        )
    if len(decimals) > 3:
        raise InvalidRequestError(
            f"{field}: {text!r} is finer than one thousandth; use at most three decimals",
            field=field,
        )
    return int(whole) * 1000 + int(decimals.ljust(3, "0"))


def parse_size(text: str, *, field: str) -> int:
    """Read a size such as `512M` or `1.5G` as bytes, a part of a byte left out.

    K, M, G, T, P are powers of 1024, with or without `i` or `iB`; KB, MB … are powers of 1000.

    Raises:
        InvalidRequestError: Not a size.
    """
    match = re.fullmatch(r"\s*(\d{1,16}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    unit = _SIZES.get(match[2].upper()) if match else None
    size = Decimal(match[1]) * unit if match and unit else None
    if size is None or size > _AMOUNT_MAX:
        raise InvalidRequestError(
            f"{field}: {text!r} is not a size; write a number and a unit, such as 512M or 4G",
            field=field,
        )
    return int(size)


def parse_duration(text: str, *, field: str) -> float:
    """Read a duration as seconds: `90`, `90s`, `15m`, `1h30m`, `2d`, `01:30:00` or `1-12:00:00`.

    Raises:
        InvalidRequestError: Not a duration.
    """
    plain = text.strip()
    clock = re.fullmatch(r"(?:(\d{1,6})-)?(\d{1,9}):(\d{1,2})(?::(\d{1,2}))?", plain, re.ASCII)
    if clock:
        days, first, second, third = clock.groups()
        if third is None and days is None:
            hours, minutes, seconds = 0, int(first), int(second)
        else:
            hours, minutes, seconds = int(first), int(second), int(third or 0)
        whole = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
        if whole <= _SECONDS_MAX:
            return float(whole)
    parts = re.findall(r"(\d{1,99}(?:\.\d{1,99})?)([smhdw]?)", plain, re.ASCII)
    total = sum(Decimal(number) * _SECONDS[unit] for number, unit in parts)
    written = "".join(number + unit for number, unit in parts)
    if not parts or written != plain or total > _SECONDS_MAX:
        raise InvalidRequestError(
            f"{field}: {text!r} is not a duration; write 90s, 15m, 1h30m, 2d or 01:30:00",
            field=field,
        )
    if len(parts) > 1 and any(not unit for _, unit in parts):
        raise InvalidRequestError(
            f"{field}: {text!r} leaves out a unit; write for example 1h30m", field=field
        )
    return float(total)


def format_milli(milli: int) -> str:
    """Write thousandths as people do: `500` is `0.5`, `2000` is `2`."""
    return f"{Decimal(milli) / 1000:f}"


def format_size(size: int) -> str:
    """Write bytes with the largest unit that leaves at least 1, to one decimal."""
    if size < 1024:
        return f"{size}B"
    amount, units = size / 1024, "KMGTP"
    while amount >= 1023.95 and len(units) > 1:  # 1023.95 would be rounded to 1024
        amount, units = amount / 1024, units[1:]
    return f"{amount:.1f}".removesuffix(".0") + units[0]


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


def exact_size(size: int) -> str:
    """Write bytes so that they are read as the same number: `1536M`, never `1.5G`."""
    for power, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return str(size)


def exact_duration(seconds: int) -> str:
    """Write whole seconds so that they are read as the same number: `1d2h5s`."""
    days, rest = divmod(seconds, 86400)
    parts = ((days, "d"), (rest // 3600, "h"), (rest % 3600 // 60, "m"), (rest % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def bytes_of(text: str) -> int:
    """Return how long a text is in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
