"""Output files that cannot fill the disk: their beginning and their end stay, a gap is between.

A command writes straight into its file. Beyond the limit, the middle of the file is given back to
the disk (a "hole": what follows stays where it is), and `stdout.gap` beside it says from where to
where. Whoever reads finds a line there which says how much is missing; the command notices nothing.
"""

# These calls are made for every kernel, and pathlib takes longer than they do.
# ruff: noqa: PTH116

import ctypes
import os
from dataclasses import dataclass

from sokovan.domain.quantities import format_size
from sokovan.scheduler.messages import OutputChunk

CHUNK_BYTES_MAX = 4 * 1024 * 1024
"""Most output in one answer, whatever was asked for."""
STREAMS = ("stdout", "stderr")
_KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02


@dataclass(frozen=True, slots=True)
class Gap:
    """What was dropped of a file: from `begin` up to `end`, in bytes."""

    begin: int
    end: int

    def note(self) -> bytes:
        """Return what is read in its place: the last bytes of the gap."""
        text = f"\n[sokovan: {format_size(self.end - self.begin)} of output were dropped here]\n"
        return text.encode()[-(self.end - self.begin) :]


def read(path: str, offset: int, bytes_max: int) -> OutputChunk:
    """Read from a file of output; a negative offset counts from its end.

    Raises:
        OSError: It cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        begin = max(0, size + offset) if offset < 0 else offset
        wanted = max(0, min(bytes_max, CHUNK_BYTES_MAX))
        gap = gap_of(path)
        if gap is not None and gap.begin <= begin < min(gap.end, size):
            note = gap.note()
            first = gap.end - len(note)
            begin = max(begin, first)
            data = note[begin - first :][:wanted]
        else:
            if gap is not None and begin < gap.begin:
                wanted = min(wanted, gap.begin - begin)
            data = os.pread(fd, wanted, begin)
        if data:
            size = max(size, begin + len(data))
        return OutputChunk(data, begin, size, ended=False)
    finally:
        os.close(fd)


def bound(path: str, bytes_max: int) -> Gap | None:
    """Drop the middle of a file that has more than `bytes_max` bytes on the disk.

    Half of what may be there is kept of its beginning, and a quarter of its end, which may grow.

    Returns:
        The gap, when something was dropped.

    Raises:
        OSError: The file system refuses.
    """
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        return None
    if size <= bytes_max:
        return None
    before = gap_of(path)
    if before is not None and size - (before.end - before.begin) <= bytes_max:
        return None
    begin = min(bytes_max // 2, before.begin if before else size)
    gap = Gap(begin, size - bytes_max // 4)
    _punch(path, gap)  # first: there may be no room for the other
    with open(f"{path}.gap.new", "w") as file:  # noqa: PTH123
        file.write(f"{gap.begin} {gap.end}\n")
    os.rename(f"{path}.gap.new", f"{path}.gap")  # noqa: PTH104
    return gap


def gap_of(path: str) -> Gap | None:
    """Return what was dropped of a file, if something was."""
    try:
        with open(f"{path}.gap") as file:  # noqa: PTH123
            begin, end = map(int, file.read().split())
    except (FileNotFoundError, ValueError):
        return None
    return Gap(begin, end)


def _punch(path: str, gap: Gap) -> None:
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    fd = os.open(path, os.O_WRONLY)
    try:
        if fallocate(fd, _KEEP_SIZE_AND_PUNCH_HOLE, gap.begin, gap.end - gap.begin):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)
