"""Predictions out, annotations back: every number survives, and nothing invisible is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from active_learning import labelling as labelling_module
from active_learning.brush import decode_brush, encode_brush
from active_learning.label_format import (
    check_prediction,
    task_score,
    to_annotation,
    to_prediction,
    to_task_data,
)
from active_learning.labelling import NO_DEFECT, Labelling, labelling_of, read_config
from core.errors import LabelFormatError
from core.geometry import class_map_from_record, mask_record
from core.records import FoundBox, FoundSegment, ImageFacts, Inspection

IMAGE = ImageFacts(sha256="ab" * 32, width=200, height=100)
LABELLING = Labelling(
    boxes=("crazing", "rolled-in_scale"),
    masks=("inclusion", "patches"),
    choices=("red iron", "surface scratch"),
)
CONFIG = LABELLING.config()


def inspection(task: str, **more: Any) -> Inspection:
    return Inspection(
        model=f"a {task}or",
        revision="0" * 12,
        task=task,
        image=IMAGE,
        uncertainty=0.6,
        verdict="review",
        latency_ms=1.0,
        **more,
    )


def detected(*boxes: tuple[float, float, float, float]) -> Inspection:
    found = [FoundBox(label="crazing", score=0.5, probability=0.4, box=box) for box in boxes]
    return inspection("detect", detections=found)


def segmented(class_map: np.ndarray) -> Inspection:
    segments = [FoundSegment(label="patches", area_px=8, box=(0, 0, 4, 2), score=0.7)]
    return inspection("segment", segments=segments, mask=mask_record(class_map, 2))


def classified(**p: float) -> Inspection:
    return inspection("classify", probabilities={k.replace("_", " "): v for k, v in p.items()})


def predicted(*inspections: Inspection) -> dict[str, Any]:
    return to_prediction(
        inspections, mask_labels={"a segmentor": ("inclusion", "patches")}, score=0.25
    )


def answered(*regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An annotation as the API gives it."""
    return {
        "id": 7,
        "task": 3,
        "completed_by": 1,
        "was_cancelled": False,
        "created_at": "2026-11-21T10:00:00.123456Z",
        "updated_at": "2026-11-21T10:05:00.123456Z",
        "result": list(regions),
    } | more


def box_region(**value: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "from_name": "box",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
        | {"rectanglelabels": ["crazing"]}
        | value,
    }


def brush_region(mask: np.ndarray, label: str = "patches") -> dict[str, Any]:
    value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]}
    return box_region() | {"type": "brushlabels", "from_name": "mask", "value": value}


def choice_region(choice: str) -> dict[str, Any]:
    return {
        "id": "y",
        "from_name": "verdict",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [choice]},
    }


# --- configuration -----------------------------------------------------------------------------


def test_a_configuration_is_read_back_as_it_was_written():
    assert read_config(CONFIG) == LABELLING


def test_every_class_has_the_colour_it_has_everywhere():
    assert '<Label value="crazing" background="#E69F00" />' in CONFIG
    assert '<Label value="rolled-in_scale" background="#CC79A7" />' in CONFIG


def test_the_reasons_stand_above_the_image():
    assert '<Header value="$why" size="5" />' in CONFIG


def test_a_way_of_marking_without_classes_is_left_out():
    only = Labelling(boxes=("crazing",), masks=(), choices=())
    assert "BrushLabels" not in only.config()
    assert read_config(only.config()) == only


def test_choices_stand_in_one_line_so_that_the_image_is_in_sight():
    assert ElementTree.fromstring(CONFIG).find(".//Choices").get("layout") == "inline"


def test_each_line_begins_with_what_is_marked_in_it():
    lines = ElementTree.fromstring(CONFIG).findall("View")
    assert [(line.find("Header").get("value"), line[1].tag) for line in lines] == [
        ("Boxes", "RectangleLabels"),
        ("Areas", "BrushLabels"),
        ("Image", "Choices"),
    ]


