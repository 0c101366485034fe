from __future__ import annotations

from collections import Counter

import pytest

from core.errors import ConfigError
from models import get_spec
from training.benchmark.commands import SettingName
from training.benchmark.plans import SETTINGS, plan, select
from training.benchmark.rows import TABLES, Row, Table
from training.benchmark.sheets import SHEETS
from training.benchmark.views import few_labels
from training.datasets import Dataset
from training.launch import RUN_NAME, recipe_of

ALL = [(table, setting.name) for table in TABLES for setting in SETTINGS[table]]


def networks(rows: tuple[Row, ...]) -> list[str]:
    return list(dict.fromkeys(row.network for row in rows))


@pytest.mark.parametrize(("table", "setting"), ALL, ids=[f"{t}-{s}" for t, s in ALL])
def test_every_row_can_be_run_and_has_a_folder_and_a_table_of_its_own(
    table: Table, setting: str
) -> None:
    rows = plan(table, setting=setting)
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        spec = get_spec(row.model)
        assert row.scale in spec.scales
        assert RUN_NAME.fullmatch(row.id)
        assert row.group in SHEETS[table].blocks
        recipe_of(spec, epochs=row.setting.epochs, batch=row.setting.batch, overrides=row.overrides)
    names = set(networks(rows))
    assert {row.against for row in rows} - {""} <= names


def test_detectors_of_one_scale_share_everything_but_the_network() -> None:
    rows = plan("detect", setting="full", protocols=["leak-free"])
    assert networks(rows)[:4] == ["yolo11-n", "grace-n", "gms2_yolo-n", "da_yolo-n"]
    assert {(r.setting.image_size, r.setting.epochs, r.setting.batch) for r in rows} == {
        (320, 40, 16)
    }
    assert all(row.coco == (row.scale == "n" or row.is_widened) for row in rows)
    recipes = [
        recipe_of(get_spec(r.model), epochs=40, batch=16, overrides=r.overrides)
        for r in rows
        if r.group not in ("recipes", "in-place", "widened") and r.loss == "paper"
    ]
    assert all(recipe == recipes[0] for recipe in recipes)
    assert (recipes[0]["in_place"], recipes[0]["close_mosaic"]) == (0.0, 8)


def test_beside_them_stand_the_same_with_pictures_kept_in_place() -> None:
    rows = [r for r in plan("detect", setting="full", protocols=["paper"]) if r.in_place]
    assert [row.id for row in rows] == [
        "neu-det-yolo11-n-in_place-320-e40-paper-s0",
        "neu-det-grace-n-in_place-320-e40-paper-s0",
        "neu-det-grace-n-none-in_place-320-e40-paper-s0",
        "neu-det-gms2_yolo-n-in_place-320-e40-paper-s0",
        "neu-det-da_yolo-n-stock_loss-in_place-320-e40-paper-s0",
        # of scale s, begun by doubling every channel of scale n
        "neu-det-yolo11-s-in_place-widened-320-e40-paper-s0",
        "neu-det-grace-s-in_place-widened-320-e40-paper-s0",
        "neu-det-gms2_yolo-s-in_place-widened-320-e40-paper-s0",
        "neu-det-da_yolo-s-stock_loss-in_place-widened-320-e40-paper-s0",
    ]
    assert [row.against for row in rows] == [
        *["yolo11-n"] * 5,
        "yolo11-n-in_place",
        *["yolo11-s-in_place-widened"] * 3,
    ]
    for row in rows:
        recipe = recipe_of(get_spec(row.model), epochs=40, batch=16, overrides=row.overrides)
        assert (recipe["in_place"], recipe["close_mosaic"]) == (0.4, 16)


def test_every_setting_can_be_named_on_the_command_line() -> None:
    named = {name.value for name in SettingName}
    assert {setting.name for settings in SETTINGS.values() for setting in settings} == named


