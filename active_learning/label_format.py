"""Between our records and Label Studio's: what is asked, what is pre-drawn, what came back. Pure.

Label Studio stores coordinates in percent of the upright image, and accepts almost anything: labels
that do not exist, boxes outside the image, scores of 7. What does not fit is never shown to anyone,
so everything is checked here before it is sent.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import NDArray

from active_learning.brush import decode_brush, encode_brush
from active_learning.labelling import BOX, IMAGE, MASK, NO_DEFECT, VERDICT, Labelling
from active_learning.wording import capital
from core.errors import LabelFormatError
from core.geometry import clip_boxes, decode_rle, encode_rle, percent_to_xyxy, xyxy_to_percent
from core.records import Annotation, Box, ImageFacts, Inspection, MaskRLE
from core.taxonomy import is_sound
from core.types import Task

MODEL_VERSION: Final = "rollmark"  # of every prediction: the project orders its tasks by this one
_EPSILON_PERCENT: Final = 1e-6  # of rounding; a billionth of a pixel
_MIN_SIDE_PX: Final = 0.5  # a thinner box cannot be seen, let alone be grabbed
# What tools that people add to the project draw, where the label is a region of its own.
_SHAPES: Final = frozenset(
    {"rectangle", "brush", "polygon", "ellipse", "keypoint", "vector", "bitmask"}
)


# --- out ---------------------------------------------------------------------------------------


def to_task_data(
    *, image_url: str, reasons: Sequence[str], note: str, dedupe_key: str
) -> dict[str, str]:
    """What the task itself carries: the picture, the sentence above it, and our own key."""
    said = [f"“{note.strip()}”"] if note.strip() else []
    why = "; ".join([*said, *reasons]) or "Drawn at random, to see how sure the models may be."
    return {"image": image_url, "why": capital(why), "dedupe_key": dedupe_key}


def to_prediction(
    inspections: Sequence[Inspection],
    *,
    mask_labels: Mapping[str, Sequence[str]],
    score: float,
) -> dict[str, Any]:
    """What is drawn before the person begins, as one prediction.

    Args:
        inspections: of one image; of several with the same task the first one is drawn.
        mask_labels: classes of each segmenter by its name, in the order of its mask.
        score: of `task_score`; the task with the lowest is served first.

    Returns:
        A prediction as Label Studio imports it.

    Raises:
        LabelFormatError: if the classes of a mask are not known.
    """
    first: dict[Task, Inspection] = {}
    for inspection in inspections:
        first.setdefault(inspection.task, inspection)
    regions = [
        region
        for inspection in first.values()
        for region in _regions(inspection, mask_labels.get(inspection.model, ()))
    ]
    if any(region["type"] != "choices" for region in regions):  # to submit both would be refused
        regions = [r for r in regions if not any(map(is_sound, r["value"].get("choices", ())))]
    result = [{"id": f"rollmark-{number}", **region} for number, region in enumerate(regions)]
    return {"model_version": MODEL_VERSION, "score": round(score, 6), "result": result}


def task_score(priority: float, priorities: Sequence[float]) -> float:
    """Label Studio's score of a task: 1 - the rank of its priority, so that it is served in turn.

    Args:
        priority: of the item, any scale, higher is more urgent.
        priorities: of every item of the project, sorted upwards.

    Returns:
        In [0, 1]; 0 is the most urgent. Equal priorities get equal scores.
    """
    if not priorities:
        return 1.0 - min(max(priority, 0.0), 1.0)
    middle = (bisect_left(priorities, priority) + bisect_right(priorities, priority)) / 2
    return 1.0 - middle / len(priorities)


def check_prediction(prediction: Mapping[str, Any], config: str, image: ImageFacts) -> None:
    """Refuse what Label Studio would accept and then not show.

    Args:
        prediction: as `to_prediction` makes it.
        config: labelling configuration of the project, XML.
        image: that it is about.

    Raises:
        LabelFormatError: naming the first thing that does not fit.
    """
    from label_studio_sdk.label_interface import LabelInterface

    if not 0 <= prediction["score"] <= 1:
        raise LabelFormatError(f"The score is {prediction['score']}; it must lie in [0, 1].")
    ids = [region["id"] for region in prediction["result"]]
    if len(set(ids)) != len(ids):
        raise LabelFormatError("Two regions have the same id; each needs its own.")
    for region in prediction["result"]:
        _check_region(region, image)
    problems = LabelInterface(config).validate_prediction(dict(prediction), return_errors=True)
    if problems:
        raise LabelFormatError(
            f"The prediction does not fit the labelling configuration: {str(problems[0])[:300]}"
        )


# --- back --------------------------------------------------------------------------------------


def to_annotation(
    raw: Mapping[str, Any], *, image: ImageFacts, labelling: Labelling
) -> Annotation | None:
    """What a person said, in pixels of the source image; None where the task was skipped.

    A mask is part of the answer only where something was brushed or the person chose "no defect",
    or a class of sound steel: who drew boxes alone has not said that every pixel is background.

    Args:
        raw: an annotation as Label Studio's API gives it.
        image: that the task shows.
        labelling: of the project.

    Raises:
        LabelFormatError: if it is no annotation, contradicts itself or does not fit the image.
    """
    if raw.get("was_cancelled"):
        return None
    boxes: list[tuple[str, Box]] = []
    masks: dict[str, NDArray[np.bool_]] = {}
    choice: str | None = None
    try:
        for region in raw["result"]:
            value = region.get("value", {})
            match region.get("type"):
                case "rectanglelabels":
                    _check_sizes(region, image)
                    label = _known(value["rectanglelabels"], labelling.boxes)
                    boxes.append((label, _to_box(value, image)))
                case "brushlabels":
                    _check_sizes(region, image)
                    label = _known(value["brushlabels"], labelling.masks)
                    mask = decode_brush(value["rle"], (image.height, image.width))
                    masks[label] = masks[label] | mask if label in masks else mask
                case "choices" if region.get("from_name") == VERDICT:
                    choice = _known(value["choices"], (*labelling.choices, NO_DEFECT))
                case kind if kind in _SHAPES or str(kind).endswith("labels"):
                    raise LabelFormatError(
                        f"Annotation {raw['id']} marks something as {kind}: only rectangles of "
                        f"{BOX!r} and brushed areas of {MASK!r} can be read; mark it with these."
                    )
                case _:  # relations, comments and other questions say nothing about the steel
                    continue
        sound = choice is not None and is_sound(choice)
        if sound and (boxes or masks):
            raise LabelFormatError(
                f"Annotation {raw['id']} says {choice!r} and marks "
                f"{len(boxes) + len(masks)} of them; delete one or the other."
            )
        return Annotation(
            image_sha256=image.sha256,
            width=image.width,
            height=image.height,
            boxes=tuple(boxes),
            mask=_to_mask(masks, image, labelling) if masks or sound else None,
            mask_labels=labelling.masks if masks or sound else (),
            label=choice,
            annotator=annotator_of(raw),
            created_at=datetime.fromisoformat(str(raw["created_at"])),
            task_id=int(raw["task"]),
            annotation_id=int(raw["id"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise LabelFormatError(
            f"Annotation {raw.get('id')} is not what Label Studio writes ({exc!r})."
        ) from exc


def annotator_of(raw: Mapping[str, Any]) -> str:
    """Who answered: the e-mail address where Label Studio tells it, else the user's number."""
    who = raw.get("completed_by")
    if isinstance(who, Mapping):
        return str(who.get("email") or f"user {who.get('id')}")
    return f"user {who}"