def test_a_project_whose_lines_have_no_headings_yet_is_read():
    xml = (
        '<View><RectangleLabels name="box" toName="image"><Label value="a"/></RectangleLabels>'
        '<Choices name="verdict" toName="image"><Choice value="x"/><Choice value="no defect"/>'
        '</Choices><Image name="image" value="$image"/></View>'
    )
    assert read_config(xml) == Labelling(boxes=("a",), masks=(), choices=("x",))


def test_classes_of_models_join_by_task_in_the_order_they_come():
    joined = labelling_of([("detect", ("a", "b")), ("segment", ("c",)), ("detect", ("b", "d"))])
    assert joined == Labelling(boxes=("a", "b", "d"), masks=("c",), choices=())


def test_an_older_project_keeps_its_classes_when_new_ones_come():
    old, new = Labelling(("b", "old"), (), ("x",)), Labelling(("a", "b"), ("m",), ())
    assert old.joined(new) == Labelling(("b", "old", "a"), ("m",), ("x",))


def test_the_revision_changes_with_the_classes():
    other = Labelling(boxes=("crazing",), masks=(), choices=())
    assert len(LABELLING.revision) == 12
    assert LABELLING.revision != other.revision
    assert other.revision == Labelling(("crazing",), (), ()).revision
    assert other.revision != Labelling((), ("crazing",), ()).revision


def test_the_revision_does_not_change_with_the_looks(monkeypatch):
    before = LABELLING.config(), LABELLING.revision
    monkeypatch.setattr(labelling_module, "_ROW", "display: block")
    assert LABELLING.config() != before[0]
    assert LABELLING.revision == before[1]


@pytest.mark.parametrize("name", ["<img onerror=alert(1)>", "", "a" * 41, " a", "ä", 'a"b', "$why"])
def test_a_class_name_that_might_become_html_is_refused(name):
    with pytest.raises(LabelFormatError, match="cannot be sent"):
        Labelling(boxes=(name,), masks=(), choices=()).config()


@pytest.mark.parametrize("xml", ["<View/>", "<View", "<View><Text name='t' value='$t'/></View>"])
def test_a_foreign_configuration_is_refused(xml):
    with pytest.raises(LabelFormatError, match="configuration"):
        read_config(xml)


def test_the_configuration_is_valid_to_label_studio():
    from label_studio_sdk.label_interface import LabelInterface

    LabelInterface(CONFIG).validate()


# --- out ---------------------------------------------------------------------------------------


def test_a_box_goes_out_in_percent_of_the_image():
    # 200 x 100 px: (20, 25)-(60, 75) is x 10 %, y 25 %, 20 % wide, 50 % high.
    region = predicted(detected((20, 25, 60, 75)))["result"][0]
    assert region == {
        "id": "rollmark-0",
        "from_name": "box",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "score": 0.4,
        "value": {
            "x": 10.0,
            "y": 25.0,
            "width": 20.0,
            "height": 50.0,
            "rotation": 0,
            "rectanglelabels": ["crazing"],
        },
    }


def test_a_box_beyond_the_border_is_cut_and_one_too_thin_to_see_is_left_out():
    result = predicted(detected((-5, 90, 300, 120), (10, 10, 10.4, 50)))["result"]
    assert len(result) == 1
    assert [result[0]["value"][side] for side in ("x", "y", "width", "height")] == [0, 90, 100, 10]


def test_each_class_of_a_mask_is_one_region():
    class_map = np.zeros((100, 200), dtype=np.uint8)
    class_map[:2, :4] = 2
    regions = predicted(segmented(class_map))["result"]
    assert [(r["type"], r["value"]["brushlabels"], r["score"]) for r in regions] == [
        ("brushlabels", ["patches"], 0.7)
    ]
    assert (decode_brush(regions[0]["value"]["rle"], (100, 200)) == (class_map == 2)).all()