def test_the_long_setting_takes_twice_the_epochs_with_pictures_kept_in_place() -> None:
    rows = plan("detect", setting="long", protocols=["paper"])
    assert [row.id for row in rows] == [
        "neu-det-yolo11-n-in_place-320-e80-paper-s0",
        "neu-det-grace-n-in_place-320-e80-paper-s0",
        "neu-det-grace-n-none-in_place-320-e80-paper-s0",
        "neu-det-gms2_yolo-n-in_place-320-e80-paper-s0",
        "neu-det-da_yolo-n-stock_loss-in_place-320-e80-paper-s0",
    ]
    assert [row.against for row in rows] == ["", *["yolo11-n-in_place"] * 4]
    for row in rows:
        recipe = recipe_of(get_spec(row.model), epochs=80, batch=16, overrides=row.overrides)
        assert (recipe["in_place"], recipe["close_mosaic"], recipe["lr0"]) == (0.4, 32, 0.01)


def test_a_papers_detector_is_measured_with_its_own_loss_in_short_runs_too() -> None:
    papers = [row for row in plan("detect", setting="small") if row.network == "da_yolo-n"]
    assert [row.id for row in papers] == [
        "neu-det-da_yolo-n-160-e24-leak-free-s0",
        "neu-det-da_yolo-n-160-e24-paper-s0",
    ]
    assert {row.overrides["loss"] for row in papers} == {"paper"}


def test_a_segmenters_row_is_measured_with_its_own_loss_in_short_runs_too() -> None:
    rows = plan("segment", setting="small")
    told = {(row.overrides["loss"], row.overrides["in_place"]) for row in rows if not row.in_place}
    assert told == {("paper", 0.0)}
    assert "neu-seg-sme_deeplabv3plus-paper-96-e8-leak-free-s0" in {row.id for row in rows}


def test_what_short_runs_of_the_segmenter_take_is_a_row_of_its_own() -> None:
    [row] = [row for row in plan("segment", setting="small", protocols=["paper"]) if row.in_place]
    assert row.id == "neu-seg-sme_deeplabv3plus-paper-border_loss-in_place-96-e8-paper-s0"
    usual = recipe_of(get_spec(row.model), epochs=8, batch=16)
    assert recipe_of(get_spec(row.model), epochs=8, batch=16, overrides=row.overrides) == usual
    assert (usual["loss"], usual["in_place"]) == ("border", 0.4)


def test_without_coco_weights_all_detectors_begin_alike() -> None:
    rows = [r for r in plan("detect", setting="small", protocols=["paper"]) if r.is_unaided]
    assert [(row.network, row.against) for row in rows] == [
        ("yolo11-n-random", ""),
        ("grace-n-random", "yolo11-n-random"),
        ("gms2_yolo-n-random", "yolo11-n-random"),
        ("da_yolo-n-stock_loss-random", "yolo11-n-random"),
    ]
    assert not any(row.coco for row in rows)


def test_our_recipes_leave_out_one_part_of_a_paper_each() -> None:
    rows = [
        r for r in plan("detect", setting="full", protocols=["leak-free"]) if r.group == "recipes"
    ]
    assert {row.network: (row.balance, row.loss) for row in rows} == {
        "grace-n-none": ("none", "paper"),
        "da_yolo-n-stock_loss": (None, "stock"),
    }
    assert rows[1].id == "neu-det-da_yolo-n-stock_loss-320-e40-leak-free-s0"


def test_ablations_are_run_in_the_small_setting_alone() -> None:
    small = {row.group for row in plan("detect", setting="small")}
    full = {row.group for row in plan("detect", setting="full")}
    assert (small - full, full - small) == ({"parts", "unaided"}, {"recipes"})


def test_the_middle_setting_compares_three_segmenters_by_one_schedule() -> None:
    rows = plan("segment", setting="middle", protocols=["paper"])
    assert [row.network for row in rows] == [
        "deeplabv3plus-mobilenet_v2",
        "deeplabv3plus-resnet18",
        "sme_deeplabv3plus-paper",
    ]
    assert {row.overrides["lr0"] for row in rows} == {0.002}
    assert {(row.setting.image_size, row.setting.epochs) for row in rows} == {(160, 24)}


