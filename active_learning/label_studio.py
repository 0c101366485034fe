"""Label Studio as the queue sees it: a project, tasks that go out, changes that come back.

Every method raises LabelStudioError: refused, not sent, or unknown, as `label_studio_transport`
tells them apart. Tasks and annotations are plain JSON here; `label_format` reads them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from active_learning.label_format import MODEL_VERSION
from active_learning.label_studio_transport import (
    READ_RETRIES,
    TIMEOUT_S,
    TokenKind,
    Transport,
    only,
    part,
)
from active_learning.labelling import Labelling, read_config
from core.errors import RequestRefused
from core.settings import LabelStudioSettings

logger = logging.getLogger(__name__)

PAGE: Final = 50
_SAMPLING: Final = "Uncertainty sampling"  # the task with the lowest prediction score comes first
_INSTRUCTION: Final = (
    "Correct what the model has drawn, or choose “no defect”. "
    "The line above the image says why you are asked."
)


@dataclass(frozen=True, slots=True)
class Connection:
    """Who we are to which Label Studio."""

    version: str
    user: str
    token: TokenKind


@dataclass(frozen=True, slots=True)
class Project:
    """A project that is ready for our tasks."""

    id: int
    title: str
    config: str  # XML
    model_version: str
    origin: str = ""  # number and moment of birth: on every server, numbers begin at 1

    @property
    def labelling(self) -> Labelling:
        """The classes a person may choose from."""
        return read_config(self.config)


class LabelStudio:
    """One Label Studio, spoken to as one user.

    Args:
        settings: address and token.
        timeout_s: how long one answer may take.
        read_retries: how often a request that only reads is tried again.

    Raises:
        ConfigError: if there is no token.
        RequestRefused: if the token has expired.
    """

    def __init__(
        self,
        settings: LabelStudioSettings,
        *,
        timeout_s: float = TIMEOUT_S,
        read_retries: int = READ_RETRIES,
    ) -> None:
        self._transport = Transport(settings, timeout_s=timeout_s, read_retries=read_retries)
        self._read, self._write = self._transport.read, self._transport.write

    # --- who and where -------------------------------------------------------------------------

    def connect(self) -> Connection:
        """Ask Label Studio who we are; the quickest way to find a wrong address or token."""
        user = self._read("api/current-user/whoami")
        version = self._read("api/version")
        return Connection(
            version=str(version.get("release", "unknown")),
            user=str(user.get("email") or user.get("username")),
            token=self._transport.token_kind,
        )

    def project(self, name: str, labelling: Labelling) -> Project:
        """The project of that title or number, made if it is missing, with at least these classes.

        Args:
            name: a title, or a number for a project that exists.
            labelling: classes it has to offer; ones it has already are kept.

        Raises:
            LabelFormatError: if the project has a configuration that is not ours.
        """
        found = self._find_project(name)
        if found is None:
            body = {
                "title": name,
                "description": "Images that Rollmark is not sure about.",
                "expert_instruction": _INSTRUCTION,
                "show_instruction": True,
                "label_config": labelling.config(),
                "sampling": _SAMPLING,
                "model_version": MODEL_VERSION,
                "show_collab_predictions": True,
                "enable_empty_annotation": True,
                "maximum_annotations": 1,
            }
            project = _project(self._write("POST", "api/projects/", json=body))
            logger.info("created Label Studio project %d %r", project.id, project.title)
            return project
        # A project made by hand and never used has an empty view.
        empty = found["label_config"].strip() in ("", "<View></View>", "<View/>")
        has = Labelling((), (), ()) if empty else read_config(found["label_config"])
        wanted = has.joined(labelling)
        changes: dict[str, Any] = {}
        if empty or wanted != has:
            changes["label_config"] = wanted.config()
        if found.get("sampling") != _SAMPLING:
            changes["sampling"] = _SAMPLING
        if changes:
            found = self._write("PATCH", f"api/projects/{found['id']}/", json=changes)
            logger.info("updated Label Studio project %d: %s", found["id"], ", ".join(changes))
        return _project(found)

    def project_id(self, name: str) -> int | None:
        """Number of the project of that title or number; None if there is no such title yet."""
        found = self._find_project(name)
        return None if found is None else int(found["id"])

    def follow_our_order(self, project: Project) -> None:
        """Have the project serve tasks by our scores; possible once it has a prediction of ours."""
        if project.model_version != MODEL_VERSION:
            body = {"model_version": MODEL_VERSION}
            self._write("PATCH", f"api/projects/{project.id}/", json=body)

    # --- out -----------------------------------------------------------------------------------

    def upload(self, project_id: int, name: str, data: bytes, mime: str) -> str:
        """Put an image into Label Studio itself, where its editor can always load it.

        Returns:
            The address for the task's data; relative, so that it survives a new host name.
        """
        answer = self._write(
            "POST",
            f"api/projects/{project_id}/import",
            params={"commit_to_project": False},
            files={"file": (name, data, mime)},
        )
        upload_id = only(answer, "file_upload_ids")
        stored = part(self._read(f"api/import/file-upload/{upload_id}"), "file")
        return "/data/" + str(stored).lstrip("/").removeprefix("data/")

    def image(self, url: str) -> bytes:
        """The bytes of an uploaded image, as the editor loads them."""
        return self._transport.read_bytes(url.lstrip("/"))

    def create_task(
        self, project_id: int, data: Mapping[str, str], prediction: Mapping[str, Any]
    ) -> int:
        """Create one task with one prediction; sent once, whatever happens.

        Returns:
            The task's id.
        """
        answer = self._write(
            "POST",
            f"api/projects/{project_id}/import",
            params={"return_task_ids": True},
            json=[{"data": dict(data), "predictions": [dict(prediction)]}],
        )
        return only(answer, "task_ids")

    def task(self, task_id: int) -> dict[str, Any]:
        """A task with its predictions and all its annotations, skipped ones too."""
        return self._read(f"api/tasks/{task_id}/")

    def tasks(self, project_id: int, task_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Those of these tasks that are in the project, each as `task` reads it."""
        tasks = self._tasks_in(project_id, "id", "Number", task_ids, fields="all")
        return {int(task["id"]): task for task in tasks}

    def tasks_with(self, project_id: int, dedupe_keys: Sequence[str]) -> dict[str, list[int]]:
        """Ids of the tasks that carry each key, lowest first; keys without a task are absent."""
        found: dict[str, list[int]] = {}
        tasks = self._tasks_in(project_id, "data.dedupe_key", "Unknown", dedupe_keys, fields=None)
        for task in tasks:
            found.setdefault(str(task["data"]["dedupe_key"]), []).append(int(task["id"]))
        return {key: sorted(ids) for key, ids in found.items()}

    def delete_task(self, task_id: int) -> None:
        """Remove a task with all that belongs to it; one that is gone already is fine."""
        try:
            self._write("DELETE", f"api/tasks/{task_id}/")
        except RequestRefused as exc:
            if exc.status != 404:
                raise

    # --- back ----------------------------------------------------------------------------------

    def tasks_changed_since(self, project_id: int, since: datetime) -> Iterator[dict[str, Any]]:
        """Tasks in the order of their last change, from that time on; some may come twice.

        Read by key, not by page number: a task that changes meanwhile moves to the end and would
        push another one off the page that is yet to be read.
        """
        seen: set[tuple[int, str]] = set()
        page = 1
        while True:
            at = since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            tasks = self._page(
                project_id,
                _filter("updated_at", "greater_or_equal", "Datetime", at),
                ordering="tasks:updated_at",
                page=page,
                fields="all",
            )
            fresh = [t for t in tasks if (t["id"], t["updated_at"]) not in seen]
            seen.update((t["id"], t["updated_at"]) for t in fresh)
            yield from fresh
            if len(tasks) < PAGE:
                return
            last = datetime.fromisoformat(tasks[-1]["updated_at"])
            # A full page of one and the same time can only be passed by its number.
            page, since = (page + 1, since) if last <= since else (1, last)

    def all_tasks(self, project_id: int) -> Iterator[dict[str, Any]]:
        """Every task of the project with all its annotations, by id."""
        last = 0
        while True:
            tasks = self._page(
                project_id,
                _filter("id", "greater", "Number", last),
                ordering="tasks:id",
                page=1,
                fields="all",
            )
            yield from tasks
            if len(tasks) < PAGE:
                return
            last = max(int(task["id"]) for task in tasks)

    def close(self) -> None:
        """Give back the connections; leaving a `with` block does it, too."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- requests ------------------------------------------------------------------------------

    def _find_project(self, name: str) -> dict[str, Any] | None:
        if name.isdigit():
            return self._read(f"api/projects/{name}/")
        page = 1
        while True:
            params = {"title": name, "page": page, "page_size": 100, "ordering": "id"}
            answer = self._read("api/projects/", params=params)
            for project in part(answer, "results"):  # the server's filter is "contains"
                if project["title"] == name:
                    return self._read(f"api/projects/{project['id']}/")
            if not answer.get("next"):
                return None
            page += 1

    def _tasks_in(
        self, project_id: int, column: str, kind: str, values: Sequence[Any], *, fields: str | None
    ) -> Iterator[dict[str, Any]]:
        """Tasks whose column has one of these values, by id."""
        for start in range(0, len(values), PAGE):  # the question is part of the address
            where = _filter(column, "in_list", kind, list(values[start : start + PAGE]))
            page = 1
            while True:
                tasks = self._page(project_id, where, ordering="tasks:id", page=page, fields=fields)
                yield from tasks
                if len(tasks) < PAGE:
                    break
                page += 1

    def _page(
        self,
        project_id: int,
        where: Mapping[str, Any],
        *,
        ordering: str,
        page: int,
        fields: str | None,
    ) -> list[dict[str, Any]]:
        query = {
            "filters": {"conjunction": "and", "items": [dict(where)]},
            "ordering": [ordering],
        }
        params = {
            "project": project_id,
            "query": json.dumps(query),
            "page": page,
            "page_size": PAGE,
            "fields": fields,
        }
        try:
            answer = self._read("api/tasks/", params=params)
        except RequestRefused as exc:
            # Past the last page; the number of tasks shrank or is a multiple of the page.
            if exc.status == 404 and page > 1:
                return []
            raise
        tasks: list[dict[str, Any]] = part(answer, "tasks")
        return tasks


def _project(answer: Mapping[str, Any]) -> Project:
    born = datetime.fromisoformat(part(answer, "created_at")).astimezone(UTC)
    return Project(
        id=int(answer["id"]),
        title=str(answer["title"]),
        config=str(answer["label_config"]),
        model_version=str(answer.get("model_version") or ""),
        origin=f"{answer['id']} {born.isoformat()}",
    )


def _filter(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {
        "filter": f"filter:tasks:{column}",
        "operator": operator,
        "type": kind,
        "value": value,
    }