def test_a_mask_of_a_model_whose_classes_are_unknown_is_refused():
    mask = segmented(np.zeros((100, 200), dtype=np.uint8))
    with pytest.raises(LabelFormatError, match="has 2 classes, but 0 are known"):
        to_prediction([mask], mask_labels={}, score=0.5)


def test_a_classifier_chooses_its_most_probable_class():
    [region] = predicted(classified(red_iron=0.3, surface_scratch=0.7))["result"]
    assert region["value"] == {"choices": ["surface scratch"]}
    assert region["score"] == 0.7


def test_of_two_detectors_the_first_is_drawn_beside_the_other_tasks():
    two = predicted(detected((0, 0, 9, 9)), detected((1, 1, 5, 5), (2, 2, 8, 8)), classified(a=1.0))
    assert [r["type"] for r in two["result"]] == ["rectanglelabels", "choices"]
    assert [r["id"] for r in two["result"]] == ["rollmark-0", "rollmark-1"]


def test_the_note_comes_first_in_the_sentence_above_the_image():
    said = to_task_data(
        image_url="/u.png", reasons=["crazing 0.4 is between", "b"], note=" new ", dedupe_key="k"
    )
    assert said == {
        "image": "/u.png",
        "why": "“new”; crazing 0.4 is between; b",
        "dedupe_key": "k",
    }


@pytest.mark.parametrize(
    ("priority", "expected"),
    # Of [0.1, 0.5, 0.5, 0.9] ranks from below in the middle of equals: 0.5, 2, 2 and 3.5 of 4.
    [(0.1, 0.875), (0.5, 0.5), (0.9, 0.125), (1.0, 0.0), (0.0, 1.0)],
)
def test_the_score_of_a_task_falls_with_the_rank_of_its_priority(priority, expected):
    assert task_score(priority, [0.1, 0.5, 0.5, 0.9]) == expected


def test_without_others_the_score_is_what_the_priority_leaves_of_one():
    assert task_score(0.75, []) == 0.25


# --- checks before sending ---------------------------------------------------------------------


def test_what_we_make_passes_our_own_check():
    class_map = np.zeros((100, 200), dtype=np.uint8)
    class_map[3:9, 4:50] = 1
    everything = predicted(
        detected((0, 0, 200, 100), (1 / 3, 1 / 7, 199.999, 99.999)),
        segmented(class_map),
        classified(red_iron=1.0),
    )
    assert len(everything["result"]) == 4
    check_prediction(everything, CONFIG, IMAGE)


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        (box_region(x=95, width=20), "leaves the image"),
        (box_region(x=-5), "leaves the image"),
        (box_region(width=0), "leaves the image"),
        (box_region(rectanglelabels=["no such class"]), "does not fit the labelling"),
        (box_region() | {"from_name": "nobody"}, "does not fit the labelling"),
        (box_region() | {"original_width": 100}, "shows another image"),
        (box_region() | {"image_rotation": 90}, "turned by 90"),
        (brush_region(np.ones((50, 50))), "must be of the original size"),
        (choice_region("maybe"), "does not fit the labelling"),
    ],
    ids=["right", "left", "thin", "label", "control", "size", "turned", "mask", "choice"],
)
def test_what_label_studio_would_accept_and_not_show_is_refused(region, sentence):
    with pytest.raises(LabelFormatError, match=sentence):
        check_prediction({"score": 0.5, "result": [region]}, CONFIG, IMAGE)


def test_a_score_out_of_range_and_a_repeated_id_are_refused():
    with pytest.raises(LabelFormatError, match=r"7\.0"):
        check_prediction({"score": 7.0, "result": []}, CONFIG, IMAGE)
    with pytest.raises(LabelFormatError, match="same id"):
        check_prediction({"score": 0.5, "result": [box_region(), box_region()]}, CONFIG, IMAGE)


# --- back --------------------------------------------------------------------------------------


def read(raw: dict[str, Any]) -> Any:
    return to_annotation(raw, image=IMAGE, labelling=LABELLING)


