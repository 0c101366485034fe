from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as PILImage

from core.errors import DatasetError
from tests.training.canned import Canned
from tests.training.row_records import classified, record
from training.benchmark import figures
from training.benchmark.balance_choice import best_method
from training.benchmark.examples import draw_masks, easy_and_hard, say_easy_and_hard
from training.benchmark.page import render, sections
from training.benchmark.plans import plan, select
from training.benchmark.publish import page_text, write_page
from training.benchmark.records import RowRecord, load_records, save_record
from training.benchmark.rows import Row
from training.benchmark.sheets import BALANCE, CLASSIFY, DETECT
from training.benchmark.summary import Difference, Line, difference
from training.datasets import Dataset
from training.truth import read_mask

BOXES = ("mAP50", "mAP50_95", "precision", "recall")


def detect_rows(*patterns: str, protocol: str = "leak-free") -> tuple[Row, ...]:
    rows = plan("detect", setting="small", protocols=[protocol])  # type: ignore[list-item]
    return select(rows, patterns)


def detected(row: Row, value: float, **more: object) -> RowRecord:
    """Every metric has the same value; crazing has ten points less."""
    return record(
        row,
        dict.fromkeys(BOXES, value),
        per_class={"mAP50": {"crazing": value - 0.1, "scratches": value + 0.1}},
        **more,  # type: ignore[arg-type]
    )


def by_row(*records: RowRecord) -> dict[str, RowRecord]:
    return {one.row: one for one in records}


def lines_of(page: str, start: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(start)]


# ---------------------------------------------------------------------------------- one seed


def test_one_seed_stands_with_its_interval_and_the_paired_difference() -> None:
    base, grace = detect_rows("yolo11-n", "grace-n")
    # Resample by resample GRACE has 200, 300 and 400 ten-thousandths more: quantiles of
    # (2, 3, 4) points at 2.5 and 97.5 % lie 0.05 of a step from the ends: 2.05 and 3.95.
    records = by_row(
        detected(base, 0.70, interval=(0.65, 0.75), resamples={"mAP50": (7000, 6500, 7500)}),
        detected(grace, 0.73, interval=(0.68, 0.78), resamples={"mAP50": (7200, 6800, 7900)}),
    )
    page = render(DETECT, (base, grace), records)
    first, second = lines_of(page, "| YOLO11, n | C"), lines_of(page, "| GRACE, n | C")
    four = " | ".join(["70.0 (65.0–75.0)"] * 4)
    assert first == [f"| YOLO11, n | COCO | 1 | {four} | – | – | 1,234,567 | 1.50 |"]
    four = " | ".join(["73.0 (68.0–78.0)"] * 4)
    gain = "+3.0 (+2.1 to +4.0)"
    assert second == [f"| GRACE, n | COCO | 1 | {four} | {gain} | – | 1,234,567 | 1.50 |"]
    assert "| GRACE, n | 63.0 | 83.0 |" in page


def test_a_gain_of_fewer_seeds_than_the_row_has_says_so() -> None:
    base, grace = detect_rows("yolo11-n", "grace-n")
    again = replace(grace, seed=1)
    records = by_row(detected(base, 0.70), detected(grace, 0.73), detected(again, 0.75))
    [told] = lines_of(render(DETECT, (base, grace, again), records), "| GRACE, n | C")
    assert told.startswith("| GRACE, n | COCO | 2 | 74.0 ± 1.4 |")
    assert "| +3.0, one seed |" in told


def test_difference_interval_is_that_of_paired_resamples() -> None:
    base, grace = detect_rows("yolo11-n", "grace-n")
    ours = Line((grace,), (detected(grace, 0.73, resamples={"mAP50": (7200, 6800, 7900)}),))
    theirs = Line((base,), (detected(base, 0.70, resamples={"mAP50": (7000, 6500, 7500)}),))
    gain = difference(ours, theirs, "mAP50")
    assert gain is not None
    # position 0.025 · 2 = 0.05 between 0.02 and 0.03, and its mirror image
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.03, 0.0205, 0.0395))
    assert gain.spread is None
    # The bootstrap of another metric says nothing of this one.
    assert difference(ours, theirs, "recall") == Difference(pytest.approx(0.03))


