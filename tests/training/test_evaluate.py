from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import DatasetError
from models._flips import Flipped
from tests.training.canned import Canned
from training.datasets import Dataset, Sample
from training.detection_metrics import (
    IOU_THRESHOLDS,
    Scene,
    best_confidence,
    coco_ap,
    operating_point,
    rank,
    weighted_ap,
)
from training.evaluate import evaluate, measure
from training.metrics import (
    classification_scores,
    confusion,
    interval,
    resample_weights,
    segmentation_scores,
)

BOX = (0.0, 0.0, 10.0, 10.0)


def make_set(
    root: Path, task: str, truths: list, labels: tuple[str, ...], *, groups: str = ""
) -> Dataset:
    """One small distinct image for each truth: boxes, a class map, or a label."""
    samples = []
    for index, truth in enumerate(truths):
        height, width = np.shape(truth) if task == "segment" else (64, 64)
        path = root / f"{index:03}.png"
        root.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width), index, np.uint8)).save(path)
        mask = None
        if task == "segment":
            mask = root / f"{index:03}-mask.png"
            Image.fromarray(np.asarray(truth, np.uint8)).save(mask)
        samples.append(
            Sample(
                file=path.name,
                path=path,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                width=width,
                height=height,
                group=groups[index] if groups else path.name,
                boxes=tuple(truth) if task == "detect" else (),
                label=truth if task == "classify" else None,
                mask=mask,
                splits={"paper": "test", "leak-free": "test"},
            )
        )
    return Dataset("drawn", task, labels, root, tuple(samples))  # type: ignore[arg-type]


def values(evaluation) -> dict[str, float]:
    return {metric.name: metric.value for metric in evaluation.metrics}


# ------------------------------------------------------------------------------ worked by hand


def test_detection_numbers_of_two_images_worked_by_hand(tmp_path: Path) -> None:
    # Image 0: the box itself at 0.9, nothing at 0.8. Image 1: its box cut to 6.2 of 10 at 0.7.
    dataset = make_set(tmp_path, "detect", [[("scratch", BOX)]] * 2, ("scratch",))
    answers = [[(0, 0.9, *BOX), (0, 0.8, 30, 30, 40, 40)], [(0, 0.7, 0, 0, 10, 6.2)]]
    predictor = Canned("detect", ("scratch",), answers)
    evaluation = evaluate(predictor, dataset, protocol="paper", split="test")
    # IoU 0.62 counts at 0.50, 0.55, 0.60: hit, miss, hit. Precision 1 up to recall 0.5 (51 of
    # COCO's 101 levels), then 2/3 (50 levels). From 0.65 on only the first is a hit: 51 levels.
    loose, strict = (51 + 50 * 2 / 3) / 101, 51 / 101
    found = values(evaluation)
    assert found["mAP50"] == pytest.approx(loose, abs=1e-9)
    assert found["mAP50_95"] == pytest.approx((3 * loose + 7 * strict) / 10, abs=1e-9)
    # F1 by confidence: to 0.7 all three, 2*2/(3+2) = 0.8; to 0.8 two, 0.5; to 0.9 one, 2/3.
    assert evaluation.settings["confidence_of_best_F1"] < 0.7
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == 1.0
    assert found["F1"] == pytest.approx(0.8)
    assert evaluation.metric("mAP50").per_class == {"scratch": pytest.approx(loose)}
    assert evaluation.metric("mAP50").n == 2
    assert predictor.thresholds == [0.001]
    without = evaluate(
        Canned("detect", ("scratch",), answers),
        dataset,
        protocol="paper",
        split="test",
        resamples=0,
    )
    assert values(without) == found
    assert {(metric.low, metric.high) for metric in without.metrics} == {(None, None)}


