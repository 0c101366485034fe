"""Which project of which labelling server an answer came from: ids are each server's own."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; of answers that are there it is not known yet."""
    op.add_column(
        "annotations", sa.Column("origin", sa.String(60), nullable=False, server_default="")
    )


def downgrade() -> None:
    """Drop the column; the answers stay."""
    op.drop_column("annotations", "origin")
