"""Leases end when they are not renewed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what several managers need."""
    op.add_column("scaling_groups", sa.Column("renewals", sa.BigInteger(), nullable=True))
