"""What is see-through in a picture lies over white, as the browser in which a person labels has it.

Besides channels and palettes of opacity a PNG may name one colour that is see-through, at the depth
of the file's own samples; Pillow hands it on so, whatever depth it gives the pixels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageFile

_WHITE_OF_FEW_BITS: Final = {"L;2": 3, "L;4": 15}  # of grey samples, as Pillow names them


def load_pixels(image: ImageFile.ImageFile) -> None:
    """Decode the pixels, and bring a PNG's see-through colour to the depth that they have then."""
    png = getattr(image, "png", None)  # Pillow drops it once the pixels are decoded
    image.load()
    if png is None:
        return
    key = image.info.get("transparency")
    if png.im_rawmode == "RGB;16B" and isinstance(key, tuple):
        # Inexact: of the pixels only the high bytes are left, so all that share them match.
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif png.im_rawmode in _WHITE_OF_FEW_BITS and isinstance(key, int):
        image.info["transparency"] = key * 255 // _WHITE_OF_FEW_BITS[png.im_rawmode]


def sixteen_bits_over_white(image: PillowImage.Image) -> NDArray[np.uint16]:
    """The (H, W) samples of a 16-bit grey picture, the see-through ones as white."""
    samples = np.asarray(image)
    key = image.info.get("transparency")
    return np.where(samples == key, np.uint16(0xFFFF), samples) if isinstance(key, int) else samples


def grey_or_rgb_over_white(image: PillowImage.Image) -> PillowImage.Image:
    """A picture of any 8-bit mode as L or RGB."""
    if "transparency" in image.info:  # one colour, or entries of the palette, are see-through
        image = image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA"):
        mode = "L" if image.mode in ("LA", "La") else "RGB"
        image = image.convert(mode + "A")
        alpha = image.getchannel("A")
        white = PillowImage.new(mode, image.size, "white")
        return PillowImage.composite(image.convert(mode), white, alpha)
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
