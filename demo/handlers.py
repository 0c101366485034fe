"""What happens on an event, as plain functions: no component, no layout.

Our own errors become a `gr.Error` with their one sentence; anything unforeseen is written to the
log with its traceback, and the person is told only that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gradio as gr
import numpy as np

from core.errors import InputError, RollmarkError, WeightsNotFoundError
from core.records import Inspection, ReleaseConfig
from core.types import DecodedImage, Image, Task
from demo.draw import Layers, overlay, usual_layers
from demo.expecting import expect
from demo.heat import Heat, paint
from demo.service import AUTO, Comparison, Look, Service
from demo.telling import told
from demo.unpack import shown_name
from demo.words import short

logger = logging.getLogger(__name__)

SHOWN_SIDE_PX: Final = 1600  # of a large picture on the page; downloads keep full resolution
SEEN_SIDE_PX: Final = 500  # how large a page shows it
TILE_SIDE_PX: Final = 800
TILE_SEEN_PX: Final = 260
UNFORESEEN: Final = "Something failed on the server; its log says what. Please try another picture."
# Events of the page; they are no part of the API, and nothing they do needs a caller's identity.
PRIVATE: Final[dict[str, Any]] = {"api_visibility": "private"}
_FILE_TYPE: Final = "gradio.FileData"


@dataclass(frozen=True, slots=True, eq=False)  # two answers are two, however alike
class Shown:
    """What a visitor's page is showing; small enough to be kept for every visitor."""

    path: str  # of the uploaded picture, in the app's own cache or among the samples
    name: str  # of the picture, for people and for downloads
    inspection: Inspection
    labels: tuple[str, ...]
    title: str  # of the model
    drawn: tuple[str, ...] = ()  # what was drawn on it at first, by the titles of the check boxes


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """What a visitor's page of a comparison is showing, model by model."""

    path: str  # of the picture, as of `Shown`
    name: str  # of the picture, for people and for downloads
    inspections: tuple[Inspection, ...]
    titles: tuple[str, ...]  # of the models
    labels: tuple[tuple[str, ...], ...]  # that each model can name
    committee: dict[str, Any]  # what they say together, as the API sends it

    def record(self) -> dict[str, Any]:
        """All of it, as `/compare` answers."""
        return _comparison_record(self.inspections, self.committee)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn every error inside into a `gr.Error` of one sentence."""
    try:
        yield
    except RollmarkError as exc:
        raise gr.Error(told(exc), print_exception=False) from exc
    except gr.Error:
        raise
    except Exception as exc:
        logger.exception("unforeseen")
        raise gr.Error(UNFORESEEN, print_exception=False) from exc


def sentence_of(error: Exception) -> str:
    """What to tell a person about an error; one that is not ours also goes to the log."""
    if isinstance(error, RollmarkError):
        return told(error)
    logger.error("unforeseen", exc_info=error)
    return UNFORESEEN


def inspect(
    service: Service,
    path: str,
    name: str,
    *,
    image: DecodedImage,
    model: str,
    score_threshold: float | None,
) -> tuple[Shown, Look]:
    """Let a model look at a file, whose picture is `image`.

    Raises:
        RollmarkError: whatever `Service.inspect` raises.
    """
    look = service.inspect(Path(path), model, score_threshold=score_threshold, image=image)
    return Shown(path, name, look.inspection, look.prediction.labels, look.title), look


def model_choices(service: Service) -> list[tuple[str, str]]:
    """Title and name of whatever can be asked, the automatic choice first; empty if nothing can."""
    named = [(short(r.config.title), r.config.name) for r in service.choices()]
    if not named:
        return []
    return [(f"Automatic: {short(service.choose().config.title)}", AUTO), *named]


def first_choice(service: Service) -> tuple[Task | None, float, str]:
    """Task of the model that answers first, the lowest score that it shows, and what to expect.

    What a page is laid out with, for a visitor who is faster than the events of its opening; a task
    of None where nothing is served.
    """
    try:
        config = service.choose().config
    except WeightsNotFoundError:
        return None, ReleaseConfig.model_fields["score_threshold"].default, ""
    usual = service.usual_threshold(config)
    return config.task, usual, expect(config, usual).brief


def draw(look: Look, layers: Layers) -> Image:
    """The picture of an answer as the first tab shows it."""
    return overlay(
        look.image.pixels,
        look.inspection,
        labels=look.prediction.labels,
        layers=layers,
        max_side_px=SHOWN_SIDE_PX,
        seen_side_px=SEEN_SIDE_PX,
    )


def draw_tile(look: Look) -> Image:
    """The picture of an answer as one of many: too small for names, or for boxes around regions."""
    return tile(look.image, look.inspection, look.prediction.labels)


def tile(image: DecodedImage, inspection: Inspection, labels: Sequence[str]) -> Image:
    """`draw_tile` of an answer that was given before."""
    return overlay(
        image.pixels,
        inspection,
        labels=labels,
        layers=usual_layers(inspection, names=False),
        max_side_px=TILE_SIDE_PX,
        seen_side_px=TILE_SEEN_PX,
    )


def redraw(
    service: Service,
    shown: Shown,
    layers: Layers,
    *,
    selected: int | None = None,
    heat: Heat = "off",
) -> Image:
    """The picture again, with other layers, heat, or a finding that stands out.

    Raises:
        RollmarkError: if the picture has been cleared from the server meanwhile, or the model that
            answered cannot be explained.
    """
    return overlay(
        ground(service, shown, heat),
        shown.inspection,
        labels=shown.labels,
        layers=layers,
        selected=selected,
        max_side_px=SHOWN_SIDE_PX,
        seen_side_px=SEEN_SIDE_PX,
    )


def ground(service: Service, shown: Shown, heat: Heat) -> Image:
    """What an answer is drawn on: its picture, with the heat that is wanted.

    Raises:
        RollmarkError: as `redraw`.
    """
    image = image_of(service, shown)
    if heat == "off":
        return image.pixels
    return paint(image.pixels, service.heat(image, shown.inspection, heat))


def image_of(service: Service, shown: Shown | Compared) -> DecodedImage:
    """The picture that a page is showing, decoded.

    Raises:
        InputError: if it has been cleared from the server meanwhile.
    """
    path = Path(shown.path)
    if not path.is_file():
        raise InputError(
            f"The picture {shown.name} has been cleared from the server; open it again."
        )
    return service.decode(path)


def uploaded(picture: Any) -> tuple[str, str]:
    """Path and name of an uploaded file, from what a page or a client sends.

    The web framework has checked that the path of a marked file lies in its upload folder; an
    unmarked dictionary has not been checked and is refused.

    Raises:
        InputError: if it is no uploaded file.
    """
    marked = isinstance(picture, dict) and isinstance(picture.get("meta"), dict)
    if not marked or picture["meta"].get("_type") != _FILE_TYPE or not picture.get("path"):
        raise InputError("No image was sent; upload one and send the file it became.")
    path = str(picture["path"])
    return path, shown_name(str(picture.get("orig_name") or path))


def uploaded_files(sent: Any) -> list[tuple[Path, str]]:
    """Path and name of every file that was dropped.

    Raises:
        InputError: if there is none.
    """
    each = sent if isinstance(sent, list) else [sent]
    files = [uploaded(one) for one in each if one]
    if not files:
        raise InputError("Nothing was dropped; choose pictures, a folder or a zip archive.")
    return [(Path(path), name) for path, name in files]


def answer_inspect(
    service: Service, image: Any, model: Any, score_threshold: Any
) -> dict[str, Any]:
    """`/inspect`: one Inspection as JSON.

    Raises:
        gr.Error: with one sentence, whatever is wrong.
    """
    with one_sentence():
        if not isinstance(model, str):
            raise InputError(f"Model is {model!r:.60}; the name of one, or 'auto', is wanted.")
        if isinstance(score_threshold, bool) or not isinstance(score_threshold, int | float | None):
            raise InputError(
                f"Score threshold is {score_threshold!r:.60}; a number in 0 to 1 is wanted."
            )
        path, _ = uploaded(image)
        look = service.inspect(Path(path), model, score_threshold=score_threshold)
        return look.inspection.model_dump(mode="json")


def answer_compare(service: Service, image: Any, models: Any) -> dict[str, Any]:
    """`/compare`: every Inspection and what they say together, as JSON.

    Raises:
        gr.Error: with one sentence, whatever is wrong.
    """
    with one_sentence():
        path, _ = uploaded(image)
        return comparison_record(service.compare(Path(path), checked_names(models)))


def answer_flag(service: Service, image: Any, model: Any, reason: Any, note: Any) -> dict[str, Any]:
    """`/flag`: the review item that the image became.

    Raises:
        gr.Error: with one sentence, whatever is wrong.
    """
    with one_sentence():
        for name, value in (("Model", model), ("Reason", reason), ("Note", note)):
            if not isinstance(value, str):
                raise InputError(f"{name} is {value!r:.60}; a text is wanted.")
        path, _ = uploaded(image)
        return {"review_item": service.flag(Path(path), model, reason=reason, note=note).id}


def answer_models(service: Service) -> list[dict[str, Any]]:
    """`/models`: what is served."""
    with one_sentence():
        return [model.model_dump(mode="json") for model in service.models()]


def answer_status(service: Service) -> dict[str, Any]:
    """`/status`: review queue, loaded models, last training run."""
    with one_sentence():
        return service.status()


def checked_names(models: Any) -> Sequence[str] | None:
    """Names of models as a caller sent them.

    Raises:
        InputError: if it is neither a list of names nor nothing.
    """
    if models is None:
        return None
    if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        raise InputError(f"Models is {models!r:.60}; a list of names, or null, is wanted.")
    return models


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Every Inspection and what the models say together, as the API sends it."""
    seen = [look.inspection for look in comparison.looks]
    return _comparison_record(seen, committee_record(comparison))


def _comparison_record(
    inspections: Sequence[Inspection], committee: dict[str, Any]
) -> dict[str, Any]:
    return {
        "inspections": [inspection.model_dump(mode="json") for inspection in inspections],
        "committee": committee,
    }


def compared(path: str, name: str, comparison: Comparison) -> Compared:
    """A comparison as a page keeps it."""
    return Compared(
        path=path,
        name=name,
        inspections=tuple(look.inspection for look in comparison.looks),
        titles=tuple(look.title for look in comparison.looks),
        labels=tuple(tuple(look.prediction.labels) for look in comparison.looks),
        committee=committee_record(comparison),
    )


def committee_record(comparison: Comparison) -> dict[str, Any]:
    """What the models say together, as the API sends it."""
    committee = comparison.committee
    return {
        "disagreement": float(np.clip(committee.disagreement, 0, 1)),
        "reasons": list(committee.reasons),
        "sentence": committee.sentence,
    }
