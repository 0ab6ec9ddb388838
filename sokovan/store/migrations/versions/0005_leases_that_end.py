"""Leases end when they are not renewed; what was pruned is remembered."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what several managers need."""
    op.add_column("scaling_groups", sa.Column("renewals", sa.BigInteger(), nullable=True))
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "marks",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("number", number, nullable=False),
    )
