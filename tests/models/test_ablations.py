from __future__ import annotations

import pytest

from core.errors import UnknownModelError
from models import baseline_names, get_spec, names
from models._ablations import SPECS
from training.runs import count_parameters

# Parameters of YOLO11n for six classes, and of its parts, as the papers' own tests have them.
YOLO11N = 2_591_010


def parameters(name: str, scale: str, n_classes: int) -> int:
    return count_parameters(get_spec(name).build(n_classes, scale))


@pytest.mark.parametrize("name", SPECS)
def test_a_row_of_an_ablation_is_a_model_by_its_name_and_in_no_list(name: str) -> None:
    spec = get_spec(name)
    assert (spec.name, spec.task) == (name, get_spec(name.partition(".")[0]).task)
    assert name not in (*names(), *baseline_names())


def test_a_row_that_is_not_there_is_told_like_any_unknown_model() -> None:
    with pytest.raises(UnknownModelError, match=r"Unknown model 'grace\.moon'"):
        get_spec("grace.moon")


@pytest.mark.parametrize("name", ["da_yolo.iaj", "grace.dscbsm", "gms2_yolo.wiou"])
def test_a_row_that_changes_only_loss_or_sampling_has_the_stock_network(name: str) -> None:
    assert parameters(name, "n", 6) == YOLO11N


def test_each_row_has_its_part_and_no_other() -> None:
    assert get_spec("da_yolo.3dam").criterion is None
    assert get_spec("da_yolo.iaj").criterion is get_spec("da_yolo").criterion
    assert get_spec("grace.lite_fen").sampler is None
    assert parameters("grace.lite_fen", "n", 6) == parameters("grace", "n", 6)
    assert get_spec("grace.dscbsm").sampler is get_spec("grace").sampler
    network = get_spec("gms2_yolo.sepbn").build(6, "n")
    assert not hasattr(network, "wiou")
    assert hasattr(get_spec("gms2_yolo.wiou").build(6, "n"), "wiou")


# From the specification's table "Expected parameters": 4 classes with background.
@pytest.mark.parametrize(
    ("part", "expected"),
    [
        pytest.param("aspp", 10_752_820 - 288, id="ASPP, the table's row without ELA's 288"),
        pytest.param("msaa", 8_928_150 - 288, id="MSAA, likewise"),
        pytest.param("ela", 8_519_700 + 288, id="neither, with ELA"),
        pytest.param("ce_dice", 8_928_150, id="the loss alone changes"),
    ],
)
def test_a_segmenters_row_has_the_published_number_of_parameters(part: str, expected: int) -> None:
    assert parameters(f"sme_deeplabv3plus.{part}", "paper", 3) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [("trunk", 2_867_078), ("msff", 4_573_062), ("ciema", 6_732_551)],
)
def test_a_classifiers_row_has_the_published_number_of_parameters(part: str, expected: int) -> None:
    assert parameters(f"mobilesteelnet.{part}", "paper", 6) == expected


def test_a_row_carries_the_figure_its_paper_prints_for_it() -> None:
    (figure,) = get_spec("mobilesteelnet.ciema").reported
    assert (figure.name, figure.value) == ("accuracy", 0.9093)
    (figure,) = get_spec("sme_deeplabv3plus.ela").reported
    assert (figure.name, figure.value) == ("mIoU", 0.8857)


def test_loss_rows_weigh_the_terms() -> None:
    weights = {
        part: get_spec(f"sme_deeplabv3plus.{part}").criterion(None).weights
        for part in ("ce", "ce_focal", "ce_dice", "focal_dice", "border")
    }
    assert weights == {
        "ce": (1.0, 0.0, 0.0, 0.0),
        "ce_focal": (1.0, 1.0, 0.0, 0.0),
        "ce_dice": (1.0, 0.0, 1.0, 0.0),
        "focal_dice": (0.0, 1.0, 1.0, 0.0),
        "border": (1.0, 1.0, 1.0, 1.0),
    }


@pytest.mark.parametrize(
    ("part", "moved", "kept"),
    [
        # GHGNet keeps SPPF and C2PSA, and everything behind them lies one layer later
        ("ghgnet", {10: 9, 11: 10} | {i + 1: i for i in range(11, 24)}, 15),
        # MSNet replaces the neck's four C3k2; of the neck only the convolutions 17 and 20 are left
        ("msnet", {17: 17, 20: 20, 23: 23}, 14),
        # the head is 23
        ("sepbn", {22: 22}, 23),
        ("wiou", {22: 22, 23: 23}, 24),
    ],
)
def test_coco_weights_go_to_the_stock_layers_a_row_has(
    part: str, moved: dict[int, int], kept: int
) -> None:
    layers = get_spec(f"gms2_yolo.{part}").coco_layers
    assert moved.items() <= layers.items()
    assert len(layers) == kept
