"""Versions: reproducible, complete, and never a reviewed image in an acceptance test."""

from __future__ import annotations

import hashlib
import io
import os
import signal
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from active_learning.growth import grow, look_at
from active_learning.inbox import Arrival, Inbox
from active_learning.versions import Versions
from core.errors import DatasetError, LedgerError
from core.geometry import mask_record
from core.ledger import open_ledger
from core.records import Annotation
from tests.databases import in_children
from training.datasets import Dataset, Sample, open_dataset

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
BOX = (1.0, 2.0, 30.0, 40.0)


def said(sha256, *, label="scratches", choice=None, size=(200, 200), **more):
    more = more or {"boxes": ((label, BOX),)}
    return Annotation(
        label=choice,
        image_sha256=sha256,
        width=size[0],
        height=size[1],
        annotator="ann",
        created_at=NOON,
        **more,
    )


# --- the pure part -----------------------------------------------------------------------------

NEW = "f" * 64


def brushed(n_px, *labels, choice=None):
    """An answer about `NEW` with so many pixels of the last label brushed, none of the others."""
    class_map = np.zeros((200, 200), np.uint8)
    class_map[0, :n_px] = len(labels)
    mask = mask_record(class_map, len(labels))
    return said(NEW, mask=mask, mask_labels=labels, choice=choice)


def sample(n, group, paper, leak_free):
    return Sample(
        file=f"{n:03d}.png",
        path=Path(f"{n:03d}.png"),
        sha256=f"{n:064d}",
        width=200,
        height=200,
        group=group,
        boxes=(("crazing", BOX),),
        splits={"paper": paper, "leak-free": leak_free},
    )


def dataset(*samples):
    return Dataset("neu-det", "detect", ("crazing", "scratches"), Path(), samples)


SMALL = dataset(
    sample(1, "g1", "train", "train"),
    sample(2, "g2", "val", "val"),
    sample(3, "g3", "test", "train"),
    sample(4, "g4", "train", "test"),
)


def test_a_reviewed_training_image_gets_the_reviewers_boxes_and_keeps_its_split():
    growth = grow(SMALL, SMALL, [said(f"{1:064d}")], groups={})
    assert growth.samples[0].boxes == (("scratches", BOX),)
    assert growth.samples[0].splits == {"paper": "train", "leak-free": "train"}
    assert growth.samples[1:] == SMALL.samples[1:]


@pytest.mark.parametrize("n", [3, 4], ids=["of the paper's split", "of the leak-free split"])
def test_a_reviewed_test_image_is_left_as_it_was(n):
    growth = grow(SMALL, SMALL, [said(f"{n:064d}")], groups={})
    assert growth.samples == SMALL.samples
    assert growth.left_out == {f"{n:064d}": "it is a test image"}


def test_a_new_image_that_shows_the_steel_of_a_test_image_is_left_out():
    growth = grow(SMALL, SMALL, [said(NEW)], groups={NEW: "g4"})
    assert growth.samples == SMALL.samples
    assert growth.left_out == {NEW: "it shows the same steel as a test image"}


def test_a_new_image_goes_where_its_group_is():
    for group, split in (("g1", "train"), ("g2", "val")):
        added = grow(SMALL, SMALL, [said(NEW)], groups={NEW: group}).samples[-1]
        assert (added.group, added.splits) == (group, {"paper": split, "leak-free": split})


def test_a_new_group_is_drawn_by_its_name_one_in_eight_to_val():
    names = [f"steel {n}" for n in range(800)]
    shas = {f"{n:063d}f": name for n, name in enumerate(names)}
    growth = grow(SMALL, SMALL, [said(sha) for sha in shas], groups=shas)
    added = [s for s in growth.samples if s.file.startswith("review-")]
    in_val = [s.group for s in added if s.splits["leak-free"] == "val"]
    # 800 draws of 1/8: 100, standard deviation 9.4
    assert 70 <= len(in_val) <= 130
    # the first eighth of all hashes begins with a byte below 32
    digests = {n: hashlib.sha256(n.encode()).digest()[0] for n in names}
    assert all((name in in_val) == (digest < 32) for name, digest in digests.items())


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (said(NEW, label="rust"), "neu-det has no class 'rust'"),
        (brushed(4, "scratches"), "a defect was named and no box was drawn"),
        (said(NEW, boxes=(), choice="scratches"), "a defect was named and no box was drawn"),
        (said(NEW, choice="crazing"), "'crazing' was named and has no box"),
        (
            brushed(4, "crazing").model_copy(update={"boxes": (("scratches", BOX),)}),
            "'crazing' was named and has no box",
        ),
    ],
    ids=["class", "mask alone", "choice alone", "another choice", "another class brushed"],
)
def test_what_cannot_train_the_set_is_left_out_with_a_reason(annotation, reason):
    assert grow(SMALL, SMALL, [annotation], groups={}).left_out == {NEW: reason}


