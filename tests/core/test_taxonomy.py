"""Classes, colours and spellings of the public data sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from core import taxonomy
from core.errors import DatasetError

# Linear RGB as a person with full protanopia, deuteranopia or tritanopia sees it: Machado,
# Oliveira, Fernandes 2009, severity 1.0.
VISION = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def cielab(colour: str, vision: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    x, y, z = np.cbrt(np.maximum(TO_XYZ @ seen / (TO_XYZ @ np.ones(3)), 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (
            "neu-det",
            "crazing, inclusion, patches, pitted_surface, rolled-in_scale, scratches",
        ),
        ("neu-seg", "inclusion, patches, scratches"),
        (
            "x-sdd",
            "finishing roll printing, iron sheet ash, oxide scale of plate system, oxide scale of "
            "temperature system, red iron, slag inclusion, surface scratch",
        ),
        (
            "gc10-det",
            "punching_hole, welding_line, crescent_gap, water_spot, oil_spot, silk_spot, "
            "inclusion, rolled_pit, crease, waist_folding",
        ),
    ],
)
def test_labels_are_in_the_order_of_their_ids(dataset, names):
    assert ", ".join(taxonomy.labels(dataset)) == names


def test_the_classification_set_has_the_classes_of_the_detection_set():
    assert taxonomy.classes("neu-cls") == taxonomy.classes("neu-det")


@pytest.mark.parametrize(
    ("spelling", "dataset", "name"),
    [
        ("rolled-in_scale", "neu-det", "rolled-in_scale"),
        ("Rolled in Scale", "neu-det", "rolled-in_scale"),
        ("rolled_in_scale", "neu-cls", "rolled-in_scale"),
        ("PITTED SURFACE", "neu-det", "pitted_surface"),
        ("Sc", "neu-cls", "scratches"),
        ("red iron sheet", "x-sdd", "red iron"),
        ("surface scratches", "x-sdd", "surface scratch"),
        ("4_shuiban", "gc10-det", "water_spot"),
        ("yiwu", "gc10-det", "inclusion"),
        ("10", "gc10-det", "waist_folding"),
        ("10_yaozhed", "gc10-det", "waist_folding"),
    ],
)
def test_spellings_of_the_wild_have_one_canonical_name(spelling, dataset, name):
    assert taxonomy.normalise(spelling, dataset) == name


@pytest.mark.parametrize("dataset", taxonomy.CLASSES)
def test_no_spelling_means_two_classes(dataset):
    for entry in taxonomy.classes(dataset):
        for spelling in (entry.name, entry.title, *entry.spellings):
            assert taxonomy.normalise(spelling, dataset) == entry.name


def test_a_class_nobody_has_is_refused_with_those_there_are():
    # One object of GC10-DET is named only `d`.
    with pytest.raises(DatasetError, match=r"Unknown class 'd' in gc10-det\. Available: punching"):
        taxonomy.normalise("d", "gc10-det")
    with pytest.raises(DatasetError, match=r"Unknown data set 'neu'\. Available: neu-det"):
        taxonomy.labels("neu")


@pytest.mark.parametrize("dataset", taxonomy.CLASSES)
def test_colour_hatch_and_dash_each_tell_the_classes_of_a_set_apart(dataset):
    looks = [entry.look for entry in taxonomy.classes(dataset)]
    for sign in ("colour", "hatch", "dash"):
        assert len({getattr(look, sign) for look in looks}) == len(looks)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("dataset", ["neu-det", "x-sdd", "gc10-det"])
def test_colours_of_a_set_stay_apart_for_every_eye(dataset, vision):
    # Okabe and Ito's own closest pair, sky blue and bluish green, are 16 apart in CIELAB.
    colours = [cielab(entry.look.colour, vision) for entry in taxonomy.classes(dataset)]
    closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2))
    assert closest > 15


def test_a_name_has_one_title_and_one_look_in_every_set():
    seen = {}
    for entry in itertools.chain.from_iterable(taxonomy.CLASSES.values()):
        assert seen.setdefault(entry.name, (entry.title, entry.look)) == (entry.title, entry.look)


def test_titles_and_looks_are_found_by_name():
    assert taxonomy.title("rolled-in_scale") == "Rolled-in scale"
    assert taxonomy.look("scratches").colour == "#D55E00"


def test_a_class_of_ones_own_has_a_lasting_look():
    assert taxonomy.title("edge_crack") == "Edge crack"
    assert taxonomy.title("Riss_KTL") == "Riss KTL"  # capitals that somebody meant
    assert taxonomy.look("edge_crack") == taxonomy.look("edge_crack")
    looks = {taxonomy.look(f"class {n}").colour for n in range(100)}
    assert len(looks) == 10


@pytest.mark.parametrize(
    ("label", "source", "target", "expected"),
    [
        pytest.param("scratches", "neu-det", "neu-seg", "scratches", id="same"),
        pytest.param("scratches", "neu-seg", "x-sdd", "surface scratch", id="similar"),
        pytest.param("surface scratch", "x-sdd", "neu-det", "scratches", id="and back"),
        pytest.param("inclusion", "gc10-det", "neu-det", "inclusion", id="gc10 inclusion"),
        pytest.param("slag inclusion", "x-sdd", "gc10-det", "inclusion", id="slag"),
        pytest.param("crazing", "neu-det", "neu-seg", None, id="not in the target"),
        pytest.param("oil_spot", "gc10-det", "neu-det", None, id="in no other set"),
        pytest.param("oil_spot", "gc10-det", "gc10-det", "oil_spot", id="itself"),
        pytest.param("7_yiwu", "gc10-det", "neu-seg", "inclusion", id="by a spelling"),
    ],
)
def test_translation_between_data_sets(label, source, target, expected):
    assert taxonomy.translate(label, source=source, target=target) == expected


def test_translation_to_no_data_set_is_an_error():
    with pytest.raises(DatasetError, match="Unknown data set"):
        taxonomy.translate("oil_spot", source="gc10-det", target="neu")


def test_the_common_defect_table_is_version_one():
    assert taxonomy.COMMON_DEFECT_VERSION == 1


def test_a_set_grown_from_a_public_one_has_pictures_of_its_size():
    assert taxonomy.native_side("neu-seg") == 200
    assert taxonomy.native_side("x-sdd@3f2a91c0") == 128
    assert taxonomy.native_side("somebody-elses") is None


@pytest.mark.parametrize("label", ["ok", "OK", "Good", "no defect", "no_defect", "defect-free"])
def test_mills_have_many_names_for_steel_without_a_defect(label):
    assert taxonomy.is_sound(label)


@pytest.mark.parametrize("label", ["defect", "not ok", "scratches", "cleaning mark"])
def test_a_defect_is_not_taken_for_sound_steel(label):
    assert not taxonomy.is_sound(label)
