"""A connection to PostgreSQL that does not wait for ever.

The kernel notices a peer that is gone, and the server ends a statement that takes too long. Neither
helps when something in between keeps the connection open and passes nothing on, or when the server
itself stands still: whoever waits has to lose patience.
"""

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

from sokovan.clock import Clock, SystemClock

T = TypeVar("T")


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when it stays silent for too long.

    Attributes:
        patience_s: How long it may be silent while something was asked; `None` is for ever.
    """

    patience_s: float | None = None
    clock: Clock = SystemClock()

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Run a conversation with the server to its end.

        Raises:
            psycopg.OperationalError: The server was silent for too long.
        """
        if self.patience_s is None:
            return super().wait(gen, *args, **kwargs)
        return super().wait(self._impatient(gen, self.patience_s), *args, **kwargs)

    def _impatient(self, gen: PQGen[T], patience_s: float) -> PQGen[T]:
        """Pass a conversation on; whoever runs it looks by ten times a second, heard or not."""
        try:
            wanted = next(gen)
            heard_at = self.clock.now()
            while True:
                ready = yield wanted
                if ready:
                    heard_at = self.clock.now()
                elif self.clock.now() - heard_at > patience_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"it was silent for {patience_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: T = end.value
            return answer
