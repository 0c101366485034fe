"""The operating point of a detector: the confidence that is chosen and what it measures there."""

from __future__ import annotations

import numpy as np
import pytest

from training.detection_metrics import (
    IOU_THRESHOLDS,
    Ranking,
    best_confidence,
    operating_point,
)


def ranking(
    score: list[float], hit: list[bool], *, truths: list[int], image: list[int] | None = None
) -> Ranking:
    """Detections of one class whose hits have an IoU of 0.5 and no more."""
    levels = np.zeros((len(IOU_THRESHOLDS), len(score)), np.bool_)
    levels[0] = hit
    return Ranking(
        image=np.array(image or [0] * len(score), np.int64),
        score=np.array(score),
        hit=levels,
        truths=np.array(truths, np.int64),
    )


@pytest.mark.parametrize(
    ("rankings", "expected"),
    [
        pytest.param(
            # F1 is 0 above 0.71, 8/8 down to 0.70, 8/12 below: the window of 101 of the 1000
            # confidences ends where the peak does, at the last one up to 0.71, 709/999.
            [ranking([0.71] * 4 + [0.7] * 4, [True] * 4 + [False] * 4, truths=[1, 3])],
            (709 - 50) / 999,
            id="a narrow peak over a plain below it",
        ),
        pytest.param(
            # 4/6 above 0.71, 8/11 down to 0.70, 8/23 below: it begins at the first one above 0.70.
            [
                ranking(
                    [0.99] * 2 + [0.71] * 5 + [0.7] * 12,
                    [True] * 4 + [False] * 15,
                    truths=[1, 3],
                )
            ],
            (700 + 50) / 999,
            id="a narrow peak over a plain above it",
        ),
        pytest.param(
            # The one of 1.0 is found at confidence 1 too; the ends of the curve are drawn out.
            [ranking([1.0, 0.9985], [True, False], truths=[1])],
            1.0,
            id="the peak is at the very end",
        ),
        pytest.param(
            # The first: 1 down to 0.45, 2/4 below. The second: 0 above 0.6, 2/3 down to 0.5, then
            # 1. Their mean: 5/6 to 0.6, 1 from 0.5 down to 0.45, 3/4 below.
            [
                ranking([0.95, 0.45, 0.45], [True, False, False], truths=[1]),
                ranking([0.6, 0.5], [True, True], truths=[2]),
            ],
            (450 + 50) / 999,
            id="a class of one defect counts as much as one of two",
        ),
    ],
)
def test_the_confidence_of_the_best_smoothed_f1_worked_by_hand(
    rankings: list[Ranking], expected: float
) -> None:
    assert best_confidence(rankings) == pytest.approx(expected, abs=1e-9)


def test_without_any_truth_every_detection_is_kept() -> None:
    assert best_confidence([ranking([0.9], [False], truths=[0])]) == 0.0


def test_the_operating_point_of_two_classes_in_three_resamples_worked_by_hand() -> None:
    # The detection at the confidence itself counts.
    first = ranking([0.9, 0.5, 0.4], [True, False, True], truths=[2, 1, 0], image=[0, 1, 0])
    second = ranking([0.7], [True], truths=[0, 1, 0], image=[1])
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 1, 1]])

    point = operating_point([first, second], weights, 0.5)

    # first: 1 of 2 said, 1 of 3 there; 2 of 2, 2 of 4; 0 of 1, 0 of 1.
    # second: 1 of 1, 1 of 1; nothing there, which says nothing; 1 of 1, 1 of 1.
    assert point["precision"] == pytest.approx([(1 / 2 + 1) / 2, 1, 1 / 2])
    assert point["recall"] == pytest.approx([(1 / 3 + 1) / 2, 1 / 2, 1 / 2])
    assert point["F1"] == pytest.approx([(2 / 5 + 1) / 2, 4 / 6, 1 / 2])
