"""What people type for a session's options, read into the API's fields."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, cast

from sokovan.client.fields import ArrayFields, LimitFields, WhereFields
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import parse_duration
from sokovan.domain.sessions import DependencyKind
from sokovan.domain.where import ClusterMode, parse_constraint

KINDS = ", ".join(DependencyKind)


def parse_env(pairs: Iterable[str]) -> dict[str, str]:
    """Read `NAME=value` pairs.

    Raises:
        InvalidRequestError: One has no `=`, or nothing before it.
    """
    env = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise InvalidRequestError(
                f"env: {pair!r} is not a variable; write NAME=value", field="env"
            )
        env[name] = value
    return env


def parse_begin(text: str, now: float) -> str:
    """Read a time to begin at, and write it as RFC 3339 in UTC.

    Args:
        text: `2026-11-23T18:30:00+01:00`; the same without a zone, as this machine's clock shows
            it; `18:30`, the next time its clock shows that; `now`, `now+1h30m`, or `+30m`.
        now: The present time, in seconds since the epoch.

    Raises:
        InvalidRequestError: It is none of these.
    """
    plain = text.strip()
    present = datetime.fromtimestamp(now, UTC)
    relative = re.fullmatch(r"(?:now)?\s*\+\s*(.+)", plain)
    try:
        if plain == "now":
            moment = present
        elif relative:
            moment = present + timedelta(seconds=parse_duration(relative[1], field="begin"))
        elif re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", plain, re.ASCII):
            moment = _next_time_of_day(
                time.fromisoformat(plain if plain[2] == ":" else f"0{plain}"), present
            )
        else:
            moment = datetime.fromisoformat(plain)
        # A time without a zone is taken for this machine's, summer time included.
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            f"begin: {text!r} is not a time; write 18:30, +30m, now+1h, 2026-11-23T18:30 or"
            " 2026-11-23T18:30:00Z",
            field="begin",
        ) from None


def parse_limits(pairs: Iterable[str]) -> dict[str, LimitFields]:
    """Read `STAGE=DURATION` pairs: how long one phase of a stage may last.

    Raises:
        InvalidRequestError: One is not such a pair.
    """
    limits: dict[str, LimitFields] = {}
    for pair in pairs:
        stage, equals, duration = pair.partition("=")
        if not (stage and equals):
            raise InvalidRequestError(
                f"limit: {pair!r} is not a limit; write STAGE=DURATION, such as start-sessions=10m",
                field="limit",
            )
        limits[stage] = {"phase_s_max": parse_duration(duration, field="limit")}
    return limits


def parse_dependencies(texts: Iterable[str]) -> Sequence[tuple[DependencyKind, str]]:
    """Read `ID`, `afterany:ID` and the like, separated by commas, as kinds and references.

    Raises:
        InvalidRequestError: A kind that does not exist, or no id.
    """
    found = []
    for item in (item.strip() for text in texts for item in text.split(",")):
        kind, colon, ref = item.rpartition(":")
        if not ref or (colon and kind not in set(DependencyKind)):
            raise InvalidRequestError(
                f"depends-on: {item!r} is no dependency; write ID or KIND:ID, where KIND is one of"
                f" {KINDS}",
                field="depends-on",
            )
        found.append((DependencyKind(kind) if colon else DependencyKind.AFTER_OK, ref))
    return found


def parse_array(text: str | None, params: Iterable[str]) -> ArrayFields | None:
    """Read `0-999%16` or `%16`, and parameters as `NAME=V,V`; without any of them, it is no array.

    Of a parameter that is given twice, the last values count, as for a variable.

    Raises:
        InvalidRequestError: One of them cannot be read.
    """
    values: dict[str, list[str]] = {}
    for item in params:
        name, equals, rest = item.partition("=")
        if not (name and equals):
            raise InvalidRequestError(
                f"param: {item!r} is no parameter; write NAME=VALUE,VALUE", field="param"
            )
        values[name] = rest.split(",")
    if text is None:
        return {"params": values} if values else None
    indexes, percent, most = text.strip().partition("%")
    if percent and not (most.isascii() and most.isdecimal() and int(most[:9]) > 0):
        raise InvalidRequestError(
            f"array: {most!r} is no number of tasks; write such as 0-999%16", field="array"
        )
    if bool(indexes) == bool(values):
        raise InvalidRequestError(
            "array: with --param, the tasks are the combinations; write at most %N here"
            if values
            else f"array: {text!r} names no indexes; write such as 0-999%16",
            field="array",
        )
    return {
        "indexes": indexes or None,
        "params": values,
        "running_max": int(most) if percent else None,
    }


def parse_where(
    *, mode: str | None, constraints: Iterable[str], arch: str | None, **said: Any
) -> WhereFields:
    """Read what is said of where a session may go; what is not said is left out.

    Args:
        mode: `single-node` or `multi-node`.
        constraints: Such as `rack=r1`.
        arch: The value of one on the attribute `architecture`, alternatives separated by `|`.
        said: Other fields, which are passed on.

    Raises:
        InvalidRequestError: A mode that does not exist, or a constraint that is not understood.
    """
    if mode is not None and mode not in set(ClusterMode):
        raise InvalidRequestError(
            f"mode: {mode!r} does not exist; choose one of {', '.join(ClusterMode)}", field="mode"
        )
    read = [str(parse_constraint(text)) for text in constraints]
    if arch is not None:
        try:
            read.append(str(parse_constraint(f"architecture={arch}")))
        except InvalidRequestError:
            raise InvalidRequestError(
                f"arch: {arch!r} is no architecture; write such as x86_64, or x86_64|aarch64",
                field="arch",
            ) from None
    given = {"mode": mode, "constraints": read, **said}
    return cast("WhereFields", {name: value for name, value in given.items() if value})


def parse_labels(words: Iterable[str]) -> dict[str, str | None]:
    """Read `NAME=VALUE`, and `NAME-`, which takes a label away.

    Raises:
        InvalidRequestError: One is neither, or a label is named twice.
    """
    labels: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            if not word.endswith("-"):
                raise InvalidRequestError(
                    f"{word!r} is no label; write NAME=VALUE, or NAME- to take one away",
                    field="labels",
                )
            name = word[:-1]
        if name in labels:
            raise InvalidRequestError(f"{name!r} is named twice; name it once", field="labels")
        labels[name] = value if equals else None
    return labels


def _next_time_of_day(wanted: time, now: datetime) -> datetime:
    """Return the first moment from `now` on at which this machine's clock shows `wanted`."""
    today = datetime.combine(now.astimezone().date(), wanted)
    return today if today.astimezone() >= now else today + timedelta(days=1)
