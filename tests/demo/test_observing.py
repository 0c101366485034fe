"""After the answer: the drift window and the candidate in the shadow, and no answer the worse."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from active_learning.incoming import Incoming
from core.errors import LedgerError
from core.images import decode
from core.records import Inspection
from core.settings import PathSettings, RetrainingSettings, Settings
from demo import observing
from demo import shadow as shadow_module
from demo.observing import Observer
from demo.service import Service
from tests.active_learning.review_desk import picture
from tests.demo import releases
from tests.demo.fakes import FakePredictor, Loader
from tests.demo.releases import PICTURE


def seen(service: Service, model: str) -> int:
    service._observer.settle()
    ledger = service.review.open(service.releases()).ledger
    return len(Incoming(ledger, window=500).latest(model, service.choose(model).config.revision))


def test_every_inspection_enters_the_window_of_its_model(service: Service) -> None:
    for seed in range(3):
        service.inspect(picture(seed), "grace")
    service.inspect(picture(0), "da_yolo")
    assert (seen(service, "grace"), seen(service, "da_yolo")) == (3, 1)


def test_a_score_threshold_that_somebody_moved_is_no_drift(service: Service) -> None:
    answer = service.inspect(picture(0), "grace", score_threshold=1.0)
    assert not answer.inspection.detections
    usual = service.inspect(picture(0), "grace").inspection.detections
    service._observer.settle()
    ledger = service.review.open(service.releases()).ledger
    revision = service.choose("grace").config.revision
    moved, own = Incoming(ledger, window=500).latest("grace", revision)
    assert moved == own
    assert own.probability == max(box.probability for box in usual)


def test_the_pictures_that_come_with_the_app_are_left_out(service: Service) -> None:
    service.inspect(PICTURE, "grace")
    assert seen(service, "grace") == 0


def test_a_ledger_that_is_down_is_a_line_in_the_log_and_no_answer_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def down() -> None:
        raise LedgerError("the disk is full")

    observer = Observer(down, window=100)  # type: ignore[arg-type]
    image = decode(picture())
    observer.note(image, _inspected)
    observer.settle()
    assert "1 inspections are missing from the drift window: the disk is full" in caplog.text


def test_an_answer_that_cannot_be_read_again_does_not_end_the_looking(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable() -> Inspection:
        raise MemoryError

    service._observer.note(decode(picture(1)), unreadable)
    service.inspect(picture(0), "grace")
    assert seen(service, "grace") == 1
    assert "an inspection is missing from the drift window" in caplog.text


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted() -> None:
    gate = threading.Event()

    def waits() -> None:
        gate.wait(30)
        raise LedgerError("enough")

    observer = Observer(waits, window=100, beside=lambda answered: gate.wait(30) and None)  # type: ignore[arg-type]
    image = decode(picture())
    for _ in range(400):
        observer.note(image, _inspected)
    assert observer.dropped > 0
    gate.set()
    observer.settle()


def test_an_answer_is_looked_at_at_once_and_its_picture_not_kept_until_others_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(observing, "_PAUSE_S", 600.0)
    monkeypatch.setattr(observing, "_BATCH", 2)
    looked = threading.Event()

    def down() -> None:
        raise LedgerError("nothing is written here")

    observer = Observer(down, window=100, beside=lambda answered: looked.set())  # type: ignore[arg-type]
    image = decode(picture())
    observer.note(image, _inspected)
    assert looked.wait(60)
    observer.note(image, _inspected)
    observer.settle()


@pytest.fixture
def shadowed(
    paths: PathSettings, loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Service:
    """A live grace, and beside it for two images a candidate that finds nothing."""
    releases.describe(paths.bundled / "grace", "grace", task="detect")
    releases.describe(tmp_path / "candidate", "grace", task="detect", weights="e" * 64)

    class Blind(FakePredictor):
        def __call__(self, images, *, score_threshold):  # type: ignore[no-untyped-def]
            return super().__call__(images, score_threshold=1.0)

    monkeypatch.setattr(
        shadow_module, "load", lambda folder, *, device: Blind(shadow_module.read_release(folder))
    )
    retraining = RetrainingSettings(shadow=tmp_path / "candidate", shadow_images=2)
    return Service(Settings(paths=paths, retraining=retraining))


def test_where_the_candidate_disagrees_the_image_goes_into_the_queue(shadowed: Service) -> None:
    answer = shadowed.inspect(picture(0), "grace")
    assert answer.inspection.detections  # the live model's answer, whatever the candidate says
    shadowed._observer.settle()
    [item] = shadowed.review.open(shadowed.releases()).queue.items()
    assert "the live GRACE dddddddddddd and the candidate eeeeeeeeeeee disagree" in item.reasons
    assert not [reason for reason in item.reasons if "grace" in reason]  # the name, not the title


def test_a_score_threshold_that_somebody_moved_makes_no_disagreement(shadowed: Service) -> None:
    shadow = shadowed._observer._beside
    assert isinstance(shadow, shadow_module.Shadow)
    shadow._opened(Path(str(shadowed._settings.retraining.shadow)))
    assert shadow._config is not None
    shadow._predictor = FakePredictor(shadow._config)  # that sees what the live model sees
    shadowed.inspect(picture(0), "grace", score_threshold=1.0)
    shadowed._observer.settle()
    assert (shadow.looked, shadow.disagreed) == (1, 0)


def test_the_candidate_looks_at_so_many_images_and_no_more(shadowed: Service) -> None:
    for seed in range(4):
        shadowed.inspect(picture(seed), "grace")
    shadowed._observer.settle()
    shadow = shadowed._observer._beside
    assert isinstance(shadow, shadow_module.Shadow)
    assert (shadow.looked, shadow.disagreed) == (2, 2)


def test_a_candidate_that_cannot_be_loaded_harms_no_answer(
    shadowed: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "candidate" / "config.json").unlink()
    assert shadowed.inspect(picture(0), "grace").inspection.detections
    shadowed._observer.settle()
    assert "an answer was not looked at beside" in caplog.text


def _inspected() -> Inspection:
    from tests.active_learning.answers import by_detector

    return by_detector("grace", ("scratches", 0.9, (1.0, 2.0, 30.0, 30.0)))
