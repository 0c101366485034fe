"""The review queue, and the inbox of what people answered."""

import sqlalchemy as sa
from alembic import op

from core.ledger import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "review_items",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("project", sa.String(50), nullable=False),
        sa.Column("config_revision", sa.String(64), nullable=False),
        sa.Column("dedupe_key", sa.String(64), nullable=False, unique=True),
        sa.Column("predictions", sa.JSON, nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("priority", sa.Double, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("parked_reason", sa.Text),
        sa.Column("last_error", sa.Text),
        sa.Column("task_id", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", UtcDateTime),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )
    op.create_index("ix_review_items_image_sha256", "review_items", ["image_sha256"])
    op.create_index("ix_review_items_due", "review_items", ["project", "state", "priority"])
    op.create_table(
        "annotations",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(50), nullable=False),
        sa.Column("task_id", sa.Integer, nullable=False),
        sa.Column("annotation_id", sa.Integer, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("content", sa.JSON),
        sa.Column("applied_at", UtcDateTime, nullable=False),
        sa.UniqueConstraint(
            "project", "task_id", "annotation_id", "updated_at", name="uq_annotations_once"
        ),
    )
    op.create_index("ix_annotations_image_sha256", "annotations", ["image_sha256"])
    op.create_table(
        "cursors",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("last_id", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Drop the three tables."""
    op.drop_table("cursors")
    op.drop_table("annotations")
    op.drop_table("review_items")
