"""Batches: done once each, stopped, gone on with, found again after a restart, taken away."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import resource
import signal
import time
import zipfile
from collections.abc import Callable
from datetime import timedelta
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import InputError, UnknownModelError
from core.pitch import PixelPitch
from core.settings import PathSettings, Settings
from demo import batch_jobs, batch_markup
from demo.batch_exports import batch_coco, batch_csv, encode_batch
from demo.batch_jobs import Batches, Progress
from demo.batch_report import batch_report
from demo.batch_store import Answer, BatchStore, Job
from demo.batch_view import histogram, remarks, rows, sentence, severity
from demo.handlers import Shown, uploaded
from demo.service import Service
from demo.tabs import batch
from demo.unpack import Picture
from tests.demo import inspections
from tests.demo.releases import EXAMPLES

PICTURES = sorted(EXAMPLES.glob("*.jpg"))[:3]


@pytest.fixture
def batches(service: Service, paths: PathSettings) -> Batches:
    return Batches(service, Settings(paths=paths))


def files() -> list[tuple[Path, str]]:
    return [(path, path.name) for path in PICTURES]


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finished(batches: Batches, job: Job) -> Progress:
    batches.start()
    wait(lambda: batches.progress(job.id).job.state == "done")
    return batches.progress(job.id)


def test_every_picture_of_a_batch_is_answered(batches: Batches, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "coil.zip", "w") as archive:
        for path in PICTURES:
            archive.write(path, path.name)
        archive.writestr("broken.png", b"nothing")
        archive.writestr("notes.txt", b"x")
    dropped = [(tmp_path / "coil.zip", "coil.zip")]
    progress = finished(batches, batches.take(dropped, model="grace", score_threshold=None))
    assert progress.done == 4
    assert progress.failed == 1
    assert progress.job.title == "coil.zip"
    assert progress.job.left_out == 1
    [broken] = [a for a in progress.answers.values() if a.error]
    assert progress.job.names[broken.index] == "broken.png"
    assert "not an image file" in str(broken.error)
    found = [a.inspection for a in progress.answers.values() if a.inspection]
    assert all(len(inspection.detections) == 2 for inspection in found)  # what the fake finds


def test_a_page_of_a_long_batch_says_which_it_is_and_the_last_offers_no_more(
    batches: Batches, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (batch, batch_markup):
        monkeypatch.setattr(module, "PAGE", 2)
    job = batches.take(files(), model="grace", score_threshold=None)
    finished(batches, job)
    page: Any = SimpleNamespace(service=service, batches=batches)

    def shown(first: int) -> tuple[bool, bool, str]:
        *_, back, on, part, _, _ = batch._Page.show(page, job.id, first, None, None, "arrival")
        return back.interactive, on.interactive, part

    assert shown(0)[:2] == (False, True)
    assert "Pictures 1 to 2 of 3" in shown(0)[2]
    assert shown(2)[:2] == (True, False)
    assert "Picture 3 of 3" in shown(2)[2]


def test_the_number_of_pictures_is_told_once(batches: Batches, tmp_path: Path) -> None:
    three = batches.take(files(), model="grace", score_threshold=None)
    (tmp_path / "notes.txt").write_text("x")
    beside = [*files()[:1], (tmp_path / "notes.txt", "notes.txt")]
    one = batches.take(beside, model="grace", score_threshold=None)
    assert (three.title, one.title) == ("3 pictures", "1 picture")
    assert batch_markup.head(finished(batches, three)).count("3 pictures") == 1


def test_an_answer_that_is_kept_is_a_batch_of_one_and_is_not_asked_for_again(
    batches: Batches, service: Service, tmp_path: Path
) -> None:
    path = tmp_path / "cached"
    path.write_bytes(PICTURES[0].read_bytes())
    look = service.inspect(path, "grace", score_threshold=0.9)
    shown = Shown(str(path), "strip.jpg", look.inspection, look.prediction.labels, look.title)
    job = batches.keep(shown)
    path.unlink()
    progress = batches.progress(job.id)
    assert (progress.job.state, progress.job.names) == ("done", ("strip.jpg",))
    assert progress.answers[0].inspection == look.inspection  # with the threshold it was given at
    assert batches.store.picture(job.id, 0).read_bytes() == PICTURES[0].read_bytes()
    assert batches.store.tile(job.id, 0).read_bytes()[8:12] == b"WEBP"
    assert batches.keep_days == 7


def test_an_answer_whose_picture_was_cleared_cannot_be_kept(
    batches: Batches, service: Service, paths: PathSettings
) -> None:
    look = service.inspect(PICTURES[0], "grace", score_threshold=None)
    gone = Shown("gone.jpg", "strip.jpg", look.inspection, look.prediction.labels, look.title)
    with pytest.raises(InputError, match=r"strip\.jpg has been cleared from the server"):
        batches.keep(gone)
    assert not (paths.data / "jobs").exists()


def test_an_answer_that_a_full_disk_refuses_is_not_looked_at_again(
    batches: Batches, service: Service, paths: PathSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = service.inspect(PICTURES[0], "grace", score_threshold=None)
    shown = Shown(
        str(PICTURES[0]), "strip.jpg", look.inspection, look.prediction.labels, look.title
    )

    def full(job_id: str, answer: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(batches.store, "append", full)
    with pytest.raises(InputError, match="The answer cannot be kept: No space left on device"):
        batches.keep(shown)
    assert list((paths.data / "jobs").iterdir()) == []


def test_pictures_of_one_name_are_told_apart_by_archive_and_folder(
    batches: Batches, tmp_path: Path
) -> None:
    """Line cameras number their pictures anew for every coil."""
    data = PICTURES[0].read_bytes()
    for coil in ("coil 7", "coil 8"):
        with zipfile.ZipFile(tmp_path / f"{coil}.zip", "w") as archive:
            archive.writestr("north/001.jpg", data)
            archive.writestr("south\\001.jpg", data)
            archive.writestr(f"{coil}.jpg", data)
    dropped = [(tmp_path / f"{coil}.zip", f"{coil}.zip") for coil in ("coil 7", "coil 8")]
    job = batches.take(dropped, model="grace", score_threshold=None)
    assert job.names == (
        *("coil 7.jpg", "coil 7.zip/north/001.jpg", "coil 7.zip/south/001.jpg"),
        *("coil 8.jpg", "coil 8.zip/north/001.jpg", "coil 8.zip/south/001.jpg"),
    )
    alone = batches.take(dropped[:1], model="grace", score_threshold=None)
    assert alone.names == ("coil 7.jpg", "north/001.jpg", "south/001.jpg")


def test_a_name_that_no_file_can_have_is_told_without_what_is_no_text(batches: Batches) -> None:
    sent = {"path": str(PICTURES[0]), "orig_name": "x/a\ud83db\n.jpg"}
    path, name = uploaded({**sent, "meta": {"_type": "gradio.FileData"}})
    assert name == "a_b_.jpg"
    job = batches.take([(Path(path), name)], model="grace", score_threshold=None)
    assert (job.title, job.names) == ("a_b_.jpg", ("a_b_.jpg",))


def test_pictures_of_one_name_whose_folders_nobody_tells_are_numbered(batches: Batches) -> None:
    """A browser sends the files of a folder without the folders within it."""
    dropped = [(PICTURES[0], name) for name in ("1.jpg", "1.jpg", "2.jpg", "1.jpg")]
    job = batches.take(dropped, model="grace", score_threshold=None)
    assert job.names == ("1.jpg", "1.jpg (2)", "2.jpg", "1.jpg (3)")


def test_an_unknown_model_is_refused_before_anything_is_kept(
    batches: Batches, paths: PathSettings
) -> None:
    with pytest.raises(UnknownModelError):
        batches.take(files(), model="resnet", score_threshold=None)
    assert not (paths.data / "jobs").exists()


def test_a_batch_that_an_earlier_app_left_goes_on_where_it_was(
    batches: Batches, service: Service, paths: PathSettings
) -> None:
    job = batches.take(files(), model="grace", score_threshold=None)  # its worker never starts
    first = Answer(index=0, error="kept from the earlier app")
    batches.store.append(job.id, first)
    batches.store.save(job.model_copy(update={"state": "running"}))
    answers = paths.data / "jobs" / job.id / "answers.jsonl"
    answers.write_bytes(answers.read_bytes() + b'{"index":1,"insp')  # torn by the crash

    progress = finished(Batches(service, Settings(paths=paths)), job)
    assert progress.answers[0] == first  # not done twice
    assert sorted(progress.answers) == [0, 1, 2]
    assert len(answers.read_text().splitlines()) == 3


def test_what_another_app_works_on_is_told_as_it_goes_and_taken_up_where_that_ends(
    batches: Batches, service: Service, paths: PathSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_jobs, "_LOOK_ROUND_S", 0.05)
    job = batches.take(files(), model="grace", score_threshold=None)  # its worker never starts
    batches.store.save(job.model_copy(update={"state": "running"}))
    beside = Batches(service, Settings(paths=paths))
    with batches.store.alone(job.id):  # as while it works
        beside.start()
        for done in (1, 2):
            batches.store.append(job.id, Answer(index=done - 1, error="of the other app"))
            assert beside.progress(job.id).done == done
        time.sleep(0.2)  # it looks around some times
        assert beside.progress(job.id).done == 2
    progress = finished(beside, job)
    assert [progress.answers[k].error for k in range(3)] == ["of the other app"] * 2 + [None]


def test_a_page_of_another_app_takes_nothing_from_an_answer_that_is_just_being_written(
    batches: Batches, paths: PathSettings
) -> None:
    """It took the half line for one that a crash had left, and the file without it for the whole:
    what was written meanwhile was lost, and the batch was done without it.
    """
    job = batches.take(files(), model="grace", score_threshold=None)
    beside = BatchStore(paths.data / "jobs")
    line = Answer(index=0, error="long").model_dump_json().encode() + b"\n"
    with (
        batches.store.alone(job.id),
        (paths.data / "jobs" / job.id / "answers.jsonl").open("ab", buffering=0) as file,
    ):
        file.write(line[:20])
        assert beside.answers(job.id) == {}
        file.write(line[20:-1])
        assert beside.answers(job.id) == {}
        file.write(b"\n")
    assert [answer.error for answer in beside.answers(job.id).values()] == ["long"]


def test_a_batch_is_stopped_by_a_page_of_another_app_and_goes_on_there(
    batches: Batches, service: Service, paths: PathSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind one address several apps may answer: Stop did nothing where another one worked."""
    beside = Batches(service, Settings(paths=paths))
    look = batches._look

    def look_while_it_is_stopped(job: Job, index: int) -> Answer:
        beside.stop(job.id)
        return look(job, index)

    monkeypatch.setattr(batches, "_look", look_while_it_is_stopped)
    job = batches.take(files(), model="grace", score_threshold=None)
    batches.start()
    wait(lambda: beside.progress(job.id).job.state == "stopped")
    assert beside.progress(job.id).done == 1
    beside.go_on(job.id)
    assert finished(beside, job).done == 3


