"""What a person is asked: the one labelling configuration of a project, from the classes in it.

It serves all three tasks: rectangles (`box`), brush masks (`mask`), one choice for the whole image
(`verdict`), and above them the reasons why a person is asked (`$why`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, get_args
from xml.etree import ElementTree

from core import taxonomy
from core.errors import LabelFormatError
from core.geometry import is_anywhere
from core.records import Annotation
from core.types import Task

NO_DEFECT: Final = taxonomy.NO_DEFECT  # the choice of a sheet without any
BOX, MASK, VERDICT, IMAGE = "box", "mask", "verdict", "image"  # names in the configuration

_NO_DEFECT_COLOUR: Final = "#808080"
_ROW: Final = "display: flex; align-items: center; gap: 12px"


@dataclass(frozen=True, slots=True)
class Labelling:
    """The classes a person may choose from, for each way of marking them."""

    boxes: tuple[str, ...]
    masks: tuple[str, ...]
    choices: tuple[str, ...]  # of the whole image; `NO_DEFECT` comes on top

    def config(self) -> str:
        """The labelling configuration, XML; the same text for the same classes.

        Raises:
            LabelFormatError: if a class has a name that Label Studio might not show as it is.
        """
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Header", value="$why", size="5")
        # Above the image: below a tall one nobody would see that there is more to answer. In one
        # line each, or the image itself is out of sight.
        if self.boxes:
            row = _row(view, "Boxes")
            _control(row, "RectangleLabels", BOX, self.boxes, canRotate="false")
        if self.masks:
            row = _row(view, "Areas")
            _control(row, "BrushLabels", MASK, self.masks)
        choices = (*self.choices, NO_DEFECT)
        row = _row(view, "Image")
        _control(row, "Choices", VERDICT, choices, choice="single", layout="inline")
        # Rotation would make boxes that no detector can learn; it is not offered.
        ElementTree.SubElement(
            view,
            "Image",
            {"name": IMAGE, "value": "$image", "zoom": "true", "rotateControl": "false"},
        )
        ElementTree.indent(view)
        return ElementTree.tostring(view, encoding="unicode")

    @property
    def revision(self) -> str:
        """Short name of these classes: 12 hex digits of their SHA-256; how they are laid out
        does not matter, or an image that was answered would be asked about again for its looks.
        """
        classes = json.dumps([self.boxes, self.masks, self.choices])
        return hashlib.sha256(classes.encode()).hexdigest()[:12]

    def joined(self, other: Labelling) -> Labelling:
        """The classes of both, ours first: an older project loses none."""
        return Labelling(
            boxes=_union(self.boxes, other.boxes),
            masks=_union(self.masks, other.masks),
            choices=_union(self.choices, other.choices),
        )


def labelling_of(models: Iterable[tuple[Task, Sequence[str]]]) -> Labelling:
    """The configuration that serves models of these tasks and classes."""
    of_task: dict[Task, tuple[str, ...]] = {"detect": (), "segment": (), "classify": ()}
    for task, labels in models:
        of_task[task] = _union(of_task[task], labels)
    return Labelling(of_task["detect"], of_task["segment"], of_task["classify"])


def read_config(xml: str) -> Labelling:
    """The classes of a project that Rollmark made.

    Raises:
        LabelFormatError: if it is not such a configuration.
    """
    try:
        view = ElementTree.fromstring(xml)
    except ElementTree.ParseError as exc:
        raise LabelFormatError("The project's labelling configuration is not XML.") from exc
    image = view.find(f".//Image[@name='{IMAGE}']")
    verdict = view.find(f".//Choices[@name='{VERDICT}']")
    if image is None or image.get("value") != "$image" or verdict is None:
        raise LabelFormatError(
            "The project's labelling configuration is not Rollmark's: it needs an Image named "
            f"{IMAGE!r} and Choices named {VERDICT!r}; name another project."
        )

    def values(path: str) -> tuple[str, ...]:
        return tuple(str(entry.get("value")) for entry in view.findall(f".//{path}"))

    return Labelling(
        boxes=values(f"RectangleLabels[@name='{BOX}']/Label"),
        masks=values(f"BrushLabels[@name='{MASK}']/Label"),
        choices=tuple(
            value for value in values(f"Choices[@name='{VERDICT}']/Choice") if value != NO_DEFECT
        ),
    )


def labels_given(annotation: Annotation, task: Task) -> list[str]:
    """What an answer names of what a model of this task learns.

    Args:
        annotation: whose mask has an entry for every class that could be brushed, brushed or not.
        task: which of the three ways of marking is meant.

    Returns:
        A label a box, a label a class that covers any pixel, or the choice about the whole image.
    """
    match task:
        case "detect":
            return [label for label, _ in annotation.boxes]
        case "segment":
            if annotation.mask is None:
                return []
            entries = zip(annotation.mask_labels, annotation.mask.counts, strict=True)
            return [label for label, runs in entries if is_anywhere(runs)]
        case "classify":
            return [annotation.label] if annotation.label else []


def all_labels_given(annotation: Annotation) -> list[str]:
    """What an answer names in any of the three ways."""
    return [label for task in get_args(Task) for label in labels_given(annotation, task)]


def _row(view: ElementTree.Element, heading: str) -> ElementTree.Element:
    """A line of the page that begins with what is marked in it."""
    row = ElementTree.SubElement(view, "View", style=_ROW)
    ElementTree.SubElement(row, "Header", value=heading, size="6")
    return row


def _control(
    view: ElementTree.Element, tag: str, name: str, labels: Sequence[str], **more: str
) -> None:
    control = ElementTree.SubElement(view, tag, {"name": name, "toName": IMAGE, **more})
    for label in labels:
        if not taxonomy.CLASS_NAME.fullmatch(label):
            raise LabelFormatError(f"Class {label!r} cannot be sent: {taxonomy.CLASS_NAME_WORDS}.")
        colour = _NO_DEFECT_COLOUR if label == NO_DEFECT else taxonomy.look(label).colour
        entry = "Choice" if tag == "Choices" else "Label"
        ElementTree.SubElement(control, entry, value=label, background=colour)


def _union(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
