"""Arrays of sessions; tokens and what was done with them; webhooks; groups' policies."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_IN_ARRAY = sa.text("array_id IS NOT NULL")
_LIVE_IN_ARRAY = sa.text("array_id IS NOT NULL AND status NOT IN ('TERMINATED', 'CANCELLED')")
_ARRAY_LIVE = sa.text("ended_at IS NULL")


def upgrade() -> None:
    """Add what the doors need."""
    op.add_column("sessions", sa.Column("array_id", sa.String(32), nullable=True))
    op.add_column("sessions", sa.Column("array_index", sa.Integer(), nullable=True))
    op.add_column("sessions", sa.Column("array_max", sa.Integer(), nullable=True))
    op.add_column("sessions", sa.Column("array_waits", sa.Boolean(), nullable=True))
    op.create_index(
        "ix_sessions_array",
        "sessions",
        ["array_id", "array_index"],
        sqlite_where=_IN_ARRAY,
        postgresql_where=_IN_ARRAY,
    )
    op.create_index(
        "ix_sessions_array_live",
        "sessions",
        ["array_id", "array_waits", "held", "number", "status"],
        sqlite_where=_LIVE_IN_ARRAY,
        postgresql_where=_LIVE_IN_ARRAY,
    )
    op.create_table(
        "arrays",
        sa.Column("array_id", sa.String(32), primary_key=True),
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("scaling_group", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("running_max", sa.Integer()),
        sa.Column("indexes", sa.Text(), nullable=False),
        sa.Column("params", sa.Text()),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("ended_at", sa.Float()),
    )
    op.create_index("ix_arrays_number", "arrays", ["number"])
    op.create_index(
        "ix_arrays_live",
        "arrays",
        ["number"],
        sqlite_where=_ARRAY_LIVE,
        postgresql_where=_ARRAY_LIVE,
    )
    op.create_index("ix_arrays_owner", "arrays", ["owner", "number"])
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(32), primary_key=True),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("expires_at", sa.Float()),
        sa.Column("revoked_at", sa.Float()),
    )
    op.create_table(
        "audit",
        sa.Column("line", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("token_id", sa.String(32)),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
    )
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("filters", sa.Text()),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("position", _NUMBER, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.Float()),
        sa.Column("retry_at", sa.Float()),
        sa.Column("last_error", sa.Text()),
    )
    op.add_column("scaling_groups", sa.Column("policy", sa.Text(), nullable=True))
