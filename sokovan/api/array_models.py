"""The shape of what the API takes and answers about arrays."""

from typing import Annotated

from pydantic import BaseModel, Field

from sokovan.api.answers import DryRun, Stamp, Waiting
from sokovan.api.models import AMOUNT_MAX, COUNT_MAX, Body, SessionBody, checked_body
from sokovan.api.texts import NAME_LENGTH_MAX, STRING_BYTES_MAX, Word
from sokovan.domain.arrays import PARAMS_MAX, ArraySpec, check_array, parse_indexes
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.statuses import SessionResult, SessionStatus

INDEXES_LENGTH_MAX = 100_000


class ArrayBody(Body):
    """An array: one session for each index, or for each combination of parameters.

    `{index}` and `{name}` of a parameter are put into the words of the command, the values of the
    environment, and the name.
    """

    session: SessionBody
    indexes: Annotated[str, Field(min_length=1, max_length=INDEXES_LENGTH_MAX)] | None = None
    """Such as `0-999`, `0-100:5` or `1,3,7`."""
    params: Annotated[
        dict[str, Annotated[list[Word], Field(min_length=1, max_length=COUNT_MAX)]],
        Field(max_length=PARAMS_MAX),
    ] = Field(default_factory=dict)
    """The values of each parameter; the first one changes slowest."""
    running_max: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = None
    """How many tasks may be at work at once."""

    def value(self, owner: str, tasks_max: int) -> ArraySpec:
        """Return what was submitted as a value.

        Args:
            owner: Whose array it is when the body does not say.
            tasks_max: How many tasks it may have.

        Raises:
            InvalidRequestError: It makes no sense, or a task would be too long.
        """
        indexes = None
        if self.indexes is not None:
            indexes = parse_indexes(self.indexes, field="indexes")
        params = tuple((name, tuple(values)) for name, values in self.params.items())
        template = self.session.spec(owner, "session.")
        array = ArraySpec(template, indexes, params, self.running_max)
        check_array(array, tasks_max=tasks_max)
        longest = array.longest()
        if len(longest.name) > NAME_LENGTH_MAX:
            raise InvalidRequestError(
                f"session.name: a task's is longer than {NAME_LENGTH_MAX} characters; shorten it",
                field="session.name",
            )
        words = [*longest.command, *(f"{name}={value}" for name, value in longest.env.items())]
        if any(len(word.encode()) > STRING_BYTES_MAX for word in words):
            raise InvalidRequestError(
                f"params: with its values, a word of the command or a variable is longer than"
                f" {STRING_BYTES_MAX} bytes; put long values into a file",
                field="params",
            )
        return array


class Array(BaseModel):
    """An array, or some of its tasks."""

    id: str
    part: str | None
    """The indexes of which this tells, where it is not all of them."""
    name: str
    owner: str
    scaling_group: str
    number: int
    """Its place among all that was ever submitted."""
    size: int
    """How many tasks these are."""
    running_max: int | None
    indexes: str | None
    params: dict[str, list[str]]
    command: list[str] | None
    """As it was submitted; null for those who may not see it."""
    live: dict[SessionStatus, int]
    """How many tasks are in each status in which they have not ended."""
    succeeded: int
    failed: int
    cancelled: int
    result: SessionResult
    """SUCCESS when all tasks have ended with it, FAILURE when all have ended."""
    created_at: Stamp
    ended_at: Stamp | None
    wait: Waiting | None
    """Why the first of those tasks waits that have not ended, where all of them wait."""


class ArrayDetail(Array):
    """An array in full."""

    first_failure: "Task | None"
    """The first task by index that has ended otherwise than with SUCCESS."""


class Task(BaseModel):
    """What matters most of a task; it is a session, of which `GET /v1/sessions/{id}` says more."""

    id: str
    array_id: str
    index: Annotated[int, Field(ge=0, le=AMOUNT_MAX)]
    name: str
    status: SessionStatus
    result: SessionResult
    reason: str | None
    """Why it ended; while it waits, why it waits."""
    exit_code: int | None
    agent: str | None
    """Of the main kernel."""
    started_at: Stamp | None
    ended_at: Stamp | None


class ArrayPage(BaseModel):
    """A page of arrays, newest first."""

    items: list[Array]
    next_cursor: str | None


class TaskPage(BaseModel):
    """A page of the tasks of an array, by index."""

    items: list[Task]
    next_cursor: str | None


class ArrayDryRun(BaseModel):
    """What would become of an array, were it submitted now."""

    size: int
    first_index: int
    first: DryRun
    """What would become of its first task."""
    command: list[str]
    """What the first task would run."""


class WaitingTasks(BaseModel):
    """Tasks that wait for one reason."""

    code: str
    tasks: int
    sentence: str
    """Of the first of them."""
    first: str
    """Its id."""


class ArrayWhy(BaseModel):
    """Where the tasks of an array stand."""

    array: Array
    sentence: str
    waiting: list[WaitingTasks]
    """By how many they are, the most first."""


class ArrayChanged(BaseModel):
    """What has become of the tasks of an array that were asked for."""

    array: Array
    outcomes: dict[str, int]
    """How many: `cancelled`, `terminating`, `already-ended`; `held`, `released`, `not-waiting`."""


def read_array(body: bytes, *, owner: str, tasks_max: int) -> ArraySpec:
    """Read an array.

    Raises:
        InvalidRequestError: The body is malformed, too long or out of shape.
    """
    return checked_body(ArrayBody, body).value(owner, tasks_max)
