"""Which release an inspection was made by: another one's opinions tell nothing of drift."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; of inspections that are there it is not known."""
    op.add_column(
        "incoming_images", sa.Column("revision", sa.String(64), nullable=False, server_default="")
    )


def downgrade() -> None:
    """Drop the column; the inspections stay."""
    op.drop_column("incoming_images", "revision")