# --- details -----------------------------------------------------------------------------------


def _regions(inspection: Inspection, mask_labels: Sequence[str]) -> list[dict[str, Any]]:
    """The regions of one inspection, without their ids."""
    size = {
        "original_width": inspection.image.width,
        "original_height": inspection.image.height,
        "image_rotation": 0,
    }
    match inspection.task:
        case "detect":
            return [_box_region(b.label, b.box, b.probability, size) for b in _visible(inspection)]
        case "segment":
            return _mask_regions(inspection, mask_labels, size)
        case "classify":
            p = inspection.probabilities
            if not p:
                return []
            best = max(p, key=lambda label: p[label])
            value = {"choices": [best]}
            return [{**_where(VERDICT, "choices"), "value": value, "score": p[best]}]
        case _:
            assert_never(inspection.task)


def _visible(inspection: Inspection) -> list[Any]:
    def sides(box: Box) -> tuple[float, float]:
        return box[2] - box[0], box[3] - box[1]

    return [found for found in inspection.detections if min(sides(found.box)) >= _MIN_SIDE_PX]


def _where(control: str, kind: str) -> dict[str, Any]:
    return {"from_name": control, "to_name": IMAGE, "type": kind}


def _box_region(label: str, box: Box, score: float, size: Mapping[str, int]) -> dict[str, Any]:
    width, height = size["original_width"], size["original_height"]
    corners = clip_boxes([box], width, height).astype(np.float64)
    x, y, w, h = (float(v) for v in xyxy_to_percent(corners, width, height)[0])
    return {
        **_where(BOX, "rectanglelabels"),
        **size,
        "score": score,
        "value": {
            "x": x,
            "y": y,
            "width": min(w, 100.0 - x),  # the sum may have been rounded up
            "height": min(h, 100.0 - y),
            "rotation": 0,
            "rectanglelabels": [label],
        },
    }


