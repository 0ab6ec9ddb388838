"""Commands about sessions that are there: `show history why eta wait cancel hold release`."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sokovan.cli.options import Call, Home, Json, LiveRefs, Quiet, Ref, Refs, call_of

if TYPE_CHECKING:
    from sokovan.client import Client


def show(ctx: typer.Context, ref: Ref, json: Json = False, home: Home = None) -> int:
    """Print everything about a session, or about an array."""
    from sokovan.cli.arrays import array_lines, either, is_array
    from sokovan.cli.describe import session_lines
    from sokovan.cli.text import print_json, print_rows

    call = call_of(ctx, home, json)
    with call.client() as client:
        found = either(ref, client.get, client.array)
        now = now_of(client)
    if call.json:
        print_json(found)
    else:
        print_rows([*(array_lines if is_array(found) else session_lines)(found, now)])
    return 0


def history(ctx: typer.Context, ref: Ref, json: Json = False, home: Home = None) -> int:
    """Print every change of a session and its kernels, oldest first."""
    from sokovan.cli.describe import HISTORY_HEADERS, LEAST_OF_HISTORY, history_row
    from sokovan.cli.text import print_json, print_rows

    call = call_of(ctx, home, json)
    with call.client() as client:
        items = client.history(ref)
    if call.json:
        print_json(items)
    else:
        rows = [history_row(item) for item in items]
        print_rows(rows, headers=HISTORY_HEADERS, least=LEAST_OF_HISTORY)
    return 0


def why(
    ctx: typer.Context,
    ref: Ref,
    suggest: Annotated[
        bool,
        typer.Option("--suggest/--no-suggest", help="Find what would start it now, or do not."),
    ] = True,
    json: Json = False,
    home: Home = None,
) -> int:
    """Explain where a session stands: why it waits and what would start it, or how it ended."""
    from sokovan.cli import arrays
    from sokovan.cli.explained import why_lines

    def ask(client: "Client") -> dict[str, Any]:
        return arrays.either(ref, lambda ref: client.why(ref, suggest=suggest), client.why_array)

    def lines(answer: dict[str, Any], now: float) -> Iterator[str]:
        return arrays.why_lines(answer) if arrays.is_array(answer) else why_lines(answer, now)

    return _explained(call_of(ctx, home, json), ask, lines)


def eta(ctx: typer.Context, ref: Ref, json: Json = False, home: Home = None) -> int:
    """Say when a session should start, or has started."""
    from sokovan.cli.explained import eta_lines

    return _explained(call_of(ctx, home, json), lambda client: client.eta(ref), eta_lines)


def _explained(
    call: Call,
    ask: "Callable[[Client], dict[str, Any]]",
    lines: Callable[[dict[str, Any], float], Iterator[str]],
) -> int:
    from sokovan.cli.text import print_json, print_lines

    with call.client() as client:
        answer = ask(client)
        now = now_of(client)
    if call.json:
        print_json(answer)
    else:
        print_lines(lines(answer, now))
    return 0


def wait(
    ctx: typer.Context,
    refs: Refs,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="DURATION", help="Give up after: 30s; exit code 124."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Wait until sessions have ended; exit as `run` does, with the first that failed.

    An array has ended when all its tasks have; its exit code is that of its first task that failed.

    Meanwhile stderr says where they stand.
    """
    from sokovan.cli import arrays, exits
    from sokovan.cli.describe import outcome, short
    from sokovan.cli.progress import Progress, status_line
    from sokovan.cli.text import plain
    from sokovan.domain.errors import InvalidRequestError
    from sokovan.domain.quantities import parse_duration
    from sokovan.domain.statuses import FINAL

    try:
        timeout_s = None if timeout is None else parse_duration(timeout, field="timeout")
    except InvalidRequestError as error:
        raise exits.UsageError(f"--{error.message}", field=error.field) from None
    call = call_of(ctx, home, json, quiet)
    line = None if call.json or quiet else status_line()
    codes: list[int] = []

    def note(sentence: str) -> None:
        if not (call.json or quiet):
            print(plain(f"sokovan: {sentence}"), file=sys.stderr, flush=True)

    def wait_for(client: "Client", ref: str) -> dict[str, Any]:
        try:
            show = None if line is None else line.show
            progress = Progress(show, note, while_it_runs=True)
            session = arrays.either(
                ref,
                lambda ref: progress.until_it_ends(client, ref, timeout_s),
                lambda ref: arrays.wait_for(client, ref, timeout_s, line),
            )
        finally:
            if line is not None:
                line.clear()
        if arrays.is_array(session):
            codes.append(arrays.exit_code_of(client, session))
            return session
        is_over = session["status"] in FINAL
        codes.append(exits.of_session(session) if is_over else exits.TIMEOUT)
        return session

    def sentence(session: dict[str, Any]) -> str:
        if arrays.is_array(session):
            return f"{arrays.name_of(session)} {arrays.standing(session)}"
        words = [short(session["id"]), session["status"], session["result"], outcome(session)]
        return " ".join(word for word in words if word)

    answers = each(call, refs, wait_for, sentence)
    failed = [session for session, code in zip(answers, codes, strict=True) if code]
    if failed:
        ref = short(failed[0]["id"])
        is_over = failed[0]["ended_at"] is not None
        call.hint(f"sokovan logs {ref}" if is_over else f"sokovan why {ref}")
    return next((code for code in codes if code), 0)


