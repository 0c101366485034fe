"""What to say while a large picture is looked at: an answer after some seconds needs a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from core.types import DecodedImage
from demo.loaded import tiles_of
from demo.service import Service
from demo.words import short
from models._committee import COMMITTEE, detectors

_FROM: Final = 12  # tiles; fewer are answered before a sentence could be read


@dataclass(frozen=True, slots=True)
class Large:
    """A picture that takes a while."""

    tiles: int  # to be looked at, by all members where a committee looks
    text: str  # "GRACE looks at 12,000 × 200 px in 80 tiles …"


def large(service: Service, image: DecodedImage, model: str) -> Large | None:
    """What there is to do; None where the answer is there at once.

    Args:
        service: what will look.
        image: the picture.
        model: name of a served model, or `auto`.

    Raises:
        RollmarkError: what `Service.choose` raises.
    """
    config = service.choose(model).config
    tiles = tiles_of(config, image)
    if tiles < _FROM:
        return None
    size = f"{image.width:,} × {image.height:,} px"
    members = len(detectors()) if config.name == COMMITTEE else 1
    return Large(tiles * members, f"{short(config.title)} looks at {size} in {tiles} tiles …")
