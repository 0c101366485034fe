"""Retraining runs with their verdicts, and what the latest inspections looked like."""

import sqlalchemy as sa
from alembic import op

from core.ledger import UtcDateTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "retraining_runs",
        sa.Column("id", sa.String(60), primary_key=True),
        sa.Column("model", sa.String(50), nullable=False),
        sa.Column("dataset", sa.String(50), nullable=False),
        sa.Column("phase", sa.String(10), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("version", sa.String(64), sa.ForeignKey("dataset_versions.id")),
        sa.Column("incumbent", sa.String(64)),
        sa.Column("candidate", sa.String(64)),
        sa.Column("published", sa.String(100)),
        sa.Column("decision", sa.JSON),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("phases", sa.JSON, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )
    op.create_index("ix_retraining_runs_model", "retraining_runs", ["model", "created_at"])
    op.create_table(
        "incoming_images",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("model", sa.String(50), nullable=False),
        sa.Column("brightness", sa.Double, nullable=False),
        sa.Column("contrast", sa.Double, nullable=False),
        sa.Column("label", sa.String(50), nullable=False),
        sa.Column("probability", sa.Double, nullable=False),
    )
    op.create_index("ix_incoming_images_model", "incoming_images", ["model", "id"])


def downgrade() -> None:
    """Drop the two tables; run folders and releases stay."""
    op.drop_table("incoming_images")
    op.drop_table("retraining_runs")
