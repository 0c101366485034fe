"""The audit trail and the leases."""

import sqlalchemy as sa
from alembic import op

from core.ledger import UtcDateTime

revision = "0001"
down_revision = None

_REFUSAL = "events are only ever appended"


def upgrade() -> None:
    """Make both tables, and have the database itself refuse to change an event."""
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.Column("what", sa.String(50), nullable=False),
        sa.Column("entity", sa.String(150), nullable=False),
        sa.Column("before", sa.String(50)),
        sa.Column("after", sa.String(50)),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("ix_events_entity", "events", ["entity"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("holder", sa.String(100)),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("ttl_s", sa.Double, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("boot_id", sa.String(50), nullable=False),
        sa.Column("expires_monotonic_s", sa.Double, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER events_no_{verb.lower()} BEFORE {verb} ON events "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
    elif op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events()"
        )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("leases")
    op.drop_table("events")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change_of_events()")