def _mask_regions(
    inspection: Inspection, labels: Sequence[str], size: Mapping[str, int]
) -> list[dict[str, Any]]:
    """One region per class: a person paints classes, not connected parts."""
    mask = inspection.mask
    if mask is None:
        return []
    if len(labels) != len(mask.counts):
        raise LabelFormatError(
            f"The mask of {inspection.model} has {len(mask.counts)} classes, "
            f"but {len(labels)} are known of that model; is its release still there?"
        )
    found = []
    for label, counts in zip(labels, mask.counts, strict=True):
        where = decode_rle(counts, mask.size)
        if where.any():
            best = max((s.score for s in inspection.segments if s.label == label), default=0.0)
            value = {"format": "rle", "rle": encode_brush(where), "brushlabels": [label]}
            found.append({**_where(MASK, "brushlabels"), **size, "score": best, "value": value})
    return found


def _check_region(region: Mapping[str, Any], image: ImageFacts) -> None:
    value = region["value"]
    if region["type"] != "choices":
        _check_sizes(region, image)
    if region["type"] == "rectanglelabels":
        x, y, width, height = (float(value[side]) for side in ("x", "y", "width", "height"))
        top = 100 + _EPSILON_PERCENT
        if min(x, y) < 0 or min(width, height) <= 0 or max(x + width, y + height) > top:
            raise LabelFormatError(
                f"A box at x {x:g}, y {y:g} of {width:g} × {height:g} percent leaves the image."
            )
    if region["type"] == "brushlabels":
        decode_brush(value["rle"], (image.height, image.width))


def _check_sizes(region: Mapping[str, Any], image: ImageFacts) -> None:
    size = region["original_width"], region["original_height"]
    if size != (image.width, image.height):
        raise LabelFormatError(
            f"A region was drawn on {size[0]} × {size[1]} pixels but the image has "
            f"{image.width} × {image.height}: Label Studio shows another image."
        )
    if region.get("image_rotation", 0):
        raise LabelFormatError(
            f"The image was turned by {region['image_rotation']}° in the editor; "
            "turn it back and submit again."
        )


def _known(chosen: Sequence[str], labels: Sequence[str]) -> str:
    if len(chosen) != 1 or chosen[0] not in labels:
        raise LabelFormatError(
            f"A region is labelled {list(chosen)}; exactly one of {', '.join(labels)} is possible."
        )
    return chosen[0]


def _to_box(value: Mapping[str, Any], image: ImageFacts) -> Box:
    """Pixels of the upright box around what was drawn, within the image."""
    sides = [float(value[side]) for side in ("x", "y", "width", "height")]
    x1, y1, x2, y2 = percent_to_xyxy([sides], image.width, image.height)[0]
    angle = math.radians(float(value.get("rotation", 0)))  # clockwise about the top-left corner
    ends = [
        (
            x1 + dx * math.cos(angle) - dy * math.sin(angle),
            y1 + dx * math.sin(angle) + dy * math.cos(angle),
        )
        for dx in (0, x2 - x1)
        for dy in (0, y2 - y1)
    ]
    xs, ys = [x for x, _ in ends], [y for _, y in ends]
    clipped = clip_boxes([[min(xs), min(ys), max(xs), max(ys)]], image.width, image.height)[0]
    left, top, right, bottom = (round(float(v), 2) for v in clipped)
    if not (right > left and bottom > top):
        raise LabelFormatError("A box lies outside the image or has no area; draw it again.")
    return left, top, right, bottom


def _to_mask(
    masks: Mapping[str, NDArray[np.bool_]], image: ImageFacts, labelling: Labelling
) -> MaskRLE:
    size = (image.height, image.width)
    nothing = np.zeros(size, dtype=bool)
    counts = tuple(encode_rle(masks.get(label, nothing)) for label in labelling.masks)
    return MaskRLE(size=size, counts=counts)
