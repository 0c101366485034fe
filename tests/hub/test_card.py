from dataclasses import replace

import yaml

from core.records import Int8Loss, Metric
from hub.card import write_card
from models import get_spec
from tests.records import make_config, make_evaluation, make_run


def _card(**changes):
    config = make_config()
    config = make_config(evaluations=(make_evaluation(config, **changes),))
    return write_card(config, get_spec("grace"))


def test_the_front_matter_is_a_model_index_the_hub_understands():
    front = yaml.safe_load(_card().split("---")[1])
    assert front["license"] == "agpl-3.0"
    assert front["pipeline_tag"] == "object-detection"
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["type"] == "neu-det"
    assert result["dataset"]["split"] == "test"
    assert result["metrics"] == [{"type": "mAP50", "value": 0.7, "name": "mAP50"}]


def test_measured_interval_and_reported_figure_stand_in_columns_of_their_own():
    text = _card()
    assert "| metric (%) | measured | 95 % interval | reported by the paper |" in text
    row = next(line for line in text.splitlines() if line.startswith("| mAP50 |"))
    measured, interval, reported = [cell.strip() for cell in row.split("|")[2:5]]
    assert (measured, interval) == ("70.0", "65.0 – 74.0")
    assert reported.startswith("75.9")


def test_the_card_states_data_split_recipe_seed_and_n():
    text = _card()
    for fact in ("NEU-DET", "leak-free", "(324 images)", "lr0 0.01", "7 (one run)", "fp32"):
        assert fact in text
    nested = make_config(run=make_run(recipe={"augment": {"crop": 0.875}}))
    assert "| recipe | augment.crop 0.875 |" in write_card(nested, get_spec("grace"))
    assert "28 of 30 planned, weights of epoch 25 kept" in text
    assert "| what | value |\n| --- | --- |\n| data | NEU-DET" in text


def test_every_class_has_its_row():
    text = _card()
    assert "| class | AP50 (%) |" in text
    assert "| crazing | 40.0 |" in text
    assert "| scratches | 90.0 |" in text


def test_a_figure_the_paper_reports_on_another_data_set_is_not_put_beside_ours():
    config = make_config(run=make_run(dataset="x-sdd"))
    config = config.model_copy(update={"evaluations": (make_evaluation(config),)})
    row = next(
        line
        for line in write_card(config, get_spec("grace")).splitlines()
        if line.startswith("| mAP50 |")
    )
    assert "75.9" not in row


def test_weights_that_were_never_measured_say_so_and_print_no_metric():
    text = write_card(make_config(), get_spec("grace"))
    assert "Not evaluated yet." in text
    assert "model-index" not in text


def test_the_card_says_what_makes_the_papers_own_split_an_easy_one():
    assert (
        "they are not measurements of these weights. The paper's figures for NEU-DET are of the "
        "360 images on which it also chose its weights.\n"
    ) in _card()
    without = replace(get_spec("grace").paper, caveat="")
    plain = write_card(make_config(), replace(get_spec("grace"), paper=without))
    assert "they are not measurements of these weights.\n" in plain


def test_the_reported_figure_is_the_full_models_and_not_an_ablations():
    run = make_run(model="sme_deeplabv3plus", dataset="neu-seg")
    config = make_config(run=run, task="segment")
    metric = Metric(name="mIoU", value=0.5, n=666)
    evaluation = make_evaluation(config, metrics=(metric,))
    config = config.model_copy(update={"evaluations": (evaluation,)})
    text = write_card(config, get_spec("sme_deeplabv3plus"))
    row = next(line for line in text.splitlines() if line.startswith("| mIoU |"))
    assert "88.9 (full model, section 4.6)" in row


def test_the_card_says_how_probabilities_were_calibrated_or_that_they_were_not():
    plain = write_card(make_config(), get_spec("grace"))
    assert "Scores are raw: no calibration was fitted." in plain
    fitted = {"kind": "curves", "n": 900, "dece_before": 0.21, "dece_after": 0.034}
    text = write_card(make_config(calibration=fitted), get_spec("grace"))
    assert "900 boxes of the validation split: D-ECE 21.0 % before, 3.4 % after" in text
    fitted = {"kind": "temperature", "n": 162, "ece_before": 0.05, "ece_after": 0.012}
    text = write_card(make_config(calibration=fitted, task="classify"), get_spec("mobilesteelnet"))
    assert "162 images of the validation split: ECE 5.0 % before, 1.2 % after" in text


