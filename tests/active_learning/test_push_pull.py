"""Out to a real Label Studio and back: what a person sees, says, changes and takes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from threading import Event

import pytest
import sqlalchemy as sa
from PIL import Image
from pydantic import SecretStr

from active_learning._review_rows import ReviewItemRow
from active_learning.agreement import agreement
from active_learning.inbox import Taken
from active_learning.labelling import NO_DEFECT
from active_learning.leases import Leases
from active_learning.outbox import pushing
from active_learning.push import STOPPED
from active_learning.shown_image import shown_image
from active_learning.webhook import MAX_BODY_BYTES, SECRET_HEADER, Webhook
from core.errors import InputError, LeaseHeld, LeaseLost, RequestRefused
from core.geometry import class_map_from_record
from core.images import decode
from core.settings import LabelStudioSettings
from tests.active_learning.fault_proxy import fault_proxy
from tests.active_learning.review_desk import LABELLING, open_test_desk, picture
from tests.records import write_folder

pytestmark = pytest.mark.label_studio


@pytest.fixture
def studio(label_studio):
    client = label_studio.client()
    yield client
    client.close()


@pytest.fixture
def desk(tmp_path, project_title):
    desk = open_test_desk(tmp_path, project_title)
    yield desk
    desk.ledger.close()


@pytest.fixture
def project(studio, project_title):
    return studio.project(project_title, LABELLING)


def choice(value):
    return {
        "from_name": "verdict",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [value]},
    }


# --- push --------------------------------------------------------------------------------------


def test_a_flagged_image_becomes_one_task_with_everything_drawn(
    desk, studio, label_studio, project
):
    item = desk.flag(1)
    assert desk.push(studio).verified == 1
    [task] = label_studio.tasks(project.id)
    sent = desk.item(item.id)
    assert (sent.state, sent.task_id) == ("verified", task["id"])
    assert task["data"]["why"] == "Crazing 0.40 is between not sure and sure"
    [prediction] = task["predictions"]
    assert [region["type"] for region in prediction["result"]] == [
        "choices",
        "rectanglelabels",
        "brushlabels",
        "brushlabels",
    ]
    assert studio.image(task["data"]["image"]) == picture(1)


def test_the_same_image_flagged_twice_and_pushed_twice_is_one_task(
    desk, studio, label_studio, project
):
    desk.flag(1)
    desk.flag(1)
    reports = [desk.push(studio), desk.push(studio)]
    assert [report.sent for report in reports] == [1, 0]
    assert len(label_studio.tasks(project.id)) == 1


def test_the_most_urgent_items_go_first_and_the_rest_waits(desk, studio, label_studio, project):
    items = {p: desk.flag(int(10 * p), priority=p) for p in (0.2, 0.9, 0.4)}
    report = desk.push(studio, budget=2)
    assert (report.sent, report.pending) == (2, 1)
    assert desk.item(items[0.2].id).state == "pending"
    desk.push(studio)
    # Whatever the order of sending, Label Studio serves by priority.
    served = label_studio.ask("GET", f"projects/{project.id}/next")
    assert served["data"]["dedupe_key"] == items[0.9].dedupe_key


def test_many_items_cost_one_question_for_their_keys_and_one_reading(desk, label_studio, project):
    for seed in range(3):
        desk.flag(seed)
    with fault_proxy(label_studio.port, lambda request: None) as proxy:
        assert desk.push(label_studio.client(url=proxy.url)).verified == 3
        asked = Counter(
            "keys" if "dedupe_key" in request.path else "tasks"
            for request in proxy.passed
            if request.method == "GET" and "api/tasks/" in request.path
        )
    assert asked == {"keys": 1, "tasks": 1}


def test_what_was_sent_before_a_person_stopped_it_is_read_back(desk, studio):
    items = [desk.flag(seed, priority=1 - seed / 10) for seed in range(3)]
    sent = []
    report = desk.push(studio, on_point=sent.append, is_stopped=lambda: "push:created" in sent)
    assert (report.sent, report.verified, report.stopped) == (1, 1, STOPPED)
    assert [desk.item(item.id).state for item in items] == ["verified", "pending", "pending"]


def test_a_task_that_is_deleted_before_it_is_read_back_is_parked_alone(
    desk, studio, label_studio, project
):
    items = [desk.flag(seed, priority=1 - seed / 10) for seed in range(2)]

    def delete_the_first(point):
        tasks = sorted(task["id"] for task in label_studio.tasks(project.id))
        if point == "push:created" and len(tasks) == 2:  # a later task might get its number
            studio.delete_task(tasks[0])

    report = desk.push(studio, on_point=delete_the_first)
    assert (report.sent, report.parked, report.verified) == (2, 1, 1)
    gone = desk.item(items[0].id)
    assert gone.parked_reason == f"Task {gone.task_id} is not as sent: it is gone."


def test_a_task_whose_drawing_was_changed_before_it_is_read_back_is_parked(
    desk, studio, label_studio, project
):
    item = desk.flag(1)

    def redraw(point):
        if point == "push:created":
            [task] = label_studio.tasks(project.id)
            [prediction] = task["predictions"]
            kept = prediction["result"][:1]
            label_studio.ask("PATCH", f"predictions/{prediction['id']}/", {"result": kept})

    assert desk.push(studio, on_point=redraw).parked == 1
    assert desk.item(item.id).parked_reason.endswith("its regions differ.")


def test_an_image_flagged_by_hand_that_no_model_saw_is_sent_without_drawings(
    desk, studio, label_studio, project
):
    desk.flag(1, whole=False)
    assert desk.push(studio).verified == 1
    [task] = label_studio.tasks(project.id)
    assert task["predictions"][0]["result"] == []


def test_an_item_whose_image_is_damaged_is_parked_and_the_others_go(desk, studio):
    bad, good = desk.flag(1, priority=0.9), desk.flag(2)
    desk.queue.images.path(bad.image_sha256).write_bytes(b"not what it was")
    report = desk.push(studio)
    assert (report.parked, report.verified) == (1, 1)
    assert "is damaged" in desk.item(bad.id).parked_reason
    assert desk.item(good.id).state == "verified"


def test_a_mask_of_a_model_that_is_gone_is_parked_with_the_reason(desk, studio):
    item = desk.flag(1)
    report = desk.push(studio, mask_labels={})
    assert report.parked == 1
    assert "is its release still there?" in desk.item(item.id).parked_reason


def test_a_parked_item_that_was_reopened_finds_the_task_it_had(desk, studio, label_studio, project):
    item = desk.flag(1)
    desk.push(studio)
    task_id = desk.item(item.id).task_id
    with desk.ledger.session() as session:  # as if it had been parked after it was sent
        one = ReviewItemRow.id == item.id
        session.execute(sa.update(ReviewItemRow).where(one).values(state="parked"))
    desk.queue.reopen(item.id)
    report = desk.push(studio)
    assert (report.sent, report.verified) == (1, 1)
    assert desk.item(item.id).task_id == task_id
    assert len(label_studio.tasks(project.id)) == 1


def test_while_one_process_pushes_another_one_is_told_so(desk, studio):
    with pushing(desk.queue), pytest.raises(LeaseHeld):
        desk.push(studio)


def test_a_pusher_that_was_replaced_while_it_uploaded_makes_no_task(
    tmp_path, clock, studio, label_studio, project, project_title
):
    desk = open_test_desk(tmp_path, project_title, clock=clock)
    desk.flag(1)

    def is_replaced(point):
        if point == "push:uploaded":
            clock.pass_s(61)
            Leases(desk.ledger).acquire(f"push {project_title}", ttl_s=60)

    with pytest.raises(LeaseLost):
        desk.push(studio, on_point=is_replaced)
    assert label_studio.tasks(project.id) == []
    desk.ledger.close()


def test_a_wrong_token_stops_the_pass_and_parks_nothing(desk, label_studio):
    item = desk.flag(1)
    with pytest.raises(RequestRefused, match="ROLLMARK_LABEL_STUDIO__TOKEN"):
        desk.push(label_studio.client(token="f" * 40))
    assert desk.item(item.id).state == "pending"


# --- pull --------------------------------------------------------------------------------------


def test_an_answer_comes_back_in_pixels_exactly_once(desk, studio, label_studio, project):
    item = desk.flag(1)
    desk.push(studio)
    [task] = label_studio.tasks(project.id)
    label_studio.annotate(task["id"], *task["predictions"][0]["result"])
    assert desk.pull(studio) == Taken(seen=1, applied=1)
    assert desk.pull(studio).applied == 0
    [annotation] = desk.inbox.current()
    assert annotation.image_sha256 == item.image_sha256
    assert annotation.boxes == (("crazing", (6.0, 4.0, 30.5, 24.25)),)
    class_map = class_map_from_record(annotation.mask)
    assert (int((class_map == 1).sum()), int((class_map == 2).sum())) == (80, 100)
    assert annotation.label == "red iron"
    assert annotation.annotator == "user 1"


def test_the_last_of_several_edits_counts(desk, studio, label_studio, project):
    desk.flag(1)
    desk.push(studio)
    [task] = label_studio.tasks(project.id)
    answer = label_studio.annotate(task["id"], choice("red iron"))
    desk.pull(studio)
    label_studio.ask("PATCH", f"annotations/{answer}/", {"result": [choice("slag")]})
    label_studio.ask("PATCH", f"annotations/{answer}/", {"result": [choice(NO_DEFECT)]})
    assert desk.pull(studio).applied == 1
    assert [annotation.label for annotation in desk.inbox.current()] == [NO_DEFECT]


def test_a_skipped_task_says_nothing_until_it_is_answered(desk, studio, label_studio, project):
    desk.flag(1)
    desk.push(studio)
    [task] = label_studio.tasks(project.id)
    label_studio.annotate(task["id"], was_cancelled=True)
    assert desk.pull(studio).skipped == 1
    assert desk.inbox.current() == ()
    label_studio.annotate(task["id"], choice("slag"))
    assert desk.pull(studio).applied == 1
    assert len(desk.inbox.current()) == 1


def test_a_deleted_answer_is_taken_back(desk, studio, label_studio, project):
    desk.flag(1)
    desk.push(studio)
    [task] = label_studio.tasks(project.id)
    answer = label_studio.annotate(task["id"], choice("slag"))
    desk.pull(studio)
    label_studio.ask("DELETE", f"annotations/{answer}/")
    assert desk.pull(studio).deleted == 1
    assert desk.pull(studio).deleted == 0
    assert desk.inbox.current() == ()


def test_an_answer_that_contradicts_itself_says_nothing_until_it_is_corrected(
    desk, studio, label_studio, project, caplog
):
    desk.flag(1)
    desk.push(studio)
    [task] = label_studio.tasks(project.id)
    box = next(r for r in task["predictions"][0]["result"] if r["type"] == "rectanglelabels")
    answer = label_studio.annotate(task["id"], box, choice(NO_DEFECT))
    assert desk.pull(studio).skipped == 1
    assert "marks 1 of them" in caplog.text
    label_studio.ask("PATCH", f"annotations/{answer}/", {"result": [box]})
    assert desk.pull(studio).applied == 1


def test_two_people_who_answer_one_task_are_told_how_far_they_agree(
    desk, studio, label_studio, project, project_title
):
    name = f"{project_title.replace(' ', '-')}@example.org"
    other = label_studio.ask("POST", "users/", {"email": name, "username": name})
    desk.flag(1)
    desk.push(studio)
    [task] = label_studio.tasks(project.id)
    drawn = next(r for r in task["predictions"][0]["result"] if r["type"] == "rectanglelabels")
    lower = {**drawn, "value": {**drawn["value"], "height": drawn["value"]["height"] * 0.8}}
    label_studio.annotate(task["id"], drawn)
    label_studio.annotate(task["id"], lower, completed_by=other["id"])
    assert desk.pull(studio).applied == 2
    assert len(desk.inbox.current()) == 1  # the newer one is learned from
    found = agreement(desk.inbox.answered_repeatedly())
    assert (found.images, found.people) == (1, 2)
    [crazing] = found.classes
    assert (crazing.how, crazing.label, crazing.agreement) == ("boxes", "crazing", 1.0)
    assert crazing.overlap == pytest.approx(0.8, abs=0.01)


class ClockAhead:
    """Label Studio for a moment in which its clock is six hours ahead."""

    def __init__(self, studio):
        self.studio = studio

    def project(self, *args):
        return self.studio.project(*args)

    def tasks_changed_since(self, *args):
        for task in self.studio.tasks_changed_since(*args):
            at = datetime.fromisoformat(task["updated_at"]) + timedelta(hours=6)
            yield task | {"updated_at": at.isoformat()}


def test_a_clock_that_was_ahead_for_a_moment_hides_no_later_answer(
    desk, studio, label_studio, project, caplog
):
    desk.flag(1)
    desk.flag(2)
    desk.push(studio)
    first, second = label_studio.tasks(project.id)
    label_studio.annotate(first["id"], choice("slag"))
    assert desk.pull(ClockAhead(studio)).applied == 1
    assert "one of the clocks is wrong" in caplog.text
    label_studio.annotate(second["id"], choice("slag"))
    assert desk.pull(studio).applied == 1
    assert desk.pull(studio).applied == 0


def test_with_our_clock_behind_each_answer_is_taken_once_and_read_again_until_it_has_passed(
    tmp_path, clock, studio, label_studio, project, project_title
):
    clock.wall = datetime.now(UTC) - timedelta(hours=1)
    desk = open_test_desk(tmp_path, project_title, clock=clock)
    desk.flag(1)
    desk.push(studio)
    [task] = label_studio.tasks(project.id)
    label_studio.annotate(task["id"], choice("slag"))
    assert desk.pull(studio) == Taken(seen=1, applied=1)
    assert desk.pull(studio) == Taken(seen=1, repeated=1)
    assert desk.inbox.cursor(project.origin) is None
    clock.pass_s(2 * 3600)
    desk.pull(studio)
    assert desk.inbox.cursor(project.origin) is not None
    desk.ledger.close()


def test_tasks_that_are_not_ours_are_left_alone(desk, studio, label_studio, project):
    body = [{"data": {"image": "/x.png", "why": "theirs"}}]
    label_studio.ask("POST", f"projects/{project.id}/import?return_task_ids=true", body)
    [task] = label_studio.tasks(project.id)
    label_studio.annotate(task["id"], choice("slag"))
    assert desk.pull(studio) == Taken()
    assert desk.sweep(studio).foreign == 1
    assert len(label_studio.tasks(project.id)) == 1


# --- sweep -------------------------------------------------------------------------------------


def test_a_sweep_deletes_a_second_task_and_keeps_every_answer(desk, studio, label_studio, project):
    first, second = desk.flag(1), desk.flag(2)
    desk.push(studio)
    tasks = {task["data"]["dedupe_key"]: task for task in label_studio.tasks(project.id)}
    twins = [{"data": task["data"]} for task in tasks.values()]
    label_studio.ask("POST", f"projects/{project.id}/import", twins)
    theirs = [
        task["id"]
        for task in label_studio.tasks(project.id)
        if task["data"]["dedupe_key"] == second.dedupe_key
    ]
    label_studio.annotate(max(theirs), choice("slag"))  # somebody answered the twin
    report = desk.sweep(studio)
    assert (report.merged, report.duplicates, report.missing) == (1, 1, 0)
    left = [task["id"] for task in label_studio.tasks(project.id)]
    assert sorted(left) == sorted([tasks[first.dedupe_key]["id"], *theirs])
    assert [annotation.label for annotation in desk.inbox.current()] == ["slag"]


def test_a_sweep_tells_of_tasks_that_are_gone_with_their_answers(
    desk, studio, label_studio, project, caplog
):
    desk.flag(1)
    desk.flag(2)
    desk.push(studio)
    for task in label_studio.tasks(project.id):
        label_studio.annotate(task["id"], choice("slag"))
    desk.pull(studio)
    gone = label_studio.tasks(project.id)[0]["id"]
    label_studio.ask("DELETE", f"tasks/{gone}/")
    assert desk.pull(studio).deleted == 0  # Label Studio does not tell
    caplog.set_level("INFO")
    report = desk.sweep(studio)
    assert (report.taken.deleted, report.missing, report.divergence) == (1, 1, 1)
    assert f"swept project {project.id}: 1 task, 1 gone, 0 merged, 0 not ours" in caplog.text
    assert len(desk.inbox.current()) == 1
    assert desk.sweep(studio).taken.deleted == 0


def test_images_of_a_lost_project_that_nobody_answered_are_sent_again_if_a_person_says_so(
    desk, studio, label_studio, project
):
    answered, waiting = desk.flag(1), desk.flag(2)
    desk.push(studio)
    tasks = {task["data"]["dedupe_key"]: task["id"] for task in label_studio.tasks(project.id)}
    label_studio.annotate(tasks[answered.dedupe_key], choice("slag"))
    desk.pull(studio)
    label_studio.ask("DELETE", f"projects/{project.id}/")
    with pytest.raises(InputError, match=r"`--resend` has the images that nobody answered sent"):
        desk.sweep(studio)
    assert desk.queue.get(waiting.id).state == "verified"

    report = desk.sweep(studio, resend=True)
    assert (report.resent, report.missing, report.taken.deleted) == (1, 1, 0)
    again = desk.queue.get(waiting.id)
    assert (again.state, again.task_id) == ("pending", None)
    assert desk.queue.get(answered.id).state == "verified"
    assert len(desk.inbox.current()) == 1  # what was said stays
    assert desk.push(studio).verified == 1
    [task] = label_studio.tasks(studio.project(project.title, LABELLING).id)
    assert task["data"]["dedupe_key"] == waiting.dedupe_key
    assert desk.sweep(studio, resend=True).resent == 0


def test_a_project_that_was_set_up_anew_withdraws_no_answer_unless_a_person_says_so(
    desk, studio, label_studio, project
):
    desk.flag(1)
    desk.flag(2)
    desk.push(studio)
    for task in label_studio.tasks(project.id):
        label_studio.annotate(task["id"], choice("slag"))
    desk.pull(studio)
    label_studio.ask("DELETE", f"projects/{project.id}/")
    with pytest.raises(InputError, match=r"^None of the answered tasks \(2\) is in project"):
        desk.sweep(studio)
    assert len(desk.inbox.current()) == 2

    desk.flag(3)
    desk.push(studio)  # into a new project of the same title
    anew = studio.project(project.title, LABELLING)
    assert anew.origin != project.origin
    [task] = label_studio.tasks(anew.id)
    label_studio.annotate(task["id"], choice("slag"))
    assert desk.pull(studio).applied == 1
    report = desk.sweep(studio)
    assert (report.elsewhere, report.missing, report.taken.deleted) == (2, 2, 0)
    assert len(desk.inbox.current()) == 3

    report = desk.sweep(studio, withdraw=True)
    assert (report.elsewhere, report.taken.deleted) == (0, 2)
    assert len(desk.inbox.current()) == 1


# --- the picture -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_plain_picture_is_sent_as_it_came(kind, mime):
    shown = shown_image(picture(1, kind=kind))
    assert (shown.data, shown.mime) == (picture(1, kind=kind), mime)


def test_a_picture_that_browsers_do_not_show_is_sent_as_png_of_the_same_pixels():
    shown = shown_image(picture(1, kind="TIFF"))
    assert (shown.name[-4:], shown.mime) == (".png", "image/png")
    assert (decode(shown.data).pixels == decode(picture(1)).pixels).all()
    assert shown.facts.sha256 == decode(picture(1, kind="TIFF")).sha256


def test_a_picture_on_its_side_is_sent_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    out = BytesIO()
    Image.open(BytesIO(picture(1))).save(out, format="JPEG", exif=exif)
    shown = shown_image(out.getvalue())
    assert (shown.facts.width, shown.facts.height) == (40, 60)
    assert Image.open(BytesIO(shown.data)).size == (40, 60)


def test_a_picture_that_a_larger_cap_let_in_is_shown_to_a_person_too():
    """The setting was raised to 100 MB, say; every image above 25 MB was set aside on its way."""
    data = picture(1) + bytes(25_000_000)  # what follows a PNG's end is no part of the picture
    with pytest.raises(InputError, match="at most 25 MB"):
        decode(data)
    assert shown_image(data).facts.sha256 == sha256(data).hexdigest()


# --- webhook -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body", "accepted"),
    [
        ({SECRET_HEADER: "sesame open"}, b"{}", True),
        ({SECRET_HEADER.lower(): "sesame open"}, b"not even JSON", True),
        ({SECRET_HEADER: "sesame"}, b"{}", False),
        ({SECRET_HEADER: ""}, b"{}", False),
        ({SECRET_HEADER: "sésame"}, b"{}", False),
        ({}, b"{}", False),
        ({SECRET_HEADER: "sesame open"}, b"x" * (MAX_BODY_BYTES + 1), False),
    ],
    ids=["right", "case", "wrong", "empty", "letters", "missing", "large"],
)
def test_a_webhook_wakes_the_poller_only_for_who_knows_the_secret(headers, body, accepted):
    poll_now = Event()
    settings = LabelStudioSettings(webhook_secret=SecretStr("sesame open"))
    assert Webhook(settings, poll_now).handle_webhook(headers, body) is accepted
    assert poll_now.is_set() is accepted


def test_without_a_secret_every_webhook_is_turned_away():
    poll_now = Event()
    assert not Webhook(LabelStudioSettings(), poll_now).handle_webhook({SECRET_HEADER: ""}, b"")
    assert not poll_now.is_set()


# --- commands ----------------------------------------------------------------------------------


def test_the_commands_speak_the_contract(tmp_path, label_studio, project_title):
    write_folder(tmp_path / "bundled" / "grace", labels=("crazing", "scratches"))
    environment = {
        "ROLLMARK_PATHS__DATA": str(tmp_path / "data"),
        "ROLLMARK_PATHS__BUNDLED": str(tmp_path / "bundled"),
        "ROLLMARK_PATHS__RUNS": str(tmp_path / "runs"),
        "ROLLMARK_LABEL_STUDIO__URL": label_studio.url,
        "ROLLMARK_LABEL_STUDIO__TOKEN": label_studio.pat,
        "ROLLMARK_LABEL_STUDIO__PROJECT": project_title,
    }

    def command(*words, **more):
        return subprocess.run(
            [sys.executable, "-m", "active_learning", *words],
            env={**os.environ, **environment, **more},
            capture_output=True,
            text=True,
            timeout=600,
        )

    pushed = command("push", "--json")
    assert pushed.returncode == 0, pushed.stderr
    assert json.loads(pushed.stdout) == {
        "sent": 0,
        "verified": 0,
        "parked": 0,
        "unknown": 0,
        "pending": 0,
    }
    pulled = command("pull", "--json")
    assert json.loads(pulled.stdout) == {"seen": 0, "applied": 0, "skipped": 0, "deleted": 0}
    status = json.loads(command("status", "--json").stdout)
    assert set(status) >= {"queue", "annotations", "dataset", "last_run", "due"}
    assert set(status["queue"]) == {"pending", "sending", "sent", "verified", "parked", "unknown"}
    assert status["annotations"] == {"applied": 0}
    assert status["due"] == {
        "now": False,
        "why": "0 of 50 newly reviewed images.",
    }

    refused = command("push", ROLLMARK_LABEL_STUDIO__TOKEN="f" * 40)
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1].startswith("Label Studio at ")
    assert "Traceback" not in refused.stderr
    assert "f" * 40 not in refused.stderr + refused.stdout
