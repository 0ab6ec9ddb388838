"""What is not as it was written: which row it is, and what to do."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from sokovan.domain.errors import InvalidRequestError, StoreDamagedError

C = TypeVar("C", bound=Callable[..., Any])
DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    InvalidRequestError,  # a constraint that nobody could have submitted
)


def reads(table: str, key: str) -> Callable[[C], C]:
    """Have a reader of rows of `table` name the row, by its column `key`, that it cannot read."""

    def named(read: C) -> C:
        @wraps(read)
        def checked(row: Any, *given: Any) -> Any:
            try:
                return read(row, *given)
            except DAMAGE as error:
                raise damaged(f"{table}: the row {getattr(row, key, None)}", error) from error

        return cast("C", checked)

    return named


def damaged(what: str, error: Exception) -> StoreDamagedError:
    """Say that a row, or a part of one, is not as any version has written it."""
    return StoreDamagedError(
        f"the store is damaged, in {what}: {error}; put back a copy of sokovan.db from before that"
    )
