"""`python -m tests.active_learning.round_trip`: real images to a person and back, in numbers.

Images that were taken out of a prepared data set are inspected as the app does it and doubted
without exception; they are pushed to a real Label Studio, answered over its API in the words its
editor sends, pulled, and made the next version of the data set. The person knows the truth: what
the whole data set says. A few of the images are test images, which no version may take in.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from active_learning import errands
from active_learning.desk import Desk, open_desk
from active_learning.versions import ACCEPTANCE, Versions
from core.records import Annotation
from core.settings import PathSettings, ReviewSettings, ServingSettings, Settings
from demo.doubts import sample_hashes
from demo.service import Service
from tests.active_learning.drill_results import REPORT, Result, with_section
from tests.active_learning.label_studio_server import Server, running
from training.datasets import Dataset, Sample, open_dataset, write_index
from training.runs import describe_machine, git_commit

TITLE = "Round trip on real images"
TEST_SHARE = 10  # every tenth image is a test image


def round_trip(
    server: Server, folder: Path, dataset: Dataset, *, images: int, bundled: Path, model: str
) -> Result:
    """Inspect, push, answer, pull, and make the next version.

    Args:
        server: a running Label Studio.
        folder: empty; ledger, images and versions go there.
        dataset: of boxes; some of its images are sent, and its boxes are the answers.
        images: how many.
        bundled: folder of the releases that are served.
        model: that inspects.
    """
    samples = _chosen(dataset, images)
    base = _without(dataset, samples, folder / "datasets" / dataset.name)
    settings = Settings(
        paths=PathSettings(bundled=bundled, data=folder),
        label_studio=server.settings(project=f"Round trip {folder.name}"),
        serving=ServingSettings(runtime="torch"),
        review=ReviewSettings(review_threshold=0.0, budget=images),
    )
    seconds: dict[str, float] = {}
    service = Service(settings)
    with _timed(seconds, "inspect"):
        service.inspect(samples[0].path, model)  # loads the model, and queues the first
        for sample in samples:
            service.inspect(sample.path, model)
    desk = open_desk(settings)
    with _timed(seconds, "push"):
        pushed = errands.send(settings, desk)
    truth = {sample.sha256: sample for sample in samples}
    with _timed(seconds, "answer"):
        for item in desk.queue.items(state="verified"):
            assert item.task_id is not None
            server.annotate(item.task_id, *_regions(truth[item.image_sha256]))
    with _timed(seconds, "pull"):
        taken = errands.fetch(settings, desk)
        again = errands.fetch(settings, desk)
    with _timed(seconds, "next version"):
        versions = Versions(
            desk.ledger, desk.queue.images, settings.paths.datasets, who="round trip"
        )
        version = versions.next_version(dataset.name)
    grown = versions.open(version)
    result = Result(TITLE)
    tested = [s for s in samples if "test" in s.splits.values()]
    answers = desk.inbox.current()
    result.numbers = {
        "images inspected": len(samples),
        "images queued": sum(desk.queue.counts().values()),
        "tasks verified in Label Studio": pushed.verified,
        "answers applied": taken.applied,
        "boxes in the answers": sum(len(a.boxes) for a in answers),
        "largest deviation of a box from the truth, px": f"{_deviation(answers, truth):.4f}",
        "images before": len(base.samples),
        "images in the next version": len(grown.samples),
        "test images among those sent, left out": len(tested),
        **{f"time to {name}, s": f"{value:.1f}" for name, value in seconds.items()},
    }
    result.wrong = {
        "images lost on the way out": len(samples) - pushed.verified,
        "answers lost": len(samples) - len(answers),
        "answers applied twice": again.applied,
        "test images that entered the version": sum(
            outcome == "used"
            for number, outcome in versions.outcomes(version.id).items()
            if _image_of(desk, number) in {s.sha256 for s in tested}
        ),
        "changes of the acceptance test split": int(
            grown.test_id(ACCEPTANCE, "test") != base.test_id(ACCEPTANCE, "test")
        ),
        "new images missing from it": len(dataset.samples) - len(grown.samples),
    }
    service.review.open(service.releases()).ledger.close()
    desk.ledger.close()
    return result


def _chosen(dataset: Dataset, images: int) -> list[Sample]:
    """Evenly from what is no test image, and every tenth from test; not the app's own samples."""
    shown = sample_hashes()
    known = [s for s in dataset.samples if s.sha256 not in shown and s.boxes]
    parts = {
        "train": [s for s in known if "test" not in s.splits.values()],
        "test": [s for s in known if s.splits[ACCEPTANCE] == "test"],
    }
    tested = max(1, images // TEST_SHARE)
    return [*_spread(parts["train"], images - tested), *_spread(parts["test"], tested)]


def _without(dataset: Dataset, sent: Sequence[Sample], root: Path) -> Dataset:
    """The set as it was before the images were taken that are sent; test images it keeps."""
    root.mkdir(parents=True)
    (root / "images").symlink_to((dataset.root / "images").resolve())
    taken = {s.sha256 for s in sent if "test" not in s.splits.values()}
    rest = tuple(s for s in dataset.samples if s.sha256 not in taken)
    write_index(replace(dataset, root=root, samples=rest), {})
    return open_dataset(dataset.name, root.parent)


def _spread(samples: Sequence[Sample], n: int) -> list[Sample]:
    return [samples[k * len(samples) // n] for k in range(n)]


def _regions(sample: Sample) -> list[dict[str, Any]]:
    """The boxes of a sample as the editor submits them: percent of the image."""
    width, height = sample.width, sample.height
    return [
        {
            "id": f"region{k}",
            "from_name": "box",
            "to_name": "image",
            "type": "rectanglelabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "x": 100 * x1 / width,
                "y": 100 * y1 / height,
                "width": 100 * (x2 - x1) / width,
                "height": 100 * (y2 - y1) / height,
                "rotation": 0,
                "rectanglelabels": [label],
            },
        }
        for k, (label, (x1, y1, x2, y2)) in enumerate(sample.boxes)
    ]


def _deviation(answers: Sequence[Annotation], truth: dict[str, Sample]) -> float:
    """Largest distance of a coordinate from the truth, px; infinite if a box or a class differs."""
    worst = 0.0
    for answer in answers:
        sample = truth[answer.image_sha256]
        said, true = sorted(answer.boxes), sorted(sample.boxes)
        if [label for label, _ in said] != [label for label, _ in true]:
            return float("inf")
        for (_, box), (_, other) in zip(said, true, strict=True):
            worst = max(worst, *(abs(a - b) for a, b in zip(box, other, strict=True)))
    return worst


def _image_of(desk: Desk, number: int) -> str:
    from active_learning._answer_rows import AnnotationRow

    with desk.ledger.reading() as session:
        row = session.get(AnnotationRow, number)
        return row.image_sha256 if row else ""


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def main(
    images: Annotated[int, typer.Option(min=10)] = 50,
    data: str = "neu-det",
    model: str = "grace",
    output: Path = REPORT,
) -> None:
    """Make the round trip and write its section; exit code 1 if a promise was not kept."""
    dataset = open_dataset(data, PathSettings().datasets)
    with running() as server, tempfile.TemporaryDirectory() as folder:
        result = round_trip(
            server,
            Path(folder) / "mill",
            dataset,
            images=images,
            bundled=PathSettings().bundled,
            model=model,
        )
    result.written_by = (
        f"Written by `python -m tests.active_learning.round_trip --images {images} --data {data} "
        f"--model {model}`,\n{describe_machine('cpu')}, commit {git_commit()[:12]}. "
        f"The images are taken\nout of {dataset.name}, every {TEST_SHARE}th of them a test image; "
        "the person answers what the data set says."
    )
    typer.echo(result.render())
    page = output.read_text("utf-8") if output.is_file() else ""
    output.write_text(with_section(page, result), encoding="utf-8")
    if any(result.wrong.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
