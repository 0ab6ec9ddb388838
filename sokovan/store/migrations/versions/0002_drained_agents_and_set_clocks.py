"""Agents can be drained; a step of the clock between two managers can be told."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Remember since when an agent is drained, and why; and what a manager's clock counts from."""
    op.add_column("agents", sa.Column("drained_since", sa.Float(), nullable=True))
    op.add_column("agents", sa.Column("drain_reason", sa.Text(), nullable=True))
    op.add_column("scaling_groups", sa.Column("boot_id", sa.String(64), nullable=True))
    op.add_column("scaling_groups", sa.Column("clock_origin", sa.Float(), nullable=True))