def test_a_batch_in_line_is_stopped_by_a_page_of_another_app(
    batches: Batches, service: Service, paths: PathSettings
) -> None:
    job = batches.take(files(), model="grace", score_threshold=None)
    Batches(service, Settings(paths=paths)).stop(job.id)
    last = batches.take(files(), model="grace", score_threshold=None)
    assert finished(batches, last).done == 3
    assert batches.progress(job.id).job.state == "stopped"
    assert batches.progress(job.id).done == 0


def test_a_batch_that_was_killed_while_somebody_stopped_it_stays_stopped(
    batches: Batches, service: Service, paths: PathSettings
) -> None:
    job = batches.take(files(), model="grace", score_threshold=None)
    with batches.store.alone(job.id):  # as the app that was killed
        batches.store.save(job.model_copy(update={"state": "running"}))
        batches.stop(job.id)
    again = Batches(service, Settings(paths=paths))
    again.start()
    wait(lambda: again.progress(job.id).job.state == "stopped")
    assert again.progress(job.id).done == 0
    again.go_on(job.id)
    assert finished(again, job).done == 3


def test_how_long_another_apps_batch_will_take_is_not_told_by_the_speed_of_ones_own(
    batches: Batches,
) -> None:
    finished(batches, batches.take(files(), model="grace", score_threshold=None))
    beside = batches.store.create(
        iter([Picture("a", "a", b"x"), Picture("b", "b", b"x")]),
        title="two",
        model="grace",
        score_threshold=None,
        left_out=(),
    )
    batches.store.save(beside.model_copy(update={"state": "running"}))
    batches.store.append(beside.id, Answer(index=0, error="of the other app"))
    assert batches.progress(beside.id).seconds_left is None


