"""Where a live view gets its pictures from on the server: a video file, or the watched folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from core.errors import InputError
from core.images import MEGA, SUFFIXES, ImageLimits, decode
from core.types import DecodedImage, Image
from demo.live_session import LiveView

_MAX_SECONDS: Final = 600  # of a video
_MAX_FPS: Final = 120.0
_USUAL_FPS: Final = 25.0
_FOLDER_ROUND_S: Final = 0.5


def picture_of(pixels: Image, limits: ImageLimits) -> DecodedImage:
    """A frame, RGB or grey, as a picture; its identity is that of its pixels as PNG.

    Raises:
        InputError: if it is larger than the caps allow.
    """
    import cv2

    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels[..., :3], cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise InputError("A frame of the camera cannot be read.")
    return decode(data.tobytes(), limits=limits)


def video_feed(
    path: Path, limits: ImageLimits, *, sleep: Callable[[float], None] = time.sleep
) -> Callable[[LiveView], None]:
    """Offers the frames of a video at the speed at which it was taken.

    Args:
        path: of the file.
        limits: of one frame.
        sleep: seconds.
    """

    def feed(view: LiveView) -> None:
        import cv2

        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise InputError("This is no video that can be read; MP4, AVI, MOV and WebM are.")
            width, height = (capture.get(k) for k in (3, 4))  # px
            if width * height > limits.max_pixels:
                raise InputError(
                    f"A frame has {width * height / MEGA:.0f} megapixels; at most "
                    f"{limits.max_pixels / MEGA:.0f} are looked at."
                )
            rate = capture.get(cv2.CAP_PROP_FPS)
            step = 1 / rate if 0 < rate <= _MAX_FPS else 1 / _USUAL_FPS
            started, number = time.monotonic(), 0
            while not view.is_closed and number * step < _MAX_SECONDS:
                read, frame = capture.read()
                if not read:
                    break
                sleep(max(0.0, started + number * step - time.monotonic()))
                rgb: Image = np.ascontiguousarray(frame[..., ::-1], dtype=np.uint8)
                view.offer(picture_of(rgb, limits))
                number += 1
            if number == 0:
                raise InputError("The video holds no frame that can be read.")
        finally:
            capture.release()

    return feed


def folder_feed(
    folder: Path, *, sleep: Callable[[float], None] = time.sleep
) -> Callable[[LiveView], None]:
    """Offers every picture that appears in a folder from now on, when it has stopped growing."""

    def feed(view: LiveView) -> None:
        known = set(_pictures(folder))
        growing: dict[Path, int] = {}
        while not view.is_closed:
            for path in _pictures(folder):
                if path in known:
                    continue
                try:
                    size = path.stat().st_size
                except OSError:  # taken away meanwhile
                    continue
                if growing.get(path) == size and size > 0:
                    view.offer(path)
                    known.add(path)
                    growing.pop(path)
                else:
                    growing[path] = size
            sleep(_FOLDER_ROUND_S)

    return feed


def _pictures(folder: Path) -> list[Path]:
    """Pictures directly in the folder, no links, the oldest first.

    Raises:
        InputError: if the folder is not there.
    """
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES]
        return sorted((p for p in found if p.is_file() and not p.is_symlink()), key=_age)
    except OSError as exc:
        raise InputError(f"The watched folder cannot be read: {exc.strerror or exc}.") from exc


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name