def test_targets_are_judged_in_the_largest_setting_that_was_run() -> None:
    small = detect_rows("grace-n", protocol="paper")
    full = select(plan("detect", setting="full", protocols=["paper"]), ["grace-n"])
    records = by_row(detected(small[0], 0.80))
    page = render(DETECT, (*full, *small), records)
    assert "| GRACE mAP50 | paper | ≥ 75.9 | 80.0 | small | reached |" in page
    records |= by_row(detected(full[0], 0.70))
    page = render(DETECT, (*full, *small), records)
    assert "| GRACE mAP50 | paper | ≥ 75.9 | 70.0 | full | not reached |" in page
    assert "| DA-YOLO mAP50 over YOLO11 | paper | ≥ +4.0 | not run | – | – |" in page


def test_a_target_may_be_over_a_network_of_another_table_of_the_page() -> None:
    chosen = plan("detect", setting="full", protocols=["leak-free"])
    plain, kept = select(chosen, ["yolo11-n"])[0], select(chosen, ["grace-n-in_place"])[0]
    page = render(DETECT, (plain, kept), by_row(detected(plain, 0.70), detected(kept, 0.74)))
    words = "GRACE n mAP50, pictures kept in place, over YOLO11 n plainly trained"
    assert f"| {words} | leak-free | ≥ +3.0 | +4.0 | full | reached |" in page


def test_the_gain_over_a_baseline_trained_likewise_is_a_target_too() -> None:
    chosen = plan("detect", setting="full", protocols=["paper"])
    names = ("yolo11-n", "yolo11-n-in_place", "da_yolo-n-stock_loss-in_place")
    plain, kept, ours = (select(chosen, [name])[0] for name in names)
    records = by_row(detected(plain, 0.70), detected(kept, 0.74), detected(ours, 0.75))
    page = render(DETECT, (plain, kept, ours), records)
    words = "DA-YOLO with YOLO11's loss, pictures kept in place, mAP50 over YOLO11 plainly trained"
    assert f"| {words} | paper | ≥ +4.0 | +5.0 | full | reached |" in page
    words = "DA-YOLO with YOLO11's loss, mAP50 over YOLO11, both with pictures kept in place"
    assert f"| {words} | paper | ≥ +4.0 | +1.0 | full | not reached |" in page


def test_targets_are_about_the_first_data_set_of_their_table() -> None:
    chosen = plan("detect", setting="full", data=("gc10-det",), protocols=["paper"])
    (row,) = select(chosen, ["grace-n"])
    page = render(DETECT, (row,), by_row(detected(row, 0.80)))
    assert "| GRACE mAP50 | paper | ≥ 75.9 | not run | – | – |" in page


def test_a_part_is_compared_with_the_baseline_of_the_other_table() -> None:
    rows = detect_rows("yolo11-n", "grace.lite_fen-n")
    page = render(DETECT, rows, by_row(detected(rows[0], 0.70), detected(rows[1], 0.68)))
    (line,) = lines_of(page, "| YOLO11 + Lite-FEN, n | C")
    assert "| −2.0 |" in line


def test_published_figures_stand_beside_the_papers_protocol_only() -> None:
    for protocol, printed in (("paper", "| 75.88 |"), ("leak-free", "| – | – |")):
        (grace,) = detect_rows("grace-n", protocol=protocol)
        (line,) = lines_of(render(DETECT, (grace,), by_row(detected(grace, 0.7))), "| GRACE, n | C")
        assert printed in line


def test_what_was_not_run_is_listed_and_not_invented() -> None:
    rows = detect_rows("yolo11-n", "grace-n")
    page = render(DETECT, rows, by_row(detected(rows[0], 0.7)))
    assert "- neu-det, leak-free, small: `grace-n`" in page
    assert "| GRACE, n | not run | 0 |" in page
    page = render(DETECT, rows, {})
    assert "- neu-det, leak-free, small: nothing of it was run" in page
    assert "## neu-det" not in page


