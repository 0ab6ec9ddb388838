"""Replays job logs in the Standard Workload Format over the placement engine, on a virtual clock.

One agent stands for the machine: a processor is a core, a job a session, its estimate the walltime.
What `../shared/data/swf` has of other simulators (starts, metrics, published figures) is compared.
"""

import argparse
import csv
import gzip
import heapq
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sokovan.domain.cluster import Agent, Backfill, ScalingGroup
from sokovan.domain.resources import Capacity, Hold, Request
from sokovan.domain.sessions import AgentId, Kernel, KernelId, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.engine import Plan, place
from sokovan.placement.machines import Machines
from sokovan.placement.queue import Queue
from sokovan.placement.snapshot import Snapshot

CORE = 1000
"""Milli-cores of a processor."""
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


# --- logs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """One line of a log, cleaned; times in seconds."""

    job_id: int
    submit: int
    run: int
    estimate: int
    procs: int


def read_jobs(path: Path, procs: int) -> list[Job]:
    """Read a log for a machine of `procs` processors, in order of submission."""
    with gzip.open(path, "rt") as lines:
        rows = [line.split() for line in lines if line.strip() and not line.startswith(";")]
    jobs = [cleaned([int(float(field)) for field in row], procs) for row in rows]
    return sorted(jobs, key=lambda job: job.submit)


def cleaned(fields: Sequence[int], procs: int) -> Job:
    """Turn the fields of a line into a job that can run."""
    job_id, submit, run_s, width, wanted_s = (fields[n] for n in (0, 1, 3, 4, 8))
    if run_s <= 0 or width <= 0:
        run_s, wanted_s, width = 1, 1, max(1, width)
    estimate = max(wanted_s, run_s, 1)
    if wanted_s != -1:
        run_s = max(min(wanted_s, run_s), 1)
    return Job(job_id, submit, run_s, estimate, min(width, procs))


# --- replay ---------------------------------------------------------------------------------------


class Replay:
    """One machine, its queue and its clock.

    Args:
        jobs: In order of submission.
        procs: Processors of the machine.
        backfill: What those behind a blocked job may do.
        shortest_first: Look at the job with the shortest estimate first, not at the oldest.
    """

    def __init__(
        self, jobs: Sequence[Job], procs: int, backfill: Backfill, *, shortest_first: bool = False
    ) -> None:
        self.jobs = jobs
        self.machines = Machines([Agent(AgentId("a"), capacity=Capacity(cpu_milli=procs * CORE))])
        self.running: dict[SessionId, SessionWithKernels] = {}
        self.snapshot = self._view(backfill)
        self.starts: dict[int, int] = {}
        """When each job started, by its place in the log."""
        self.passes = 0
        self._ends: list[tuple[int, int, int]] = []
        """When each will be over; at one moment, who started first ends first."""
        self._expected: list[tuple[int, int]] = []
        in_order = sorted(range(len(jobs)), key=lambda n: (jobs[n].estimate * shortest_first, n))
        self._numbers = {n: number for number, n in enumerate(in_order)}

    def _view(self, backfill: Backfill) -> Snapshot:
        group = ScalingGroup(backfill=backfill, ageing_s=0)
        return Snapshot(group, self.machines, Queue(group), self.running, frozenset(), 0.0)

    def batch(self) -> dict[int, int]:
        """At each moment all ends, then all submissions, then one pass; return the starts."""
        for now, submitted in self._moments():
            while self._ends and self._ends[0][0] == now:
                self._end(heapq.heappop(self._ends)[-1])
            for n in submitted:
                self.submit(self._session(n))
            self._pass(now)
        return self.starts

    def pyss(self) -> dict[int, int]:
        """One pass after every event, submissions before ends; return the starts.

        A job whose estimate has passed counts as ended.
        """
        for now, submitted in self._moments():
            while self._expected and self._expected[0][0] <= now:
                self._end(heapq.heappop(self._expected)[1])
            for n in submitted:
                self.submit(self._session(n))
                self._pass(now)
            while self._ends and self._ends[0][0] == now:
                self._end(heapq.heappop(self._ends)[-1])
                self._pass(now)
        return self.starts

    def submit(self, session: SessionWithKernels) -> None:
        """Let a job wait."""
        self.snapshot.queue.put(session)

    def plans(self) -> Iterator[Plan]:
        """Yield what to start now; what is yielded starts before the next is asked for."""
        yield place(self.snapshot)

    def _moments(self) -> Iterator[tuple[int, list[int]]]:
        """Yield each moment at which something happens, with the jobs submitted then."""
        jobs, n = self.jobs, 0
        while n < len(jobs) or self._ends:
            now = min([end for end, *_ in self._ends[:1]] + [job.submit for job in jobs[n : n + 1]])
            first = n
            while n < len(jobs) and jobs[n].submit == now:
                n += 1
            yield now, list(range(first, n))

    def _session(self, n: int) -> SessionWithKernels:
        job = self.jobs[n]
        request = Request(cpu_milli=job.procs * CORE)
        return SessionWithKernels(
            SessionId(str(n)),
            kernels=(Kernel(KernelId(f"{n}.0"), request=request),),
            number=self._numbers[n],
            walltime_s=float(job.estimate),
        )

    def _pass(self, now: int) -> None:
        self.passes += 1
        self.snapshot.now = float(now)
        for plan in self.plans():
            for session_id in plan.placed:
                self._start(session_id, now)

    def _start(self, session_id: SessionId, now: int) -> None:
        n = int(session_id)
        job = self.jobs[n]
        session = self.snapshot.queue[session_id]
        self.running[session_id] = replace(
            session, status=SessionStatus.RUNNING, started_at=float(now)
        )
        self.leave(session_id)
        kernel = session.kernels[0]
        self.machines.put_hold(
            Hold(session_id, session_id, kernel.kernel_id, AgentId("a"), job.procs * CORE, 0, ())
        )
        self.starts[n] = now
        heapq.heappush(self._ends, (now + job.run, len(self.starts), n))
        heapq.heappush(self._expected, (now + job.estimate, n))

    def leave(self, session_id: SessionId) -> None:
        """Let a job wait no more."""
        self.snapshot.queue.drop(session_id)

    def _end(self, n: int) -> None:
        hold = self.machines.holds.get(str(n))
        if hold is not None:
            self.machines.drop_hold(hold)
            del self.running[SessionId(hold.session_id)]


