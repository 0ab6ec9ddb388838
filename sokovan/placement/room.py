"""What is free on the agents of a group, as arrays, for one pass to take from."""

from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import DeviceShares

Ints = NDArray[np.int64]
_stamps = count(1)
ABSENT = -1
"""The free shares of a device that an agent does not have."""
_ARRAYS = ("cpu", "mem", "shares", "kernels", "gpu", "whole", "top", "stamp")


class Room:
    """What is free on each row: the amounts that one pass takes from.

    With one more axis in front it is several rooms, see `Conservative`.

    Attributes:
        cpu: Milli-cores.
        mem: Bytes.
        shares: Free shares by row and position of the device; `ABSENT` where there is none.
        gpu: Free shares of all devices of the row.
        whole: Devices of the row that are wholly free.
        top: Free shares of the row's freest device.
        kernels: Kernels on the row.
        touched: The row of each change by this pass, in order; its length says when something was.
        stamp: A number for the present state of each row; other states of any row have others.
    """

    __slots__ = ("cpu", "gpu", "kernels", "mem", "shares", "stamp", "top", "touched", "whole")

    def __init__(self, cpu: Ints, mem: Ints, shares: Ints, kernels: Ints) -> None:
        self.cpu, self.mem, self.shares, self.kernels = cpu, mem, shares, kernels
        present = np.maximum(shares, 0)
        self.gpu: Ints = present.sum(axis=-1)
        self.whole: Ints = (shares == DEVICE_SHARES).sum(axis=-1)
        self.top: Ints = present.max(axis=-1, initial=0)
        self.touched: list[int] = []
        self.stamp: Ints = np.empty(cpu.shape, np.int64)
        self.restamp(...)

    def copy(self) -> "Room":
        """Return an equal room that nothing has touched."""
        room = Room.__new__(Room)
        for name in _ARRAYS:
            setattr(room, name, getattr(self, name).copy())
        room.touched = []
        return room

    def take(self, row: int, cpu: int, mem: int, devices: DeviceShares) -> None:
        """Occupy amounts of a row; `devices` are positions and shares."""
        self._change(row, -cpu, -mem, 1)
        if devices:
            shares = self.shares[row]
            wholly = True
            for position, part in devices:
                shares[position] -= part
                wholly &= part == DEVICE_SHARES
            left = self.whole.item(row) - len(devices)
            if wholly and left:
                self.whole[row] = left
                self.gpu[row] -= DEVICE_SHARES * len(devices)
            else:
                self.sum_up_row(row)
        self._touch(row)

    def give_back(self, row: int, cpu: int, mem: int, devices: DeviceShares) -> None:
        """Undo `take`."""
        self._change(row, cpu, mem, -1)
        if devices:
            shares = self.shares[row]
            for position, part in devices:
                shares[position] += part
            self.sum_up_row(row)
        self._touch(row)

    def restamp(self, at: Any) -> None:
        """Say that rows are in another state."""
        stamps = self.stamp[at]
        self.stamp[at] = np.fromiter(_stamps, np.int64, stamps.size).reshape(stamps.shape)

    def _touch(self, row: int) -> None:
        self.touched.append(row)
        self.stamp[row] = next(_stamps)

    def _change(self, row: int, cpu: int, mem: int, kernels: int) -> None:
        if cpu:
            self.cpu[row] += cpu
        if mem:
            self.mem[row] += mem
        self.kernels[row] += kernels

    def put_rows(self, rows: NDArray[np.intp], now: "Room", later: "Room") -> None:
        """Let rows have the smaller of what is free `now` and `later`, where only they are."""
        self.cpu[rows] = np.minimum(now.cpu[rows], later.cpu)
        self.mem[rows] = np.minimum(now.mem[rows], later.mem)
        self.kernels[rows] = np.maximum(now.kernels[rows], later.kernels)
        self.shares[rows] = np.minimum(now.shares[rows], later.shares)
        self.sum_up(rows)
        self.touched += rows.tolist()

    def lower_to(self, row: int, now: "Room", later: "Room") -> None:
        """Let a row have the smaller of what two rooms have of everything."""
        self.cpu[row] = min(now.cpu.item(row), later.cpu.item(row))
        self.mem[row] = min(now.mem.item(row), later.mem.item(row))
        self.kernels[row] = max(now.kernels.item(row), later.kernels.item(row))
        self.shares[row] = np.minimum(now.shares[row], later.shares[row])
        self.sum_up_row(row)
        self._touch(row)

    def repeated(self, index: int) -> "Room":
        """Return a room of one more axis with one of its rooms there twice in succession."""
        room = Room.__new__(Room)
        for name in _ARRAYS:
            array = getattr(self, name)
            setattr(room, name, np.insert(array, index, array[index], axis=0))
        room.touched = []
        return room

    def sum_up(self, at: NDArray[np.intp] | tuple[slice, int]) -> None:
        """Bring the sums over devices in step."""
        present = np.maximum(self.shares[at], 0)
        self.gpu[at] = present.sum(axis=-1)
        self.whole[at] = (present == DEVICE_SHARES).sum(axis=-1)
        self.top[at] = present.max(axis=-1, initial=0)
        self.restamp(at)

    def sum_up_row(self, row: int) -> None:
        """Bring the sums over the devices of one row in step."""
        shares = self.shares[row].tolist()
        self.whole[row] = shares.count(DEVICE_SHARES)
        self.gpu[row] = sum(shares) - ABSENT * shares.count(ABSENT)
        self.top[row] = max(0, *shares)


def smaller(now: Room, later: Room) -> Room:
    """Return a room that has the smaller of what two rooms have of everything."""
    return Room(
        np.minimum(now.cpu, later.cpu),
        np.minimum(now.mem, later.mem),
        np.minimum(now.shares, later.shares),
        np.maximum(now.kernels, later.kernels),
    )