def test_a_record_of_another_recipe_does_not_count() -> None:
    (row,) = detect_rows("grace-n")
    other = replace(row, setting=replace(row.setting, overrides={"lr0": 0.5}))
    page = render(DETECT, (row,), {row.id: detected(other, 0.7)})
    assert "nothing of it was run" in page


def test_a_reference_alone_is_no_table() -> None:
    rows = plan("balance", setting="small", data=["neu-det"])
    page = render(BALANCE, rows, by_row(detected(rows[0], 0.7)))
    assert "long-tailed NEU-DET" not in page.split("\n## ", 1)[1]
    page = render(BALANCE, rows, by_row(detected(rows[0], 0.7), detected(rows[1], 0.6)))
    assert "| all images, no method | COCO | 1 | 70.0 |" in page
    assert "| none | COCO | 1 | 60.0 |" in page


def test_records_of_different_test_splits_never_stand_in_one_table() -> None:
    base, grace = detect_rows("yolo11-n", "grace-n")
    records = by_row(detected(base, 0.7), detected(grace, 0.7, test_id="u" * 64))
    with pytest.raises(DatasetError, match="measured on different test splits"):
        sections((base, grace), records)


# ------------------------------------------------------------------------------- several seeds


def classify_rows(*patterns: str) -> tuple[Row, ...]:
    rows = plan("classify", setting="small", protocols=["paper"], seeds=[0, 1])
    return select(rows, patterns)


def test_several_seeds_stand_as_mean_and_standard_deviation() -> None:
    rows = classify_rows("mobilesteelnet-light", "mobilesteelnet.trunk_relu-paper")
    good, bad, worst = [[10, 0], [2, 8]], [[10, 0], [4, 6]], [[8, 2], [4, 6]]
    records = by_row(
        # light: 18/20 and 16/20; the baseline: 16/20 and 14/20
        *(
            classified(row, matrix)
            for row, matrix in zip(
                [r for r in rows if r.model == "mobilesteelnet"], (good, bad), strict=True
            )
        ),
        *(
            classified(row, matrix)
            for row, matrix in zip(
                [r for r in rows if r.model != "mobilesteelnet"], (bad, worst), strict=True
            )
        ),
    )
    page = render(CLASSIFY, rows, records)
    (line,) = lines_of(page, "| MobileSteelNet, light | random")
    # mean 85, deviations ±5: sqrt(50) = 7.07; gains 10 and 10 points
    assert "| 2 | 85.0 ± 7.1 |" in line
    assert "| +10.0 ± 0.0 | 91.36 |" in line
    # recall of the second class: 0.8 and 0.6
    assert "| MobileSteelNet, light | 100.0 ± 0.0 | 70.0 ± 14.1 |" in page
    # of 20 images of the second class, 6 were called the first
    told = "- paper, small, MobileSteelNet, light: scale as dent 30.0 %"
    assert lines_of(page, told[:40]) == [told]


def test_difference_over_seeds_counts_common_seeds_only() -> None:
    first, second = classify_rows("mobilesteelnet-light")
    base = classify_rows("mobilesteelnet.trunk_relu-paper")
    ours = Line(
        (first, second),
        (classified(first, [[9, 1], [0, 10]]), classified(second, [[5, 5], [5, 5]])),
    )
    theirs = Line(base, (classified(base[0], [[8, 2], [0, 10]]),))
    gain = difference(ours, theirs, "accuracy")
    assert gain == Difference(pytest.approx(0.05))  # 19/20 against 18/20


# ------------------------------------------------------------------------------------- balance