@pytest.mark.parametrize(
    "annotation",
    # Label Studio's "no defect" arrives with an empty mask of every class that could be brushed.
    [
        said(NEW, boxes=()),
        brushed(0, "patches", "scratches", choice="no defect"),
        said(NEW, boxes=(), choice="ok"),
    ],
    ids=["submitted as it was", "no defect", "a classifier's own class for it"],
)
def test_an_image_on_which_a_person_saw_nothing_is_kept_without_boxes(annotation):
    growth = grow(SMALL, SMALL, [annotation], groups={})
    assert (growth.samples[-1].sha256, growth.samples[-1].boxes) == (NEW, ())


@pytest.mark.parametrize(
    "annotation",
    [
        said(NEW, choice="scratches"),
        said(NEW, choice="rust"),
        brushed(4, "rust").model_copy(update={"boxes": (("scratches", BOX),)}),
    ],
    ids=["named twice", "chosen", "brushed"],
)
def test_what_a_set_has_no_class_for_may_be_marked_in_other_ways(annotation):
    growth = grow(SMALL, SMALL, [annotation], groups={})
    assert growth.samples[-1].boxes == (("scratches", BOX),)


def test_a_classifier_learns_the_class_of_an_image_whatever_else_is_marked_on_it():
    base = replace(SMALL, task="classify")
    growth = grow(base, base, [said(NEW, choice="crazing")], groups={})
    assert (growth.left_out, growth.samples[-1].label) == ({}, "crazing")


def test_a_class_alone_does_not_take_the_boxes_of_a_training_image_away():
    growth = grow(SMALL, SMALL, [said(f"{1:064d}", boxes=(), choice="crazing")], groups={})
    assert growth.samples == SMALL.samples


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (said(NEW), "a defect was named and nothing was brushed"),
        (said(NEW, boxes=(), choice="scratches"), "a defect was named and nothing was brushed"),
        (brushed(4, "rust"), "neu-seg has no class 'rust'"),
        (
            brushed(4, "patches").model_copy(update={"boxes": (("scratches", BOX),)}),
            "'scratches' was named and was not brushed",
        ),
    ],
    ids=["boxes alone", "choice alone", "class", "another class boxed"],
)
def test_what_cannot_train_a_segmenter_is_left_out_with_a_reason(annotation, reason):
    base = Dataset("neu-seg", "segment", ("patches", "scratches"), Path(), SMALL.samples)
    assert grow(base, base, [annotation], groups={}).left_out == {NEW: reason}


def test_no_defect_is_a_classifiers_own_class_for_sound_steel_where_it_has_one():
    seen = replace(SMALL, task="classify", labels=("dent", "ok"))
    unseen = replace(SMALL, task="classify", labels=("dent", "rust"))
    nothing = said(NEW, choice="no defect", boxes=())
    grown = grow(seen, seen, [nothing], groups={NEW: "g1"})
    assert grown.samples[-1].label == "ok"
    assert grow(unseen, unseen, [nothing], groups={NEW: "g1"}).left_out == {
        NEW: "neu-det has no class 'no defect'"
    }


def test_two_annotations_of_one_image_are_refused():
    with pytest.raises(DatasetError, match="Two annotations are about one image"):
        grow(SMALL, SMALL, [said(NEW), said(NEW)], groups={})


SPLIT = st.sampled_from(["train", "val", "test"])


@st.composite
def histories(draw):
    """A public set, and three rounds of answers about images in it and new ones."""
    group_split = draw(st.lists(SPLIT, min_size=3, max_size=6))
    n = draw(st.integers(3, 12))
    members = [draw(st.integers(0, len(group_split) - 1)) for _ in range(n)]
    base = dataset(
        *(sample(i, f"g{g}", draw(SPLIT), group_split[g]) for i, g in enumerate(members))
    )
    shas = [s.sha256 for s in base.samples] + [f"{i:063d}f" for i in range(8)]
    names = [f"g{g}" for g in range(len(group_split))] + ["r-1", "r-2", "r-3"]
    groups = {sha: draw(st.sampled_from(names)) for sha in shas[n:]}
    answered = st.dictionaries(st.sampled_from(shas), st.sampled_from(base.labels))
    return base, groups, [draw(answered) for _ in range(3)]


