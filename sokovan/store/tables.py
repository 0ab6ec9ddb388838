"""The tables. One definition for every database; the migrations build the same, and a test says so.

Times are seconds since the epoch. Small structures that are only ever read and written whole are
JSON text. What changes often is kept apart from what is written once: `specs` holds what the user
submitted.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()


def _string(length: int) -> String:
    """Return a type of text that sorts by code point on every database.

    SQLite takes longer texts, too; so does PostgreSQL here: what may be how long is for the API.
    """
    return String(length).with_variant(String(collation="C"), "postgresql")


_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in an INTEGER key."""

sessions = Table(
    "sessions",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("session_id", _string(32), nullable=False, unique=True),
    Column("name", _string(200), nullable=False),
    Column("owner", _string(200), nullable=False),
    Column("scaling_group", _string(64), nullable=False),
    Column("status", _string(16), nullable=False),
    Column("status_seq", Integer, nullable=False),
    Column("status_since", Float, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("pending_since", Float, nullable=False),
    Column("begin_at", Float),
    Column("held", Boolean, nullable=False),
    Column("walltime_s", Float),
    Column("pending_timeout_s", Float),
    Column("requeue", Boolean, nullable=False),
    Column("requeues", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("retry_of", _string(32)),
    Column("unmet", Text),
    Column("avoid", Text),
    Column("limits", Text),
    Column("attempts", Text),
    Column("noted_reason", _string(64)),
    Column("lowered_seq", Integer, nullable=False),
    Column("grace_s", Float, nullable=False),
    Column("force", Boolean, nullable=False),
    Column("result", _string(16), nullable=False),
    Column("reason", _string(64)),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("creation_id", _string(200)),
    Column("body_digest", _string(64)),
    Column("where_to", Text),
    Column("array_id", _string(32)),
    Column("array_index", Integer),
    Column("array_max", Integer),
    Column("array_waits", Boolean),
    UniqueConstraint("owner", "creation_id", name="uq_sessions_owner_creation_id"),
)
_LIVE = text("status NOT IN ('TERMINATED', 'CANCELLED')")
Index(
    "ix_sessions_live",
    sessions.c.scaling_group,
    sessions.c.status,
    sqlite_where=_LIVE,
    postgresql_where=_LIVE,
)
IS_LIVE = text(f"sessions.{_LIVE.text}")
"""The condition of the index, word by word: SQLite does not see it in one with parameters."""
AMONG_LIVE = text(
    f"sessions.number IN (SELECT live.number FROM sessions AS live WHERE live.{_LIVE.text})"
)
"""The same for what is sorted by number: SQLite would read all there ever were, to have them so."""
_RETRIES = text("retry_of IS NOT NULL")
Index(
    "ix_sessions_retry_of",
    sessions.c.retry_of,
    sqlite_where=_RETRIES,
    postgresql_where=_RETRIES,
)
Index("ix_sessions_owner", sessions.c.owner, sessions.c.number)
_IN_ARRAY = text("array_id IS NOT NULL")
Index(
    "ix_sessions_array",
    sessions.c.array_id,
    sessions.c.array_index,
    sqlite_where=_IN_ARRAY,
    postgresql_where=_IN_ARRAY,
)
LIVE_IN_ARRAY = text("array_id IS NOT NULL AND status NOT IN ('TERMINATED', 'CANCELLED')")
Index(
    "ix_sessions_array_live",
    sessions.c.array_id,
    sessions.c.array_waits,
    sessions.c.held,
    sessions.c.number,
    sessions.c.status,
    sqlite_where=LIVE_IN_ARRAY,
    postgresql_where=LIVE_IN_ARRAY,
)

arrays = Table(
    "arrays",
    metadata,
    Column("array_id", _string(32), primary_key=True),
    Column("number", _NUMBER, nullable=False),
    Column("name", _string(200), nullable=False),
    Column("owner", _string(200), nullable=False),
    Column("scaling_group", _string(64), nullable=False),
    Column("size", Integer, nullable=False),
    Column("running_max", Integer),
    Column("indexes", Text, nullable=False),
    Column("params", Text),
    Column("created_at", Float, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("ended_at", Float),
)
"""What the tasks of an array have in common, and how many have ended how; each task is a session.

`number` is its first task's. What was submitted for all of them is in `specs`, under its own id.
"""
Index("ix_arrays_number", arrays.c.number)
_ARRAY_LIVE = text("ended_at IS NULL")
Index(
    "ix_arrays_live",
    arrays.c.number,
    sqlite_where=_ARRAY_LIVE,
    postgresql_where=_ARRAY_LIVE,
)
Index("ix_arrays_owner", arrays.c.owner, arrays.c.number)

specs = Table(
    "specs",
    metadata,
    Column("session_id", _string(32), primary_key=True),
    Column("spec", Text, nullable=False),
)

kernels = Table(
    "kernels",
    metadata,
    Column("kernel_id", _string(48), primary_key=True),
    Column("session_id", _string(32), nullable=False, index=True),
    Column("role", _string(8), nullable=False),
    Column("kernel_index", Integer, nullable=False),
    Column("status", _string(16), nullable=False),
    Column("status_since", Float, nullable=False),
    Column("cpu_milli", BigInteger, nullable=False),
    Column("mem_bytes", BigInteger, nullable=False),
    Column("gpu_shares", BigInteger, nullable=False),
    Column("gpu_mem_bytes_min", BigInteger, nullable=False),
    Column("agent_id", _string(64)),
    Column("token", _string(64)),
    Column("devices", Text),
    Column("failures", Integer, nullable=False),
    Column("exit_code", Integer),
    Column("reason", _string(64)),
    Column("error", Text),
    Column("started_at", Float),
    Column("ended_at", Float),
)

holds = Table(
    "holds",
    metadata,
    Column("token", _string(64), primary_key=True),
    Column("session_id", _string(32), nullable=False, index=True),
    Column("kernel_id", _string(48), nullable=False),
    Column("agent_id", _string(64), nullable=False, index=True),
    Column("cpu_milli", BigInteger, nullable=False),
    Column("mem_bytes", BigInteger, nullable=False),
    Column("devices", Text),
    Column("leftover_since", Float),
)

dependencies = Table(
    "dependencies",
    metadata,
    Column("session_id", _string(32), primary_key=True),
    Column("depends_on", _string(32), primary_key=True, index=True),
    Column("kind", _string(16), nullable=False),
)

history = Table(
    "history",
    metadata,
    Column("line", _NUMBER, primary_key=True, autoincrement=True),
    Column("session_id", _string(32), nullable=False, index=True),
    Column("kernel_id", _string(48)),
    Column("status_seq", Integer, nullable=False),
    Column("from_status", _string(16)),
    Column("to_status", _string(16), nullable=False),
    Column("reason", _string(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("stage", _string(32), nullable=False),
    Column("at", Float, nullable=False),
)

agents = Table(
    "agents",
    metadata,
    Column("agent_id", _string(64), primary_key=True),
    Column("name", _string(200), nullable=False),
    Column("scaling_group", _string(64), nullable=False),
    Column("status", _string(16), nullable=False),
    Column("incarnation", Integer, nullable=False),
    Column("address", Text, nullable=False),
    Column("architecture", _string(32), nullable=False),
    Column("version", _string(32), nullable=False),
    Column("boot_id", _string(64), nullable=False),
    Column("capacity", Text, nullable=False),
    Column("last_seen_at", Float, nullable=False),
    Column("lost_since", Float),
    Column("drained_since", Float),
    Column("drain_reason", Text),
    Column("labels", Text),
    Column("own_labels", Text),
)

scaling_groups = Table(
    "scaling_groups",
    metadata,
    Column("name", _string(64), primary_key=True),
    Column("last_agent_id", _string(64)),
    Column("lease_holder", _string(200)),
    Column("fencing_token", Integer, nullable=False),
    Column("boot_id", _string(64)),
    Column("clock_origin", Float),
    Column("policy", Text),
    Column("renewals", BigInteger),
)
"""A group's state, and what an administrator has set of its policy, whatever the settings say.

Whoever holds the lease raises `fencing_token` when it takes over and names it in every apply, and
`renewals` again and again: who has seen both stand still for the length of a lease may take over.
It leaves behind what its clock counts from.
"""

managers = Table(
    "managers",
    metadata,
    Column("manager_id", _string(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("host", _string(200), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", _string(32), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("renewals", BigInteger, nullable=False),
)
"""Who works on this store; one whose `renewals` stand still for the length of a lease is gone."""

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", _string(32), primary_key=True),
    Column("user", _string(200), nullable=False),
    Column("role", _string(16), nullable=False),
    Column("label", _string(200), nullable=False),
    Column("digest", _string(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", _string(200), nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)
"""Who may ask; of the secret itself, only the SHA-256 digest is kept."""

audit = Table(
    "audit",
    metadata,
    Column("line", _NUMBER, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("user", _string(200), nullable=False),
    Column("token_id", _string(32)),
    Column("address", _string(64), nullable=False),
    Column("action", _string(32), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
"""Who changed what, and from where: a line in the transaction of each change."""

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", _string(32), primary_key=True),
    Column("owner", _string(200), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("filters", Text),
    Column("created_at", Float, nullable=False),
    Column("position", _NUMBER, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failing_since", Float),
    Column("retry_at", Float),
    Column("last_error", Text),
)
"""Who is told of events; `position` is the last line of history that was delivered."""

marks = Table(
    "marks",
    metadata,
    Column("name", _string(32), primary_key=True),
    Column("number", _NUMBER, nullable=False),
)
"""Numbers that the store keeps of itself: history up to `pruned_to` may be gone."""
