"""The versions of growing data sets, and which of them each answer went into."""

import sqlalchemy as sa
from alembic import op

from core.ledger import UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the three tables."""
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
    op.create_table(
        "dataset_heads",
        sa.Column("dataset", sa.String(50), primary_key=True),
        sa.Column("version", sa.String(64), sa.ForeignKey("dataset_versions.id"), nullable=False),
    )
    op.create_table(
        "version_answers",
        sa.Column("annotation", sa.Integer, sa.ForeignKey("annotations.id"), primary_key=True),
        sa.Column("dataset", sa.String(50), primary_key=True),
        sa.Column("version", sa.String(64), sa.ForeignKey("dataset_versions.id"), nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
    )
    op.create_index("ix_version_answers_version", "version_answers", ["version"])


def downgrade() -> None:
    """Drop the three tables; answers and prepared folders stay."""
    op.drop_table("version_answers")
    op.drop_table("dataset_heads")
    op.drop_table("dataset_versions")
