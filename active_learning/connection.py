"""Whether Label Studio can be reached with what the settings say, as one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from active_learning.label_studio import LabelStudio
from active_learning.label_studio_transport import shown_address
from core.errors import ConfigError, LabelStudioError
from core.settings import LabelStudioSettings

TIMEOUT_S: Final = 5.0  # of one answer; there are up to four, and a person is waiting


@dataclass(frozen=True, slots=True)
class Reach:
    """What a look at Label Studio found."""

    is_ready: bool
    sentence: str
    project_address: str = ""  # of its page, "" while there is no project

    def task_address(self, task_id: int | None) -> str:
        """The page on which a person answers a task; "" where there is none."""
        if task_id is None or not self.project_address:
            return ""
        return f"{self.project_address}/data?task={task_id}"


def reach(settings: LabelStudioSettings) -> Reach:
    """Ask Label Studio who we are and for our project; every failure is a sentence.

    Args:
        settings: address, token and project.
    """
    url = shown_address(settings.url)
    try:
        with LabelStudio(settings, timeout_s=TIMEOUT_S, read_retries=0) as studio:
            who = studio.connect()
            project = studio.project_id(settings.project)
    except (ConfigError, LabelStudioError) as exc:
        return Reach(False, str(exc))
    where = f"Connected to Label Studio {who.version} at {url}"
    if project is None:
        name = settings.project
        return Reach(
            True, f"{where}; project “{name}” will be made with the first image that is sent."
        )
    return Reach(True, f"{where}, project “{settings.project}”.", f"{url}/projects/{project}")
