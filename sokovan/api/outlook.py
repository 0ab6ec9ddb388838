"""What is to be expected: why sessions wait, when they should start, what new ones would meet."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sokovan.api.service import View
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import Assignment, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.admit import admission
from sokovan.placement.engine import Pass, run
from sokovan.placement.eta import eta, on_agents, unknown
from sokovan.placement.explain import explain, place_in_queue
from sokovan.placement.releases import walltime_of
from sokovan.placement.sentences import sentence
from sokovan.placement.snapshot import Snapshot
from sokovan.placement.suggest import suggestions
from sokovan.placement.visit import visited
from sokovan.store.queries import stamp
from sokovan.store.repository import SqlRepository

DETAILED_MAX = 5
"""So many of a dry run's sessions that would wait in one group are told all that `why` tells: each
may take a second of the scheduler's time. The others are told the reason alone."""

NO_PLACE = {"position": None, "queue_length": None}
"""Of a session that is not waiting to be placed."""


class Outlook:
    """Looks at what placement works on; changes nothing.

    Args:
        repository: Whose snapshots these are.
    """

    def __init__(self, repository: SqlRepository) -> None:
        self._repository = repository

    # --- one that was submitted -----------------------------------------------------------------

    def why(self, session: SessionWithKernels, *, suggest: bool) -> View:
        """Explain a PENDING session: `sentence`, `code`, `facts` and `suggestions`."""
        snapshot = self._repository.snapshot(session.scaling_group)
        if snapshot is None or not snapshot.queue.has_come(session.session_id):
            wait = self._repository.wait_of(session)
            now = snapshot.now if snapshot else None
            return {
                "sentence": sentence(wait, now=now),
                "code": wait.code.value,
                "facts": wait.facts,
                "suggestions": [] if suggest else None,
            }
        told = _shaped(explain(snapshot, session.session_id))
        told["suggestions"] = None
        if suggest:
            told["suggestions"] = suggestions(
                snapshot, session.session_id, self._others(snapshot.group.name)
            )
        return told

    def eta(self, session: SessionWithKernels) -> View:
        """Say when a session should start, or has started; see `placement.eta`."""
        group = self._repository.groups.get(session.scaling_group)
        if session.status is SessionStatus.PENDING:
            snapshot = self._repository.snapshot(session.scaling_group)
            if snapshot is None:
                return unknown("its scaling group is not configured any more") | NO_PLACE
            place = place_in_queue(run(snapshot), session.session_id)
            where = {key: place[key] for key in ("position", "queue_length")}
            return _stamped(eta(snapshot, session.session_id)) | where
        names = {a: agent.name or a for a, agent in self._repository.live.agents.items()}
        on = [
            {
                "agent_id": kernel.agent_id,
                "agent": names.get(kernel.agent_id, kernel.agent_id),
                "devices": [list(pair) for pair in kernel.devices],
            }
            for kernel in session.kernels
            if kernel.agent_id is not None
        ]
        began = session.started_at
        told = unknown(f"it is {session.status.value.lower()}") | {"starts_at": began, "agents": on}
        if began is not None:
            told["sentence"] = "has started"
            told["ends_at"] = session.ended_at
            if session.ended_at is None and session.walltime_s is not None and group is not None:
                told["ends_at"] = began + walltime_of(session, group)
        elif session.status.is_final:
            told["sentence"] = "has ended, and never started"
        elif session.status is not SessionStatus.DEPRIORITIZING:
            told["sentence"] = f"is about to start: it is {session.status.value.lower()}"
        return _stamped(told) | NO_PLACE

    # --- ones that might be submitted -------------------------------------------------------------

    def dry_run(
        self,
        made: Sequence[SessionWithKernels],
        failed: Mapping[SessionId, str],
        *,
        suggest: bool,
    ) -> list[View]:
        """Say what would become of sessions that are submitted together.

        Args:
            made: The sessions that they would be.
            failed: Those of them that a dependency has failed already, with the reason.
            suggest: Find what would start those now that would wait.
        """
        answers: dict[SessionId, View] = {}
        of_group: dict[str, list[SessionWithKernels]] = defaultdict(list)
        for session in made:
            if session.session_id in failed:
                words = f"would be cancelled at once: {failed[session.session_id]}"
                answers[session.session_id] = _waiting(words, EndReason.DEPENDENCY_FAILED)
            else:
                of_group[session.scaling_group].append(session)
        for name, sessions in of_group.items():
            answers |= self._visit(name, sessions, suggest=suggest)
        return [
            {"name": s.name, "scaling_group": s.scaling_group, **answers[s.session_id]}
            for s in made
        ]

    def _visit(
        self, name: str, sessions: Sequence[SessionWithKernels], *, suggest: bool
    ) -> dict[SessionId, View]:
        snapshot = self._repository.snapshot(name)
        assert snapshot is not None, "checked before"
        answers: dict[SessionId, View] = {}
        coming: list[SessionWithKernels] = []
        detailed = 0
        for session in sessions:
            wait = admission(session, snapshot)
            if wait is None:
                coming.append(session)
            else:
                words = sentence(wait, now=snapshot.now)
                answers[session.session_id] = _waiting(words, wait.code, wait.facts)
        with visited(snapshot, coming) as done:
            for session_id in (session.session_id for session in coming):
                if session_id in done.placed:
                    answers[session_id] = _starting(done, done.placed[session_id])
                elif detailed < DETAILED_MAX:
                    detailed += 1
                    answers[session_id] = self._detailed(done, session_id, suggest=suggest)
                else:
                    wait = done.plan.waits[session_id]
                    words = sentence(wait, now=snapshot.now)
                    answers[session_id] = _waiting(words, wait.code, wait.facts)
        return answers

    def _detailed(self, done: Pass, session_id: SessionId, *, suggest: bool) -> View:
        snapshot = done.snapshot
        view = _waiting(**_shaped(explain(snapshot, session_id, done)))
        view["eta"] = _stamped(eta(snapshot, session_id, done))
        if suggest:
            others = self._others(snapshot.group.name)
            view["suggestions"] = suggestions(snapshot, session_id, others)
        return view

    def _others(self, name: str) -> list[Snapshot]:
        """Return the snapshots of all other groups."""
        names = (other for other in sorted(self._repository.groups) if other != name)
        found = (self._repository.snapshot(other) for other in names)
        return [snapshot for snapshot in found if snapshot is not None]


