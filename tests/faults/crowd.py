"""Two hundred sessions of all kinds, and the audit of what became of them.

Every kernel writes its token down once, in a file that no fault touches, and says a known number of
lines. It says each line until that works: a full disk is no business of its own.
"""

import contextlib
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sokovan.client import View
from sokovan.domain.errors import SokovanError
from tests.faults.ground import RealHome, environment

BATCH_MAX = 14
SCRIPT = """\
say() {{ until echo "$1"; do sleep 0.1; done 2>/dev/null; }}
echo "$SOKOVAN_SESSION_ID $SOKOVAN_KERNEL_INDEX $SOKOVAN_KERNEL_TOKEN" >>{ran}
say begin
{behind}
if [ "$SOKOVAN_KERNEL_INDEX" != 0 ]; then sleep {sub_s}; say end; exit 0; fi
i=0
while [ $i -lt {lines} ]; do i=$((i+1)); say "line $i"; done
sleep {main_s}
say end
exit {code}
"""
BEHIND = (
    "sleep 300 &",
    "(setsid sh -c 'sleep 300 & sleep 300' &)",
    "trap '' TERM; (trap '' TERM HUP; sleep 300) &",
)
"""What some leave behind."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A session that is to be submitted, and what it is to come to."""

    body: dict[str, object]
    code: int
    output: bytes
    cancel: str = ""
    """`gently` or `by force`, where somebody cancels it."""


