"""What there is to hand out on this machine: processors, memory, NVIDIA GPUs."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from sokovan.config import AgentConfig
from sokovan.domain.errors import ConfigError
from sokovan.domain.quantities import parse_milli, parse_size
from sokovan.domain.resources import Capacity, Device

log = logging.getLogger(__name__)

_DRIVER = ("proc/driver/nvidia", "dev/nvidiactl", "dev/dxg")
_UNLIMITED_FROM = 1 << 60
"""Version 1 of control groups writes "no limit" as a very large number."""


def discover(config: AgentConfig) -> Capacity:
    """Look at the machine; what the configuration names wins over what is found.

    Raises:
        ConfigError: The configuration is not understood.
    """
    return Capacity(
        cpu_milli=parse_milli(config.cpu, field="cpu") if config.cpu else cpu_milli(),
        mem_bytes=parse_size(config.mem, field="mem") if config.mem else mem_bytes(),
        devices=_devices(config.gpus),
    )


def cpu_milli() -> int:
    """Return the processors this process may use, less where its control group allows less."""
    cpus = len(os.sched_getaffinity(0)) * 1000
    quota, _, period = _own_limit("cpu", "cpu.max").partition(" ")
    if not quota:
        quota = _own_limit("cpu", "cpu.cfs_quota_us")
        period = _own_limit("cpu", "cpu.cfs_period_us")
    with contextlib.suppress(ValueError, ZeroDivisionError):
        if (allowed := int(quota) * 1000 // int(period)) > 0:
            return min(cpus, allowed)
    return cpus


def mem_bytes() -> int:
    """Return the machine's memory, less where the control group of this process allows less."""
    total = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    for name in ("memory.max", "memory.limit_in_bytes"):
        limit = _own_limit("memory", name)
        if limit.isdecimal() and int(limit) < min(total, _UNLIMITED_FROM):
            return int(limit)
    return total


def _own_limit(controller: str, name: str) -> str:
    """Read a limit of this process's own control group, of either version, "" without one."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            with contextlib.suppress(OSError):
                root = Path("/sys/fs/cgroup") / (controller if controllers else "")
                return (root / path.lstrip("/") / name).read_text().strip()
    return ""


def _devices(wanted: str) -> tuple[Device, ...]:
    if wanted == "none":
        return ()
    found = {device.index: device for device in nvidia_gpus()}
    if wanted == "auto":
        return tuple(found.values())
    try:
        indexes = sorted({int(index) for index in wanted.split(",")})
    except ValueError:
        raise ConfigError(
            f"gpus: {wanted!r} is not understood; write auto, none, or indexes such as 0,1"
        ) from None
    return tuple(found.get(index, Device(index)) for index in indexes)


def nvidia_gpus() -> list[Device]:
    """Return the NVIDIA GPUs that the driver knows; none without a driver. MIG is not looked at."""
    if not has_driver():
        return []
    try:
        return ask_driver()
    except Exception as error:  # noqa: BLE001 (a broken driver must not keep the agent from starting)
        log.warning("no GPU is offered: %s", error)
        return []


def has_driver(root: Path = Path("/")) -> bool:
    """Say whether there is an NVIDIA driver, working or not."""
    return any((root / path).exists() for path in _DRIVER)


def ask_driver() -> list[Device]:
    """Return the NVIDIA GPUs that the driver knows.

    Raises:
        Exception: The driver, or its library, is broken or missing.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name, uuid = (
        text.decode() if isinstance(text, bytes) else str(text)
        for text in (nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetUUID(handle))
    )
    return Device(index, name, int(nvml.nvmlDeviceGetMemoryInfo(handle).total), uuid)
