"""What to say while a large picture is looked at: an answer after some seconds needs a number."""

from __future__ import annotations

from typing import Final

from core.types import DecodedImage
from demo.loaded import tiles_of
from demo.service import Service
from demo.words import short

_FROM: Final = 12  # tiles; fewer are answered before a sentence could be read


def announcement(service: Service, image: DecodedImage, model: str) -> str:
    """ "GRACE looks at 12,000 × 200 px in 80 tiles …"; empty where the answer is there at once.

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
        return ""
    size = f"{image.width:,} × {image.height:,} px"
    return f"{short(config.title)} looks at {size} in {tiles} tiles …"
