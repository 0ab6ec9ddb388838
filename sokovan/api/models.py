"""The shape of what the API takes: types and sizes. The service checks what it means."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from sokovan.api.problems import invalid
from sokovan.api.texts import (
    NAME_LENGTH_MAX,
    PROGRAM_BYTES_MAX,
    Directory,
    Environment,
    Label,
    Name,
    Word,
    program_bytes,
)
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.labels import LABELS_MAX, check_label_name, check_labels
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import Request
from sokovan.domain.sessions import (
    SESSION_PRIORITY_DEFAULT,
    Dependency,
    DependencyKind,
    Limit,
    SessionId,
    SessionSpec,
)
from sokovan.domain.where import ANYWHERE, Where, parse_constraint
from sokovan.domain.where_fields import where_of

AMOUNT_MAX = 2**53
SECONDS_MAX = 1e9
COUNT_MAX = 100_000
EPOCH_MAX = 253_402_300_799.0
"""The last second of the year 9999: what is later cannot be written as RFC 3339."""
CONSTRAINT_LENGTH_MAX = 1000
WISHES_MAX = 100
"""Most constraints, agents or sessions in one list of where a session may go."""

Amount = Annotated[int, Field(ge=0, le=AMOUNT_MAX)]
Seconds = Annotated[float, Field(le=SECONDS_MAX, ge=-SECONDS_MAX)]


class Body(BaseModel):
    """What every part of a request has in common: nothing is converted, nothing unknown taken."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


B = TypeVar("B", bound=Body)


class DependencyBody(Body):
    """Another session to wait for."""

    session_id: Name
    kind: Literal["afterok", "afterany", "afternotok"] = "afterok"


class LimitBody(Body):
    """How often a stage tries, and how long one of its phases may last."""

    attempts_max: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = None
    phase_s_max: Annotated[float, Field(ge=0, le=SECONDS_MAX)] | None = None


Names = Annotated[list[Name], Field(max_length=WISHES_MAX)]
Condition = Annotated[str, Field(min_length=1, max_length=CONSTRAINT_LENGTH_MAX)]


class WhereBody(Body):
    """Where a session's kernels may go; what is left out says nothing."""

    mode: Literal["multi-node", "single-node"] = "multi-node"
    kernels_per_agent_max: Annotated[int, Field(ge=1, le=COUNT_MAX)] | None = None
    same: Annotated[str, Field(max_length=NAME_LENGTH_MAX)] = ""
    constraints: Annotated[list[Condition], Field(max_length=WISHES_MAX)] = Field(
        default_factory=list
    )
    agents: Names = Field(default_factory=list)
    prefer: Names = Field(default_factory=list)
    exclude: Names = Field(default_factory=list)
    spread_with: Names = Field(default_factory=list)
    pack_with: Names = Field(default_factory=list)

    def value(self, place: str) -> Where:
        """Return what was said as a value.

        Raises:
            InvalidRequestError: A constraint that is not understood.
        """
        for n, text in enumerate(self.constraints):
            try:
                parse_constraint(text)
            except InvalidRequestError as error:
                field = f"{place}where.constraints[{n}]"
                said = error.message.removeprefix("constraint: ")
                raise InvalidRequestError(f"{field}: {said}", field=field) from None
        return where_of(self.model_dump())


class SessionBody(Body):
    """A session to run, in base units: milli-cores, bytes, shares of 1/1000 device, seconds."""

    command: Annotated[list[Word], Field(min_length=1, max_length=COUNT_MAX)]
    name: Label = ""
    owner: Name | None = None
    scaling_group: Name = "default"
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = SESSION_PRIORITY_DEFAULT
    cpu_milli: Amount = 1000
    mem_bytes: Amount = 0
    gpu_shares: Amount = 0
    gpu_mem_bytes_min: Amount = 0
    kernels: Annotated[int, Field(ge=1, le=COUNT_MAX)] = 1
    env: Environment = Field(default_factory=dict)
    cwd: Directory = "/"
    umask: Annotated[int, Field(ge=0, le=0o777)] = 0o022
    walltime_s: Seconds | None = None
    pending_timeout_s: Seconds | None = None
    begin_at: Annotated[str, Field(max_length=64)] | None = None
    held: bool = False
    requeue: bool = False
    retries: Annotated[int, Field(ge=0, le=COUNT_MAX)] = 0
    grace_s: Annotated[float, Field(ge=0, le=SECONDS_MAX)] = 10.0
    depends_on: Annotated[list[DependencyBody], Field(max_length=1000)] = Field(
        default_factory=list
    )
    where: WhereBody | None = None
    limits: Annotated[dict[str, LimitBody], Field(max_length=100)] = Field(default_factory=dict)
    allow_infeasible: bool = False
    creation_id: Name | None = None

    def spec(self, owner: str, place: str) -> SessionSpec:
        """Return what was submitted as a value.

        Args:
            owner: Whose session it is when the body does not say.
            place: What to write before a field's name in an error: `sessions[3].`, or nothing.

        Raises:
            InvalidRequestError: A program larger than Linux starts, or an amount, a time or a
                constraint that is none.
        """
        program = program_bytes(self.command, self.env)
        if program > PROGRAM_BYTES_MAX:
            raise InvalidRequestError(
                f"{place}command: with its environment it takes {program} bytes, and Linux starts"
                f" nothing above {PROGRAM_BYTES_MAX}; put the long parts into a file",
                field=f"{place}command",
            )
        check_shares(self.gpu_shares, place)
        return SessionSpec(
            command=tuple(self.command),
            name=self.name,
            owner=self.owner or owner,
            scaling_group=self.scaling_group,
            priority=self.priority,
            request=Request(
                cpu_milli=self.cpu_milli,
                mem_bytes=self.mem_bytes,
                gpu_shares=self.gpu_shares,
                gpu_mem_bytes_min=self.gpu_mem_bytes_min,
            ),
            kernel_count=self.kernels,
            env=self.env,
            cwd=self.cwd,
            umask=self.umask,
            walltime_s=self.walltime_s,
            pending_timeout_s=self.pending_timeout_s,
            begin_at=epoch_of(self.begin_at, f"{place}begin_at"),
            held=self.held,
            requeue=self.requeue,
            retries=self.retries,
            grace_s=self.grace_s,
            depends_on=tuple(
                Dependency(SessionId(item.session_id), DependencyKind(item.kind))
                for item in self.depends_on
            ),
            where=ANYWHERE if self.where is None else self.where.value(place),
            limits={
                stage: Limit(attempts_max=limit.attempts_max, phase_s_max=limit.phase_s_max)
                for stage, limit in self.limits.items()
            },
            allow_infeasible=self.allow_infeasible,
            creation_id=self.creation_id,
        )


