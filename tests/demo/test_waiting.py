"""What a page says while a large picture is looked at."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from demo.service import Service
from demo.waiting import Large, large
from tests.demo.releases import PICTURE


def test_a_long_look_is_announced_with_the_number_of_tiles(
    service: Service, tmp_path: Path
) -> None:
    strip = tmp_path / "strip.png"
    Image.new("L", (4000, 200), 90).save(strip)
    # Learned from 200 px scaled to 64: the strip becomes 1280 × 64 px; tiles of 64 px overlap by
    # a quarter, so a new one begins every 48 px: 1 + (1280 - 64) / 48, rounded up, are 27.
    assert large(service, service.decode(strip), "grace") == Large(
        27, "GRACE looks at 4,000 × 200 px in 27 tiles …"
    )


def test_an_answer_that_is_there_at_once_is_not_announced(service: Service) -> None:
    assert large(service, service.decode(PICTURE), "auto") is None