@settings(max_examples=80)
@given(histories(), st.randoms(use_true_random=False))
def test_no_review_ever_reaches_a_test_split(history, shuffler):
    base, groups, rounds = history
    parent = base
    for answers in rounds:
        annotations = [said(sha, label=label) for sha, label in answers.items()]
        known = {s.sha256 for s in parent.samples}  # only new images are looked at
        looked = {sha: group for sha, group in groups.items() if sha not in known}
        growth = grow(base, parent, annotations, groups=looked)
        shuffler.shuffle(annotations)
        assert grow(base, parent, annotations, groups=looked) == growth
        version = dataset(*growth.samples)
        for protocol in ("paper", "leak-free"):
            tested = version.split(protocol, "test")
            assert tested == base.split(protocol, "test")
            assert version.test_id(protocol, "test") == base.test_id(protocol, "test")
            assert not {s.sha256 for s in tested} & growth.sources.keys()
        assert growth.sources.keys() | growth.left_out.keys() == answers.keys()
        assert not growth.sources.keys() & growth.left_out.keys()
        for grown in version.samples:
            if grown.sha256 in growth.sources:
                assert grown.boxes == ((answers[grown.sha256], BOX),)
        before = {s.sha256: (s.group, s.splits) for s in parent.samples}
        after = {s.sha256: (s.group, s.splits) for s in version.samples}
        assert all(after[sha] == before[sha] for sha in before.keys() & after.keys())
        train, val = (
            {s.group for s in version.split("leak-free", split)} for split in ("train", "val")
        )
        assert not (train & val)
        parent = version


# --- with ledger and folders -------------------------------------------------------------------


def picture(seed):
    """Bytes of a 200 × 200 PNG of noise that resembles no other."""
    pixels = np.random.default_rng(seed).integers(0, 255, (200, 200), dtype=np.uint8)
    return png(pixels)


def png(pixels):
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def data_root(tmp_path, tiny_data_root):
    root = tmp_path / "datasets"
    root.mkdir()
    for name in ("neu-det", "neu-seg"):
        (root / name).symlink_to(tiny_data_root / name)
    return root


@pytest.fixture
def versions(ledger, images, data_root):
    return Versions(ledger, images, data_root, who="loop")


@pytest.fixture
def answer(inbox, images):
    """Takes an answer about an image, given by its bytes or by its hash."""
    numbers = iter(range(1, 1000))

    def answered(image, *, kind="annotated", annotation_id=None, minute=0, **more):
        sha256 = images.put(image) if isinstance(image, bytes) else image
        number = annotation_id or next(numbers)
        at = NOON + timedelta(minutes=minute)
        content = said(sha256, **more) if kind == "annotated" else None
        inbox.take([Arrival(number, number, at, kind, sha256, content)])
        return sha256

    return answered


def test_the_next_version_holds_the_new_image_and_can_be_opened(versions, answer, data_root):
    base = open_dataset("neu-det", data_root)
    sha256 = answer(picture(1))
    version = versions.next_version("neu-det")
    grown = versions.open(version)
    assert grown.id == version.id == open_dataset(f"neu-det@{version.id[:12]}", data_root).id
    [added] = [s for s in grown.samples if s.sha256 == sha256]
    assert (added.boxes, added.path.read_bytes()) == ((("scratches", BOX),), picture(1))
    assert added.file == f"review-{sha256}.png"
    assert len(grown.samples) == len(base.samples) + 1
    assert version.test_id == base.test_id("leak-free", "test")
    assert version.counts == grown.counts("leak-free")
    assert (version.parent, version.reviewed, version.dataset) == (base.id, 1, "neu-det")
    assert versions.head("neu-det") == version
    assert [v.id for v in versions.lineage(version)] == [version.id, base.id]


def test_what_a_kill_left_of_a_version_is_removed_once_it_is_old(versions, answer, data_root):
    left, fresh = data_root / ".neu-det@left", data_root / ".neu-det@fresh"
    for folder in (left, fresh):
        (folder / "new" / "images").mkdir(parents=True)
    os.utime(left, (0, 0))
    answer(picture(1))
    versions.next_version("neu-det")
    assert (left.exists(), fresh.exists()) == (False, True)