def test_a_box_comes_back_in_pixels():
    # x 10 %, y 20 %, 30 % wide, 40 % high of 200 x 100 px.
    annotation = read(answered(box_region()))
    assert annotation.boxes == (("crazing", (20.0, 20.0, 80.0, 60.0)),)
    assert (annotation.mask, annotation.label) == (None, None)
    assert (annotation.task_id, annotation.annotation_id) == (3, 7)
    assert annotation.created_at.isoformat() == "2026-11-21T10:00:00.123456+00:00"


def test_a_turned_box_comes_back_as_the_upright_box_around_it():
    # Top-left (100, 20) px, 20 x 10 px, turned by 90° clockwise: x from 100 - 10 to 100, y to 40.
    region = box_region(x=50, y=20, width=10, height=10, rotation=90)
    assert read(answered(region)).boxes == (("crazing", (90.0, 20.0, 100.0, 40.0)),)


@settings(max_examples=60)
@given(
    x=st.floats(0, 190),
    y=st.floats(0, 90),
    width=st.floats(1, 200),
    height=st.floats(1, 100),
)
def test_boxes_survive_pixels_to_percent_to_pixels(x, y, width, height):
    box = (round(x, 2), round(y, 2), round(min(x + width, 200), 2), round(min(y + height, 100), 2))
    sent = predicted(detected(box))
    check_prediction(sent, CONFIG, IMAGE)
    ((_, back),) = read(answered(*sent["result"])).boxes
    assert back == pytest.approx(box, abs=0.011)


@settings(max_examples=60)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_masks_survive_the_brush_and_are_what_the_sdk_reads_and_writes(mask):
    from label_studio_sdk.converter import brush

    rle = encode_brush(mask)
    assert (decode_brush(rle, mask.shape) == mask).all()
    assert (brush.decode_rle(rle).reshape(*mask.shape, 4)[:, :, 3] == 255 * mask).all()
    theirs = brush.mask2rle(mask.astype(np.uint8) * 255)
    assert (decode_brush(theirs, mask.shape) == mask).all()


def test_a_run_longer_than_sixteen_bits_survives():
    mask = np.zeros((300, 400), dtype=bool)  # 480 000 values: eight blocks
    mask[150:] = True
    assert (decode_brush(encode_brush(mask), mask.shape) == mask).all()


def test_blocks_of_different_words_are_read():
    # 2 pixels of 4 values; word size 8, run sizes 3, 4, 8, 16; one block of 8 different words.
    bits = f"{8:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16)) + "0" + "00" + "111"
    bits += "".join(f"{word:08b}" for word in (9, 9, 9, 0, 1, 2, 3, 255))
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert decode_brush(rle, (1, 2)).tolist() == [[False, True]]


@pytest.mark.parametrize(
    "rle",
    [[], [0, 0], [1, 2, "x"], [300], [[1]], encode_brush(np.ones((4, 4)))[:-2], [255] * 40],
    ids=["empty", "short", "text", "range", "nested", "cut", "noise"],
)
def test_a_damaged_brush_mask_is_refused(rle):
    with pytest.raises(LabelFormatError, match="brush mask"):
        decode_brush(rle, (4, 4))


def test_two_strokes_of_one_class_become_one_mask():
    left, right = np.zeros((100, 200), dtype=bool), np.zeros((100, 200), dtype=bool)
    left[:10, :5], right[:10, 3:9] = True, True
    annotation = read(answered(brush_region(left), brush_region(right)))
    assert annotation.mask_labels == ("inclusion", "patches")
    assert (class_map_from_record(annotation.mask) == 2 * (left | right)).all()


def test_boxes_alone_say_nothing_about_the_pixels_but_no_defect_does():
    assert read(answered(box_region())).mask is None
    sound = read(answered(choice_region(NO_DEFECT)))
    assert sound.label == NO_DEFECT
    assert class_map_from_record(sound.mask).sum() == 0


