"""A whole batch as a file to take away: CSV, COCO JSON, or a report to print."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

from core.pitch import PixelPitch
from core.records import FoundRepeat, Inspection
from demo.batch_jobs import Progress
from demo.batch_report import batch_report
from demo.batch_store import BatchStore
from demo.batch_view import over_pictures, rows
from demo.exports import in_px, last_cells, last_columns
from demo.roll_marks import repeats_of
from demo.words import findings

_Place = dict[str, Any]  # a finding's image, annotation and box
BatchKind = Literal["csv", "coco", "report"]
BATCH_KINDS: Final[tuple[BatchKind, ...]] = get_args(BatchKind)
FILE_NAMES: Final[dict[BatchKind, str]] = {
    "csv": "findings.csv",
    "coco": "annotations.coco.json",
    "report": "report.html",
}


def encode_batch(
    kind: BatchKind,
    progress: Progress,
    store: BatchStore,
    pitch: PixelPitch | None = None,
    *,
    ruled: bool = False,
) -> bytes:
    """What is done of a batch as the bytes of a file."""
    if kind == "csv":
        return batch_csv(progress, pitch, ruled=ruled).encode()
    if kind == "coco":
        return json.dumps(batch_coco(progress, pitch), indent=1).encode()
    table = batch_csv(progress, pitch, ruled=ruled).encode()
    return batch_report(progress, store, pitch, table=table).encode()


def batch_csv(progress: Progress, pitch: PixelPitch | None = None, *, ruled: bool = False) -> str:
    """One line a finding, and one for every picture without any.

    Boxes are px of the source picture; with the steel that one px shows, width and height in mm
    and area in mm² stand at the end, and where the mill has rules (`ruled`), "yes" last of all for
    a finding that may stay. A cell that a spreadsheet would run as a formula is quoted.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("file", "verdict", "uncertainty", "class", "probability", "x1", "y1", "x2", "y2")
    last_head = last_columns(pitch, ruled=ruled)
    writer.writerow((*head, "area_px", "model", "revision", "error", *last_head))
    none = [""] * len(last_head)
    for row in rows(progress, "arrival"):
        name, inspection = _harmless(row.name), row.answer.inspection
        if inspection is None:
            writer.writerow((name, *[""] * 11, row.answer.error, *none))
            continue
        first = (name, inspection.verdict, round(inspection.uncertainty, 4))
        last = (inspection.model, inspection.revision, "")
        found = findings(inspection)
        for finding in found:
            shown = (finding.label, round(finding.probability, 4))
            ending = last_cells(finding, pitch, ruled=ruled)
            writer.writerow((*first, *shown, *in_px(finding), *last, *ending))
        if not found:
            writer.writerow((*first, *[""] * 7, *last, *none))
    return text.getvalue()


def batch_coco(progress: Progress, pitch: PixelPitch | None = None) -> dict[str, Any]:
    """Findings as a COCO data set: boxes x, y, width, height in px; masks as compressed runs.

    All regions of a class are one annotation; `tolerated` is told where the mill's rules let all
    of an annotation stay. `repeats`, where there are any, are what comes again along a picture or
    over all of them.
    """
    answers = [progress.answers[index] for index in sorted(progress.answers)]
    labels = _labels([a.labels for a in answers])
    categories = {label: k for k, label in enumerate(labels, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    places: list[list[_Place]] = []  # of each answer's findings
    repeats: list[dict[str, Any]] = []
    for answer in answers:
        if answer.inspection is None:
            continue
        inspection, image_id = answer.inspection, answer.index + 1
        images.append(
            {
                "id": image_id,
                "file_name": progress.job.names[answer.index],
                "width": inspection.image.width,
                "height": inspection.image.height,
            }
        )
        own = _annotations(inspection, answer.labels, categories)
        ids = range(len(annotations) + 1, len(annotations) + 1 + len(own))
        for annotation_id, entry in zip(ids, own, strict=True):
            annotations.append({"id": annotation_id, "image_id": image_id, **entry})
        places.append(_places(inspection, image_id, ids, own, categories))
        for repeat in repeats_of(inspection, pitch):
            found = [places[-1][k] for k in repeat.findings]
            repeats.append(_repeat(repeat, found, over_images=False))
    for repeat, pictures in over_pictures(progress, pitch):
        found = [places[n][k] for n, k in zip(pictures, repeat.findings, strict=True)]
        repeats.append(_repeat(repeat, found, over_images=True))
    return {
        "info": {"description": f"Rollmark batch, model {progress.job.model}"},
        "images": images,
        "categories": [{"id": k, "name": label} for label, k in categories.items()],
        "annotations": annotations,
        **({"repeats": repeats} if repeats else {}),
    }


def _annotations(
    inspection: Inspection, labels: Sequence[str], categories: dict[str, int]
) -> list[dict[str, Any]]:
    if inspection.mask is not None:
        found = []
        for label, runs in zip(labels, inspection.mask.counts, strict=True):
            regions = [s for s in inspection.segments if s.label == label]
            if not regions:
                continue
            found.append(
                {
                    "category_id": categories[label],
                    "segmentation": {"size": list(inspection.mask.size), "counts": runs},
                    "area": sum(region.area_px for region in regions),
                    "bbox": _xywh(
                        min(r.box[0] for r in regions),
                        min(r.box[1] for r in regions),
                        max(r.box[2] for r in regions),
                        max(r.box[3] for r in regions),
                    ),
                    "iscrowd": 1,
                    "score": max(region.score for region in regions),
                    **_tolerated(all(region.tolerated for region in regions)),
                }
            )
        return found
    return [
        {
            "category_id": categories[d.label],
            "bbox": _xywh(*d.box),
            "area": (d.box[2] - d.box[0]) * (d.box[3] - d.box[1]),
            "iscrowd": 0,
            "score": d.probability,
            **_tolerated(d.tolerated),
        }
        for d in inspection.detections
    ]


def _tolerated(staying: bool) -> dict[str, bool]:
    """As in the API: told only where it is so."""
    return {"tolerated": True} if staying else {}


def _places(
    inspection: Inspection,
    image_id: int,
    ids: Sequence[int],
    entries: Sequence[dict[str, Any]],
    categories: dict[str, int],
) -> list[_Place]:
    """Where each finding lies; all regions of a class are one annotation."""
    if inspection.task == "segment":
        of = {entry["category_id"]: k for k, entry in zip(ids, entries, strict=True)}
        placed = [(of[categories[s.label]], s.box) for s in inspection.segments]
    else:
        placed = [(k, d.box) for k, d in zip(ids, inspection.detections, strict=True)]
    return [{"image_id": image_id, "annotation_id": k, "bbox": _xywh(*box)} for k, box in placed]


def _repeat(repeat: FoundRepeat, found: Sequence[_Place], *, over_images: bool) -> dict[str, Any]:
    return {**repeat.model_dump(), "findings": list(found), "over_images": over_images}


def _xywh(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]


def _labels(named: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for labels in named for label in labels))


def _harmless(name: str) -> str:
    return f"'{name}" if name[:1] in "=+-@" else name
