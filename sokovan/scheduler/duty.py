"""What a manager is to the groups of a store that others may share."""

import enum


class Duty(enum.Enum):
    """What a manager is to a scaling group."""

    LEADS = "leads"
    """It drives it."""
    ALONE = "alone"
    """It could not renew its lease, and nobody else was there when it last could."""
    UNSURE = "unsure"
    """It could not renew its lease, and somebody else may drive the group by now."""
    NONE = "none"
    """Somebody else drives it, or nobody does."""
