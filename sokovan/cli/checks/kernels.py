"""Checks of what kernels need: control groups, GPUs, and to be left alone at logout."""

import getpass
import os
import re
from collections.abc import Iterator

from sokovan.agent import cgroups, devices
from sokovan.cli.checks import Finding, Ground, ok, problem, warning
from sokovan.client import server_file

SERVICE = (
    "loginctl enable-linger, and run the server as a service of yours: systemd-run --user"
    " --unit=sokovan -p KillMode=process -p Delegate=yes sokovan up"
)


def control_groups(ground: Ground) -> Iterator[Finding]:
    """Make control groups and enter them, as an agent that is started from here would."""
    # Not the name that an agent's groups have: they stay as they are.
    found = cgroups.detect(
        ground.home.absolute() / "doctor", mount=str(ground.root / "sys/fs/cgroup")
    )
    if found is None:
        yield warning(
            "control groups cannot be made here: --cpu is not enforced, and --mem only for each"
            " process alone",
            "run the server where a group is delegated to you (systemd-run --user -p Delegate=yes"
            " sokovan up), as root, or in a container with a writable /sys/fs/cgroup",
        )
        return
    found.close()
    lacks = [name for name in ("cpu", "memory") if name not in found.bases]
    if lacks:
        options = " and ".join({"cpu": "--cpu", "memory": "--mem"}[name] for name in lacks)
        yield warning(
            f"{found.description()}; {options} cannot be enforced by groups",
            f"have the {' and '.join(lacks)} controller delegated: systemctl edit user@.service,"
            " with Delegate=cpu memory pids below [Service]",
        )
    else:
        yield ok(f"{found.description()} are enforced")


def gpus(ground: Ground) -> Iterator[Finding]:
    """Ask the NVIDIA driver for its devices, and look whether they may be used."""
    if not devices.has_driver(ground.root):
        yield ok("no NVIDIA driver is loaded: this machine offers no GPUs")
        return
    try:
        found = devices.ask_driver()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what we are looking for)
        yield problem(
            f"an NVIDIA driver is there, but does not answer ({error}): no GPUs are offered",
            "run nvidia-smi; after an update of the driver, restart the machine; in a container,"
            " start it with the GPUs (docker run --gpus all)",
        )
        return
    if not found:
        yield warning(
            "the NVIDIA driver knows no devices: no GPUs are offered",
            "look whether the machine sees the cards: lspci | grep -i nvidia, dmesg",
        )
        return
    names = ", ".join(f"{gpu.index} {gpu.model}" for gpu in found)
    nodes = sorted(p for p in (ground.root / "dev").glob("nvidia*") if _is_gpu_node(p.name))
    closed = [f"/dev/{node.name}" for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        yield problem(
            f"GPUs {names}; {', '.join(closed)} may not be opened: programs will find no GPU",
            "join the group that owns these files (ls -l /dev/nvidia*), and log in anew",
        )
    elif nodes and not (ground.root / "dev/nvidia-uvm").exists():
        yield warning(
            f"GPUs {names}; there is no /dev/nvidia-uvm, which CUDA needs",
            "load it: nvidia-modprobe -u -c 0, or run a CUDA program once as root",
        )
    else:
        yield ok(f"GPUs {names}")


def _is_gpu_node(name: str) -> bool:
    return re.fullmatch(r"nvidia(\d+|ctl|-uvm)", name) is not None


def logout(ground: Ground) -> Iterator[Finding]:
    """Find out what systemd does to the server and its kernels when this user logs out."""
    if not (ground.root / "run/systemd/system").is_dir():
        yield ok("systemd does not run here: nothing is killed at logout")
        return
    server = server_file(ground.home)
    pid = "self" if server is None else str(server["pid"])
    whose = "a server that is started from here" if server is None else "the server"
    groups = ground.text(f"proc/{pid}/cgroup")
    user = getpass.getuser()
    lingers = (ground.root / "var/lib/systemd/linger" / user).exists()
    if "/user@" in groups:
        if lingers:
            yield ok(f"{whose} belongs to {user}'s services, which go on after logout")
        else:
            yield problem(
                f"{whose} belongs to {user}'s services, which systemd ends at the last logout",
                "loginctl enable-linger",
            )
        return
    if re.search(r"/session-[^/]*\.scope", groups) is None:
        yield ok(f"{whose} is part of no login: nothing is killed at logout")
        return
    kills = ground.ask(["loginctl", "show-session", "--property=KillUserProcesses", "--value"])
    if kills == "no":
        yield ok(f"{whose} belongs to a login session, whose processes may stay after logout")
    elif kills == "yes":
        yield problem(
            f"{whose} belongs to a login session, and this system kills what is left of one"
            " (KillUserProcesses=yes): all sessions end at logout",
            SERVICE,
        )
    else:
        yield warning(
            f"{whose} belongs to a login session, and loginctl does not say whether this system"
            " kills what is left of one",
            f"look for KillUserProcesses in /etc/systemd/logind.conf; where it is yes: {SERVICE}",
        )