def test_a_class_of_sound_steel_says_no_defect_too():
    labelling = replace(LABELLING, choices=("ok", "red iron"))
    sound = to_annotation(answered(choice_region("ok")), image=IMAGE, labelling=labelling)
    assert sound.label == "ok"
    assert class_map_from_record(sound.mask).sum() == 0
    both = answered(choice_region("ok"), box_region())
    with pytest.raises(LabelFormatError, match="says 'ok' and marks 1 of them"):
        to_annotation(both, image=IMAGE, labelling=labelling)
    # Nor is both drawn before the person begins, who would only have to submit it.
    drawn = predicted(detected((10, 10, 60, 60)), classified(ok=0.9, red_iron=0.1))
    assert [region["type"] for region in drawn["result"]] == ["rectanglelabels"]
    alone = predicted(detected(), classified(ok=0.9, red_iron=0.1))
    assert [region["value"]["choices"] for region in alone["result"]] == [["ok"]]


def test_a_choice_comes_back_as_the_label_of_the_image():
    assert read(answered(choice_region("red iron"))).label == "red iron"


def test_a_skipped_task_has_no_annotation():
    assert read(answered(box_region(), was_cancelled=True)) is None


@pytest.mark.parametrize(
    ("who", "name"),
    [(5, "user 5"), ({"id": 5, "email": "a@b.c"}, "a@b.c"), ({"id": 5, "email": ""}, "user 5")],
)
def test_the_annotator_is_named_as_well_as_label_studio_tells(who, name):
    assert read(answered(completed_by=who)).annotator == name


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (answered(choice_region(NO_DEFECT), box_region()), "marks 1 of them"),
        (answered(box_region(rectanglelabels=["b", "c"])), "exactly one of"),
        (answered(box_region(x=150)), "outside the image"),
        (answered(box_region() | {"image_rotation": 90}), "turned by 90"),
        (answered(box_region() | {"original_height": 99}), "shows another image"),
        ({"id": 7}, "not what Label Studio writes"),
        (answered(box_region(x="far")), "not what Label Studio writes"),
    ],
    ids=["contradiction", "labels", "outside", "turned", "size", "empty", "text"],
)
def test_an_answer_that_cannot_be_right_is_refused(raw, sentence):
    with pytest.raises(LabelFormatError, match=sentence):
        read(raw)


@pytest.mark.parametrize(
    "kind", ["polygonlabels", "ellipselabels", "keypointlabels", "labels", "rectangle", "polygon"]
)
def test_a_mark_of_a_tool_that_people_added_is_refused_and_no_clean_image(kind):
    value = {"points": [[10, 10], [40, 10], [40, 40]], "polygonlabels": ["crazing"]}
    added = box_region() | {"type": kind, "from_name": "shape", "value": value}
    with pytest.raises(LabelFormatError, match=f"marks something as {kind}"):
        read(answered(added))


def test_another_question_that_people_added_leaves_the_answer_as_it_is():
    asked = {"from_name": "sharpness", "type": "choices", "value": {"choices": ["blurred"]}}
    said = {"from_name": "remark", "type": "textarea", "value": {"text": ["near the edge"]}}
    both = read(answered(box_region(), choice_region("red iron"), asked, said))
    assert [label for label, _ in both.boxes] == ["crazing"]
    assert both.label == "red iron"


def test_everything_sent_and_accepted_unchanged_comes_back_the_same():
    class_map = np.zeros((100, 200), dtype=np.uint8)
    class_map[10:20, 30:60], class_map[50:60, 100:150] = 1, 2
    sent = predicted(
        detected((12.5, 3.25, 40.1, 99.0)), segmented(class_map), classified(red_iron=1.0)
    )
    back = read(answered(*sent["result"]))
    assert back.boxes == (("crazing", (12.5, 3.25, 40.1, 99.0)),)
    assert (class_map_from_record(back.mask) == class_map).all()
    assert back.label == "red iron"