def test_without_new_answers_there_is_no_new_version(versions, answer, data_root):
    root = versions.next_version("neu-det")
    assert (root.id, root.parent) == (open_dataset("neu-det", data_root).id, None)
    answer(picture(1))
    version = versions.next_version("neu-det")
    assert version.id != root.id
    assert versions.next_version("neu-det") == version


def test_every_answer_goes_into_exactly_one_version_with_its_outcome(versions, answer, data_root):
    test_image = open_dataset("neu-det", data_root).split("leak-free", "test")[0].sha256
    answer(picture(1), annotation_id=1, minute=0)
    answer(picture(1), annotation_id=1, minute=5)
    first = versions.next_version("neu-det")
    answer(picture(2), annotation_id=2)
    answer(picture(1), annotation_id=1, minute=9, kind="deleted")
    answer(test_image, annotation_id=3)
    answer(picture(3), annotation_id=4, label="rust")
    second = versions.next_version("neu-det")
    assert versions.outcomes(first.id) == {1: "superseded", 2: "used"}
    assert versions.outcomes(second.id) == {
        3: "used",
        4: "withdrawn",
        5: "left out: it is a test image",
        6: "left out: neu-det has no class 'rust'",
    }
    shas = {s.sha256 for s in versions.open(second).samples}
    assert hashlib.sha256(picture(2)).hexdigest() in shas
    assert hashlib.sha256(picture(1)).hexdigest() not in shas


def test_an_image_that_a_larger_cap_let_in_is_learned_from(versions, answer):
    large = picture(1) + bytes(25_000_000)  # 25 MB are let in by default; the settings may say more
    answer(large)
    version = versions.next_version("neu-det")
    assert list(versions.outcomes(version.id).values()) == ["used"]


def test_a_project_of_another_title_adds_to_what_was_learned(versions, answer, ledger):
    kept, corrected = answer(picture(1)), answer(picture(2))
    first = versions.next_version("neu-det")
    new = hashlib.sha256(picture(3)).hexdigest()
    versions.images.put(picture(3))
    renamed = Inbox(ledger, project="7", who="pull")
    for number, sha256 in enumerate((new, corrected), start=1):
        content = said(sha256, label="patches")
        at = NOON + timedelta(hours=1)
        renamed.take([Arrival(number, number, at, "annotated", sha256, content)])
    assert {one.image_sha256 for one in versions.answers_since("neu-det", first.id)} == {
        new,
        corrected,
    }
    second = versions.next_version("neu-det")
    labels = {s.sha256: [label for label, _ in s.boxes] for s in versions.open(second).samples}
    assert (second.parent, second.reviewed) == (first.id, 3)
    assert labels[kept] == ["scratches"]
    assert labels[corrected] == labels[new] == ["patches"]
    assert list(versions.outcomes(second.id).values()) == ["used", "used"]
    assert versions.next_version("neu-det") == second


def test_withdrawing_every_answer_leads_back_to_the_public_set(versions, answer):
    answer(picture(1), annotation_id=1)
    grown = versions.next_version("neu-det")
    answer(picture(1), annotation_id=1, minute=1, kind="deleted")
    back = versions.next_version("neu-det")
    assert (back.parent, back.reviewed) == (None, 0)
    assert grown.parent == back.id == versions.head("neu-det").id


def test_an_answer_that_was_learned_stays_so_when_another_one_is_withdrawn(versions, answer):
    answer(picture(1))
    first = versions.next_version("neu-det")
    answer(picture(2), annotation_id=500)
    second = versions.next_version("neu-det")
    answer(picture(2), annotation_id=500, minute=1, kind="deleted")
    assert versions.next_version("neu-det") == first
    assert versions.answers_since("neu-det", second.id) == ()


def test_a_turned_copy_of_a_test_image_is_left_out(versions, answer, data_root):
    tested = open_dataset("neu-det", data_root).split("leak-free", "test")[0]
    with PillowImage.open(tested.path) as original:
        turned = png(np.rot90(np.asarray(original.convert("L"))))
    answer(turned)
    version = versions.next_version("neu-det")
    assert versions.outcomes(version.id) == {1: "left out: it shows the same steel as a test image"}


