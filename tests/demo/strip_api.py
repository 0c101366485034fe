"""The endpoints before detectors that find a scratch again and again; prints where. A program."""

from __future__ import annotations

import sys
from pathlib import Path

import gradio as gr

from core.settings import PathSettings, ReviewSettings, ServingSettings, Settings
from demo import loaded
from demo.api import register
from demo.service import Service
from tests.demo import fakes, releases

PLACES = (100, 1100, 2100, 4100)  # px of their middles; the one at 3100 was missed
SCORES = (0.9, 0.8, 0.7, 0.6)
# 40 px across the strip, 20 px along it, the surest first.
FOUND = tuple(
    (5, p, (60.0, y - 10.0, 100.0, y + 10.0)) for p, y in zip(SCORES, PLACES, strict=True)
)


def strip_service(root: Path) -> Service:
    """Two detectors and a classifier, released in a folder, at 0.25 × 0.5 mm a pixel."""
    for name, task in (("da_yolo", "detect"), ("grace", "detect"), ("mobilesteelnet", "classify")):
        releases.describe(root / "bundled" / name, name, task=task)  # type: ignore[arg-type]
    return Service(
        Settings(
            paths=PathSettings(bundled=root / "bundled", data=root / "data"),
            serving=ServingSettings(mm_per_px=0.25, mm_per_px_down=0.5, runtime="torch"),
            review=ReviewSettings(queue_unsure=False),
        )
    )


def main(root: Path) -> None:
    """Serve until killed."""
    loaded.load = fakes.Loader()  # type: ignore[assignment]
    fakes.FOUND = FOUND  # type: ignore[assignment]
    with gr.Blocks(analytics_enabled=False) as blocks:
        register(strip_service(root))
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    print(address, flush=True)
    blocks.block_thread()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
