"""What people type for the resources of a call, as the fields of a session."""

from sokovan.client.fields import SessionOptions
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import parse_duration, parse_milli, parse_size

OURS = frozenset({"command", "creation_id", "kernels", "retries"})
"""Fields of a session that are not the user's to say: a call is one process, and has one result."""


def options_of(
    *,
    cpu: float | str,
    mem: int | str | None,
    gpu: float | str,
    gpu_mem: int | str | None,
    time: float | str | None,
    group: str | None,
    priority: int | None,
    options: SessionOptions,
) -> SessionOptions:
    """Return the fields of a session; what is `None` is left out.

    Raises:
        InvalidRequestError: Something cannot be read, or is not to be said of a call.
    """
    if refused := sorted(OURS & options.keys()):
        raise InvalidRequestError(
            f"options: {refused[0]} cannot be said for a call: it is one process with one result;"
            " leave it out",
            field="options",
        )
    read: SessionOptions = {
        **options,
        "cpu_milli": parse_milli(str(cpu), field="cpu"),
        "gpu_shares": parse_milli(str(gpu), field="gpu"),
    }
    if mem is not None:
        read["mem_bytes"] = parse_size(str(mem), field="mem")
    if gpu_mem is not None:
        read["gpu_mem_bytes_min"] = parse_size(str(gpu_mem), field="gpu_mem")
    if time is not None:
        read["walltime_s"] = parse_duration(str(time), field="time")
    if group is not None:
        read["scaling_group"] = group
    if priority is not None:
        read["priority"] = priority
    return read
