"""Which labels of one image are contradicted by what models find there: pure functions, no network.

The models must not have learned from the image, or they repeat its labels. Kinds of doubt are those
of ObjectLab (Tkachenko, Thyagarajan & Mueller, "ObjectLab: Automated Diagnosis of Mislabeled Images
in Object Detection Data", 2023) and one more, `not seen`. A doubt is no proof: it says where a
second look is worth most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.geometry import box_areas, box_iou, common_areas, regions
from core.records import Box
from training.metrics import Floats

Kind = Literal["overlooked", "swapped", "badly placed", "not seen"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

SAME_PLACE: Final = 0.5  # IoU from which a label and a finding are one
TOUCHING: Final = 0.1  # IoU from which they may mean one defect
# Or this share of the smaller box: IoU calls one long box and its three short parts strangers.
_WITHIN: Final = 0.5
# Labelled pixels are doubtful below this probability of their label, as cleanlab has it.
_UNLIKELY: Final = 0.1
_LEAST_WIDTH_PX: Final = 5  # of a doubtful region: thinner ones are how an outline was drawn
_LEAST_AREA_SHARE: Final = 0.002  # of the image: 80 px of 200 × 200


@dataclass(frozen=True, slots=True)
class Found:
    """What is found in one image, or labelled there; a label's score is 1."""

    boxes: Floats  # (n, 4) xyxy px
    scores: Floats  # (n,) in [0, 1]
    class_ids: NDArray[np.int64]  # (n,)

    def __getitem__(self, rows: NDArray[np.bool_]) -> Found:
        """Those rows alone."""
        return Found(self.boxes[rows], self.scores[rows], self.class_ids[rows])


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing about an image's labels that deserves a second look.

    overlooked: surely found, and nothing is labelled there. swapped: surely found in the label's
    place as another class. badly placed: found, but not within IoU 0.5 of the label. not seen:
    labelled, and no model finds this class anywhere near.
    """

    kind: Kind
    label: str  # as labelled; "" where nothing is
    found: str  # class of what was found; "" where nothing was
    score: float  # of what was found, in [0, 1]; 0 where nothing was
    overlap: float  # IoU of label and finding; 0 where there is only one of them
    strength: float  # in [0, 1], 1 is the strongest
    box: Box | None  # px, of the label or of what was overlooked; None: the whole image

    @property
    def subject(self) -> str:
        """The class that the doubt is counted under: the label's, or the one to be labelled."""
        return self.label or self.found


def quality(doubts: Sequence[Doubt]) -> float:
    """How well an image's labels stand, in [0, 1]: Π (1 - strength); 1 without a doubt."""
    return float(np.prod([1 - doubt.strength for doubt in doubts]))


# --- boxes -------------------------------------------------------------------------------------


def box_doubts(
    labelled: Found,
    claimed: Found,
    sure: Found,
    names: Sequence[str],
    *,
    usually_seen: Sequence[float],
) -> tuple[Doubt, ...]:
    """The doubts about an image's labelled boxes, strongest first; at most one for each label.

    A label has none if any claim of its class lies in its place. Strengths, with s the score of
    what was found: overlooked s; swapped s · IoU; badly placed s · (1 - IoU); not seen the share of
    such labels that are seen, since missing what is usually seen is the greater surprise.

    Args:
        labelled: the labels.
        claimed: whatever a model shows.
        sure: what the models together are sure of.
        names: of the classes.
        usually_seen: share of each class's labels that a claim of the class touches.
    """
    near_claims = _touching(labelled.boxes, claimed.boxes)
    own = labelled.class_ids[:, None] == claimed.class_ids[None]
    overlaps = box_iou(labelled.boxes, claimed.boxes)
    others = np.where(
        labelled.class_ids[:, None] == sure.class_ids[None],
        0.0,
        box_iou(labelled.boxes, sure.boxes),
    )
    doubts = list(_overlooked(labelled, sure, names))
    for row, class_id in enumerate(labelled.class_ids):
        label, box = names[class_id], rounded(labelled.boxes[row])
        if np.where(own[row], overlaps[row], 0.0).max(initial=0.0) >= SAME_PLACE:
            continue
        if others[row].max(initial=0.0) >= SAME_PLACE:
            at = int(others[row].argmax())
            score, overlap = float(sure.scores[at]), float(others[row, at])
            found = names[sure.class_ids[at]]
            doubts.append(Doubt("swapped", label, found, score, overlap, score * overlap, box))
        elif (near := own[row] & near_claims[row]).any():
            at = int(np.where(near, overlaps[row], -1.0).argmax())
            score, overlap = float(claimed.scores[at]), float(overlaps[row, at])
            strength = score * (1 - overlap)
            doubts.append(Doubt("badly placed", label, label, score, overlap, strength, box))
        else:
            doubts.append(
                Doubt("not seen", label, "", 0.0, 0.0, float(usually_seen[class_id]), box)
            )
    return _strongest_first(doubts)


