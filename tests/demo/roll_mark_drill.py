"""`python -m tests.demo.roll_mark_drill`: how well marks that come again along a strip are told.

First on places alone, drawn at random, and then as the app does it: real pictures of a test split
are laid out as strips, a real defect of another picture is printed into half of them once a turn,
and the bundled GRACE looks at each. What comes out is written to docs/benchmarks/roll-marks.md.
"""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from PIL import Image as Pillow

from core.images import decode
from core.repeats import FALSE_ALARMS, Mark, find_repeats
from core.settings import ReviewSettings, Settings
from core.types import Image
from demo.roll_marks import marks_of
from demo.service import Service
from training._blending import blend, match_tone, texture
from training.datasets import Dataset, Sample, open_dataset
from training.runs import describe_machine, git_commit

REPORT: Final = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "roll-marks.md"
SIDE: Final = 200  # px of a picture of NEU-DET
COLUMNS, ROWS = 2, 45  # pictures of a strip: 400 × 9,000 px
LENGTH, WIDTH = 16_000.0, 4_096.0  # px of a strip of places alone
MARKS: Final = ("inclusion", "patches", "scratches")  # with an outline that can be cut out
NEAR: Final = 0.01  # of the period, for a mark to have been told


def chance(rng: np.random.Generator, n: int, width: float = WIDTH) -> list[Mark]:
    """So many marks of one class anywhere on a strip, 10 to 60 px large."""
    return [
        Mark("inclusion", *(float(rng.uniform(0, side)) for side in (LENGTH, width)), *sizes)
        for sizes in rng.uniform(10, 60, (n, 2)).tolist()
    ]


def turns(rng: np.random.Generator, *, jitter: float, missed: float) -> tuple[float, list[Mark]]:
    """A period of 600 to 2,500 px, and the marks that a roll left; each 40 px large."""
    period, across = rng.uniform(600, 2500), rng.uniform(200, WIDTH - 200)
    places = np.arange(rng.uniform(0, period), LENGTH, period)
    return float(period), [
        Mark("inclusion", float(y + rng.normal(0, jitter)), float(across), 40.0, 40.0)
        for y in places
        if rng.random() >= missed
    ]


def on_places(seed: int, strips: int) -> Iterator[str]:
    """Tables of false alarms and of marks found, without pictures."""
    yield "| marks of chance | width (px) | strips | told |\n| ---: | ---: | ---: | ---: |"
    for n, width in ((10, WIDTH), (40, WIDTH), (100, WIDTH), (20, 400.0), (60, 400.0)):
        rng = np.random.default_rng((seed, n))
        told = sum(
            bool(find_repeats(chance(rng, n, width), length=LENGTH, width=width))
            for _ in range(strips)
        )
        yield f"| {n} | {width:,.0f} | {strips} | {told} |"
    yield "\n| placed to (px) | missed | others of its class | strips | found |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    for jitter, missed, others in (
        *((2, 0.0, 0), (2, 0.2, 20), (2, 0.4, 20), (2, 0.2, 60)),
        *((10, 0.0, 20), (10, 0.2, 20), (10, 0.4, 20), (20, 0.0, 20)),
    ):
        rng = np.random.default_rng((seed, jitter, others))
        found = 0
        for _ in range(strips):
            period, marks = turns(rng, jitter=jitter, missed=missed)
            found += _is_told([*marks, *chance(rng, others)], LENGTH, WIDTH, period)
        yield f"| {jitter} | {missed:.0%} | {others} | {strips} | {found} |"


def _is_told(marks: list[Mark], length: float, width: float, period: float) -> bool:
    told = find_repeats(marks, length=length, width=width)
    return any(abs(each.period - period) < NEAR * period for each in told)


def strip_of(rng: np.random.Generator, samples: list[Sample]) -> Image:
    """Pictures side by side and one below the other, in an order of chance."""
    chosen = rng.choice(len(samples), COLUMNS * ROWS, replace=False)
    tiles = [_pixels(samples[k])[:SIDE, :SIDE] for k in chosen]
    lines = [np.concatenate(tiles[k : k + COLUMNS], axis=1) for k in range(0, len(tiles), COLUMNS)]
    return np.concatenate(lines)