def test_gc10_is_run_when_asked_for_and_at_twice_the_size() -> None:
    assert {row.data for row in plan("detect", setting="small")} == {"neu-det"}
    rows = plan("detect", setting="small", data=["gc10-det"])
    assert {(row.data, row.setting.image_size) for row in rows} == {("gc10-det", 320)}


def test_the_classifiers_few_labels_are_a_view_of_the_leak_free_split() -> None:
    views = {(r.protocol, r.view.name if r.view else "") for r in plan("classify", setting="small")}
    assert views == {("leak-free", "few15"), ("paper", "")}


def test_the_costly_networks_come_last_with_all_their_seeds() -> None:
    rows = plan("classify", setting="small", protocols=["paper"])
    assert [row.network for row in rows[-10:]] == [
        "mobilesteelnet.msff-paper",
        "mobilesteelnet-paper",
    ] * 5
    assert [row.seed for row in rows[-10:]] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_the_long_tail_stands_beside_the_whole_set() -> None:
    rows = plan("balance", setting="small", data=["neu-det"])
    assert {row.section for row in rows} == {("long-tail", "neu-det", "small", "leak-free")}
    assert [row.data for row in rows][:2] == ["neu-det", "neu-det@two-rare"]
    assert rows[0].id == plan("detect", setting="small", protocols=["leak-free"])[0].id


def test_rows_are_chosen_by_network_or_id() -> None:
    rows = plan("detect", setting="small", protocols=["leak-free"])
    assert networks(select(rows, ["gms2_yolo.*", "yolo11-n"])) == [
        "yolo11-n",
        "gms2_yolo.ghgnet-n",
        "gms2_yolo.msnet-n",
        "gms2_yolo.sepbn-n",
        "gms2_yolo.wiou-n",
    ]
    (one,) = select(rows, ["neu-det-grace-n-160-e24-leak-free-s0"])
    assert one.network == "grace-n"
    with pytest.raises(ConfigError, match=r"No row is called 'grcae'\. Available: yolo11-n, "):
        select(rows, ["grcae"])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"setting": "huge"}, r"Unknown setting 'huge'\. Available: long, full, small, quick"),
        ({"setting": "small", "data": ["x-sdd"]}, "Table detect has no data set 'x-sdd'"),
    ],
)
def test_what_the_plan_does_not_have_is_told(choice: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan("detect", **choice)  # type: ignore[arg-type]


def count(dataset: Dataset, protocol: str, split: str) -> Counter[str | None]:
    return Counter(sample.label for sample in dataset.split(protocol, split))


def test_few_labels_are_drawn_by_class_and_seed_and_leave_the_test_split(
    tiny_x_sdd: Dataset,
) -> None:
    # Three images a class, one in each split: one a class is all there is, none are none.
    assert few_labels(tiny_x_sdd, "leak-free", 0, per_class=1).id == tiny_x_sdd.id
    none = few_labels(tiny_x_sdd, "leak-free", 0, per_class=0)
    assert (none.split("leak-free", "train"), none.split("leak-free", "val")) == ((), ())
    assert none.test_id("leak-free", "test") == tiny_x_sdd.test_id("leak-free", "test")
    assert none.id != tiny_x_sdd.id


def test_few_labels_of_the_full_set_depend_on_the_seed(full_dataset) -> None:
    dataset = full_dataset("neu-cls")
    there = count(dataset, "leak-free", "train")
    few = [few_labels(dataset, "leak-free", seed, per_class=1) for seed in (0, 0, 1, 2)]
    for one in few:
        assert count(one, "leak-free", "train") == dict.fromkeys(there, 1)
    assert few[0].id == few[1].id
    if min(there.values()) > 1:
        assert len({one.id for one in few}) == 3