def touched(labelled: Found, claimed: Found) -> NDArray[np.bool_]:
    """Which labels (g,) a claim of their class touches: by IoU 0.1, or half of the smaller box."""
    own = labelled.class_ids[:, None] == claimed.class_ids[None]
    return np.asarray((own & _touching(labelled.boxes, claimed.boxes)).any(axis=1))


def closest(labelled: Found, claimed: Found) -> Floats:
    """Highest IoU of each label (g,) with a claim of its class; 0 where there is none."""
    own = labelled.class_ids[:, None] == claimed.class_ids[None]
    overlaps = np.where(own, box_iou(labelled.boxes, claimed.boxes), 0.0)
    return np.asarray(overlaps.max(axis=1, initial=0.0))


def _overlooked(labelled: Found, sure: Found, names: Sequence[str]) -> Iterator[Doubt]:
    """What touches no label of any class; of findings that touch each other the surest alone."""
    lonely = sure[np.logical_not(_touching(sure.boxes, labelled.boxes).any(axis=1))]
    beside = _touching(lonely.boxes, lonely.boxes)
    told: list[int] = []
    for at in np.argsort(-lonely.scores, kind="stable"):
        if beside[at, told].any():
            continue
        told.append(int(at))
        score, found = float(lonely.scores[at]), names[lonely.class_ids[at]]
        yield Doubt("overlooked", "", found, score, 0.0, score, rounded(lonely.boxes[at]))


def _touching(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """Which pairs (n, m) may mean one defect."""
    common = common_areas(first, second)
    smaller = np.minimum(box_areas(first)[:, None], box_areas(second))
    within = (common > 0) & (common >= _WITHIN * smaller)
    return np.asarray(within | (box_iou(first, second) >= TOUCHING))


def rounded(xyxy: Sequence[float] | Floats) -> Box:
    """A box to a hundredth of a px."""
    x1, y1, x2, y2 = (round(float(v), 2) for v in xyxy)
    return x1, y1, x2, y2


# --- whole images ------------------------------------------------------------------------------


def class_doubts(
    class_id: int, probabilities: Floats, names: Sequence[str]
) -> tuple[float, tuple[Doubt, ...]]:
    """Quality of an image's class, which is its probability, and the doubt if another is likelier.

    Args:
        class_id: as labelled.
        probabilities: (C,), of one model or the mean of several.
        names: of the classes.
    """
    of_label, best = float(probabilities[class_id]), int(probabilities.argmax())
    if best == class_id:
        return of_label, ()
    score = float(probabilities[best])
    doubt = Doubt("swapped", names[class_id], names[best], score, 0.0, 1 - of_label, None)
    return of_label, (doubt,)


# --- masks -------------------------------------------------------------------------------------


def mask_doubts(
    labelled: NDArray[np.uint8],
    class_map: NDArray[np.uint8],
    scores: NDArray[np.floating],
    names: Sequence[str],
) -> tuple[float, tuple[Doubt, ...]]:
    """Quality of a mask, and its doubtful regions, strongest first.

    A pixel is doubtful where the label's probability is below 0.1. A model that says something else
    there with score s leaves its label at most 1 - s. Quality is 1 - doubtful pixels of the regions
    / pixels that are a defect by label or model; a region's strength is its share of those.

    Args:
        labelled: (H, W), 0 is background, k is `names[k - 1]`.
        class_map: (H, W), what is found.
        scores: (H, W), probability of what is found.
        names: of the classes.
    """
    import cv2

    doubtful = ((labelled != class_map) & (scores > 1 - _UNLIKELY)).astype(np.uint8)
    kernel = np.ones((_LEAST_WIDTH_PX, _LEAST_WIDTH_PX), np.uint8)
    doubtful = np.asarray(cv2.morphologyEx(doubtful, cv2.MORPH_OPEN, kernel), np.uint8)
    defects = max(int(((labelled > 0) | (class_map > 0)).sum()), 1)
    least_px = _LEAST_AREA_SHARE * labelled.size
    doubts, area = [], 0
    for was, said in np.unique(np.stack([labelled, class_map])[:, doubtful > 0], axis=1).T:
        where = (doubtful > 0) & (labelled == was) & (class_map == said)
        label, found = ("" if k == 0 else names[k - 1] for k in (was, said))
        kind: Kind = "swapped" if label and found else "not seen" if label else "overlooked"
        for region in regions(where.astype(np.uint8), scores.astype(np.float32), ("doubtful",)):
            if region.area_px >= least_px:
                area += region.area_px
                share = region.area_px / defects
                doubts.append(Doubt(kind, label, found, region.score, 0.0, share, region.box))
    return 1 - area / defects, _strongest_first(doubts)


def _strongest_first(doubts: Sequence[Doubt]) -> tuple[Doubt, ...]:
    return tuple(sorted(doubts, key=lambda doubt: -doubt.strength))
