"""Leases end when they are not renewed; managers say that they are there; pruning is remembered."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what several managers need, and what retention does."""
    op.add_column("scaling_groups", sa.Column("renewals", sa.BigInteger(), nullable=True))
    op.create_table(
        "managers",
        sa.Column("manager_id", sa.String(64), primary_key=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("host", sa.String(200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("renewals", sa.BigInteger(), nullable=False),
    )
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "marks",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("number", number, nullable=False),
    )