def cancel(
    ctx: typer.Context,
    refs: LiveRefs,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Kill at once, without the grace.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """End sessions: waiting ones at once, running ones with SIGTERM and, after a grace, SIGKILL."""
    from sokovan.cli import arrays
    from sokovan.cli.describe import short

    said = {
        "cancelled": "cancelled before it was placed",
        "terminating": "is being stopped",
        "already-ended": "had ended already",
    }

    def sentence(answer: dict[str, Any]) -> str:
        if arrays.is_array(answer):
            words = {"terminating": "being stopped", "already-ended": "had ended already"}
            return arrays.outcome_sentence(answer, words)
        outcome = answer["outcome"]
        return f"{short(answer['session']['id'])} {said.get(outcome, outcome)}"

    call = call_of(ctx, home, json, quiet)

    def ask(client: "Client", ref: str) -> dict[str, Any]:
        return arrays.either(
            ref,
            lambda ref: client.cancel(ref, force=force),
            lambda ref: client.cancel_array(ref, force=force),
        )

    stopping = []
    for answer in each(call, refs, ask, sentence):
        if arrays.is_array(answer) and "terminating" in answer["outcomes"]:
            stopping.append(arrays.name_of(answer["array"]))
        elif not arrays.is_array(answer) and answer["outcome"] == "terminating":
            stopping.append(short(answer["session"]["id"]))
    if stopping:
        call.hint(f"sokovan wait {' '.join(stopping)}")
    return 0


def hold(
    ctx: typer.Context,
    refs: LiveRefs,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Hold waiting sessions back until `release`."""
    from sokovan.cli import arrays

    call = call_of(ctx, home, json, quiet)
    answers = each(
        call,
        refs,
        lambda client, ref: arrays.either(ref, client.hold, client.hold_array),
        lambda answer: _changed(answer, "is held"),
    )
    call.hint(f"sokovan release {' '.join(map(_name_of, answers))}")
    return 0


def release(
    ctx: typer.Context,
    refs: LiveRefs,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Let held sessions take part again."""
    from sokovan.cli import arrays

    call = call_of(ctx, home, json, quiet)
    answers = each(
        call,
        refs,
        lambda client, ref: arrays.either(ref, client.release, client.release_array),
        lambda answer: _changed(answer, "is released"),
    )
    call.hint(f"sokovan why {_name_of(answers[-1])}")
    return 0


def _changed(answer: dict[str, Any], words: str) -> str:
    from sokovan.cli import arrays

    if arrays.is_array(answer):
        return arrays.outcome_sentence(answer, {"not-waiting": "not waiting"})
    return f"{_name_of(answer)} {words}"


def _name_of(answer: dict[str, Any]) -> str:
    from sokovan.cli import arrays
    from sokovan.cli.describe import short

    if arrays.is_array(answer):
        return arrays.name_of(answer["array"])
    return short(answer["id"])


def each(
    call: Call,
    refs: list[str],
    ask: "Callable[[Client, str], dict[str, Any]]",
    sentence: Callable[[dict[str, Any]], str],
) -> list[dict[str, Any]]:
    """Ask the same of each session; print one object for one, a list for several."""
    from sokovan.cli.arrays import fixed
    from sokovan.cli.text import print_json

    with call.client() as client:
        if len(refs) > 1:  # `@` and `@~1` mean what they mean now
            refs = [fixed(client, ref) for ref in refs]
        answers = []
        for ref in refs:
            answers.append(ask(client, ref))
            call.say(sentence(answers[-1]))
    if call.json:
        print_json(answers[0] if len(answers) == 1 else answers)
    return answers


def now_of(client: "Client") -> float:
    """Return the time by the server's clock, which is the one that its times come from."""
    if client.server_time is not None:
        return client.server_time
    from sokovan.clock import SystemClock

    return SystemClock().now()


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
