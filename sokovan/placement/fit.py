"""What fits where: the rows with room for one kernel, and the devices that it gets."""

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import DeviceShares
from sokovan.placement.machines import Machines
from sokovan.placement.needs import Need
from sokovan.placement.ranking import Ranking
from sokovan.placement.room import Room


def fitting(
    need: Need, machines: Machines, room: Room, rows: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return which of `rows` (`None`: of all) have room for a kernel."""
    fits: NDArray[np.bool_] = room.cpu >= need.cpu
    if need.mem:
        fits &= room.mem >= need.mem
    if need.gpu:
        fits &= _devices_suffice(need, room, devices_for(need, machines))
    if machines.kernels_max is not None:
        fits &= room.kernels < machines.kernels_max
    if rows is not None:
        fits &= rows
    return fits


def devices_for(need: Need, machines: Machines) -> NDArray[np.bool_] | None:
    """Return which devices a kernel may use, by row and position; `None`: all."""
    return machines.eligible(need.filter).devices if need.minds_devices else None


def _devices_suffice(
    need: Need, room: Room, devices: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    suffice: NDArray[np.bool_]
    if devices is None:
        suffice = room.top >= need.part if need.part else room.whole >= need.whole
    elif need.part:
        suffice = np.any(devices & (room.shares >= need.part), axis=-1)
    else:
        suffice = np.count_nonzero(devices & (room.shares == DEVICE_SHARES), axis=-1) >= need.whole
    return suffice


def fits_on(need: Need, machines: Machines, room: Room, row: int) -> bool:
    """Say whether one row that may be used has room for a kernel; what `fitting` says of it."""
    if room.cpu.item(row) < need.cpu or room.mem.item(row) < need.mem:
        return False
    if need.gpu and not usable_devices(need, room, row, devices_for(need, machines)):
        return False
    return machines.kernels_max is None or room.kernels.item(row) < machines.kernels_max


def usable_devices(
    need: Need, room: Room, row: int, devices: NDArray[np.bool_] | None
) -> list[int]:
    """Return the positions of devices that a kernel may use, lowest first; none if too few."""
    least = need.part or DEVICE_SHARES
    shares = room.shares[row].tolist()
    if devices is None:
        found = [position for position, share in enumerate(shares) if share >= least]
    else:
        allowed = devices[row].tolist()
        found = [p for p, share in enumerate(shares) if share >= least and allowed[p]]
    return found if len(found) >= max(1, need.whole) else []


def choose_devices(
    need: Need, machines: Machines, room: Room, row: int, ranking: Ranking
) -> DeviceShares:
    """Choose devices, by position, on a row that has enough of them.

    Whole devices: the lowest first. A part of one: as the ranking says, else the fullest that has
    room, the lowest among equals.
    """
    if not need.gpu:
        return ()
    found = usable_devices(need, room, row, devices_for(need, machines))
    if not need.part:
        return tuple((position, DEVICE_SHARES) for position in found[: need.whole])
    chosen = ranking.position(need, room, row, found)
    if chosen is None:
        shares = room.shares[row].tolist()
        chosen = min(found, key=lambda position: (shares[position], position))
    return ((chosen, need.part),)
