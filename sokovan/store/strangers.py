"""Kernels that run on this machine and that a store knows nothing of: it is older than they are.

That is so of a backup that is restored. Nobody but a person can know what is to become of them.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, insert, select

from sokovan.agent.journal import Journal
from sokovan.domain.resources import Hold
from sokovan.scheduler.messages import KernelToStart
from sokovan.store.rows import hold_values
from sokovan.store.tables import holds


def strangers(home: Path, connection: Connection) -> list[KernelToStart]:
    """Return the orders of this home's agents that are not over, and that no hold is for."""
    known = set(connection.execute(select(holds.c.token)).scalars())
    found = []
    for kernels in sorted(home.glob("agents/*/kernels")):
        journal = Journal(kernels.parent)
        for folder in sorted(kernels.iterdir()):
            if folder.name in known or journal.is_over(folder.name):
                continue
            order = journal.order(folder.name)
            if order is not None:
                found.append(order.kernel)
    return found


def stop_strangers(connection: Connection, found: Sequence[KernelToStart], now: float) -> None:
    """Have a store take kernels for leftovers.

    Their agents are told to stop them, they hold what they have until that is confirmed, and a
    session of theirs is not started again before.
    """
    left = [
        Hold(
            kernel.token,
            kernel.session_id,
            kernel.kernel_id,
            kernel.agent_id,
            kernel.request.cpu_milli,
            kernel.request.mem_bytes,
            kernel.devices,
            now,
        )
        for kernel in found
    ]
    if left:
        connection.execute(insert(holds), [hold_values(hold) for hold in left])
