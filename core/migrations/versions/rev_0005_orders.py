"""What people ask of retraining, and which watchers are there to hear it."""

import sqlalchemy as sa
from alembic import op

from core.ledger import UtcDateTime

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "retraining_orders",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("what", sa.String(10), nullable=False),
        sa.Column("model", sa.String(50), nullable=False),
        sa.Column("run", sa.String(60)),
        sa.Column("who", sa.String(100), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("closed_at", UtcDateTime),
    )
    open_only = sa.text("state = 'open'")
    op.create_index(
        "ix_retraining_orders_open",
        "retraining_orders",
        ["model", "what"],
        unique=True,
        sqlite_where=open_only,
        postgresql_where=open_only,
    )
    op.create_table(
        "watchers",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("poll_min", sa.Double, nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("seen_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    """Drop the two tables; runs that were asked for stay."""
    op.drop_table("watchers")
    op.drop_table("retraining_orders")
