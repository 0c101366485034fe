"""What is new for which model, and the window of what came in."""

from __future__ import annotations

import numpy as np
import pytest

from active_learning.drift import Seen, describe
from active_learning.incoming import Incoming
from active_learning.labelling import NO_DEFECT
from active_learning.leases import Leases
from active_learning.outlook import count_labels, outlook, outlooks, versions_of
from active_learning.retraining import LEASE, RetrainingRuns
from active_learning.status import read_status
from core.geometry import mask_record
from core.records import Annotation
from hub.registry import resolve
from models._release import read_release, write_config
from tests.active_learning.installation import DATASET, MODEL, installation
from training.datasets import open_dataset

__all__ = ["installation"]


@pytest.fixture
def ledger(installation, clock):
    opened = installation.ledger(clock=clock)
    yield opened
    opened.close()


def look(installation, ledger):
    release = resolve(MODEL, installation.settings.paths)
    return outlook(installation.settings, installation.desk(ledger), release)


def test_an_answer_is_new_until_a_version_that_holds_it_was_trained_on(installation, ledger):
    desk = installation.desk(ledger)
    installation.answer(desk, 1, label="scratches")
    assert (look(installation, ledger).new_reviews, look(installation, ledger).due.now) == (
        1,
        False,
    )
    versions = versions_of(installation.settings, desk)
    version = versions.next_version(DATASET)
    # Frozen for another model's run: this model has not learned from it yet.
    assert look(installation, ledger).new_reviews == 1
    assert versions.answers_since(DATASET, version.id) == ()
    assert [a.label for a in versions.answers_since(DATASET, installation.base_id)] == ["scratches"]
    # Not in the ledger: the public set.
    assert len(versions.answers_since(DATASET, "f" * 64)) == 1


def test_a_run_on_another_set_does_not_tell_what_the_live_release_has_learned(installation, ledger):
    desk = installation.desk(ledger)
    installation.answer(desk, 2)
    version = versions_of(installation.settings, desk).next_version(DATASET)
    folder = resolve(MODEL, installation.settings.paths).folder
    config = read_release(folder)
    learned = config.run.model_copy(update={"dataset_id": version.id})
    write_config(folder, config.model_copy(update={"run": learned}))
    runs = RetrainingRuns(ledger, who="tests")
    with Leases(ledger).hold(LEASE, ttl_s=60) as lease:
        run = runs.request(lease, model=MODEL, dataset="x-sdd", why="due", incumbent="a")
        run = runs.take_up(run, lease)
        run = runs.reach(run, lease, "snapshot", version=installation.base_id)
        runs.end(run, lease, "refused", ("no better",))
    assert look(installation, ledger).new_reviews == 0


def test_answers_of_a_run_that_was_given_up_without_a_candidate_are_still_new(
    installation, ledger, clock
):
    desk = installation.desk(ledger)
    installation.answer(desk, 2)
    version = versions_of(installation.settings, desk).next_version(DATASET).id
    runs = RetrainingRuns(ledger, who="tests")

    def run(*phases, **changes):
        with Leases(ledger).hold(LEASE, ttl_s=60) as lease:
            made = runs.request(lease, model=MODEL, dataset=DATASET, why="due", incumbent="a")
            made = runs.take_up(made, lease)
            for phase in phases:
                made = runs.reach(made, lease, phase, version=version, **changes)
            assert look(installation, ledger).new_reviews == 0  # while it may still learn them
            runs.end(made, lease, "refused", ("given up, or no better",))
        clock.pass_s(25 * 3600)

    run("snapshot", "training")
    found = look(installation, ledger)
    assert (found.new_reviews, found.due.now) == (2, True)
    run("snapshot", "training", "evaluated", candidate="b" * 12)
    run()  # the next one is given up at once
    assert look(installation, ledger).new_reviews == 0


def test_what_the_new_answers_name_is_counted_beside_what_training_has(installation, ledger):
    installation.answer(installation.desk(ledger), 2, label="scratches")
    found = look(installation, ledger)
    assert found.new_labels == {"scratches": 2}
    assert set(found.training_labels) == set(installation.labels)
    assert found.due.now
    assert found.drift is None  # the release has no reference


def test_answers_about_test_images_are_nothing_to_train_on(installation, ledger):
    public = open_dataset(DATASET, installation.settings.paths.datasets)
    installation.images = [s.sha256 for s in public.samples if "test" in s.splits.values()][:2]
    installation.answer(installation.desk(ledger), 2)
    found = look(installation, ledger)
    assert (found.new_reviews, found.due.now) == (0, False)
    assert found.due.why == "0 of 2 newly reviewed images."


def test_an_answer_that_the_model_cannot_learn_from_is_not_new_for_it(installation, ledger):
    # A classifier of defects has no class for sound steel.
    installation.answer(installation.desk(ledger), 2, label=NO_DEFECT)
    found = look(installation, ledger)
    assert (found.new_reviews, found.new_labels, found.due.now) == (0, {}, False)


