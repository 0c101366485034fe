"""Answers that a live model denies: which are told, which are not, and that nothing is touched."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from active_learning import recheck as module
from active_learning.__main__ import app
from active_learning.desk import Desk, open_desk
from active_learning.inbox import Arrival, Inbox
from active_learning.labelling import NO_DEFECT
from active_learning.outbox import pushing
from active_learning.outlook import versions_of
from active_learning.recheck import Rechecked, confirm, recheck
from core.errors import InputError
from core.geometry import mask_record
from core.records import Annotation
from core.settings import PathSettings, Settings
from core.types import Task
from models._release import read_release, write_config
from tests.active_learning.review_desk import picture
from tests.records import make_run, write_folder
from tests.training.canned import Canned
from training.datasets import Dataset, open_dataset

pytestmark = pytest.mark.usefixtures("logging_as_before")  # commands are run in this process

AT = datetime(2026, 5, 4, tzinfo=UTC)
SERVED: Mapping[Task, tuple[str, str]] = {
    "detect": ("grace", "neu-det"),
    "segment": ("sme_deeplabv3plus", "neu-seg"),
    "classify": ("mobilesteelnet", "neu-cls"),
}


@dataclass
class Mill:
    """One served model, its data set, and people who answer."""

    settings: Settings
    desk: Desk
    dataset: Dataset
    task: Task
    answers: dict[str, Any]  # of the model, by image
    loaded: int = 0

    def move_to(self, ledger_url: str) -> None:
        """Go on with an empty ledger of another kind."""
        self.desk.ledger.close()
        paths = self.settings.paths.model_copy(update={"ledger_url": ledger_url})
        self.settings = self.settings.model_copy(update={"paths": paths})
        self.desk = open_desk(self.settings)

    def answered(self, seed: int, said: object, *, minutes: int = 0, **marked: Any) -> str:
        """A person marks a new picture of 60 × 40 px, of which the model will say `said`."""
        data = picture(seed)
        sha256 = hashlib.sha256(data).hexdigest()
        why = ["crazing 0.40 is in doubt"]
        item = self.desk.queue.add(data, inspections=[], reasons=why, priority=0.5)
        with pushing(self.desk.queue) as outbox:
            outbox.claim(1, ids=[item.id])
            outbox.mark_sent(item.id, task_id=seed)
            outbox.mark_verified(item.id)
        self.answers[sha256] = said
        self.take(seed, sha256, minutes=minutes, **marked)
        return sha256

    def take(self, task_id: int, sha256: str, *, minutes: int = 0, **marked: Any) -> None:
        annotation = Annotation(
            image_sha256=sha256,
            width=60,
            height=40,
            annotator="ann",
            created_at=AT,
            task_id=task_id,
            annotation_id=task_id,
            **marked,
        )
        arrival = Arrival(
            task_id=task_id,
            annotation_id=task_id,
            updated_at=AT + timedelta(minutes=minutes),
            kind="annotated",
            image_sha256=sha256,
            annotation=annotation,
        )
        self.desk.inbox.take([arrival])

    def load(self, _: object) -> Canned:
        self.loaded += 1
        return Canned(self.task, self.dataset.labels, self.answers)

    def recheck(self) -> Rechecked:
        return recheck(self.settings, self.desk, load=self.load)

    def reasons(self) -> list[tuple[str, ...]]:
        return [look.reasons for look in self.recheck().doubted]


@pytest.fixture
def mill(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Mill]:
    task: Task = getattr(request, "param", "classify")
    model, name = SERVED[task]
    data = tmp_path / "data"
    shutil.copytree(tiny_data_root / name, data / "datasets" / name)
    dataset = open_dataset(name, data / "datasets")
    paths = PathSettings(data=data, runs=tmp_path / "runs", bundled=tmp_path / "bundled")
    run = make_run(model=model, dataset=name, dataset_id=dataset.id, labels=dataset.labels)
    title = "GRACE (for tests)"
    write_folder(paths.bundled / model, run=run, task=task, title=title, score_threshold=0.3)
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(data))
    monkeypatch.setenv("ROLLMARK_PATHS__BUNDLED", str(paths.bundled))
    settings = Settings(paths=paths)
    desk = open_desk(settings)
    made = Mill(settings, desk, dataset, task, {})
    yield made
    made.desk.ledger.close()


def sure_of(mill: Mill, label: str, probability: float = 0.9) -> list[float]:
    """What a classifier says that gives one class this probability."""
    rest = (1 - probability) / (len(mill.dataset.labels) - 1)
    return [probability if name == label else rest for name in mill.dataset.labels]


def test_an_answer_that_the_live_model_surely_denies_is_told_with_its_task(mill: Mill) -> None:
    sha256 = mill.answered(7, sure_of(mill, "crazing"), label="scratches")
    found = mill.recheck()
    (look,) = found.doubted
    assert (found.images, look.image_sha256, look.task_id, look.annotator) == (1, sha256, 7, "ann")
    assert look.reasons == ("GRACE is sure (0.90) of crazing where the answer says scratches",)


@pytest.mark.parametrize(
    ("label", "probability"),
    [
        pytest.param("scratches", 0.7, id="the model is not sure"),
        pytest.param("crazing", 0.9, id="the model agrees"),
        pytest.param(NO_DEFECT, 0.9, id="the model has no class for sound steel"),
    ],
)
def test_what_the_model_cannot_surely_deny_is_not_told(
    mill: Mill, label: str, probability: float
) -> None:
    mill.answered(1, sure_of(mill, "crazing", probability), label=label)
    assert mill.reasons() == []


def test_no_defect_means_the_class_that_a_classifier_has_for_sound_steel(mill: Mill) -> None:
    mill.dataset = replace(mill.dataset, labels=("crack", "good"))
    run = read_release(mill.settings.paths.bundled / "mobilesteelnet").run
    run = run.model_copy(update={"labels": mill.dataset.labels})
    shutil.rmtree(mill.settings.paths.bundled)
    folder = mill.settings.paths.bundled / "mobilesteelnet"
    write_folder(folder, run=run, task="classify", title="GRACE (for tests)")
    mill.answered(1, [0.9, 0.1], label=NO_DEFECT)
    mill.answered(2, [0.1, 0.9], label=NO_DEFECT)
    assert mill.reasons() == [("GRACE is sure (0.90) of crack where the answer says good",)]


def test_the_surest_denial_comes_first(mill: Mill) -> None:
    for seed, probability in ((1, 0.8), (2, 0.95), (3, 0.85)):
        mill.answered(seed, sure_of(mill, "crazing", probability), label="scratches")
    assert [look.task_id for look in mill.recheck().doubted] == [2, 3, 1]


def test_an_answer_that_was_given_again_has_been_looked_at_again(mill: Mill) -> None:
    sha256 = mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    assert len(mill.recheck().doubted) == 1
    mill.take(1, sha256, minutes=5, label="inclusion")
    assert mill.recheck() == Rechecked(images=0, doubted=(), unable=())


def test_an_answer_of_another_labelling_project_has_no_task_here_to_be_corrected_in(
    mill: Mill,
) -> None:
    sha256 = mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    assert len(mill.recheck().doubted) == 1
    here = mill.desk.inbox
    mill.desk = replace(mill.desk, inbox=Inbox(here.ledger, project="7", who="tests"))
    mill.take(3, sha256, minutes=5, label="inclusion")
    mill.desk = replace(mill.desk, inbox=here)
    assert mill.recheck() == Rechecked(images=0, doubted=(), unable=())


def test_an_answer_that_stands_after_a_second_look_is_not_told_any_more(
    mill: Mill, ledger_url: str
) -> None:
    mill.move_to(ledger_url)
    for seed in (1, 2):
        mill.answered(seed, sure_of(mill, "crazing"), label="scratches")
    before = mill.desk.inbox.current()
    confirm(mill.desk, 1, who="bea")
    assert [look.task_id for look in mill.recheck().doubted] == [2]
    assert mill.desk.inbox.current() == before
    (item,) = mill.desk.queue.items(task_id=1)
    *_, last = mill.desk.ledger.events(f"review_item:{item.id}")
    assert (last.who, last.what) == ("bea", "looked at again: the answer stands")


def test_only_what_somebody_has_answered_can_stand(mill: Mill) -> None:
    with pytest.raises(InputError, match="Nobody has answered a task 9"):
        confirm(mill.desk, 9, who="bea")


def test_the_same_answer_read_twice_is_still_one(mill: Mill) -> None:
    sha256 = mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    mill.take(1, sha256, label="scratches")
    assert len(mill.recheck().doubted) == 1


def test_a_training_image_is_not_judged_by_who_learned_its_old_label(mill: Mill) -> None:
    known = mill.dataset.split("leak-free", "train")[0]
    mill.desk.queue.images.put(known.path.read_bytes())
    mill.take(1, known.sha256, label="scratches")
    assert mill.recheck() == Rechecked(images=0, doubted=(), unable=())
    assert mill.loaded == 0


def test_an_answer_that_the_live_model_learned_from_is_not_judged_by_it(mill: Mill) -> None:
    mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    version = versions_of(mill.settings, mill.desk).next_version(mill.dataset.name)
    folder = mill.settings.paths.bundled / "mobilesteelnet"
    config = read_release(folder)
    run = config.run.model_copy(update={"dataset_id": version.id})
    write_config(folder, config.model_copy(update={"run": run}))
    assert mill.recheck() == Rechecked(images=0, doubted=(), unable=())


def test_nothing_is_changed_and_nothing_is_sent(mill: Mill) -> None:
    mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    before = (mill.desk.inbox.current(), mill.desk.queue.counts(), mill.desk.inbox.cursor())
    assert len(mill.recheck().doubted) == 1
    assert (mill.desk.inbox.current(), mill.desk.queue.counts(), mill.desk.inbox.cursor()) == before


def test_a_picture_that_is_damaged_is_left_out(mill: Mill) -> None:
    lost = mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    mill.answered(2, sure_of(mill, "crazing"), label="scratches")
    mill.desk.queue.images.path(lost).write_bytes(b"no picture")
    found = mill.recheck()
    assert (found.images, [look.task_id for look in found.doubted]) == (1, [2])


def test_a_model_whose_training_images_are_not_known_judges_nothing(mill: Mill) -> None:
    mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    shutil.rmtree(mill.dataset.root)
    found = mill.recheck()
    assert (found.images, found.doubted) == (0, ())
    (why,) = found.unable
    assert why == (
        "What mobilesteelnet learned from is not known here, so nothing is judged by it: prepare "
        f"neu-cls as it was, version {mill.dataset.id[:12]}."
    )


BOX = (0.0, 0.0, 20.0, 20.0)


@pytest.mark.parametrize("mill", ["detect"], indirect=True)
@pytest.mark.parametrize(
    ("said", "reasons"),
    [
        pytest.param([(0, 0.9, *BOX)], (), id="found in its place"),
        pytest.param([], (), id="missed: that is what people are asked for"),
        pytest.param(
            [(0, 0.9, *BOX), (5, 0.8, 40, 20, 60, 40)],
            ("GRACE is sure (0.80) of scratches where nothing is marked, at (50, 30) px",),
            id="overlooked",
        ),
        pytest.param([(0, 0.9, *BOX), (5, 0.7, 40, 20, 60, 40)], (), id="not sure of another"),
        pytest.param(
            [(5, 0.9, *BOX)],
            ("GRACE is sure (0.90) of scratches where the answer says crazing, at (10, 10) px",),
            id="swapped",
        ),
        pytest.param(
            [(0, 0.9, 0, 0, 20, 8)],  # 160 of 400 px
            (
                "GRACE is sure (0.90) of crazing, but its box and the one that was drawn overlap "
                "by 0.40, at (10, 10) px",
            ),
            id="elsewhere",
        ),
        pytest.param([(0, 0.6, 0, 0, 20, 8)], (), id="elsewhere, and not sure"),
    ],
)
def test_boxes_are_denied_by_what_the_detector_is_sure_of(
    mill: Mill, said: object, reasons: tuple[str, ...]
) -> None:
    mill.answered(1, said, boxes=(("crazing", BOX),))
    assert mill.reasons() == ([reasons] if reasons else [])


@pytest.mark.parametrize("mill", ["segment"], indirect=True)
def test_a_region_that_was_not_brushed_is_told_and_one_that_is_not_seen_is_not(mill: Mill) -> None:
    labels = mill.dataset.labels
    found, brushed = np.zeros((2, 40, 60), np.uint8)
    found[10:20, 40:50] = 2
    brushed[10:20, 10:20] = 1
    mask = mask_record(brushed, len(labels))
    mill.answered(1, found, mask=mask, mask_labels=labels)
    assert mill.reasons() == [
        (f"GRACE is sure (1.00) of {labels[1]} where nothing is marked, at (45, 15) px",)
    ]


def test_the_command_lists_what_to_open_and_says_how_many(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_load", mill.load)
    sha256 = mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    mill.answered(2, sure_of(mill, "scratches"), label="scratches")
    done = CliRunner().invoke(app, ["recheck"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"task 1: image {sha256[:12]}"  # without a token nobody knows the address
    assert lines[1] == "  GRACE is sure (0.90) of crazing where the answer says scratches"
    assert lines[2] == "1 of 2 reviewed images deserve a second look"
    assert "ROLLMARK_LABEL_STUDIO__TOKEN" in lines[3]
    (told,) = json.loads(CliRunner().invoke(app, ["recheck", "--json"]).stdout)["listed"]
    assert (told["task_id"], told["image_sha256"]) == (1, sha256)
    done = CliRunner().invoke(app, ["recheck", "--stands", "1"])
    assert done.stdout.splitlines() == ["0 of 1 reviewed images deserve a second look"]


def test_the_command_is_not_complete_where_a_model_cannot_be_asked(mill: Mill) -> None:
    mill.answered(1, sure_of(mill, "crazing"), label="scratches")
    shutil.rmtree(mill.dataset.root)
    done = CliRunner().invoke(app, ["recheck"])
    assert done.exit_code == 1
    assert "is not known here" in done.stderr.splitlines()[-1]
    assert "no reviewed image" in done.stdout