def printed(
    rng: np.random.Generator, strip: Image, samples: list[Sample]
) -> tuple[Image, float, list[Mark]]:
    """The strip with a real defect in it once a turn, placed to a pixel; period and places."""
    boxes = [
        (sample, label, box)
        for sample in samples
        for label, box in sample.boxes
        if label in MARKS and all(20 <= box[k + 2] - box[k] <= 80 for k in (0, 1))
    ]
    sample, label, box = boxes[rng.integers(len(boxes))]
    x1, y1, x2, y2 = (round(edge) for edge in box)
    piece = _pixels(sample)[y1:y2, x1:x2]
    high, wide = piece.shape[:2]
    # Soft corners: an ellipse that fills the box.
    rows, columns = np.ogrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
    mask = rows**2 + columns**2 <= 1
    period, across = rng.uniform(500, 1500), int(rng.integers(0, strip.shape[1] - wide))
    places = []
    for y in np.arange(rng.uniform(0, period), len(strip) - high - 2, period):
        top = max(round(y + rng.normal(0, 1)), 0)
        around = strip[top : top + high, across : across + wide]
        toned = match_tone(piece, of=texture(piece), to=texture(around))
        strip = blend(strip, toned, mask, x=across, y=top)
        places.append(Mark(label, top + high / 2, across + wide / 2, high, wide))
    return strip, float(period), places


def _is_seen(place: Mark, marks: list[Mark]) -> bool:
    """Whether the detector named the class with a middle inside the middle half of the place."""
    return any(
        mark.label == place.label
        and abs(mark.along - place.along) <= place.length / 4
        and abs(mark.across - place.across) <= place.width / 4
        for mark in marks
    )


def on_pictures(seed: int, strips: int, dataset: Dataset, service: Service) -> Iterator[str]:
    """What the bundled detector and the search tell of strips with and without a mark."""
    samples = list(dataset.split("leak-free", "test"))
    rng = np.random.default_rng(seed)
    found = wrong = told_of_none = seen = shown = 0
    for _ in range(strips):
        plain = strip_of(rng, samples)
        told_of_none += bool(_told(_marks(service, plain)))
        marked, period, places = printed(rng, plain, samples)
        marks = _marks(service, marked)
        shown += len(places)
        seen += sum(_is_seen(place, marks[0]) for place in places)
        told = _told(marks)
        right = [abs(each - period) < NEAR * period for each in told]
        found += any(right)
        wrong += not all(right)
    yield "| strips of pictures | strips | number |\n| --- | ---: | ---: |"
    yield f"| without a mark: something told | {strips} | {told_of_none} |"
    yield f"| with a mark: told, its period within 1 % | {strips} | {found} |"
    yield f"| with a mark: something else told | {strips} | {wrong} |"
    yield f"\nOf the {shown} places with a printed defect the detector marked {seen} as such."


def _marks(service: Service, strip: Image) -> tuple[list[Mark], float, float]:
    file = io.BytesIO()
    Pillow.fromarray(strip).save(file, "PNG")
    return marks_of(service.inspect(file.getvalue(), "grace").inspection)


def _told(seen: tuple[list[Mark], float, float]) -> list[float]:
    marks, length, width = seen
    return [each.period for each in find_repeats(marks, length=length, width=width)]


def _pixels(sample: Sample) -> Image:
    return decode(sample.path).pixels


def main(
    seed: Annotated[int, typer.Option(help="Of places and of strips.")] = 0,
    places: Annotated[int, typer.Option(min=1, help="Strips of places alone, each kind.")] = 500,
    pictures: Annotated[int, typer.Option(min=1, help="Strips of pictures, each kind.")] = 50,
) -> None:
    """Write docs/benchmarks/roll-marks.md."""
    paths = Settings().paths
    service = Service(Settings(paths=paths, review=ReviewSettings(review_threshold=1.0)))
    dataset = open_dataset("neu-det", paths.datasets)
    revision = service.choose("grace").config.revision
    page = [
        "# Marks that come again",
        f"Written by `{shlex.join(['python', '-m', 'tests.demo.roll_mark_drill', *sys.argv[1:]])}` "
        f"at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {git_commit()[:12]}, "
        f"{describe_machine('cpu')}, seed {seed}.",
        "Is what comes again along a strip told, and nothing else? [How it is judged]"
        "(../roll-marks.md). At most one strip in a hundred may be told of by chance "
        f"(number of false alarms {FALSE_ALARMS}).",
        "## Places alone",
        f"Strips of {LENGTH:,.0f} px with marks of one class, {WIDTH:,.0f} px wide where nothing "
        "else is said. Marks of chance lie anywhere; a roll's lie 600 to 2,500 px apart.",
        "\n".join(on_places(seed, places)),
        "## Pictures",
        f"Strips of {COLUMNS * SIDE} × {ROWS * SIDE:,} px, of {COLUMNS * ROWS} test pictures of "
        "NEU-DET each (leak-free) in an order of chance; in half of them an inclusion, patch or "
        "scratch of 20 to 80 px, cut out of a test picture, blended in once in 500 to 1,500 px and "
        f"placed to one pixel. GRACE {revision} looks at them as the app does. It has to find a "
        "defect each time, in other surroundings and among real defects everywhere.",
        "\n".join(on_pictures(seed, pictures, dataset, service)),
        "Not tested here, and not claimed: strips of a mill, and rolls whose marks change.",
    ]
    REPORT.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    typer.echo(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    typer.run(main)
