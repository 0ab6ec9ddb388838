"""Agents can be drained."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Let an agent remember since when it is drained, and why."""
    op.add_column("agents", sa.Column("drained_since", sa.Float(), nullable=True))
    op.add_column("agents", sa.Column("drain_reason", sa.Text(), nullable=True))