class ShortestBehind(Replay):
    """EASY where the jobs behind the oldest one are looked at shortest first.

    Two queues over one machine: the oldest start as long as they fit, `strict`; then the oldest
    that waits goes to the front of the other queue, which is in order of estimates, `easy`.
    """

    def __init__(self, jobs: Sequence[Job], procs: int) -> None:
        super().__init__(jobs, procs, Backfill.EASY, shortest_first=True)
        self._by_age = self._view(Backfill.STRICT)
        self._in_front: SessionId | None = None

    def submit(self, session: SessionWithKernels) -> None:
        super().submit(session)
        self._by_age.queue.put(replace(session, number=int(session.session_id)))

    def plans(self) -> Iterator[Plan]:
        self._by_age.now = self.snapshot.now
        yield place(self._by_age)
        oldest = next(iter(self._by_age.queue.values()), None)
        if oldest is not None:
            if oldest.session_id != self._in_front:
                self._in_front = oldest.session_id
                self.snapshot.queue.put(replace(oldest, number=-1))
            yield from super().plans()

    def leave(self, session_id: SessionId) -> None:
        super().leave(session_id)
        self._by_age.queue.drop(session_id)


POLICIES: Mapping[str, Callable[[Sequence[Job], int], Replay]] = {
    "fcfs": lambda jobs, procs: Replay(jobs, procs, Backfill.STRICT),
    "sjf": lambda jobs, procs: Replay(jobs, procs, Backfill.STRICT, shortest_first=True),
    "easy": lambda jobs, procs: Replay(jobs, procs, Backfill.EASY),
    "easy-sjbf": ShortestBehind,
    "sjf-easy": lambda jobs, procs: Replay(jobs, procs, Backfill.EASY, shortest_first=True),
    "conservative": lambda jobs, procs: Replay(jobs, procs, Backfill.CONSERVATIVE),
}
COMPARED = ("fcfs", "sjf", "easy", "easy-sjbf", "sjf-easy")
"""Those of which the reference has metrics."""
EVENT_ORDERS: Mapping[str, Callable[[Replay], dict[int, int]]] = {
    "pyss": Replay.pyss,
    "batch": Replay.batch,
}


# --- metrics --------------------------------------------------------------------------------------


def metrics(jobs: Sequence[Job], starts: Mapping[int, int], procs: int) -> dict[str, float]:
    """Return what the reference files have of a replay; times in seconds."""
    waits = [starts[n] - job.submit for n, job in enumerate(jobs)]
    ends = [starts[n] + job.run for n, job in enumerate(jobs)]
    makespan = max(ends) - jobs[0].submit
    return {
        "jobs": len(jobs),
        "total_wait": sum(waits),
        "mean_wait": sum(waits) / len(jobs),
        "median_wait": statistics.median(waits),
        "max_wait": max(waits),
        "mean_bounded_slowdown": bounded_slowdown(jobs, starts),
        "makespan": makespan,
        "utilisation": sum(job.run * job.procs for job in jobs) / (procs * makespan),
        "jobs_waiting": sum(wait > 0 for wait in waits),
    }


def bounded_slowdown(jobs: Sequence[Job], starts: Mapping[int, int]) -> float:
    """Return the mean of (wait + run) / run, where a run counts as 10 s at least."""
    ends = (starts[n] + job.run - job.submit for n, job in enumerate(jobs))
    return statistics.fmean(
        max(1.0, end / max(job.run, 10)) for end, job in zip(ends, jobs, strict=True)
    )


# --- reports --------------------------------------------------------------------------------------

LOGS = ("KTH-SP2-1996-2.1-cln.swf.gz", "NASA-iPSC-1993-3.1-cln.swf.gz", "lublin_256.swf.gz")
REPORTED = ("mean_wait", "mean_bounded_slowdown", "utilisation")


