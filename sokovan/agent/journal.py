"""What an agent remembers on disk, so that it and its kernels may die in any order.

Below the agent's directory:

    kernels/TOKEN/      a kernel that runs, or whose last report nobody has acknowledged
        kernel.json     one line: the order, written before anything is started; and another one:
                        the last report, once nothing of the kernel is left
        run             three lines of the wrapper: who it is, `started`, the command's status
        stdout, stderr  the output; with stdout.gap and stderr.gap where some of it was dropped
    done/TOKEN/         the same, of a kernel whose last report was acknowledged
    stopped/TOKEN       an empty file: stopped before it was started, so it never may be

A restarted agent reads `kernels` only, so that a million finished kernels cost it nothing. A line
counts once it is complete. Only `stopped` is synchronised to the disk: a machine that loses its
power loses its kernels with it.

A kernel costs as few files as can be, and none is removed when it ends: for a while after that,
ext4 takes twenty times as long to make another one (decision 25).
"""

# These calls are made for every kernel, and pathlib takes longer than they do.
# ruff: noqa: PTH102, PTH103, PTH104, PTH108, PTH208

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sokovan.agent import output
from sokovan.agent.output import STREAMS
from sokovan.agent.procfs import Process, parse_stat
from sokovan.agent.wire import WireError, decode_report, decode_start, encode_report
from sokovan.clock import Clock
from sokovan.domain.reasons import EndReason
from sokovan.scheduler.messages import KernelReport, KernelToStart, OutputChunk, ReportState

log = logging.getLogger(__name__)

_PRUNE_SLICE = 200
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What says that a file is not there. Any other error says nothing of what it holds."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it was accepted."""

    kernel: KernelToStart
    accepted_at: float
    boot_id: str
    groups: tuple[str, ...] = ()
    """Control groups made for it."""
    clock_origin: float | None = None
    """What the clock counted from that `accepted_at` is by."""

    def accepted_by(self, clock: Clock) -> float:
        """Return when it was accepted, by a clock of the same boot that was perhaps set since."""
        if self.clock_origin is None:
            return self.accepted_at
        return self.accepted_at + clock.origin.wall_s - self.clock_origin


@dataclass(frozen=True, slots=True)
class Run:
    """What a wrapper has written so far."""

    wrapper: Process | None = None
    started: bool = False
    """Whether the command may have run."""
    status: int | None = None