def _shaped(told: dict[str, Any]) -> View:
    """What `explain` says, with all but the sentence and the code among the facts."""
    words = {"sentence": told.pop("sentence"), "code": told.pop("code")}
    del told["session_id"]
    return {**words, "facts": told.pop("facts") | told}


def _stamped(told: dict[str, Any]) -> View:
    return told | {key: stamp(told[key]) for key in ("starts_at", "ends_at", "not_before")}


def _waiting(sentence: str, code: str, facts: View | None = None) -> View:
    return {
        "starts_now": False,
        "agents": [],
        "sentence": sentence,
        "code": str(code),
        "facts": facts or {},
        "eta": None,
        "suggestions": None,
    }


def _starting(done: Pass, assignment: Assignment) -> View:
    agents = on_agents(assignment, done)
    names = ", ".join(dict.fromkeys(one["agent"] for one in agents))
    return {
        "starts_now": True,
        "agents": agents,
        "sentence": f"would start now on {names}",
        "code": None,
        "facts": {},
        "eta": None,
        "suggestions": None,
    }


def standing(view: View, history: Sequence[View]) -> str:
    """Say in one sentence where a session stands that does not wait to be placed."""
    ending = ("TERMINATING", "TERMINATED", "CANCELLED")
    ends = [
        line["detail"]
        for line in history
        if line["to_status"] in ending and line["from_status"] != line["to_status"]
    ]
    cause = next((f": {detail}" for detail in ends if detail), "")
    status, on = view["status"], ", ".join(view["agents"]) or "no agent"
    errors = [kernel["error"] for kernel in view["kernels"] if kernel["error"]]
    trouble = f"; the last error: {errors[0]}" if errors else ""
    match status:
        case "TERMINATED" | "CANCELLED":
            code = "" if view["exit_code"] is None else f", exit code {view['exit_code']}"
            return f"it has ended: {view['reason']} ({view['result']}{code}){cause}"
        case "RUNNING":
            return f"it runs on {on}{trouble}"
        case "TERMINATING":
            return f"it is being stopped on {on}: {view['reason']}{cause}"
        case "DEPRIORITIZING":
            return "its priority is being lowered, as no agent could ever fit it so far"
        case _:
            return f"it is {status.lower()} on {on}{trouble}"