def swf_report(
    data: Path,
    logs: Iterable[str] = LOGS,
    policies: Sequence[str] = COMPARED,
    orders: Sequence[str] = ("batch",),
) -> list[dict[str, Any]]:
    """Replay logs; return for each our metrics, those of the reference, and how many differ.

    Args:
        data: The folder `swf` of the recorded workloads.
        logs: Files in it.
        policies: Names in `POLICIES`; a policy without a reference is measured only.
        orders: Names in `EVENT_ORDERS`.
    """
    lines = (data / "reference_metrics.jsonl").read_text(encoding="utf-8").splitlines()
    known = [line for line in map(json.loads, lines) if not line["exact"]]
    references = {(line["log"], line["policy"], line["order"]): line for line in known}
    rows = []
    for log in logs:
        procs = next(line["procs"] for line in known if line["log"] == log)
        jobs = read_jobs(data / log, procs)
        for policy, order in itertools.product(policies, orders):
            reference = references.get((log, policy, order))
            row = measured(jobs, procs, policy, order, reference)
            starts = starts_of(data, log, policy, order)
            if starts:
                ours = dict(zip((job.job_id for job in jobs), row["starts"], strict=True))
                row["starts_that_differ"] = sum(ours[j] != start for j, start in starts.items())
            del row["starts"]
            rows.append({"log": log.removesuffix(".swf.gz"), **row})
    return rows


def measured(
    jobs: Sequence[Job], procs: int, policy: str, order: str, reference: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Replay a log; return the metrics, the start of every job, and what differs."""
    began = time.process_time()
    replay = POLICIES[policy](jobs, procs)
    starts = EVENT_ORDERS[order](replay)
    process_s = round(time.process_time() - began, 2)
    ours = metrics(jobs, starts, procs)
    row: dict[str, Any] = {
        "policy": policy,
        "order": order,
        "process_s": process_s,
        "passes": replay.passes,
    }
    row |= ours | {"starts": [starts[n] for n in range(len(jobs))]}
    if reference:
        row["reference"] = {name: reference[name] for name in ours}
        row["differ"] = differences(ours, reference)
    return row


def differences(ours: Mapping[str, float], reference: Mapping[str, float]) -> list[str]:
    """Return the metrics that differ by more than the rounding of sums."""
    return [name for name in ours if abs(ours[name] - reference[name]) > 1e-9 * abs(ours[name])]


def starts_of(data: Path, log: str, policy: str, order: str) -> dict[int, int]:
    """Return the reference's start of each job by its id; none when there is no such file."""
    if not log.startswith("KTH") or policy != "easy":
        return {}
    with gzip.open(data / f"kth_easy_starts_{order}.csv.gz", "rt") as lines:
        return {int(row["job_id"]): int(row["start"]) for row in csv.DictReader(lines)}


def windows_report(data: Path) -> list[dict[str, Any]]:
    """Replay plain FCFS as in a published table: ten windows of a log, each on an empty machine."""
    table = json.loads((data / "rlscheduler_table_lublin1.json").read_text(encoding="utf-8"))
    procs, size = table["procs"], table["window"]
    jobs = [job for job in read_jobs(data / table["log"], procs) if job.run > 0]
    slowdowns, utilisations = [], []
    for first in table["starts"]:
        window = jobs[first : first + size]
        starts = POLICIES["fcfs"](window, procs).batch()
        slowdowns.append(bounded_slowdown(window, starts))
        span = max(starts.values()) - window[0].submit
        utilisations.append(sum(job.run * job.procs for job in window) / (procs * span))
    published = table["published"]
    return [
        {
            "log": "Lublin-1, ten windows",
            "policy": "fcfs",
            "metric": metric,
            "ours": round(statistics.fmean(ours), digits),
            "reference": published[metric]["Lublin-1"]["none"]["FCFS"],
        }
        for metric, ours, digits in (("bsld", slowdowns, 2), ("utilisation", utilisations, 3))
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "swf", help="folder of the logs")
    parser.add_argument("--log", action="append", choices=LOGS, help="only this one")
    parser.add_argument("--policy", action="append", choices=list(POLICIES), help="only this one")
    parser.add_argument("--order", action="append", choices=list(EVENT_ORDERS), help="of events")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    rows = swf_report(args.data, args.log or LOGS, args.policy or COMPARED, args.order or ["batch"])
    windows = windows_report(args.data)
    if args.json:
        json.dump({"replays": rows, "windows": windows}, sys.stdout, indent=1)
        return
    for row in rows:
        figures = " ".join(f"{name} {row[name]:.6g}" for name in REPORTED)
        verdict = "no reference"
        if "reference" in row:
            verdict = f"differs in {row['differ']}" if row["differ"] else "as the reference"
        if "starts_that_differ" in row:
            verdict += f", {row['starts_that_differ']} starts differ"
        name = f"{row['log']} {row['policy']} {row['order']}"
        sys.stdout.write(f"{name:40} {figures} ({row['process_s']} s): {verdict}\n")
    for row in windows:
        cell = f"{row['metric']} {row['ours']}, published {row['reference']}"
        sys.stdout.write(f"{row['log']} {row['policy']}: {cell}\n")


if __name__ == "__main__":
    main()
