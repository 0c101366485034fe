"""The most probable class of each review item, and an index that alone answers what is counted."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_DUE = "ix_review_items_due"
_AT_ONCE = 500  # items; one with a mask takes some kB
_items = sa.table(
    "review_items",
    sa.column("id", sa.String),
    sa.column("predictions", sa.JSON),
    sa.column("main_class", sa.Text),
)


def upgrade() -> None:
    """Add the column, fill it from what models said, and make the index wider."""
    op.add_column(
        "review_items", sa.Column("main_class", sa.Text, nullable=False, server_default="")
    )
    _fill(op.get_bind())
    op.drop_index(_DUE, "review_items")
    op.create_index(
        _DUE,
        "review_items",
        [
            *("project", "state", "priority", "created_at", "id"),
            *("next_attempt_at", "task_id", "image_sha256", "main_class"),
        ],
    )


def downgrade() -> None:
    """Drop the column; the items stay."""
    op.drop_index(_DUE, "review_items")
    op.create_index(_DUE, "review_items", ["project", "state", "priority"])
    op.drop_column("review_items", "main_class")


def _fill(connection: sa.Connection) -> None:
    query = sa.select(_items.c.id, _items.c.predictions).order_by(_items.c.id).limit(_AT_ONCE)
    write = (
        sa.update(_items)
        .where(_items.c.id == sa.bindparam("item"))
        .values(main_class=sa.bindparam("seen"))
    )
    last = ""
    while rows := connection.execute(query.where(_items.c.id > last)).all():
        found = [{"item": key, "seen": _main_class(said)} for key, said in rows]
        connection.execute(write, found)
        last = rows[-1].id


def _main_class(predictions: dict[str, Any]) -> str:
    """The most probable class, of two the first by name; "" where no model finds anything."""
    best: dict[str, float] = {}
    for said in predictions.values():
        found = [(box["label"], box["probability"]) for box in said.get("detections", ())]
        found += [(part["label"], part["score"]) for part in said.get("segments", ())]
        for label, p in [*found, *said.get("probabilities", {}).items()]:
            best[label] = max(best.get(label, 0.0), p)
    label = min(best, key=lambda one: (-best[one], one), default="")
    return label if best.get(label, 0.0) > 0 else ""