def methods(scores: dict[str, list[float]], *, missing: int = 0) -> tuple[Line, ...]:
    """Lines of these validation scores by method, one a seed; the test says the opposite."""
    rows = plan("balance", setting="small", data=["x-sdd"], seeds=range(5))
    found = []
    for method, values in scores.items():
        own = select(rows, [f"mobilesteelnet-light-{method}"])[: len(values)]
        records = [
            classified(row, [[10, 0], [0, 10]], validation={"macro_F1": value})
            for row, value in zip(own, values, strict=True)
        ]
        found.append(Line(own, tuple(records[: len(records) - missing])))
    return tuple(found)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        # gains 0.05, 0.06, 0.07: mean 0.06, standard error 0.01 / sqrt(3) = 0.0058, so t = 10.4;
        # with 2 degrees of freedom 2.92 is needed at 5 %
        pytest.param(
            {"none": [0.8, 0.8, 0.8], "focal": [0.85, 0.86, 0.87]}, "focal", id="surely better"
        ),
        # gains 0.10, −0.04, 0.03: mean 0.03, standard error 0.07 / sqrt(3) = 0.0404, t = 0.7
        pytest.param(
            {"none": [0.8, 0.8, 0.8], "focal": [0.9, 0.76, 0.83]}, "none", id="perhaps better"
        ),
        pytest.param({"none": [0.8, 0.8, 0.8], "focal": [0.7, 0.7, 0.7]}, "none", id="worse"),
        # gains 0.0227, 0.04, 0.0573: t = 0.04 / (0.0173 / sqrt(3)) = 4.0, enough of one method;
        # of two, 4.30 is needed
        pytest.param(
            {"none": [0.8, 0.8, 0.8], "focal": [0.8227, 0.84, 0.8573]}, "focal", id="one tried"
        ),
        pytest.param(
            {
                "none": [0.8, 0.8, 0.8],
                "focal": [0.8227, 0.84, 0.8573],
                "dscbsm": [0.8, 0.8, 0.8],
            },
            "none",
            id="the better of two tried",
        ),
        pytest.param({"none": [0.8], "focal": [0.9]}, "none", id="one seed proves nothing"),
    ],
)
def test_a_method_is_chosen_on_validation_if_it_surely_beats_none(
    scores: dict[str, list[float]], chosen: str
) -> None:
    assert best_method(methods(scores)) == chosen


def test_no_method_is_chosen_while_seeds_are_missing() -> None:
    assert best_method(methods({"none": [0.8, 0.8], "focal": [0.9, 0.9]}, missing=1)) is None


def test_the_balance_page_names_the_choice_and_the_rarest_classes() -> None:
    rows = plan("balance", setting="small", data=["x-sdd"], seeds=range(3))
    rows = select(rows, ["mobilesteelnet-light-none", "mobilesteelnet-light-focal"])
    labels = ("a", "b", "c", "d")
    matrix = [[2, 2, 0, 0], [0, 9, 0, 0], [0, 0, 5, 0], [0, 0, 3, 3]]  # rarest: a, c, d
    records = [
        classified(
            row,
            matrix,
            labels=labels,
            validation={"macro_F1": 0.9 if row.balance == "focal" else 0.8},
        )
        for row in rows
    ]
    page = render(BALANCE, rows, by_row(*records))
    assert "**focal**: chosen by macro F1 on the validation split of x-sdd" in page
    head = "| method (small), recall on test (%) | a | c | d | mean of the three |"
    assert head in page
    # recalls 2/4, 5/5, 3/6: mean 2/3
    assert "| focal | 50.0 ± 0.0 | 100.0 ± 0.0 | 50.0 ± 0.0 | 66.7 ± 0.0 |" in page
    page = render(BALANCE, rows, by_row(*records[1:]))
    assert "Not chosen yet" in page


# --------------------------------------------------------------------------------------- files


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    (row,) = detect_rows("grace-n")
    one = detected(row, 0.7, resamples={"mAP50": (7000, 6900)})
    save_record(one, tmp_path)
    assert load_records(tmp_path) == {row.id: one}
    text = (tmp_path / "records" / f"{row.id}.json").read_text()
    assert '"resamples": {"mAP50":[7000,6900]}\n' in text


