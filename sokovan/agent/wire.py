"""How questions and answers look on the socket and in the journal: plain JSON values.

What comes in is checked field by field: a frame that is not as written here is refused with a
sentence, whoever sent it. Unknown fields are left alone, so that a newer manager can talk to an
agent that has not been restarted yet.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.labels import check_labels
from sokovan.domain.resources import Capacity, Device, Request
from sokovan.domain.sessions import AgentId, KernelId, SessionId
from sokovan.scheduler.messages import (
    AgentHello,
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    ReportState,
)

T = TypeVar("T")
_TOKEN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", re.ASCII)
_REPORT_DEFAULTS: tuple[Any, ...] = (None, None, "", 0, False, [])
"""From the third field on: exit_code, reason, message, failures, permanent, pids."""
_DEVICE = ("index", "model", "mem_bytes", "uuid")
INT_MAX = 2**63 - 1
"""What a database can keep."""
COUNT_MAX = 2**31 - 1
"""What it can keep of exit codes, and of what is counted."""
_REQUEST = ("cpu_milli", "mem_bytes", "gpu_shares", "gpu_mem_bytes_min")


class WireError(ValueError):
    """A value is not what the other side should have sent."""


def token_of(value: object) -> str:
    """Check a token: it becomes the name of a directory.

    Raises:
        WireError: Not 1 to 64 letters, digits, `_`, `-` and `.`, or it begins with a dot.
    """
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise WireError(f"not a token: {str(value)[:80]!r}")
    return value


def field_of(data: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """Take a field of a frame.

    Raises:
        WireError: It is missing and has no default, or is of another kind.
    """
    return _checked(name, data.get(name, default), kind)


def _checked(name: str, value: object, kind: type[T]) -> T:
    """Return a value of a kind that every database and every later reader can take."""
    if kind is float and type(value) is int and abs(value) <= INT_MAX:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise WireError(f"{name}: expected {kind.__name__}, not {str(value)[:80]!r}")
    if isinstance(value, int) and abs(value) > INT_MAX:
        raise WireError(f"{name}: a number with {len(str(abs(value)))} digits is out of range")
    if isinstance(value, float) and not math.isfinite(value):
        raise WireError(f"{name}: {value} is no number")
    return value


def _count(name: str, value: object) -> int:
    """Return a number that is small in all that an agent has to say."""
    count = _checked(name, value, int)
    if abs(count) > COUNT_MAX:
        raise WireError(f"{name}: {count} is out of range")
    return count


def _text(value: object) -> str:
    """Return a text for people; what some encoding or database has no place for is replaced."""
    return str(value).encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def encode_report(report: KernelReport) -> list[Any]:
    """Write a report as a list without the defaults at its end."""
    row = [
        report.token,
        report.state.value,
        report.exit_code,
        report.reason,
        report.message,
        report.failures,
        report.permanent,
        list(report.pids),
    ]
    while len(row) > 2 and row[-1] == _REPORT_DEFAULTS[len(row) - 3]:
        row.pop()
    return row


def decode_report(row: object) -> KernelReport:
    """Read a report.

    Raises:
        WireError: It is not one.
    """
    if not isinstance(row, list) or len(row) < 2:
        raise WireError(f"not a report: {str(row)[:200]}")
    exit_code, reason, message, failures, permanent, pids, *_ = (
        *row[2:],
        *_REPORT_DEFAULTS[len(row) - 2 :],
    )
    try:
        return KernelReport(
            token=token_of(row[0]),
            state=ReportState(row[1]),
            exit_code=None if exit_code is None else _count("exit_code", exit_code),
            reason=None if reason is None else _text(reason),
            message=_text(message),
            failures=_count("failures", failures),
            permanent=bool(permanent),
            pids=tuple(_checked("pids", pid, int) for pid in pids),
        )
    except (TypeError, ValueError) as error:
        raise WireError(f"not a report: {str(row)[:200]}: {error}") from error


def encode_prepare(kernel: KernelToPrepare) -> dict[str, Any]:
    """Write what to prepare."""
    return {
        "token": kernel.token,
        "session_id": kernel.session_id,
        "kernel_id": kernel.kernel_id,
        "agent_id": kernel.agent_id,
        "image": kernel.image,
    }


def decode_prepare(data: Mapping[str, Any]) -> KernelToPrepare:
    """Read what to prepare.

    Raises:
        WireError: Something is missing or of the wrong kind.
    """
    image = data.get("image")
    return KernelToPrepare(
        token=token_of(data.get("token")),
        session_id=SessionId(field_of(data, "session_id", str)),
        kernel_id=KernelId(field_of(data, "kernel_id", str)),
        agent_id=AgentId(field_of(data, "agent_id", str)),
        image=None if image is None else field_of(data, "image", str),
    )


def encode_start(kernel: KernelToStart) -> dict[str, Any]:
    """Write an order to start."""
    return {
        "token": kernel.token,
        "session_id": kernel.session_id,
        "kernel_id": kernel.kernel_id,
        "agent_id": kernel.agent_id,
        "command": kernel.command,
        "env": dict(kernel.env),
        "cwd": kernel.cwd,
        "umask": kernel.umask,
        "request": [getattr(kernel.request, name) for name in _REQUEST],
        "devices": kernel.devices,
        "role": kernel.role,
        "index": kernel.index,
        "kernel_count": kernel.kernel_count,
        "name": kernel.name,
        "owner": kernel.owner,
        "requeue": kernel.requeue,
    }


def decode_start(data: Mapping[str, Any]) -> KernelToStart:
    """Read an order to start.

    Raises:
        WireError: Something is missing or of the wrong kind.
    """
    command = field_of(data, "command", list)
    env = field_of(data, "env", dict)
    if not all(isinstance(word, str) for word in command):
        raise WireError("command: expected a list of texts")
    if not all(isinstance(value, str) for value in env.values()):
        raise WireError("env: expected texts by name")
    try:
        amounts = field_of(data, "request", list)
        request = Request(*(_checked("request", amount, int) for amount in amounts))
        devices = tuple(
            (_checked("devices", index, int), _checked("devices", shares, int))
            for index, shares in field_of(data, "devices", list)
        )
    except (TypeError, ValueError) as error:
        raise WireError(f"request, devices: {error}") from error
    return KernelToStart(
        token=token_of(data.get("token")),
        session_id=SessionId(field_of(data, "session_id", str)),
        kernel_id=KernelId(field_of(data, "kernel_id", str)),
        agent_id=AgentId(field_of(data, "agent_id", str)),
        command=tuple(command),
        env=env,
        cwd=field_of(data, "cwd", str),
        umask=field_of(data, "umask", int) & 0o777,
        request=request,
        devices=devices,
        role=field_of(data, "role", str),
        index=field_of(data, "index", int),
        kernel_count=field_of(data, "kernel_count", int),
        name=field_of(data, "name", str),
        owner=field_of(data, "owner", str),
        requeue=field_of(data, "requeue", bool),
    )


def encode_stop(kernel: KernelToStop) -> dict[str, Any]:
    """Write an order to stop."""
    return {"token": kernel.token, "grace_s": kernel.grace_s, "force": kernel.force}


def decode_stop(data: Mapping[str, Any]) -> KernelToStop:
    """Read an order to stop.

    Raises:
        WireError: Something is missing or of the wrong kind.
    """
    grace_s = field_of(data, "grace_s", float)
    if grace_s < 0:
        raise WireError(f"grace_s: {grace_s} is out of range")
    return KernelToStop(token_of(data.get("token")), grace_s, field_of(data, "force", bool))


def encode_hello(hello: AgentHello) -> dict[str, Any]:
    """Write how an agent introduces itself."""
    capacity = hello.capacity
    return {
        "agent_id": hello.agent_id,
        "name": hello.name,
        "cpu_milli": capacity.cpu_milli,
        "mem_bytes": capacity.mem_bytes,
        "devices": [[d.index, d.model, d.mem_bytes, d.uuid] for d in capacity.devices],
        "architecture": hello.architecture,
        "version": hello.version,
        "boot_id": hello.boot_id,
        "scaling_group": hello.scaling_group,
        "address": hello.address,
        "labels": dict(hello.labels),
    }


def decode_hello(data: Mapping[str, Any]) -> AgentHello:
    """Read how an agent introduces itself.

    Raises:
        WireError: Something is missing or of the wrong kind.
    """
    return AgentHello(
        agent_id=AgentId(_text(field_of(data, "agent_id", str))),
        name=_text(field_of(data, "name", str)),
        capacity=_capacity(data),
        architecture=_text(field_of(data, "architecture", str, "")),
        version=_text(field_of(data, "version", str, "")),
        boot_id=_text(field_of(data, "boot_id", str, "")),
        scaling_group=_text(field_of(data, "scaling_group", str, "default")),
        address=_text(field_of(data, "address", str, "")),
        labels=_labels(field_of(data, "labels", dict, {})),
    )


def _labels(data: Mapping[str, Any]) -> dict[str, str]:
    labels = {name: _checked("labels", value, str) for name, value in data.items()}
    try:
        check_labels(labels, field="labels")
    except InvalidRequestError as error:
        raise WireError(error.message) from None
    return labels


def _capacity(data: Mapping[str, Any]) -> Capacity:
    devices = []
    for fields in field_of(data, "devices", list):
        if not isinstance(fields, list) or len(fields) != len(_DEVICE):
            raise WireError(f"devices: expected {', '.join(_DEVICE)}, not {str(fields)[:80]!r}")
        index, model, mem_bytes, uuid = fields
        devices.append(
            Device(
                _amount("index", index),
                _text(_checked("model", model, str)),
                _amount("mem_bytes", mem_bytes),
                _text(_checked("uuid", uuid, str)),
            )
        )
    if len({device.index for device in devices}) < len(devices):
        raise WireError("devices: two of them have the same index")
    return Capacity(
        _amount("cpu_milli", data.get("cpu_milli")),
        _amount("mem_bytes", data.get("mem_bytes")),
        tuple(devices),
    )


def _amount(name: str, value: object) -> int:
    amount = _checked(name, value, int)
    if amount < 0:
        raise WireError(f"{name}: {amount} is less than nothing")
    return amount
