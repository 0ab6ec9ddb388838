"""Makes processes read a wall clock that a test steps, by what their `sitecustomize` holds.

The machine's clock is everybody's, so it stays as it is. The server and the agents are real, and so
is their `SystemClock`; only `time.time`, the one way it reads the wall, adds what the file says
that SOKOVAN_TEST_CLOCK names. Kernels do not see it.
"""

import os
from pathlib import Path

SITE = """\
import os, time
_real = time.time
def _stepped():
    try:
        with open(os.environ["SOKOVAN_TEST_CLOCK"]) as file:
            return _real() + float(file.read())
    except (OSError, KeyError, ValueError):
        return _real()
time.time = _stepped
"""


class SteppedClock:
    """The wall clock of the processes that are started with `environ()`.

    Args:
        directory: Where its files are kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "clock"
        (directory / "sitecustomize.py").write_text(SITE)
        self.step(0.0)

    def step(self, seconds: float) -> None:
        """Have it show `seconds` more than the machine's from now on."""
        written = self._file.with_suffix(".new")
        written.write_text(str(seconds))
        written.rename(self._file)

    def environ(self) -> dict[str, str]:
        """Return the environment of a process that follows it."""
        inherited = filter(None, (str(self._directory), os.environ.get("PYTHONPATH")))
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(inherited),
            "SOKOVAN_TEST_CLOCK": str(self._file),
        }
