"""The versions of a growing data set, and which of them first held an answer."""

import sqlalchemy as sa
from alembic import op

from core.ledger import UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table, and give every answer the version it first went into."""
    op.create_table(
        "dataset_versions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("parent", sa.String(64), sa.ForeignKey("dataset_versions.id")),
        sa.Column("dataset", sa.String(50), nullable=False),
        sa.Column("folder", sa.String(100), nullable=False),
        sa.Column("protocol", sa.String(10), nullable=False),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("test_id", sa.String(64), nullable=False),
        sa.Column("reviewed", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )
    op.add_column("annotations", sa.Column("dataset_version", sa.String(64)))
    op.create_index("ix_annotations_dataset_version", "annotations", ["dataset_version"])


def downgrade() -> None:
    """Drop the table and the column; the answers themselves stay."""
    op.drop_index("ix_annotations_dataset_version", "annotations")
    op.drop_column("annotations", "dataset_version")
    op.drop_table("dataset_versions")