def test_a_data_set_that_is_not_prepared_is_told_instead_of_trained_on(installation, ledger):
    installation.answer(installation.desk(ledger), 2)
    (installation.settings.paths.datasets / DATASET / "dataset.json").unlink()
    (installation.settings.paths.datasets / DATASET / "samples.jsonl").touch()
    found = look(installation, ledger)
    assert not found.due.now
    assert "is not prepared" in found.due.why


def test_drift_is_that_of_the_latest_inspections_of_this_model(installation, ledger):
    rows = [(k / 100, 0.2) for k in range(100)]
    reference = describe(rows, [("crazing", 0.9)] * 100)
    folder = resolve(MODEL, installation.settings.paths).folder
    config = read_release(folder)
    write_config(folder, config.model_copy(update={"drift": reference.model_dump(mode="json")}))
    window = Incoming(ledger, window=installation.settings.retraining.drift_window)
    window.add([(MODEL, config.revision, Seen(0.95, 0.2, "crazing", 0.9))] * 120)
    window.add([("grace", config.revision, Seen(0.1, 0.2, "crazing", 0.9))] * 5)
    drift = look(installation, ledger).drift
    assert drift.n == 120
    assert drift.worst()[0] == "brightness"
    assert drift.psi["contrast"] == drift.psi["class"] == 0.0


def test_what_the_release_before_has_said_is_no_drift(installation, ledger):
    """It was half as sure as the new one is on its validation images, of the same steel."""
    new = resolve(MODEL, installation.settings.paths)
    reference = describe([(0.5, 0.2)] * 100, [("crazing", 0.9)] * 100)
    told = {"drift": reference.model_dump(mode="json")}
    write_config(new.folder, new.config.model_copy(update=told))
    window = Incoming(ledger, window=installation.settings.retraining.drift_window)
    window.add([(MODEL, "of before", Seen(0.5, 0.2, "nothing", 0.45))] * 200)
    assert look(installation, ledger).drift.n == 0
    window.add([(MODEL, new.config.revision, Seen(0.5, 0.2, "crazing", 0.9))] * 100)
    found = look(installation, ledger).drift
    assert (found.n, found.worst()[1]) == (100, 0.0)


def test_the_window_keeps_the_latest_of_each_model(ledger):
    window = Incoming(ledger, window=3)
    window.add([("a", "1", Seen(k / 10, 0.0, "x", 0.0)) for k in range(5)])
    window.add([("b", "1", Seen(0.9, 0.0, "x", 0.0)), ("a", "1", Seen(0.7, 0.0, "x", 0.0))])
    assert [s.brightness for s in window.latest("a", "1")] == [0.3, 0.4, 0.7]
    assert [s.brightness for s in window.latest("b", "1")] == [0.9]
    assert window.latest("a", "2") == window.latest("c", "1") == ()
    window.add([("a", "2", Seen(0.8, 0.0, "x", 0.0))])
    assert [s.brightness for s in window.latest("a", "1")] == [0.4, 0.7]


def test_status_says_which_model_is_due_and_why(installation, ledger):
    desk = installation.desk(ledger)
    told = read_status(installation.settings, desk)["due"]
    assert told == {
        "now": False,
        "why": "0 of 2 newly reviewed images.",
    }
    installation.answer(desk, 2)
    assert read_status(installation.settings, desk)["due"] == {
        "now": True,
        "why": "2 of 2 newly reviewed images.",
    }
    assert [view.model for view in outlooks(installation.settings, desk)] == [MODEL]


def test_status_names_the_version_of_each_data_set_as_commands_take_it(installation, ledger):
    desk = installation.desk(ledger)
    assert read_status(installation.settings, desk)["versions"] == []
    installation.answer(desk, 2, label="scratches")
    version = versions_of(installation.settings, desk).next_version(DATASET)
    (named,) = read_status(installation.settings, desk)["versions"]
    assert named == f"neu-cls@{version.id[:12]}"
    assert open_dataset(named, installation.settings.paths.data / "datasets").id == version.id


def test_labels_are_counted_as_the_task_has_them():
    class_map = np.zeros((10, 10), np.uint8)
    class_map[0, 0] = 2  # of inclusion and patches, which could be brushed
    said = Annotation(
        image_sha256="0" * 64,
        width=10,
        height=10,
        boxes=(("crazing", (0, 0, 1, 1)), ("crazing", (2, 2, 3, 3))),
        mask=mask_record(class_map, 2),
        mask_labels=("inclusion", "patches"),
        label="scratches",
        annotator="ann",
        created_at="2026-05-04T12:00:00Z",
    )
    assert count_labels((said,), "detect") == {"crazing": 2}
    assert count_labels((said,), "segment") == {"patches": 1}
    assert count_labels((said,), "classify") == {"scratches": 1}