def test_the_card_shows_how_often_what_was_claimed_was_right():
    fitted = {
        **{"kind": "curves", "n": 30, "dece_before": 0.21, "dece_after": 0.034},
        "diagram_before": [
            {"tenth": 0, "claimed": 0.052, "right": 0.5, "n": 20},
            {"tenth": 9, "claimed": 0.95, "right": 0.8, "n": 10},
        ],
        "diagram_after": [{"tenth": 9, "claimed": 1.0, "right": 0.9667, "n": 30}],
    }
    text = write_card(make_config(calibration=fitted), get_spec("grace"))
    assert "| 0 to 10 | 5.2 | 50.0 | 20 | – | – | – |" in text
    assert "| 90 to 100 | 95.0 | 80.0 | 10 | 100.0 | 96.7 | 30 |" in text


def test_the_card_says_what_of_the_papers_recipe_was_left_out():
    def training(model, **recipe):
        text = write_card(make_config(run=make_run(recipe=recipe)), get_spec(model))
        return text.split("## Training")[1].split("| --- |")[0]

    assert "with YOLO11's loss in place of the paper's" in training("da_yolo", loss="stock")
    assert "how well borders meet" in training("sme_deeplabv3plus", loss="border")
    assert "borders meet" not in training("sme_deeplabv3plus", loss="paper")
    assert "drawn alike, not by the paper's sampler" in training("grace", balance="none")
    assert "paper's" not in training("grace", loss="stock", balance="paper")
    taught = training("grace", teachers=["yolo11 0123456789ab", "da_yolo ba98"], teaching=0.25)
    assert "with 25 % of the loss, they were taught by" in taught
    assert "find on the training images: yolo11 0123456789ab, da_yolo ba98." in taught


def test_the_card_tells_the_size_of_training_from_that_of_serving():
    config = make_config()
    size = config.run.image_size
    spec = get_spec("grace")
    assert f"| image size | {size} px |" in write_card(config, spec)
    larger = config.model_copy(update={"image_size": size + 64})
    row = (
        f"| image size | {size} px in training; it looks at {size + 64} px, chosen on validation |"
    )
    assert row in write_card(larger, spec)


def test_the_card_says_what_eight_bits_cost_where_that_was_measured():
    config = make_config()
    spec = get_spec("grace")
    assert "## With 8 bits" not in write_card(config, spec)
    loss = Int8Loss(metric="mAP50_95", fp32=0.3612, int8=0.3144, image_size=320, n=162)
    text = write_card(config.model_copy(update={"int8": loss}), spec)
    assert (
        "mAP50_95 on the 162 validation images at 320 px is 31.4 % instead of 36.1 %. It is served "
        "only where `ROLLMARK_SERVING__RUNTIME=int8` asks for it."
    ) in text


def test_a_card_says_of_ones_own_pictures_nothing_that_is_true_of_the_public_ones():
    public = write_card(make_config(dataset="neu-det@3f2a91"), get_spec("grace"))
    own = write_card(make_config(dataset="mill-a@3f2a91"), get_spec("grace"))
    assert "from one laboratory" in public
    assert "published for research" in public
    assert "the pictures of one source, mill-a@3f2a91." in own
    assert "laboratory" not in own
    assert "research" not in own


def test_the_card_says_what_a_threshold_costs_and_which_one_is_its_own():
    counted = {
        "n": 4,
        "thresholds": [0.1, 0.2, 0.5],
        "defects": {"crazing": 4, "scratches": 6},
        "found": {"crazing": [4, 3, 0], "scratches": [6, 6, 3]},
        "findings": {"crazing": [6, 4, 0], "scratches": [10, 8, 4]},
        "wrong": {"crazing": [2, 1, 0], "scratches": [4, 2, 1]},
    }
    config = make_config(operating=counted, score_threshold=0.15)
    text = write_card(config, get_spec("grace"))
    assert "of 10 labelled defects of its 4 validation images" in text
    assert (
        "| from a score of | found (%) | none (%) | none an image | Crazing | Scratches |" in text
    )
    # Found 10 and 9, half-way 9.5 of 10; none 6 of 16 and 3 of 12, half-way 4.5 of 14.
    assert "| **0.15** | 95 | 32 | 1.12 | 88 / 30 | 100 / 33 |" in text
    assert "| 0.5 | 30 | 25 | 0.25 | 0 / 0 | 50 / 25 |" in text
    assert "## Score threshold" not in write_card(make_config(), get_spec("grace"))
