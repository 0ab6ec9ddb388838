"""A manager that kills itself with SIGKILL at a chosen point: `crashing_manager.py HOME POINT N`.

POINT is `before:NAME` or `after:NAME`; NAME a method below. It dies at the N-th call.
"""

import functools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sokovan.cluster.local import LocalHome
from sokovan.config import load_config
from sokovan.manager import serve
from sokovan.store.repository import SqlRepository

METHODS = {
    "submit": (SqlRepository, "submit"),
    "apply": (SqlRepository, "apply"),
    "record_reports": (SqlRepository, "record_reports"),
    "prepare": (LocalHome, "prepare"),
    "start": (LocalHome, "start"),
    "stop": (LocalHome, "stop"),
}
POINTS = [f"{when}:{name}" for name in METHODS for when in ("before", "after")]


def die_at(point: str, count: int) -> None:
    """Have the process die at the `count`-th call of the method that `point` names."""
    when, _, name = point.partition(":")
    kind, attribute = METHODS[name]
    real = getattr(kind, attribute)
    calls = 0

    @functools.wraps(real)
    async def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await real(*args, **kwargs)
        if when == "after" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(kind, attribute, dying)


if __name__ == "__main__":
    home, point, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if point != "never":
        die_at(point, count)
    serve(load_config(home))