def test_an_answer_that_is_kept_tells_nothing_of_how_long_a_batch_will_take(
    batches: Batches, service: Service
) -> None:
    look = service.inspect(PICTURES[0], "grace", score_threshold=None)
    shown = Shown(
        str(PICTURES[0]), "strip.jpg", look.inspection, look.prediction.labels, look.title
    )
    batches.keep(shown)
    assert list(batches._times) == []


def test_a_disk_that_fails_for_a_moment_does_not_end_the_work_on_batches(
    batches: Batches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = iter([OSError(errno.ESTALE, "Stale file handle")])

    def forget_old(days: float) -> int:
        for error in failing:
            raise error
        return 0

    monkeypatch.setattr(batches.store, "forget_old", forget_old)
    batches.start()
    wait(lambda: "could not be looked through" in caplog.text)
    job = batches.take(files(), model="grace", score_threshold=None)
    assert finished(batches, job).done == 3


def test_answers_of_many_batches_stay_in_memory_up_to_a_number(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_jobs, "_MOST_ANSWERS", 7)
    jobs = [batches.take(files(), model="grace", score_threshold=None) for _ in range(4)]
    for job in jobs:
        assert finished(batches, job).done == 3
    assert list(batches._answers) == [jobs[2].id, jobs[3].id]
    assert batches.progress(jobs[0].id).done == 3  # read again


def test_a_batch_that_the_disk_refuses_stops_and_can_go_on(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood as running for good, and nothing but a restart of the app went on with it."""
    kept = batches.store.append

    def is_full(job_id: str, answer: Answer) -> None:
        if answer.index == 1:
            raise OSError(28, "No space left on device")
        kept(job_id, answer)

    monkeypatch.setattr(batches.store, "append", is_full)
    job = batches.take(files(), model="grace", score_threshold=None)
    batches.start()
    wait(lambda: batches.progress(job.id).job.state == "stopped")
    assert batches.progress(job.id).done == 1
    monkeypatch.setattr(batches.store, "append", kept)
    batches.go_on(job.id)
    assert finished(batches, job).done == 3


def test_a_batch_goes_on_that_is_asked_to_while_it_is_laid_down(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it stopped was written after that it waits, and it stood for good."""
    append, save = batches.store.append, batches.store.save

    def is_full(job_id: str, answer: Answer) -> None:
        raise OSError(28, "No space left on device")

    def slowly(job: Job) -> None:
        if job.state == "stopped":
            time.sleep(0.3)
        save(job)

    monkeypatch.setattr(batches.store, "append", is_full)
    monkeypatch.setattr(batches.store, "save", slowly)
    job = batches.take(files(), model="grace", score_threshold=None)
    batches.start()
    wait(lambda: batches.progress(job.id).job.state == "stopped")
    monkeypatch.setattr(batches.store, "append", append)
    batches.go_on(job.id)
    assert finished(batches, job).done == 3


def test_pictures_of_a_full_disk_do_not_count_as_failed(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gallery's pictures are the largest files, so they are refused first, and the job's last.

    All pictures from there on were told to have failed on the server, and were never looked at.
    """
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object) -> None:
        raise full

    job = batches.take(files(), model="grace", score_threshold=None)
    with monkeypatch.context() as disk:
        disk.setattr(batches, "_save_tile", refuse)
        disk.setattr(batches.store, "save", _refusing_from(batches.store.save, "stopped", full))
        batches.start()
        wait(lambda: batches.progress(job.id).job.state == "stopped")
        assert batches.store.job(job.id).state == "running"  # as far as the disk knows
        assert batches.progress(job.id).done == 0
        disk.setattr(batches.store, "save", refuse)
        with pytest.raises(InputError, match="The batch cannot go on: No space left on device"):
            batches.go_on(job.id)
    batches.go_on(job.id)
    done = finished(batches, job)
    assert (done.done, done.failed) == (3, 0)


def _refusing_from(
    save: Callable[[Job], None], state: str, refusal: OSError
) -> Callable[[Job], None]:
    def saved(job: Job) -> None:
        if job.state == state:
            raise refusal
        save(job)

    return saved


def test_half_an_answer_that_found_room_spoils_no_other(batches: Batches) -> None:
    job = batches.take(files(), model="grace", score_threshold=None)
    before = Answer(index=0, error="kept")
    batches.store.append(job.id, before)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = len(before.model_dump_json()) + 1 + 10  # of a second answer, ten bytes
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left on device"):
            batches.store.append(job.id, Answer(index=1, error="lost"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    batches.store.append(job.id, Answer(index=2, error="kept, too"))
    assert sorted(batches.store.answers(job.id)) == [0, 2]


def test_a_stopped_batch_keeps_its_answers_and_can_go_on(batches: Batches) -> None:
    job = batches.take(files(), model="grace", score_threshold=None)
    batches.stop(job.id)
    assert batches.progress(job.id).job.state == "stopped"
    batches.start()
    batches.go_on(job.id)
    assert finished(batches, job).done == 3


def test_an_id_that_is_none_is_told_so(batches: Batches) -> None:
    for name in ("", "../../etc", "A" * 16, "A" * 17):
        with pytest.raises(InputError, match="There is no such batch any more"):
            batches.progress(name)


def test_old_batches_are_forgotten(batches: Batches, paths: PathSettings) -> None:
    job = batches.take(files(), model="grace", score_threshold=None)
    batches.stop(job.id)
    assert batches.store.forget_old(days=1) == 0
    assert batches.store.forget_old(days=0) == 1
    assert not (paths.data / "jobs" / job.id).exists()


def test_a_batch_that_waited_out_a_long_standstill_is_still_done(
    batches: Batches, service: Service, paths: PathSettings
) -> None:
    """An app that came back after more than a week removed what it should have gone on with."""
    job = batches.take(files(), model="grace", score_threshold=None)
    long_ago = job.created_at - timedelta(days=30)
    batches.store.save(job.model_copy(update={"state": "running", "created_at": long_ago}))
    assert finished(Batches(service, Settings(paths=paths)), job).done == 3


def test_what_a_kill_left_half_unpacked_is_removed_after_an_hour(
    batches: Batches, paths: PathSettings
) -> None:
    killed, at_work = (paths.data / "jobs" / f".new-{name}" for name in ("killed", "at-work"))
    for folder in (killed, at_work):
        (folder / "pictures").mkdir(parents=True)
    os.utime(killed, times=(0, 0))
    batches.store.forget_old(days=1)
    assert (killed.exists(), at_work.exists()) == (False, True)


# --------------------------------------------------------------------- what people see of it


def by_hand() -> Progress:
    """Scratches 0.9 and 0.5; nothing; a mask of scratches; an unreadable picture."""
    scratched = inspections.detection(
        ("scratches", 0.9, (10, 20, 30, 60)), ("scratches", 0.5, (1, 2, 3, 4)), uncertainty=0.3
    )
    clean = inspections.detection(verdict="accept", uncertainty=0.1)
    masked = inspections.segmentation()
    labels = inspections.LABELS
    given = [
        Answer(index=0, inspection=clean, labels=labels),
        Answer(index=1, inspection=scratched, labels=labels, queued=True),
        Answer(index=2, error="It is damaged inside its archive."),
        Answer(index=3, inspection=masked, labels=labels),
    ]
    job = Job.model_validate(
        {
            "id": "A" * 16,
            "title": "coil.zip",
            "model": "grace",
            "score_threshold": None,
            "names": ["a.png", "=b.png", "c.png", "d.png"],
            "left_out": 2,
            "created_at": "2026-11-21T12:00:00Z",
            "state": "done",
        }
    )
    return Progress(job, {answer.index: answer for answer in given}, None)


def test_severity_is_the_probability_of_any_defect() -> None:
    inspection = by_hand().answers[1].inspection
    assert inspection is not None
    assert severity(inspection) == pytest.approx(0.95)  # 1 - (1 - 0.9)(1 - 0.5)


def test_severity_is_what_sound_steel_leaves_over_where_a_classifier_knows_it() -> None:
    assert severity(inspections.classification(ok=0.7, good=0.1, dent=0.2)) == pytest.approx(
        0.2
    )  # 1 - (0.7 + 0.1)
    assert severity(inspections.classification(rust=0.3, dent=0.7)) == pytest.approx(
        0.7
    )  # of its surest class


def test_pictures_are_sorted_by_severity_or_by_doubt() -> None:
    progress = by_hand()
    assert [row.index for row in rows(progress, "severity")] == [1, 3, 0, 2]  # .95, .9, 0, -
    assert [row.index for row in rows(progress, "doubt")] == [1, 3, 0, 2]  # .3, .2, .1, -
    assert [row.index for row in rows(progress, "arrival")] == [0, 1, 2, 3]
    assert rows(progress, "severity")[0].text == "Scratches 0.90"


def test_a_batch_says_how_it_stands() -> None:
    progress = by_hand()
    assert sentence(progress) == "4 pictures: 2 with findings, 1 without a finding, 1 unreadable."
    assert remarks(progress) == "1 picture is in the review queue; 2 other files were left out."
    named = {"left_out": 5, "left_out_names": ("a.txt", "b.pdf", "c.csv")}
    told = Progress(progress.job.model_copy(update=named), {}, None)
    assert remarks(told) == "5 other files were left out: a.txt, b.pdf, c.csv and 2 more."
    running = Progress(progress.job.model_copy(update={"state": "running"}), {}, 130.0)
    assert sentence(running) == "Looking: 0 of 4 pictures, 2 min left."
    alone = progress.job.model_copy(update={"state": "waiting", "names": ("a.png",)})
    assert sentence(Progress(alone, {}, None)) == "1 picture waits for the batch before to finish."
    assert histogram(list(progress.answers.values())) == {"scratches": 2}


def test_what_may_stay_is_counted_apart_and_is_not_severe() -> None:
    progress = by_hand()
    scratched = progress.answers[1]
    assert scratched.inspection is not None
    one = inspections.tolerated(scratched.inspection, 0, verdict="defect")
    assert severity(one) == pytest.approx(0.5)  # what is left of 0.9 and 0.5
    both = scratched.model_copy(
        update={"inspection": inspections.tolerated(scratched.inspection, 0, 1)}
    )
    progress = Progress(progress.job, {**progress.answers, 1: both}, None)
    assert sentence(progress) == (
        "4 pictures: 1 with findings, 1 within tolerance, 1 without a finding, 1 unreadable."
    )
    assert [(row.index, row.text) for row in rows(progress, "severity")][:2] == [
        (3, "Scratches 0.90"),
        (0, "Nothing found"),
    ]
    assert [row.text for row in rows(progress, "arrival")][1] == "Within tolerance"


def test_the_csv_has_a_line_a_finding_and_no_formula() -> None:
    lines = batch_csv(by_hand()).splitlines()
    assert lines[1] == "a.png,accept,0.1,,,,,,,,grace,abc123,"
    assert lines[2] == "'=b.png,defect,0.3,scratches,0.9,10.0,20.0,30.0,60.0,,grace,abc123,"
    assert lines[4] == "c.png,,,,,,,,,,,,It is damaged inside its archive."
    assert lines[5] == "d.png,defect,0.2,scratches,0.9,10.0,20.0,50.0,40.0,800,grace,abc123,"


def test_the_csv_says_last_what_may_stay_where_there_are_rules() -> None:
    progress = by_hand()
    scratched = progress.answers[1]
    assert scratched.inspection is not None
    one = inspections.tolerated(scratched.inspection, 0, verdict="defect")
    answers = {**progress.answers, 1: scratched.model_copy(update={"inspection": one})}
    told = Progress(progress.job, answers, None)
    lines = batch_csv(told, ruled=True).splitlines()
    assert lines[0].endswith(",area_px,model,revision,error,tolerated")
    assert lines[1] == "a.png,accept,0.1,,,,,,,,grace,abc123,,"
    assert lines[2].endswith("scratches,0.9,10.0,20.0,30.0,60.0,,grace,abc123,,yes")
    assert lines[3].endswith(",grace,abc123,,")
    assert lines[4].endswith(",It is damaged inside its archive.,")
    assert batch_csv(told) == batch_csv(progress)  # without rules nothing is told


def test_coco_holds_boxes_as_corner_and_size_and_masks_as_runs() -> None:
    document = batch_coco(by_hand())
    assert [image["file_name"] for image in document["images"]] == ["a.png", "=b.png", "d.png"]
    first, _, mask = document["annotations"]
    assert first["bbox"] == [10, 20, 20, 40]
    assert first["area"] == 800
    assert first["image_id"] == 2
    assert mask["bbox"] == [10, 20, 40, 20]
    assert mask["segmentation"]["size"] == [100, 100]
    json.dumps(document)


def test_coco_tells_which_annotations_may_stay() -> None:
    progress = by_hand()
    assert all("tolerated" not in entry for entry in batch_coco(progress)["annotations"])
    answers = dict(progress.answers)
    for index in (1, 3):  # two boxes, of which the second may stay, and a mask of one region
        seen = answers[index].inspection
        assert seen is not None
        one = inspections.tolerated(seen, {1: 1, 3: 0}[index])
        answers[index] = answers[index].model_copy(update={"inspection": one})
    told = batch_coco(Progress(progress.job, answers, None))["annotations"]
    assert [entry.get("tolerated") for entry in told] == [None, True, True]


def test_of_a_class_in_a_mask_all_places_must_stay_for_coco_to_say_so() -> None:
    progress = by_hand()
    masked = progress.answers[3].inspection
    assert masked is not None
    one = inspections.tolerated(
        masked.model_copy(update={"segments": masked.segments * 2}), 1, verdict="defect"
    )
    answer = progress.answers[3].model_copy(update={"inspection": one})
    told = batch_coco(Progress(progress.job, {3: answer}, None))["annotations"]
    assert [entry.get("tolerated") for entry in told] == [None]


def test_a_picture_in_large_offers_no_button_that_does_nothing() -> None:
    [row] = [row for row in rows(by_hand(), "arrival") if row.index == 1]
    shown = batch_markup.chosen(row, "data:image/webp;base64,")
    assert "10, 20, 30, 60" in shown  # the finding's row is there
    assert "<button" not in shown
    assert "data-number" not in shown  # nor does the row look as if it could be pressed


def test_the_report_escapes_names(batches: Batches) -> None:
    progress = by_hand()
    named = progress.job.model_copy(update={"names": ("<b>", "b", "c", "d"), "title": "<i>"})
    page = batch_report(Progress(named, progress.answers, None), batches.store)
    assert "&lt;b&gt;" in page
    assert "<i>" not in page


def test_the_report_tells_every_finding_with_size_and_place_and_which_picture_it_is(
    batches: Batches,
) -> None:
    page = batch_report(by_hand(), batches.store)
    # Boxes 10..30 × 20..60, 1..3 × 2..4 and a mask of 20 × 40 px, in a picture of 100 × 100.
    assert (
        "<p>=b.png</p><p class=quiet>100 × 100 px, SHA-256 <code>" + "f" * 64 + "</code></p></td>"
        "<td><p>Scratches 0.90</p><ol><li>Scratches 0.90, 20 × 40 px, left</li>"
        "<li>Scratches 0.50, 2 × 2 px, upper left</li></ol></td>"
    ) in page
    assert "<li>Scratches 0.90, 40 × 20 px, 800 px², upper left</li>" in page
    assert "<td><p>c.png</p></td><td><p>It is damaged inside its archive.</p></td>" in page
    in_mm = batch_report(by_hand(), batches.store, PixelPitch(0.1, 0.5))
    assert "<li>Scratches 0.90, 2.0 × 20 mm, left</li>" in in_mm
    assert "<dt>One pixel shows</dt><dd>0.1 mm across, 0.5 mm down</dd>" in in_mm


def test_the_report_tells_why_a_person_should_look_and_what_may_stay(batches: Batches) -> None:
    doubtful = inspections.detection(
        ("scratches", 0.4, (0, 0, 9, 9)), verdict="review", reasons=("a box is <faint>",)
    )
    staying = inspections.tolerated(
        inspections.detection(("scratches", 0.9, (0, 0, 9, 9))), 0, verdict="accept"
    )
    given = by_hand()
    answers = {
        0: given.answers[0].model_copy(update={"inspection": doubtful}),
        1: given.answers[1].model_copy(update={"inspection": staying}),
    }
    page = batch_report(Progress(given.job, answers, None), batches.store)
    assert (
        "<p class=quiet>A person should look:</p><ul><li>a box is &lt;faint&gt;</li></ul>" in page
    )
    assert "<li>Scratches 0.90, 9 × 9 px, upper left, within tolerance</li>" in page
    sure = doubtful.model_copy(update={"verdict": "defect"})
    answers = {0: given.answers[0].model_copy(update={"inspection": sure})}
    assert "faint" not in batch_report(Progress(given.job, answers, None), batches.store)


def test_the_report_shows_the_most_severe_pictures_and_names_all(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = by_hand()
    for index in given.answers:
        tile = batches.store.tile(given.job.id, index)
        tile.parent.mkdir(parents=True, exist_ok=True)
        tile.write_bytes(b"tile %d" % index)
    monkeypatch.setattr("demo.batch_report._PICTURES", 1)
    page = batch_report(given, batches.store)
    assert page.count("<img") == 1
    assert f"base64,{base64.b64encode(b'tile 1').decode()}" in page  # 0.95, the most severe
    assert all(escape(name) in page for name in given.job.names)


def test_the_report_of_a_picture_with_very_many_findings_sends_to_the_table(
    batches: Batches,
) -> None:
    given = by_hand()
    crowded = inspections.detection(*[("scratches", 0.9, (0, 0, 9, k + 1)) for k in range(15)])
    answer = given.answers[1].model_copy(update={"inspection": crowded})
    page = batch_report(Progress(given.job, {1: answer}, None), batches.store)
    assert page.count("<li>") == 12
    assert "<p class=quiet>And 3 more, in findings.csv.</p>" in page


@pytest.mark.parametrize("ruled", [False, True])
def test_the_report_tells_how_it_was_found_and_which_table_belongs_to_it(
    batches: Batches, ruled: bool
) -> None:
    given = by_hand()
    job = given.job.model_copy(update={"finished_at": given.job.created_at + timedelta(minutes=3)})
    done = Progress(job, given.answers, None)
    page = encode_batch("report", done, batches.store, ruled=ruled).decode()
    table = hashlib.sha256(encode_batch("csv", done, batches.store, ruled=ruled)).hexdigest()
    assert (
        "<dt>Model</dt><dd>grace</dd><dt>Revision</dt><dd>abc123</dd>"
        "<dt>Begun</dt><dd>2026-11-21 12:00 UTC</dd><dt>Finished</dt><dd>2026-11-21 12:03 UTC</dd>"
        f"<dt>findings.csv</dt><dd>SHA-256 <code>{table}</code></dd></dl>"
    ) in page
    running = Progress(job.model_copy(update={"state": "running"}), given.answers, None)
    assert "<dt>findings.csv</dt>" not in encode_batch("report", running, batches.store).decode()