@dataclass(slots=True)
class Crowd:
    """The sessions of a seed, those that were accepted, and those somebody cancelled."""

    seed: int
    home: RealHome
    ran: Path
    wishes: list[Wish] = field(default_factory=list)
    accepted: dict[str, Wish] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)

    def gather(self, count: int) -> None:
        """Choose the sessions."""
        rng = random.Random(self.seed)
        self.wishes = [self._wish(rng, number) for number in range(count)]

    def _wish(self, rng: random.Random, number: int) -> Wish:
        code = rng.choice([0, 0, 0, 1, 3, 77, 255])
        lines = rng.choice([0, 1, 5, 40])
        script = SCRIPT.format(
            ran=self.ran,
            behind=rng.choice(BEHIND) if rng.random() < 0.2 else "",
            sub_s=f"{rng.uniform(0, 0.5):.2f}",
            main_s=f"{rng.choice([0, rng.uniform(0, 0.4), rng.uniform(0, 2)]):.2f}",
            lines=lines,
            code=code,
        )
        said = "".join(["begin\n", *(f"line {n + 1}\n" for n in range(lines)), "end\n"])
        body = {
            "command": ["/bin/sh", "-c", script],
            "env": environment(self.home),
            "cwd": "/",
            "creation_id": f"{self.seed}-{number}",
            "kernels": rng.choice([1] * 8 + [2, 3]),
            "grace_s": 0.3,
        }
        cancel = rng.choice([""] * 8 + ["gently", "by force"])
        return Wish(body, code, said.encode(), cancel)

    def submit_next(self, rng: random.Random) -> bool:
        """Try to submit a batch that was not accepted yet; say whether it is now."""
        begin = len(self.accepted)
        batch = self.wishes[begin : begin + rng.randint(1, BATCH_MAX)]
        try:
            views = self.home.client.submit_many([wish.body for wish in batch])  # type: ignore[misc]
        except SokovanError:
            return False
        self.accepted.update({view["id"]: wish for view, wish in zip(views, batch, strict=True)})
        return True

    def cancel_some(self, rng: random.Random) -> None:
        """Cancel a few of those that are to be; whether it arrives is for the audit to see."""
        chosen = [
            session_id
            for session_id, wish in self.accepted.items()
            if wish.cancel and session_id not in self.cancelled
        ]
        for session_id in rng.sample(chosen, min(2, len(chosen))):
            self.cancelled.add(session_id)
            with contextlib.suppress(SokovanError):
                force = self.accepted[session_id].cancel == "by force"
                self.home.client.cancel(session_id, force=force)

    # --- the audit --------------------------------------------------------------------------------

    def faults_found(self, harmed: set[str]) -> dict[str, list[str]]:
        """Return what is wrong with which session; `harmed` are tokens whose wrapper was hit."""
        found: dict[str, list[str]] = defaultdict(list)
        views = {view["id"]: view for view in self.home.client.list(live_only=False)}
        for session_id in self.accepted.keys() ^ views.keys():
            found[session_id].append("submitted and listed are not the same")
        tokens = self._tokens_by_kernel()
        for session_id, wish in self.accepted.items():
            if session_id in views:
                view = views[session_id]
                found[session_id] += self._about_the_end(view, wish, tokens, harmed)
                found[session_id] += self._about_the_runs(view, tokens, harmed)
                found[session_id] += self._about_the_output(view, wish)
        return {session_id: wrong for session_id, wrong in found.items() if wrong}

    def _about_the_end(
        self,
        view: View,
        wish: Wish,
        tokens: dict[tuple[str, int], list[str]],
        harmed: set[str],
    ) -> list[str]:
        end = (view["status"], view["result"], view["reason"], view["exit_code"])
        true_end = (
            "TERMINATED",
            "SUCCESS" if wish.code == 0 else "FAILURE",
            "SELF_TERMINATED" if wish.code == 0 else "KERNEL_FAILED",
            wish.code,
        )
        if end == true_end:
            return []
        if view["id"] in self.cancelled and view["reason"] == "USER_REQUESTED":
            is_right = end[:2] in {("TERMINATED", "FAILURE"), ("CANCELLED", "UNDEFINED")}
            return [] if is_right else [f"cancelled, it ended {end}"]
        lost = [k for k in view["kernels"] if k["reason"] == "EXIT_STATUS_LOST"]
        if lost and all(k["token"] in harmed for k in lost):
            is_right = end[:3] == ("TERMINATED", "FAILURE", "EXIT_STATUS_LOST")
            return [] if is_right else [f"with a lost exit status, it ended {end}"]
        return [f"it ended {end}, and not {true_end}"]

    def _about_the_runs(
        self, view: View, tokens: dict[tuple[str, int], list[str]], harmed: set[str]
    ) -> list[str]:
        wrong = []
        for kernel in view["kernels"]:
            ran = Counter(tokens.get((view["id"], kernel["index"]), ()))
            if any(times > 1 for times in ran.values()):
                wrong.append(f"kernel {kernel['index']}: a token ran twice: {ran}")
            if len(ran) > 1 + view["requeues"]:
                wrong.append(f"kernel {kernel['index']}: ran with {len(ran)} tokens: {ran}")
            is_undisturbed = kernel["token"] not in harmed and view["id"] not in self.cancelled
            has_code = kernel["index"] == 0 and kernel["exit_code"] is not None
            if has_code and is_undisturbed and kernel["token"] not in ran:
                wrong.append(f"it has an exit code, and its token never ran: {ran}")
        return wrong

    def _about_the_output(self, view: View, wish: Wish) -> list[str]:
        wrong = [
            f"kernel {kernel['index']} said {said!r}"
            for kernel in view["kernels"][1:]
            if kernel["exit_code"] == 0
            and (said := self.home.output_of(view["id"], kernel["index"])) != b"begin\nend\n"
        ]
        return wrong + self._about_the_main_output(view, wish)

    def _about_the_main_output(self, view: View, wish: Wish) -> list[str]:
        said = self.home.output_of(view["id"])
        if view["exit_code"] == wish.code and view["reason"] in {
            "SELF_TERMINATED",
            "KERNEL_FAILED",
        }:
            return [] if said == wish.output else [f"it said {said!r}, and not {wish.output!r}"]
        return [] if wish.output.startswith(said) else [f"it said {said!r}"]

    def _tokens_by_kernel(self) -> dict[tuple[str, int], list[str]]:
        tokens: dict[tuple[str, int], list[str]] = defaultdict(list)
        for line in self.ran.read_text().splitlines():
            session_id, index, token = line.split()
            tokens[session_id, int(index)].append(token)
        return tokens


def processes_left(home: RealHome) -> list[str]:
    """Return the kernels' processes that are alive, by their mark in the environment."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SOKOVAN_TEST_HOME") == str(home.home):
                left.append(f"{process.pid} {process.status()} {process.cmdline()}")
    return left