def test_a_record_under_another_rows_name_is_refused(tmp_path: Path) -> None:
    base, grace = detect_rows("yolo11-n", "grace-n")
    save_record(detected(base, 0.7), tmp_path)
    path = tmp_path / "records" / f"{base.id}.json"
    path.rename(path.with_name(f"{grace.id}.json"))
    with pytest.raises(DatasetError, match="must be named after its row"):
        load_records(tmp_path)
    path.with_name(f"{grace.id}.json").write_text("{}")
    with pytest.raises(DatasetError, match="is not a row's record: row: Field required"):
        load_records(tmp_path)


def test_page_and_plots_come_from_the_records_beside_them(tmp_path: Path) -> None:
    base, grace = detect_rows("yolo11-n", "grace-n")
    save_record(detected(base, 0.70, interval=(0.65, 0.75)), tmp_path)
    save_record(detected(grace, 0.73, interval=(0.68, 0.78)), tmp_path)
    for row in classify_rows("mobilesteelnet-light"):
        save_record(classified(row, [[9, 1], [2, 8]]), tmp_path)
    page = write_page("detect", tmp_path)
    assert page.read_text() == page_text("detect", tmp_path)
    assert "](detection.png)" in page.read_text()
    assert "- neu-det, paper, full: nothing of it was run" in page.read_text()
    assert "quick" not in page.read_text()
    write_page("classify", tmp_path)
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "detection.png",
        "classification.png",
        "classification-confusion.png",
    }
    before = (tmp_path / "detection.png").read_bytes()
    write_page("detect", tmp_path)
    assert (tmp_path / "detection.png").read_bytes() == before


def test_pages_without_a_record_say_that_nothing_was_run(tmp_path: Path) -> None:
    for table in ("detect", "segment", "classify", "balance"):
        text = write_page(table, tmp_path).read_text()  # type: ignore[arg-type]
        assert "nothing of it was run" in text
        assert "## Runs" not in text
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.parametrize(
    ("images", "easy", "hard"),
    [
        # Best first: the best tenth is 0 to 3, of which first, middle and last are shown; of the
        # worst tenth, 36 to 39, likewise, the worst of all last.
        pytest.param(40, [0, 2, 3], [36, 37, 39], id="three of four"),
        pytest.param(29, [0, 1], [27, 28], id="a tenth of two"),
        pytest.param(12, [0], [11], id="a tenth of one"),
        pytest.param(1, [0], [], id="one image, which is not shown twice"),
    ],
)
def test_easy_and_hard_cases_come_from_the_outer_tenths(
    images: int, easy: list[int], hard: list[int]
) -> None:
    assert easy_and_hard([1 - i / images for i in range(images)]) == (easy, hard)


@pytest.mark.parametrize(
    ("easy", "says"),
    [
        (3, "The first 3 are spread over the easiest tenth of the images, the others over the "),
        (1, "The first is of the easiest tenth of the images, the others are of the "),
    ],
)
def test_the_page_says_how_many_of_the_images_shown_are_easy(easy: int, says: str) -> None:
    assert say_easy_and_hard(easy, "F1") == f"{says}hardest, by F1."


def test_masks_are_drawn_beside_image_and_truth(
    tiny_neu_seg: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tiny_neu_seg.split("leak-free", "test")
    truths = {s.sha256: read_mask(s, tiny_neu_seg.labels) for s in samples}
    shown: list[tuple[str, int, int]] = []

    def seen(cases, *, labels, path):  # type: ignore[no-untyped-def]
        shown.extend((title, int(m.max()), int(t.max())) for title, _, m, t in cases)
        draw_cases(cases, labels=labels, path=path)

    draw_cases = figures.draw_cases
    monkeypatch.setattr(figures, "draw_cases", seen)
    knows = Canned("segment", tiny_neu_seg.labels, truths)
    draw_masks(knows, tiny_neu_seg, tmp_path / "masks.png")
    assert [title for title, _, _ in shown] == ["mIoU 100 %"] * len(samples)
    assert all(said == true > 0 for _, said, true in shown)
    with PILImage.open(tmp_path / "masks.png") as picture:
        assert picture.format == "PNG"
