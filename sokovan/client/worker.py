"""Runs one call of `sokovan.Executor` in its session: `python -m sokovan.client.worker FILE`.

The exit code is 0 when the function returned, and 1 when it raised or could not be called. The
traceback of what was raised is on stderr, too, where `sokovan logs` shows it.
"""

import sys
import traceback
from pathlib import Path

from sokovan.client.errors import CallError
from sokovan.client.spool import Spool, pickled, unpickled


def main(file: Path) -> int:
    """Run a call, and write what came of it."""
    spool, key = Spool(file.parent.parent), file.name
    try:
        value = _value(spool, key)
    except _NoCallError as error:
        return _refuse(spool, key, error.message)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the function's answer
        return _raise(spool, key, error)
    try:
        answer = pickled(value, what=f"the result, of type {type(value).__qualname__},")
    except CallError as error:
        return _refuse(spool, key, error.message)
    spool.put_result(key, {"kind": "returned"}, answer)
    return 0


class _NoCallError(CallError):
    """There is no function to call."""


def _value(spool: Spool, key: str) -> object:
    """Return what the function returns.

    Raises:
        _NoCallError: It could not be called.
    """
    try:
        head, arguments = spool.get_call(key)
        sys.path[:] = [*head["path"], *(path for path in sys.path if path not in head["path"])]
        function = unpickled(spool.get_function(head["function"]), what="the function")
        args, kwargs = unpickled(arguments, what="the arguments")
    except CallError as error:
        raise _NoCallError(error.message) from None
    return function(*args, **kwargs)


def _raise(spool: Spool, key: str, error: BaseException) -> int:
    frames = error.__traceback__
    for _ours in ("main", "_value"):
        frames = frames.tb_next if frames else None
    text = "".join(traceback.format_exception(type(error), error, frames))
    sys.stderr.write(text)
    head = {"kind": "raised", "traceback": text}
    try:
        if not isinstance(error, Exception):
            raise CallError("it would end this program, too")
        answer = pickled(error, what="the exception")
        unpickled(answer, what="the exception")  # some can be pickled, and not made again
    except CallError as reason:
        name = type(error).__qualname__
        sentence = f"the function raised {name}: {error}, which stays there: {reason.message}"
        head |= {"kind": "raised-there", "sentence": sentence}
        answer = b""
    spool.put_result(key, head, answer)
    return 1


def _refuse(spool: Spool, key: str, sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    spool.put_result(key, {"kind": "refused", "sentence": sentence}, b"")
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
