"""How much steel one pixel shows, so that sizes can be told in millimetres."""

from __future__ import annotations

from dataclasses import dataclass

from core.records import Box


@dataclass(frozen=True, slots=True)
class PixelPitch:
    """Steel that one pixel shows; of a line-scan camera the two may differ.

    Along a strip the pitch of a line-scan camera is the line's speed by its rate of lines.
    """

    across_mm: float  # from one pixel of a row to the next
    down_mm: float  # from one row to the next

    def size_mm(self, box: Box) -> tuple[float, float]:
        """Width and height in mm of a box in px."""
        x1, y1, x2, y2 = box
        return (x2 - x1) * self.across_mm, (y2 - y1) * self.down_mm

    def area_mm2(self, area_px: int) -> float:
        """What so many pixels cover, in mm²."""
        return area_px * self.across_mm * self.down_mm