def test_an_image_that_binds_training_steel_to_test_steel_counts_as_test_steel(
    images, data_root, monkeypatch
):
    """The groups' names must not decide: here the training group's comes first."""
    parent = open_dataset("neu-det", data_root)
    groups = {s.splits["leak-free"]: s.group for s in sorted(parent.samples, key=lambda s: s.file)}
    low, high = sorted((groups["train"], groups["test"]))
    renamed = {groups["train"]: low, groups["test"]: high}
    samples = tuple(replace(s, group=renamed.get(s.group, s.group)) for s in parent.samples)

    def bound(keys, prints, *, related):
        groups = [s.group for s in samples]
        return ["one" if g in renamed else g for g in groups] + ["one"] * (len(keys) - len(groups))

    monkeypatch.setattr("active_learning.growth.content_groups", bound)
    new = said(images.put(picture(1)))
    looked = look_at(replace(parent, samples=samples), images, [new])
    assert looked.groups == {new.image_sha256: high}


def test_an_image_of_another_size_than_annotated_is_left_out(versions, answer):
    answer(picture(1), size=(100, 200))
    version = versions.next_version("neu-det")
    assert versions.outcomes(version.id) == {
        1: "left out: it is 200 × 200 px and was annotated as 100 × 200 px"
    }


def test_a_painted_mask_becomes_an_index_mask_of_the_data_set(versions, answer):
    class_map = np.zeros((200, 200), np.uint8)
    class_map[10:20, 30:60] = 1  # of the annotation's labels: scratches
    # Rust could be brushed, too, for another model of the project, and was not.
    labels = ("scratches", "rust")
    sha256 = answer(picture(1), mask=mask_record(class_map, 2), mask_labels=labels)
    grown = versions.open(versions.next_version("neu-seg"))
    [added] = [s for s in grown.samples if s.sha256 == sha256]
    with PillowImage.open(added.mask) as mask:
        found = np.asarray(mask)
    # neu-seg: inclusion 1, patches 2, scratches 3
    assert np.array_equal(found, class_map * 3)
    assert hashlib.sha256(added.mask.read_bytes()).hexdigest() == added.mask_sha256


def test_the_same_answers_make_the_same_version_elsewhere(
    versions, answer, images, tmp_path, tiny_data_root, inbox
):
    for seed in (3, 1, 2):
        answer(picture(seed))
    version = versions.next_version("neu-det")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "neu-det").symlink_to(tiny_data_root / "neu-det")
    with closing(open_ledger(f"sqlite:///{tmp_path}/other.db")) as ledger:
        other = Inbox(ledger, project="Rollmark", who="pull")
        for n, annotation in enumerate(reversed(inbox.current()), start=70):
            other.take([Arrival(n, n, NOON, "annotated", annotation.image_sha256, annotation)])
        again = Versions(ledger, images, tmp_path / "elsewhere", who="loop").next_version("neu-det")
    assert again.id == version.id


def test_a_version_folder_that_was_changed_is_refused(versions, answer, data_root):
    answer(picture(1))
    version = versions.next_version("neu-det")
    lines = data_root / version.folder / "samples.jsonl"
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DatasetError, match=r"not [0-9a-f]{12}: it was changed or prepared anew"):
        versions.open(version)


def test_of_two_processes_making_a_version_at_once_one_is_told(versions, answer):
    answer(picture(1))
    slow = Versions(
        versions.ledger,
        versions.images,
        versions.data_root,
        who="loop",
        on_point=lambda point: versions.next_version("neu-det"),
    )
    with pytest.raises(LedgerError, match="Another process made a version of neu-det meanwhile"):
        slow.next_version("neu-det")
    assert versions.outcomes(versions.head("neu-det").id) == {1: "used"}


@pytest.mark.parametrize("point", ["version:folder", "version:written", "version:committed"])
def test_a_kill_while_a_version_is_made_changes_nothing_about_it(
    versions, answer, ledger_url, point
):
    answer(picture(1))

    def dies(here):
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def makes():
        Versions(
            open_ledger(ledger_url),
            versions.images,
            versions.data_root,
            who="loop",
            on_point=dies,
        ).next_version("neu-det")

    assert in_children(makes) == [-signal.SIGKILL]
    version = versions.next_version("neu-det")
    assert versions.outcomes(version.id) == {1: "used"}
    assert versions.open(version).id == version.id
    assert [p.name for p in versions.data_root.glob("neu-det@*")] == [version.folder]