class SessionsBody(Body):
    """Sessions that are accepted together or not at all."""

    sessions: Annotated[list[SessionBody], Field(min_length=1)]


class CancelBody(Body):
    """How to end a session."""

    force: bool = False
    """Kill its kernels at once, without the grace."""


class LabelBody(Body):
    """What an administrator says of an agent; null takes a label away."""

    labels: Annotated[dict[str, str | None], Field(min_length=1, max_length=LABELS_MAX)]


class DrainBody(Body):
    """Why an agent is taken out of service."""

    reason: Label = ""


def read_submission(
    body: bytes, *, owner: str, sessions_max: int
) -> tuple[list[SessionSpec], bool]:
    """Read one session, or several under `sessions`.

    Returns:
        The sessions, and whether they came as a list.

    Raises:
        InvalidRequestError: The body is malformed, too long or out of shape.
    """
    data = read_json(body)
    if not (isinstance(data, dict) and "sessions" in data):
        return [_checked(SessionBody, data).spec(owner, "")], False
    if isinstance(data["sessions"], list) and len(data["sessions"]) > sessions_max:
        raise InvalidRequestError(
            f"sessions: {len(data['sessions'])} are more than the {sessions_max} that one"
            " submission may have; send several",
            field="sessions",
        )
    parsed = _checked(SessionsBody, data).sessions
    return [item.spec(owner, f"sessions[{n}].") for n, item in enumerate(parsed)], True


def read_cancel(body: bytes) -> CancelBody:
    """Read how to cancel; an empty body says nothing special.

    Raises:
        InvalidRequestError: The body is malformed.
    """
    return _checked(CancelBody, read_json(body)) if body else CancelBody()


def read_drain(body: bytes) -> DrainBody:
    """Read why an agent is drained; an empty body gives no reason.

    Raises:
        InvalidRequestError: The body is malformed.
    """
    return _checked(DrainBody, read_json(body)) if body else DrainBody()


def read_labels(body: bytes) -> dict[str, str | None]:
    """Read how an agent's labels are to change.

    Raises:
        InvalidRequestError: The body is malformed, or a label is none.
    """
    labels = _checked(LabelBody, read_json(body)).labels
    for name in labels:
        check_label_name(name, field="labels")
    check_labels({n: value for n, value in labels.items() if value is not None}, field="labels")
    return labels


def read_json(body: bytes) -> Any:
    """Read a JSON text.

    Raises:
        InvalidRequestError: It is not JSON in UTF-8, or it has NaN, infinities or lone surrogates.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"the body is not JSON in UTF-8: {error}") from None


def checked_body(kind: type[B], body: bytes) -> B:
    """Read a body of one kind.

    Raises:
        InvalidRequestError: It is malformed.
    """
    return _checked(kind, read_json(body))


def _checked(kind: type[B], data: Any) -> B:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise invalid(_details(error)) from None


def _details(error: ValidationError) -> Sequence[dict[str, Any]]:
    return [dict(item) for item in error.errors(include_url=False)]


def check_shares(shares: int, place: str = "") -> None:
    """Refuse shares that are neither whole devices nor a part of one.

    Raises:
        InvalidRequestError: They are that.
    """
    if shares > DEVICE_SHARES and shares % DEVICE_SHARES:
        raise InvalidRequestError(
            f"{place}gpu_shares: {shares} is neither whole devices nor a part of one;"
            f" ask for a multiple of {DEVICE_SHARES}, or for less than {DEVICE_SHARES}",
            field=f"{place}gpu_shares",
        )


def epoch_of(text: str | None, field: str) -> float | None:
    """Read RFC 3339 as seconds since the epoch.

    Raises:
        InvalidRequestError: It is not a time with its zone.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and 0 <= moment.timestamp() <= EPOCH_MAX:
            return moment.timestamp()
    except ValueError:
        pass
    raise InvalidRequestError(
        f"{field}: {text!r} is not a time with its zone; write for example 2026-11-23T18:30:00Z",
        field=field,
    )
