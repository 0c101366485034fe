"""The versions of growing data sets: which answers each holds, and which is the newest.

What people said counts whichever labelling project they said it in: a data set does not forget when
the project gets another title. Of several answers about an image the newest holds.

A version is a prepared folder named by its content, and a row that tells where it came from. The
folder is there before the row. Each answer of a person goes into exactly one version of a data set,
with what became of it: used, superseded by a newer answer, withdrawn, or left out and why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from active_learning._answer_rows import (
    AnnotationRow,
    rows_of,
    standing_ids,
    standing_rows,
    to_annotation,
)
from active_learning.growth import GROUPING, Growth, grow, look_at, write
from core.errors import DatasetError, LedgerError
from core.images import ImageStore
from core.ledger import Base, Ledger
from core.records import Annotation, DatasetVersion
from training.datasets import Dataset, open_dataset
from training.splits import Protocol

logger = logging.getLogger(__name__)

ACCEPTANCE: Final[Protocol] = GROUPING  # whose test split decides over promotion


class VersionRow(Base):
    """Table of versions; rows are only ever added."""

    __tablename__ = "dataset_versions"

    id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    parent: Mapped[str | None] = mapped_column(sa.ForeignKey("dataset_versions.id"))
    dataset: Mapped[str] = mapped_column(sa.String(50))
    folder: Mapped[str] = mapped_column(sa.String(100))
    protocol: Mapped[str] = mapped_column(sa.String(10))
    counts: Mapped[dict[str, Any]]
    test_id: Mapped[str] = mapped_column(sa.String(64))
    reviewed: Mapped[int]
    created_at: Mapped[datetime]

    def to_record(self) -> DatasetVersion:
        """The version as everybody else sees it."""
        return DatasetVersion.model_validate(
            {name: getattr(self, name) for name in DatasetVersion.model_fields}
        )


class HeadRow(Base):
    """Table of the newest version of each data set."""

    __tablename__ = "dataset_heads"

    dataset: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    version: Mapped[str] = mapped_column(sa.ForeignKey("dataset_versions.id"))


class VersionAnswerRow(Base):
    """Table of answers by the version they went into; once for each data set."""

    __tablename__ = "version_answers"

    annotation: Mapped[int] = mapped_column(sa.ForeignKey("annotations.id"), primary_key=True)
    dataset: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    version: Mapped[str] = mapped_column(sa.ForeignKey("dataset_versions.id"), index=True)
    outcome: Mapped[str] = mapped_column(sa.Text)


class Versions:
    """The versions that grow from what people answered.

    Args:
        ledger: where their rows lie.
        images: where reviewed images lie.
        data_root: folder of the prepared data sets, public ones and versions.
        who: name of this process in the audit trail.
        on_point: called as steps are reached: `version:folder` once the folder is there,
            `version:written` before the commit of its row, `version:committed` after it.
    """

    def __init__(
        self,
        ledger: Ledger,
        images: ImageStore,
        data_root: Path,
        *,
        who: str,
        on_point: Callable[[str], None] | None = None,
    ) -> None:
        self.ledger = ledger
        self.images = images
        self.data_root = data_root
        self._who = who
        self._reached = on_point or (lambda point: None)

    def head(self, dataset: str) -> DatasetVersion | None:
        """The newest version of a data set; None if none was made yet."""
        with self.ledger.reading() as session:
            row = _head(session, dataset)
            return row.to_record() if row else None

    def get(self, version_id: str) -> DatasetVersion | None:
        """The version with this id, None if there is none."""
        with self.ledger.reading() as session:
            row = session.get(VersionRow, version_id)
            return row.to_record() if row else None

    def lineage(self, version: DatasetVersion) -> tuple[DatasetVersion, ...]:
        """A version, its parent, and so on to the public set."""
        line = [version]
        while line[-1].parent is not None:
            parent = self.get(line[-1].parent)
            if parent is None:
                raise LedgerError(f"Version {line[-1].parent[:12]} is missing from the ledger.")
            line.append(parent)
        return tuple(line)

    def open(self, version: DatasetVersion) -> Dataset:
        """The data set of a version, ready to train on.

        Raises:
            DatasetError: if its folder is missing or holds something else.
        """
        found = open_dataset(version.folder, self.data_root)
        if found.id != version.id:
            raise DatasetError(
                f"{self.data_root / version.folder} holds version {found.id[:12]}, not "
                f"{version.id[:12]}: it was changed or prepared anew; restore it."
            )
        return found

    def answers_since(self, dataset: str, used: str) -> tuple[Annotation, ...]:
        """What people said that is in no version up to `used`; the newest answer of each image.

        Args:
            dataset: name of the public set.
            used: id of a version; one the ledger does not know stands for the public set.
        """
        known = self.get(used)
        line = [version.id for version in self.lineage(known)] if known else []
        earlier = sa.select(VersionAnswerRow.annotation).where(
            VersionAnswerRow.dataset == dataset, VersionAnswerRow.version.in_(line)
        )
        with self.ledger.reading() as session:
            learned = set(session.scalars(earlier))
            new = [number for number in standing_ids(session, None) if number not in learned]
            return tuple(to_annotation(row) for row in rows_of(session, new))

    def next_version(self, dataset: str) -> DatasetVersion:
        """Make the version that holds every answer so far; the newest one if nothing is new.

        It may be killed anywhere and run again. Its test splits are those of the public set.

        Args:
            dataset: name of the public set, such as neu-det.

        Raises:
            DatasetError: if the set is not prepared, or a folder cannot be written.
            LedgerError: if the ledger or an image fails, or another process was faster.
        """
        base = open_dataset(dataset, self.data_root)
        with self.ledger.reading() as session:
            row = _head(session, dataset)
            head = row.to_record() if row else None
            unplaced = _unplaced(session, dataset)
            standing = {row.id: to_annotation(row) for row in standing_rows(session, None)}
            told = sa.select(AnnotationRow.id, AnnotationRow.kind, AnnotationRow.image_sha256)
            kinds = {number: (kind, image) for number, kind, image in session.execute(told)}
        if head is not None and not unplaced:
            return head
        if head is not None and head.test_id != base.test_id(ACCEPTANCE, "test"):
            raise DatasetError(
                f"{dataset} was prepared anew with another test split than its versions have; "
                "prepare it from the archive of the first time."
            )
        parent = self.open(head) if head else base
        annotations = tuple(standing.values())
        looked = look_at(parent, self.images, annotations)
        growth = grow(base, parent, annotations, groups=looked.groups, unfit=looked.unfit)
        grown = write(growth, base, self.images, self.data_root) if growth.sources else base
        self._reached("version:folder")
        outcomes = {
            number: _outcome(kinds[number][0], number in standing, kinds[number][1], growth)
            for number in unplaced
        }
        version = self._register(base, head, grown, growth, outcomes)
        self._reached("version:committed")
        return version

    def outcomes(self, version_id: str) -> dict[int, str]:
        """What became of the answers that went into a version, by annotation row."""
        query = sa.select(VersionAnswerRow).where(VersionAnswerRow.version == version_id)
        with self.ledger.reading() as session:
            return {row.annotation: row.outcome for row in session.scalars(query)}

    def _register(
        self,
        base: Dataset,
        head: DatasetVersion | None,
        grown: Dataset,
        growth: Growth,
        outcomes: Mapping[int, str],
    ) -> DatasetVersion:
        with self.ledger.session() as session:
            pointer = session.get(HeadRow, base.name, with_for_update=True)
            if (pointer.version if pointer else None) != (head.id if head else None):
                raise LedgerError(
                    f"Another process made a version of {base.name} meanwhile: try again."
                )
            if head is None:
                self._add(session, base, parent=None, reviewed=0)
            parent = head.id if head else base.id
            row = session.get(VersionRow, grown.id)  # answers that were withdrawn lead back to it
            if row is None:
                row = self._add(session, grown, parent=parent, reviewed=len(growth.sources))
            if pointer is None:
                session.add(HeadRow(dataset=base.name, version=row.id))
            else:
                pointer.version = row.id
            session.add_all(
                VersionAnswerRow(
                    annotation=number, dataset=base.name, version=row.id, outcome=outcome
                )
                for number, outcome in sorted(outcomes.items())
            )
            self.ledger.record(
                session,
                "grown",
                who=self._who,
                entity=f"dataset:{base.name}",
                before=parent[:12],
                after=row.id[:12],
                answers=len(outcomes),
                reviewed=len(growth.sources),
                left_out=len(growth.left_out),
            )
            session.flush()
            self._reached("version:written")
            version = row.to_record()
        logger.info("%s is now version %s: %d answers", base.name, version.id[:12], len(outcomes))
        return version

    def _add(
        self, session: Session, dataset: Dataset, *, parent: str | None, reviewed: int
    ) -> VersionRow:
        row = VersionRow(
            id=dataset.id,
            parent=parent,
            dataset=dataset.name,
            folder=dataset.root.name,
            protocol=ACCEPTANCE,
            counts=dataset.counts(ACCEPTANCE),
            test_id=dataset.test_id(ACCEPTANCE, "test"),
            reviewed=reviewed,
            created_at=self.ledger.clock.now(),
        )
        session.add(row)
        session.flush()  # rows that refer to it come after it
        return row


def _unplaced(session: Session, dataset: str) -> Sequence[int]:
    """The rows of annotations that went into no version yet, the oldest first."""
    placed = sa.select(VersionAnswerRow.annotation).where(VersionAnswerRow.dataset == dataset)
    query = sa.select(AnnotationRow.id).where(AnnotationRow.id.not_in(placed))
    return session.scalars(query.order_by(AnnotationRow.id)).all()


def _head(session: Session, dataset: str) -> VersionRow | None:
    query = sa.select(VersionRow).join(HeadRow, HeadRow.version == VersionRow.id)
    return session.scalars(query.where(HeadRow.dataset == dataset)).one_or_none()


def _outcome(kind: str, stands: bool, image_sha256: str, growth: Growth) -> str:
    if kind != "annotated":
        return "withdrawn"
    if not stands:
        return "superseded"
    reason = growth.left_out.get(image_sha256)
    return f"left out: {reason}" if reason else "used"
