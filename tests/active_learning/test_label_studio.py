"""Our client against a real Label Studio."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from active_learning import label_studio as client_module
from active_learning.connection import reach
from active_learning.label_format import MODEL_VERSION, to_task_data
from active_learning.label_studio import LabelStudio
from active_learning.labelling import Labelling
from core.errors import ConfigError, LabelFormatError, RequestNotSent, RequestRefused
from core.settings import LabelStudioSettings
from tests.active_learning.label_studio_server import LEGACY_TOKEN
from tests.active_learning.review_desk import picture
from tests.ports import free_port

pytestmark = pytest.mark.label_studio

LABELLING = Labelling(boxes=("crazing", "scratches"), masks=("patches",), choices=("red iron",))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def client(label_studio):
    client = label_studio.client()
    yield client
    client.close()


@pytest.fixture
def project(client, project_title):
    return client.project(project_title, LABELLING)


def send(client: LabelStudio, project_id: int, key: str, score: float = 0.5) -> int:
    data = to_task_data(image_url="/data/x.png", reasons=["why"], note="", dedupe_key=key)
    prediction = {"model_version": MODEL_VERSION, "score": score, "result": []}
    return client.create_task(project_id, data, prediction)


@pytest.mark.parametrize("kind", ["personal access token", "legacy token"])
def test_both_kinds_of_token_are_accepted_and_named(label_studio, kind):
    token = LEGACY_TOKEN if kind == "legacy token" else label_studio.pat
    connection = label_studio.client(token=token).connect()
    assert connection.token == kind
    assert connection.user == "rollmark@localhost.local"
    assert connection.version == "1.23.2"


def test_a_token_copied_with_a_line_end_is_accepted(label_studio):
    assert label_studio.client(token=f" {label_studio.pat}\n").connect().user


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("f" * 40, "legacy token that is not known there"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2ln", "has expired"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjgxMDI0NjAyMjN9.c2ln", "or is of another server"),
        ("no token at all", "legacy token that is not known there"),
    ],
    ids=["legacy", "expired", "forged", "text"],
)
def test_a_wrong_token_is_told_in_one_sentence_without_the_token(label_studio, token, sentence):
    with pytest.raises(RequestRefused, match=sentence) as caught:
        label_studio.client(token=token).connect()
    assert "ROLLMARK_LABEL_STUDIO__TOKEN" in str(caught.value)
    assert "Copy a new one from Account & Settings" in str(caught.value)
    assert token not in str(caught.value)


def test_legacy_tokens_that_are_switched_off_are_told_apart_from_wrong_ones(label_studio, client):
    label_studio.ask("POST", "jwt/settings", {"legacy_api_tokens_enabled": False})
    try:
        with pytest.raises(RequestRefused, match="switched off there, a personal access token"):
            label_studio.client(token=LEGACY_TOKEN).connect()
    finally:  # by the personal token, for the other one is off
        body = {"legacy_api_tokens_enabled": True}
        client._transport.write("POST", "api/jwt/settings", json=body)


def test_without_a_token_the_setting_is_named():
    with pytest.raises(ConfigError, match="ROLLMARK_LABEL_STUDIO__TOKEN"):
        LabelStudio(LabelStudioSettings())


@pytest.mark.parametrize("token", ["тест-токен-0123", "abcdef01\n23456789"], ids=["script", "line"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token):
    with pytest.raises(ConfigError, match="ROLLMARK_LABEL_STUDIO__TOKEN is no token") as caught:
        LabelStudio(LabelStudioSettings(token=SecretStr(token)))
    assert token not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("admin:hunter2@127.0.0.1:1/lab", "Label Studio at http://127.0.0.1:1/lab cannot be reach"),
        ("admin:hunt@er2@127.0.0.1:1/", "Label Studio at http://127.0.0.1:1 cannot be reached"),
        ("admin:hunter2/more@127.0.0.1:1", "__URL is no address of a server."),
    ],
    ids=["plain", "with an at sign", "with a slash"],
)
@pytest.mark.parametrize(
    "token",
    ["f" * 40, "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjgxMDI0NjAyMjN9.c2ln"],
    ids=["legacy", "personal"],
)
def test_a_password_in_the_address_is_never_shown(place, sentence, token):
    found = reach(LabelStudioSettings(url=f"http://{place}", token=SecretStr(token)))
    assert sentence in found.sentence
    assert "hunt" not in found.sentence


def test_requests_go_by_the_address_as_it_is_set():
    url = "http://admin:hunter2@127.0.0.1:1"
    with LabelStudio(LabelStudioSettings(url=url, token=SecretStr("f" * 40))) as client:
        assert client._transport.url == "http://127.0.0.1:1"
        assert client._transport._sdk._client_wrapper.get_base_url() == f"{url}/"


def test_where_nothing_listens_nothing_was_sent(label_studio):
    with free_port() as port, pytest.raises(RequestNotSent, match="cannot be reached"):
        label_studio.client(url=f"http://127.0.0.1:{port}").connect()


def test_https_to_a_plain_port_was_not_sent_either(label_studio):
    with pytest.raises(RequestNotSent, match="cannot be reached"):
        label_studio.client(url=label_studio.url.replace("http", "https")).connect()


def test_an_address_with_a_path_or_a_slash_works(label_studio):
    assert label_studio.client(url=f"{label_studio.url}/").connect().user


def test_a_project_is_made_once_and_serves_the_most_doubtful_first(client, project, label_studio):
    again = client.project(project.title, LABELLING)
    assert again.id == project.id
    assert again.labelling == LABELLING
    made = label_studio.ask("GET", f"projects/{project.id}/")
    assert made["sampling"] == "Uncertainty sampling"
    assert made["model_version"] == MODEL_VERSION
    for key, score in [("a", 0.7), ("b", 0.1), ("c", 0.4)]:
        send(client, project.id, key, score)
    # The stored order is a, b, c; by score b comes first.
    assert label_studio.ask("GET", f"projects/{project.id}/next")["data"]["dedupe_key"] == "b"


def test_a_project_is_found_by_its_number(client, project):
    assert client.project(str(project.id), LABELLING).title == project.title


def test_a_project_whose_title_only_contains_ours_is_another_one(client, project):
    assert client.project(project.title[:-1], LABELLING).id != project.id


def test_new_classes_join_those_a_project_has(client, project):
    more = Labelling(boxes=("inclusion", "crazing"), masks=(), choices=("slag",))
    joined = client.project(project.title, more).labelling
    assert joined.boxes == ("crazing", "scratches", "inclusion")
    assert joined.masks == ("patches",)
    assert joined.choices == ("red iron", "slag")


def test_a_project_of_somebody_else_is_left_alone(client, label_studio, project_title):
    theirs = '<View><Text name="t" value="$t"/><Choices name="c" toName="t"><Choice value="a"/>'
    body = {"title": project_title, "label_config": f"{theirs}</Choices></View>"}
    made = label_studio.ask("POST", "projects/", body)
    with pytest.raises(LabelFormatError, match="name another project"):
        client.project(project_title, LABELLING)
    assert "$t" in label_studio.ask("GET", f"projects/{made['id']}/")["label_config"]


def test_a_project_made_by_hand_gets_our_configuration(client, label_studio, project_title):
    made = label_studio.ask("POST", "projects/", {"title": project_title})
    project = client.project(project_title, LABELLING)
    assert (project.id, project.labelling) == (made["id"], LABELLING)
    send(client, project.id, "a")
    client.follow_our_order(project)  # refused before there is a prediction of ours
    assert client.project(project_title, LABELLING).model_version == MODEL_VERSION


def test_an_uploaded_image_is_served_byte_for_byte(client, project):
    url = client.upload(project.id, "a.png", picture(), "image/png")
    assert url.startswith(f"/data/upload/{project.id}/")
    assert client.image(url) == picture()


def test_a_task_that_lacks_the_image_is_refused_with_the_reason(client, project):
    with pytest.raises(RequestRefused, match="image") as caught:
        client.create_task(project.id, {"why": "x"}, {"score": 0.5, "result": []})
    assert caught.value.status == 400


def test_a_task_that_is_not_there_is_refused_as_such(client):
    with pytest.raises(RequestRefused, match="was it deleted") as caught:
        client.task(999_999)
    assert caught.value.status == 404


def test_tasks_are_found_by_their_keys_alone(client, project, project_title):
    first = send(client, project.id, "k0")
    twin = send(client, project.id, "k0")  # importing twice makes two tasks
    other = send(client, project.id, "k59")
    elsewhere = client.project(f"{project_title} b", LABELLING)
    send(client, elsewhere.id, "k0")
    keys = [f"k{n}" for n in range(60)]  # more than fit into one question
    assert client.tasks_with(project.id, keys) == {"k0": [first, twin], "k59": [other]}
    assert client.tasks_with(project.id, []) == {}


def test_tasks_are_read_many_at_once_as_each_is_read_alone(
    client, project, project_title, monkeypatch
):
    monkeypatch.setattr(client_module, "PAGE", 2)
    mine = [send(client, project.id, f"k{n}") for n in range(3)]
    elsewhere = client.project(f"{project_title} b", LABELLING)
    theirs = send(client, elsewhere.id, "k9")
    read = client.tasks(project.id, [*mine, theirs, 999_999])
    assert list(read) == mine
    alone = client.task(mine[1])
    assert read[mine[1]]["data"] == alone["data"]
    [there], [also] = read[mine[1]]["predictions"], alone["predictions"]
    assert (there["model_version"], there["result"]) == (also["model_version"], also["result"])
    assert client.tasks(project.id, []) == {}


def test_changes_are_read_in_order_page_by_page(client, project, label_studio, monkeypatch):
    monkeypatch.setattr(client_module, "PAGE", 2)
    tasks = [send(client, project.id, f"k{n}") for n in range(5)]
    label_studio.annotate(tasks[1])  # moves to the end
    read = list(client.tasks_changed_since(project.id, LONG_AGO))
    assert [task["id"] for task in read] == [tasks[k] for k in (0, 2, 3, 4, 1)]
    assert len(read[-1]["annotations"]) == 1
    since = datetime.fromisoformat(read[3]["updated_at"])
    later = client.tasks_changed_since(project.id, since + timedelta(microseconds=1))
    assert [task["id"] for task in later] == [tasks[1]]


def test_a_task_that_changes_while_pages_are_read_pushes_no_other_one_out(
    client, project, label_studio, monkeypatch
):
    monkeypatch.setattr(client_module, "PAGE", 2)
    tasks = [send(client, project.id, f"k{n}") for n in range(5)]
    reading = client.tasks_changed_since(project.id, LONG_AGO)
    seen = [next(reading)["id"]]
    label_studio.annotate(tasks[0])  # by page numbers, task 2 would now slip onto page one
    seen += [task["id"] for task in reading]
    assert set(seen) == set(tasks)


def test_every_task_is_read_once_by_id(client, project, label_studio, monkeypatch):
    monkeypatch.setattr(client_module, "PAGE", 2)
    tasks = [send(client, project.id, f"k{n}") for n in range(4)]
    label_studio.annotate(tasks[2], was_cancelled=True)
    read = list(client.all_tasks(project.id))
    assert [task["id"] for task in read] == tasks
    assert [a["was_cancelled"] for a in read[2]["annotations"]] == [True]


def test_a_task_is_deleted_and_deleting_it_again_is_fine(client, project):
    task = send(client, project.id, "k")
    client.delete_task(task)
    client.delete_task(task)
    assert client.tasks_with(project.id, ["k"]) == {}