def test_segmentation_numbers_of_two_images_worked_by_hand(tmp_path: Path) -> None:
    truths = [[[0, 1], [1, 1]], [[0, 0], [0, 2]]]
    answers = [[[0, 1], [0, 1]], [[0, 0], [2, 2]]]
    dataset = make_set(tmp_path, "segment", truths, ("spot", "line"))
    predictor = Canned("segment", ("spot", "line"), answers)
    evaluation = evaluate(predictor, dataset, protocol="paper", split="test", resamples=0)
    assert evaluation.confusion == ((3, 0, 1), (1, 2, 0), (0, 0, 1))
    # IoU: 3/(4+4-3) = 0.6, 2/(3+2-2) = 2/3, 1/(1+2-1) = 1/2.
    assert evaluation.metric("mIoU").per_class == {
        "background": pytest.approx(0.6),
        "spot": pytest.approx(2 / 3),
        "line": pytest.approx(0.5),
    }
    expected = {
        "mIoU": (0.6 + 2 / 3 + 0.5) / 3,
        "mIoU_defects": (2 / 3 + 0.5) / 2,
        "MPA": (3 / 4 + 2 / 3 + 1) / 3,
        "MPA_defects": (2 / 3 + 1) / 2,
        "precision": (3 / 4 + 1 + 1 / 2) / 3,
        "precision_defects": (1 + 1 / 2) / 2,
        "recall": (3 / 4 + 2 / 3 + 1) / 3,
        "recall_defects": (2 / 3 + 1) / 2,
    }
    assert values(evaluation) == pytest.approx(expected)
    assert evaluation.metric("mIoU").low is None


def test_classification_numbers_of_three_images_worked_by_hand(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, "classify", ["a", "a", "b"], ("a", "b", "c"))
    answers = [(0.8, 0.1, 0.1), (0.2, 0.7, 0.1), (0.1, 0.8, 0.1)]  # a, b, b
    predictor = Canned("classify", ("a", "b", "c"), answers)
    evaluation = evaluate(predictor, dataset, protocol="paper", split="test")
    assert evaluation.confusion == ((1, 1, 0), (0, 1, 0), (0, 0, 0))
    # a: precision 1, recall 1/2, F1 2/3. b: precision 1/2, recall 1, F1 2/3. c never occurs.
    expected = {"accuracy": 2 / 3, "macro_F1": 2 / 3, "recall": 3 / 4, "precision": 3 / 4}
    assert values(evaluation) == pytest.approx(expected)
    assert evaluation.metric("recall").per_class == {"a": 0.5, "b": 1.0}
    accuracy = evaluation.metric("accuracy")
    assert (accuracy.low, accuracy.high) == (0.0, 1.0)  # three images say very little


def test_a_class_that_is_there_and_never_said_has_precision_0_and_one_only_said_lowers_iou() -> (
    None
):
    matrix = np.array([[5, 0, 1], [1, 0, 0], [0, 0, 0]])  # class 1 never said, class 2 only said
    scores = segmentation_scores(matrix)
    assert scores["mIoU"] == pytest.approx((5 / 7 + 0 + 0) / 3)
    assert scores["precision"] == pytest.approx((5 / 6 + 0 + 0) / 3)
    assert scores["recall"] == pytest.approx((5 / 6 + 0) / 2)
    assert classification_scores(matrix)["accuracy"] == pytest.approx(5 / 7)


def test_confusion_has_truth_in_rows() -> None:
    assert confusion(np.array([0, 0, 1]), np.array([1, 1, 0]), 2).tolist() == [[0, 2], [1, 0]]


# --------------------------------------------------------------------------- COCO, three times


