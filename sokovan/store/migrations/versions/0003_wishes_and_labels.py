"""Sessions say where they may go; agents have labels, their own and an administrator's."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Remember where a session may go; what an administrator says of an agent, and it itself."""
    op.add_column("sessions", sa.Column("where_to", sa.Text(), nullable=True))
    op.add_column("agents", sa.Column("labels", sa.Text(), nullable=True))
    op.add_column("agents", sa.Column("own_labels", sa.Text(), nullable=True))
