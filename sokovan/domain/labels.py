"""Labels of agents: what their settings say of them, and what an administrator says instead."""

from collections.abc import Mapping

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.where import AGENT_ATTRIBUTES, ATTRIBUTE, DEVICE_ATTRIBUTES, LABEL_VALUE

BUILT_IN = frozenset((*AGENT_ATTRIBUTES, *DEVICE_ATTRIBUTES))
"""What every agent or device has anyway: no label has such a name."""
LABELS_MAX = 100
"""Most labels of one agent."""
REMOVED = ""
"""In place of a value, where an administrator wants none; no label has it as its value."""


def check_labels(labels: Mapping[str, str], *, field: str) -> None:
    """Make sure that names and values are such that a constraint can name them.

    Raises:
        InvalidRequestError: One is not, or there are too many.
    """
    for name, value in labels.items():
        check_label_name(name, field=field)
        if not LABEL_VALUE.fullmatch(value):
            raise InvalidRequestError(
                f"{field}: {value[:80]!r} cannot be the value of {name}; write 1 to 127 letters,"
                " digits, _, -, ., /, : and spaces, the first of them no space",
                field=field,
            )
    if len(labels) > LABELS_MAX:
        raise InvalidRequestError(
            f"{field}: {len(labels)} labels are more than the {LABELS_MAX} that an agent may have;"
            " leave some out",
            field=field,
        )


def check_label_name(name: str, *, field: str) -> None:
    """Make sure that a label can have this name.

    Raises:
        InvalidRequestError: It looks otherwise, or means something already.
    """
    if name in BUILT_IN:
        raise InvalidRequestError(
            f"{field}: every agent has {name} by itself, and it is no label; name another one",
            field=field,
        )
    if not ATTRIBUTE.fullmatch(name):
        raise InvalidRequestError(
            f"{field}: {name[:80]!r} cannot be the name of a label; write 1 to 63 letters, digits,"
            " _, - and ., a letter first",
            field=field,
        )


def merged(own: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that count: an administrator's word wins over the agent's own.

    Args:
        own: What the agent's settings say.
        said: What an administrator says, `REMOVED` included.
    """
    both = {**own, **said}
    return {name: both[name] for name in sorted(both) if both[name] != REMOVED}


def relabelled(
    own: Mapping[str, str], said: Mapping[str, str], changes: Mapping[str, str | None]
) -> dict[str, str]:
    """Return what an administrator says after `changes`, in which `None` takes a label away."""
    after = dict(said)
    for name, value in changes.items():
        if value is not None:
            after[name] = value
        elif name in own:
            after[name] = REMOVED
        else:
            after.pop(name, None)
    return after