def random_scenes(count: int, classes: int, *, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        truth = rng.uniform(0, 150, (rng.integers(0, 5), 4))
        truth[:, 2:] = truth[:, :2] + truth[:, 2:] / 4 + 4
        ids = rng.integers(0, classes, len(truth))
        near = np.repeat(truth, 4, axis=0) + rng.normal(0, 3, (4 * len(truth), 4))
        far = rng.uniform(0, 150, (130, 4))  # beyond the 100 that count, if of one class
        boxes = np.concatenate((near, far))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        class_ids = np.concatenate((np.repeat(ids, 4), rng.integers(0, classes, 130)))
        scores = rng.uniform(0, 1, len(boxes)) * np.where(np.arange(len(boxes)) < len(near), 1, 0.7)
        scenes.append(Scene(truth, ids, boxes, scores, class_ids))
    return scenes


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    # With one class alone, its detections are more than the 100 of an image that count.
    crowded = random_scenes(6, 1, seed=1)
    return random_scenes(20, 3, seed=0) + crowded


def test_our_matching_gives_the_number_of_faster_coco_eval(scenes: list[Scene]) -> None:
    once = np.ones((1, len(scenes)), dtype=np.int64)
    own = np.stack([weighted_ap(ranking, once)[:, 0] for ranking in rank(scenes, 4)], axis=1)
    np.testing.assert_allclose(own, coco_ap(scenes, 4), rtol=0, atol=1e-9)
    assert np.isnan(own[:, 3]).all()  # the fourth class has no truth


def test_faster_coco_eval_gives_the_number_of_pycocotools(scenes: list[Scene]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = [], []
    for index, scene in enumerate(scenes, start=1):
        for box, k in zip(scene.truth, scene.truth_ids, strict=True):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            where = {"image_id": index, "category_id": int(k), "bbox": [x, y, w, h]}
            truth.append({"id": len(truth) + 1, **where, "area": w * h, "iscrowd": 0})
        for box, score, k in zip(scene.boxes, scene.scores, scene.class_ids, strict=True):
            size = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            found.append({"image_id": index, "category_id": int(k), "bbox": size, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i + 1} for i in range(len(scenes))],
            "categories": [{"id": k} for k in range(3)],
            "annotations": truth,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
    reference = judge.eval["precision"][:, :, :, 0, -1].mean(1)
    np.testing.assert_allclose(coco_ap(scenes, 3), reference, rtol=0, atol=1e-9)


def test_an_image_weighed_twice_is_an_image_that_is_there_twice(scenes: list[Scene]) -> None:
    weights = np.random.default_rng(0).integers(0, 4, (3, len(scenes)))
    weighed = np.stack([weighted_ap(ranking, weights) for ranking in rank(scenes, 3)], axis=-1)
    for row, counts in enumerate(weights):
        repeated = [scenes[i] for i in np.repeat(np.arange(len(scenes)), counts)]
        np.testing.assert_allclose(weighed[:, row], coco_ap(repeated, 3), rtol=0, atol=1e-9)


def test_no_detection_at_all_is_ap_0_and_no_truth_is_no_ap() -> None:
    nothing = np.empty((0, 4))
    none = np.empty(0, dtype=np.int64)
    scene = Scene(np.array([BOX]), np.array([0]), nothing, np.empty(0), none)
    ap = coco_ap([scene], 2)
    assert ap[:, 0].tolist() == [0.0] * 10
    assert np.isnan(ap[:, 1]).all()
    rankings = rank([scene], 2)
    assert weighted_ap(rankings[0], np.ones((1, 1), np.int64))[:, 0].tolist() == [0.0] * 10
    assert best_confidence(rankings) >= 0
    point = operating_point(rankings, np.ones((1, 1), np.int64), 0.5)
    assert {name: float(value[0]) for name, value in point.items()} == {
        "precision": 0.0,
        "recall": 0.0,
        "F1": 0.0,
    }


def test_two_boxes_cannot_find_the_same_truth() -> None:
    boxes = np.array([BOX, BOX])
    scene = Scene(np.array([BOX]), np.array([0]), boxes, np.array([0.9, 0.8]), np.array([0, 0]))
    assert rank([scene], 1)[0].hit[0].tolist() == [True, False]
    assert len(IOU_THRESHOLDS) == 10


# ------------------------------------------------------------------------------------ intervals


def test_groups_are_drawn_whole() -> None:
    weights = resample_weights(["a", "b", "a", "c"], resamples=200, seed=0)
    assert (weights[:, 0] == weights[:, 2]).all()
    # Each resample draws three groups.
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert 0.9 < weights.mean() < 1.1


def test_related_images_widen_the_leak_free_interval_and_not_that_of_the_paper_protocol(
    tmp_path: Path,
) -> None:
    # 40 images, 10 strips of four; whole strips are right or wrong.
    groups = "".join(letter * 4 for letter in "abcdefghij")
    dataset = make_set(tmp_path, "classify", ["a"] * 40, ("a", "b"), groups=groups)
    answers = [(0.9, 0.1) if group in "abcde" else (0.1, 0.9) for group in groups]
    widths = {}
    for protocol in ("paper", "leak-free"):
        evaluation = evaluate(
            Canned("classify", ("a", "b"), answers), dataset, protocol=protocol, split="test"
        )
        accuracy = evaluation.metric("accuracy")
        assert accuracy.value == 0.5
        widths[protocol] = accuracy.high - accuracy.low
    # Standard errors: sqrt(.25 / 40) = 0.079 and sqrt(.25 / 10) = 0.158; times 2 x 1.96.
    assert widths["paper"] == pytest.approx(0.31, abs=0.05)
    assert widths["leak-free"] == pytest.approx(0.62, abs=0.1)
    assert evaluation.settings["resampled"] == "groups"


def test_an_interval_is_the_middle_95_per_cent() -> None:
    assert interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert interval(np.array([np.nan, 3.0])) == (3.0, 3.0)


def test_an_interval_of_nothing_known_is_unknown() -> None:
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_two_predictors_see_the_same_resamples(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, "classify", ["a", "b"] * 5, ("a", "b"))
    right = [(1, 0), (0, 1)] * 5
    first, second = (
        measure(Canned("classify", ("a", "b"), answers), dataset, protocol="paper", split="test")
        for answers in ([*right[:9], (1, 0)], [*right[:9], (0, 1)])
    )
    gain = second.resamples["accuracy"] - first.resamples["accuracy"]
    assert gain.shape == (1000,)
    assert gain.min() == 0.0  # the one image that differs can be missing, never lost
    assert gain.mean() == pytest.approx(0.1, abs=0.02)


def test_the_bootstrap_of_each_class_is_kept_with_how_many_images_show_it(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, "classify", ["a"] * 4 + ["b"] * 2, ("a", "b", "c"))
    answers = [(1, 0, 0)] * 4 + [(0, 1, 0), (1, 0, 0)]
    measured = measure(
        Canned("classify", ("a", "b", "c"), answers), dataset, protocol="paper", split="test"
    )
    assert measured.support == {"a": 4, "b": 2, "c": 0}
    recall = measured.class_resamples["recall"]
    assert set(recall["a"][~np.isnan(recall["a"])]) == {1.0}
    # Of the two of b one is found: a resample holds either, both or none.
    assert np.nanmean(recall["b"]) == pytest.approx(0.5, abs=0.05)
    assert np.isnan(recall["c"]).all()


def test_mirrored_looks_stand_among_the_settings(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, "classify", ["a"], ("a", "b"))
    plain = Canned("classify", ("a", "b"), [(0.9, 0.1)] * 5)
    once = evaluate(plain, dataset, protocol="paper", split="test", resamples=0)
    four = evaluate(Flipped(plain), dataset, protocol="paper", split="test", resamples=0)
    assert "tta" not in once.settings
    assert four.settings["tta"] is True


# ------------------------------------------------------------------------------------- refusals


def test_other_labels_or_another_task_are_refused(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, "classify", ["a"], ("a", "b"))
    with pytest.raises(DatasetError, match="knows b, a; drawn has a, b: they must be the same"):
        evaluate(Canned("classify", ("b", "a"), []), dataset, protocol="paper", split="test")
    with pytest.raises(DatasetError, match="is a data set to classify: grace is made to detect"):
        evaluate(Canned("detect", ("a", "b"), []), dataset, protocol="paper", split="test")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, "classify", ["a"], ("a",))
    with pytest.raises(DatasetError, match="has no val images under protocol leak-free"):
        evaluate(Canned("classify", ("a",), []), dataset, protocol="leak-free", split="val")


def test_a_resample_of_clean_images_alone_tells_nothing_about_defects(tmp_path: Path) -> None:
    # One image of ten has a defect, and it is found: (9/10)^10 = 35 % of the resamples leave it
    # out, which must not count as misses.
    truths = [[("scratch", BOX)], *[[]] * 9]
    dataset = make_set(tmp_path, "detect", truths, ("scratch",))
    answers = [[(0, 0.9, *BOX)], *[[]] * 9]
    measured = measure(
        Canned("detect", ("scratch",), answers), dataset, protocol="paper", split="test"
    )
    assert 250 < np.isnan(measured.resamples["mAP50"]).sum() < 450  # of 1,000
    for metric in measured.evaluation.metrics:
        assert (metric.value, metric.low, metric.high) == (1.0, 1.0, 1.0), metric.name


def test_a_split_without_any_defect_is_refused(tmp_path: Path) -> None:
    clean = make_set(tmp_path / "boxes", "detect", [[], []], ("scratch",))
    with pytest.raises(DatasetError, match="drawn has no defect in its test images"):
        evaluate(Canned("detect", ("scratch",), [[], []]), clean, protocol="paper", split="test")


def test_an_unreadable_image_stops_the_measurement(tmp_path: Path) -> None:
    dataset = make_set(tmp_path, "classify", ["a"], ("a",))
    dataset.samples[0].path.write_bytes(b"not an image")
    with pytest.raises(DatasetError, match="An image of the split cannot be read"):
        evaluate(Canned("classify", ("a",), []), dataset, protocol="paper", split="test")