class Journal:
    """The memory of one agent.

    Args:
        directory: The agent's own directory.
    """

    def __init__(self, directory: Path) -> None:
        self._kernels = str(directory / "kernels")
        self._done = str(directory / "done")
        self._stopped = str(directory / "stopped")
        for path in (self._kernels, self._done, self._stopped):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def folder(self, token: str) -> str:
        """Return the directory of a kernel that is not over and acknowledged."""
        return f"{self._kernels}/{token}"

    def begin(self, order: Order, encoded: Mapping[str, Any]) -> None:
        """Write an order down; if that was done before, as what it is now.

        Raises:
            OSError: It cannot be written; nothing may be started. What was written before stays.
        """
        folder = self.folder(order.kernel.token)
        record = {
            "order": encoded,
            "accepted_at": order.accepted_at,
            "boot_id": order.boot_id,
            "groups": order.groups,
            "clock_origin": order.clock_origin,
        }
        text = json.dumps(record)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:  # another try: what is written down stays until it is replaced
            _replace(f"{folder}/kernel.json", text)
            return
        try:
            _write(f"{folder}/kernel.json", text)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def orders(self) -> Iterator[tuple[Order, KernelReport | None]]:
        """Yield every kernel that is not over and acknowledged, and its last report if any.

        A directory without a complete order was never started and is removed; one of which only
        the last report can be read is filed away.

        Raises:
            OSError: Something that is there cannot be read now.
        """
        for token in sorted(os.listdir(self._kernels)):
            order, report = self.order(token), self._last_report(token)
            if order is not None:
                yield order, report
            elif report is not None:
                self.file_away(token)
            else:
                self.forget(token)

    def _last_report(self, token: str) -> KernelReport | None:
        """Read the last report of a kernel; it is known without, when it may never be started."""
        report = _read_report(self.folder(token), token)
        if report is not None or not os.path.lexists(f"{self._stopped}/{token}"):
            return report
        report = stopped_before_start(token)
        return replace(report, reason=EndReason.AGENT_LOST) if self.is_given_up(token) else report

    def is_over(self, token: str) -> bool:
        """Say whether the last report of a kernel is written down."""
        return _read_report(self.folder(token), token) is not None

    def order(self, token: str) -> Order | None:
        """Read an order, or `None` when it was not written to its end.

        Raises:
            OSError: It is there and cannot be read now.
        """
        try:
            record = json.loads(_read(f"{self.folder(token)}/kernel.json").partition("\n")[0])
            kernel = decode_start(record["order"])
            if kernel.token != token:
                return None
            return Order(
                kernel,
                float(record["accepted_at"]),
                str(record["boot_id"]),
                tuple(str(group) for group in record["groups"]),
                record.get("clock_origin"),
            )
        except (*_ABSENT, ValueError, KeyError, TypeError):
            return None

    def run(self, token: str) -> Run:
        """Read what the wrapper has written; a line without its end does not count.

        Raises:
            OSError: It is there and cannot be read now.
        """
        try:
            lines = _read(f"{self.folder(token)}/run").split("\n")[:-1]
            wrapper = parse_stat(lines[0])
        except (*_ABSENT, ValueError, IndexError):
            return Run()
        started = len(lines) > 1 and lines[1] == "started"
        status = lines[2] if started and len(lines) > 2 else ""
        return Run(wrapper, started, int(status) if status.isdecimal() else None)

    def why_not_started(self, token: str) -> str:
        """Return the last line that the wrapper complained with, and make room for another try."""
        folder = self.folder(token)
        complaint = ""
        with contextlib.suppress(OSError):
            complaint = _read(f"{folder}/stderr").strip().rpartition("\n")[2][-500:]
        self.clear_run(token)
        return complaint

    def clear_run(self, token: str) -> None:
        """Remove the traces of a start that did not come about."""
        for name in ("run", *STREAMS, *(f"{stream}.gap" for stream in STREAMS)):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.folder(token)}/{name}")

    def conclude(self, report: KernelReport) -> None:
        """Write the last report of a kernel.

        Raises:
            OSError: It cannot be written; after a restart it would be worked out again, or nothing
                would be known of a kernel that could never be started.
        """
        folder = self.folder(report.token)
        try:
            _append(f"{folder}/kernel.json", f"\n{json.dumps(encode_report(report))}\n")
        except OSError:
            if report.state is ReportState.START_FAILED:  # or the next agent would start it
                with contextlib.suppress(OSError):
                    os.unlink(f"{folder}/kernel.json")
            raise

    def give_up(self, token: str) -> None:
        """Remember that a kernel is stopped because no manager is heard of.

        Raises:
            OSError: That cannot be written.
        """
        _write(f"{self.folder(token)}/given-up", "")

    def is_given_up(self, token: str) -> bool:
        """Say whether that was written of a kernel."""
        return Path(self.folder(token), "given-up").exists()

    def file_away(self, token: str) -> None:
        """Keep what is known of an acknowledged kernel where no restarted agent looks.

        What cannot be moved stays as it was: the next agent reports its end once more.
        """
        try:
            os.rename(self.folder(token), f"{self._done}/{token}")
        except OSError as error:
            log.warning("%s cannot be filed away yet: %s", token, error)

    def forget(self, token: str) -> None:
        """Remove a kernel that never ran."""
        shutil.rmtree(self.folder(token), ignore_errors=True)

    def refuse(self, tokens: Sequence[str]) -> None:
        """Remember that these were stopped before they were started; durable on return.

        Raises:
            OSError: It cannot be written.
        """
        for token in tokens:
            os.close(os.open(f"{self._stopped}/{token}", os.O_WRONLY | os.O_CREAT, 0o600))
        fd = os.open(self._stopped, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def recall(self, token: str) -> KernelReport | None:
        """Return the last report of a kernel that was acknowledged or refused.

        Raises:
            OSError: It is there and cannot be read now.
        """
        unmoved = self.folder(token)
        if os.path.lexists(unmoved) and (report := _read_report(unmoved, token)):
            return report
        is_done = os.path.lexists(f"{self._done}/{token}")
        report = _read_report(f"{self._done}/{token}", token) if is_done else None
        if report is None and os.path.lexists(f"{self._stopped}/{token}"):
            return stopped_before_start(token)
        if not is_done:
            return None
        return report or KernelReport(
            token,
            ReportState.ENDED,
            reason=EndReason.EXIT_STATUS_LOST,
            message="its last report can no longer be read",
        )

    def read(self, token: str, stream: str, offset: int, bytes_max: int) -> OutputChunk:
        """Read output; a negative offset counts from the end."""
        for base in (self._kernels, self._done):
            with contextlib.suppress(FileNotFoundError):
                return output.read(f"{base}/{token}/{stream}", offset, bytes_max)
        return OutputChunk(b"", 0, 0, ended=False)

    def bound_output(self, token: str, bytes_max: int) -> None:
        """Drop the middle of what a kernel has said beyond so much; 0 drops nothing."""
        for stream in STREAMS if bytes_max else ():
            try:
                gap = output.bound(f"{self.folder(token)}/{stream}", bytes_max)
            except OSError as error:
                log.warning("%s of %s cannot be bounded: %s", stream, token, error)
            else:
                if gap:
                    log.info("%s of %s: dropped %d to %d", stream, token, gap.begin, gap.end)

    def prune(self, before: float) -> Iterator[None]:
        """Remove what was acknowledged or refused before then, a slice at each step."""
        looked_at = 0
        for base in (self._done, self._stopped):
            with contextlib.suppress(OSError), os.scandir(base) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.stat(follow_symlinks=False).st_mtime < before:
                            _remove(entry)
                    looked_at += 1
                    if looked_at % _PRUNE_SLICE == 0:
                        yield


def stopped_before_start(token: str, message: str = "") -> KernelReport:
    """Return the report of a token that was stopped before its command ran."""
    return KernelReport(
        token,
        ReportState.ENDED,
        reason=EndReason.STOPPED_BEFORE_START,
        message=message or "it was stopped before it was started",
    )


def _remove(entry: "os.DirEntry[str]") -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        os.unlink(entry.path)


def _read_report(folder: str, token: str) -> KernelReport | None:
    """Read the last report of a kernel: the last line after the order that is complete."""
    try:
        _, *lines, _ = _read(f"{folder}/kernel.json").split("\n")
        report = decode_report(json.loads(lines[-1]))
    except (*_ABSENT, ValueError, IndexError, WireError):
        return None
    return report if report.token == token else None


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
    finally:
        os.close(fd)
    return b"".join(pieces).decode(errors="replace")


def _replace(path: str, text: str) -> None:
    """Write a whole file in the place of another, or leave that as it is."""
    written = f"{path}.new"
    try:
        _write(written, text)
        os.rename(written, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(written)
        raise


def _write(path: str, text: str) -> None:
    """Write a whole file, in the one order of steps that costs three calls."""
    _put(path, text, os.O_CREAT | os.O_TRUNC)


def _append(path: str, text: str) -> None:
    """Write at the end of a file that is there."""
    _put(path, text, os.O_APPEND)


def _put(path: str, text: str, flags: int) -> None:
    fd = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        data = text.encode()
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
