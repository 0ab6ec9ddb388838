"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("scaling_group", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("architecture", sa.String(length=32), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("capacity", sa.Text(), nullable=False),
        sa.Column("last_seen_at", sa.Float(), nullable=False),
        sa.Column("lost_since", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("agent_id"),
    )
    op.create_table(
        "dependencies",
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("depends_on", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "depends_on"),
    )
    op.create_index("ix_dependencies_depends_on", "dependencies", ["depends_on"], unique=False)
    op.create_table(
        "history",
        sa.Column(
            "line",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("kernel_id", sa.String(length=48), nullable=True),
        sa.Column("status_seq", sa.Integer(), nullable=False),
        sa.Column("from_status", sa.String(length=16), nullable=True),
        sa.Column("to_status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("line"),
    )
    op.create_index("ix_history_session_id", "history", ["session_id"], unique=False)
    op.create_table(
        "holds",
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("kernel_id", sa.String(length=48), nullable=False),
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("mem_bytes", sa.BigInteger(), nullable=False),
        sa.Column("devices", sa.Text(), nullable=True),
        sa.Column("leftover_since", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("token"),
    )
    op.create_index("ix_holds_agent_id", "holds", ["agent_id"], unique=False)
    op.create_index("ix_holds_session_id", "holds", ["session_id"], unique=False)
    op.create_table(
        "kernels",
        sa.Column("kernel_id", sa.String(length=48), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("kernel_index", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_since", sa.Float(), nullable=False),
        sa.Column("cpu_milli", sa.BigInteger(), nullable=False),
        sa.Column("mem_bytes", sa.BigInteger(), nullable=False),
        sa.Column("gpu_shares", sa.BigInteger(), nullable=False),
        sa.Column("gpu_mem_bytes_min", sa.BigInteger(), nullable=False),
        sa.Column("agent_id", sa.String(length=64), nullable=True),
        sa.Column("token", sa.String(length=64), nullable=True),
        sa.Column("devices", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("kernel_id"),
    )
    op.create_index("ix_kernels_session_id", "kernels", ["session_id"], unique=False)
    op.create_table(
        "scaling_groups",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("last_agent_id", sa.String(length=64), nullable=True),
        sa.Column("lease_holder", sa.String(length=200), nullable=True),
        sa.Column("fencing_token", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "sessions",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("scaling_group", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_seq", sa.Integer(), nullable=False),
        sa.Column("status_since", sa.Float(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("pending_since", sa.Float(), nullable=False),
        sa.Column("begin_at", sa.Float(), nullable=True),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("walltime_s", sa.Float(), nullable=True),
        sa.Column("pending_timeout_s", sa.Float(), nullable=True),
        sa.Column("requeue", sa.Boolean(), nullable=False),
        sa.Column("requeues", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("retry_of", sa.String(length=32), nullable=True),
        sa.Column("unmet", sa.Text(), nullable=True),
        sa.Column("avoid", sa.Text(), nullable=True),
        sa.Column("limits", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Text(), nullable=True),
        sa.Column("noted_reason", sa.String(length=64), nullable=True),
        sa.Column("lowered_seq", sa.Integer(), nullable=False),
        sa.Column("grace_s", sa.Float(), nullable=False),
        sa.Column("force", sa.Boolean(), nullable=False),
        sa.Column("result", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("creation_id", sa.String(length=200), nullable=True),
        sa.Column("body_digest", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("owner", "creation_id", name="uq_sessions_owner_creation_id"),
        sa.UniqueConstraint("session_id"),
    )
    op.create_index(
        "ix_sessions_live",
        "sessions",
        ["scaling_group", "status"],
        unique=False,
        sqlite_where=sa.text("status NOT IN ('TERMINATED', 'CANCELLED')"),
        postgresql_where=sa.text("status NOT IN ('TERMINATED', 'CANCELLED')"),
    )
    op.create_index("ix_sessions_owner", "sessions", ["owner", "number"], unique=False)
    op.create_index(
        "ix_sessions_retry_of",
        "sessions",
        ["retry_of"],
        unique=False,
        sqlite_where=sa.text("retry_of IS NOT NULL"),
        postgresql_where=sa.text("retry_of IS NOT NULL"),
    )
    op.create_table(
        "specs",
        sa.Column("session_id", sa.String(length=32), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("session_id"),
    )
