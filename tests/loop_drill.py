"""`python -m tests.loop_drill`: the whole circle on real images, behind docs/benchmarks/loop.md.

A classifier is trained without two kinds of defects. The app inspects pictures of them, a person
flags and answers them in a real Label Studio, a watcher that runs as a process of its own finds the
model due, trains it, proves it better, publishes it to a Hub on the loopback and puts it live. Then
a careless person answers wrongly and orders a training on the page, whose candidate is refused; and
the release is rolled back on the page. Clients ask the app without a pause all the while.

The report says what was measured, whether or not it is what one would like; the exit code is 1 if a
promise was not kept.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from gradio_client import Client, handle_file

from active_learning._retraining_steps import describe_release
from active_learning.desk import open_desk
from active_learning.retraining import PHASES, RetrainingRun, RetrainingRuns
from core.settings import Settings, load_settings
from hub.publish import live_on_hub
from hub.shelf import shelve
from models import get_spec
from tests.active_learning.label_studio_server import Server, running
from tests.clients import Clients
from tests.demo.conftest import served
from tests.hub.hub_server import HubServer, serve
from training.datasets import Dataset, Sample, open_dataset, write_index
from training.launch import start_run
from training.runs import describe_machine, git_commit

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "loop.md"
MODEL, DATASET, SCALE = "mobilesteelnet", "neu-cls", "light"
UNSEEN = ("inclusion", "scratches")
CARELESS = ("crazing", "rolled-in_scale")  # what they are, and what the careless person says
PASSWORD = "pickled-steel"
PROJECT = "Loop drill"
WAIT_S = 7200  # a training on a busy machine may take most of an hour
CLIENTS = 2
SEED = 0  # of the trainings and of the images that are met
# The server closes a connection that was idle for five seconds, a while on a busy machine.
ONCE = httpx.Limits(max_keepalive_connections=0)


@dataclass
class Measured:
    """What the drill has found out so far, in the order of the page."""

    seconds: dict[str, float] = field(default_factory=dict)
    recalls: dict[str, dict[str, float]] = field(default_factory=dict)  # by moment and class
    facts: dict[str, object] = field(default_factory=dict)
    runs: list[RetrainingRun] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # promises that were not kept

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[what] = time.monotonic() - started

    def expect(self, kept: bool, promise: str) -> None:
        typer.echo(f"{'kept' if kept else 'BROKEN'}: {promise}")
        if not kept:
            self.wrong.append(promise)


class Installation:
    """Where the drill lives: data, app, Label Studio, Hub, and the environment of all processes."""

    def __init__(
        self, root: Path, studio: Server, hub: HubServer, *, epochs: int, enough: int
    ) -> None:
        self.root, self.studio, self.hub = root, studio, hub
        self.environment = {
            "ROLLMARK_PATHS__DATA": str(root / "data"),
            "ROLLMARK_PATHS__RUNS": str(root / "runs"),
            "ROLLMARK_PATHS__BUNDLED": str(root / "bundled"),
            "ROLLMARK_SERVING__THREADS": "1",
            "ROLLMARK_SERVING__DEVICE": "cpu",
            "ROLLMARK_SERVING__RUNTIME": "torch",
            "ROLLMARK_SERVING__REVIEWER_PASSWORD": PASSWORD,
            "ROLLMARK_LABEL_STUDIO__URL": studio.url,
            "ROLLMARK_LABEL_STUDIO__TOKEN": studio.pat,
            "ROLLMARK_LABEL_STUDIO__PROJECT": PROJECT,
            "ROLLMARK_REVIEW__QUEUE_UNSURE": "false",  # the person flags; test images are no steel
            "ROLLMARK_HUB__NAMESPACE": "acme",
            "ROLLMARK_HUB__TOKEN": "hf_write",
            "ROLLMARK_HUB__ENDPOINT": hub.endpoint,
            "ROLLMARK_RETRAINING__MIN_HOURS": "0",
            "ROLLMARK_RETRAINING__CLASS_SHARE": "0",
            "ROLLMARK_RETRAINING__EPOCHS": str(epochs),
            "ROLLMARK_RETRAINING__MIN_NEW_ANNOTATIONS": str(enough),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(root / "hf"),
            "OMP_NUM_THREADS": "1",
        }

    def move_in(self) -> Settings:
        """Make this process and its children live here."""
        os.environ.update(self.environment)
        return load_settings(None)


def waited(find: Callable[[], Any], *, every_s: float = 0.2) -> Any:
    """What `find` finds, as soon as it does."""
    deadline = time.monotonic() + WAIT_S
    while (found := find()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("The drill waited in vain; see the logs in its folder.")
        time.sleep(every_s)
    return found


def look(http: httpx.Client, picture: bytes) -> dict[str, Any]:
    """One inspection by the app."""
    answer = http.post(
        f"/v1/inspect?model={MODEL}", content=picture, headers={"Content-Type": "image/jpeg"}
    )
    answer.raise_for_status()
    told: dict[str, Any] = answer.json()
    return told


def act(address: str, key: str) -> str:
    """Press a button of the Training page as a signed-in reviewer."""
    with httpx.Client(base_url=address, timeout=120, limits=ONCE) as http:
        http.post("/sign-in", data={"password": PASSWORD})
        begun = http.post("/gradio_api/call/retraining", json={"data": [MODEL, key]})
        told = http.get(f"/gradio_api/call/retraining/{begun.json()['event_id']}").text
    return told.strip().splitlines()[-1]


def without_unseen(source: Path, target: Path) -> tuple[Dataset, list[Sample]]:
    """The real set without the unseen kinds in train and val; and the images that were taken out.

    The test split keeps all kinds: it is what a candidate is judged by.
    """
    whole = open_dataset(DATASET, source)
    hidden = [
        s for s in whole.samples if s.label in UNSEEN and s.splits["leak-free"] in ("train", "val")
    ]
    known = {sample.file for sample in hidden}
    folder = target / DATASET
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(whole.root.resolve() / "images")
    kept = tuple(
        replace(
            s,
            path=folder / "images" / s.file,
            # The paper tests on nine images in ten, and none of those could ever be reviewed.
            splits={"leak-free": s.splits["leak-free"], "paper": s.splits["leak-free"]},
        )
        for s in whole.samples
        if s.file not in known
    )
    write_index(replace(whole, root=folder, samples=kept), {})
    return open_dataset(DATASET, target), hidden


def drawn(samples: Sequence[Sample], kind: str, count: int) -> list[Sample]:
    """That many of a kind from all its strips, as a line brings them: names follow the strips."""
    of_kind = [s for s in samples if s.label == kind]
    order = np.random.default_rng(SEED).permutation(len(of_kind))
    return [of_kind[i] for i in order[:count]]


def train_ignorant(settings: Settings, dataset: Dataset, *, epochs: int, side_px: int) -> str:
    """Train from random weights what has never seen two of the kinds; its revision."""
    record = start_run(
        get_spec(MODEL),
        dataset,
        runs_root=settings.paths.runs,
        run_id="ignorant",
        protocol="leak-free",
        scale=SCALE,
        epochs=epochs,
        image_size=side_px,
        batch=16,
        device="cpu",
        workers=0,
    )
    release = settings.paths.runs / record.id / "release"
    validation = describe_release(release, dataset, device="cpu")
    return shelve(release, settings.paths.bundled / MODEL, (validation,)).revision


def recalls(address: str, samples: Sequence[Sample]) -> dict[str, float]:
    """Share of the test images of each kind that the app names rightly, and of all."""
    right: dict[str, list[bool]] = {}
    with httpx.Client(base_url=address, timeout=60, limits=ONCE) as http:
        for sample in samples:
            said = look(http, sample.path.read_bytes())["probabilities"]
            right.setdefault(str(sample.label), []).append(max(said, key=said.get) == sample.label)
    shares = {label: sum(hits) / len(hits) for label, hits in sorted(right.items())}
    return {**shares, "all": sum(map(sum, right.values())) / len(samples)}


def review(
    here: Installation, address: str, samples: Sequence[Sample], says: Mapping[str, str]
) -> tuple[int, dict[str, float]]:
    """Inspect, flag, send and answer images.

    Args:
        here: where.
        address: of the app.
        samples: the images.
        says: what the person calls an image, by its SHA-256.

    Returns:
        How many asked for a person by themselves, and how long each part took in seconds.
    """
    took, asked = {}, 0
    client = Client(address, verbose=False, download_files=False)
    started = time.monotonic()
    with httpx.Client(base_url=address, timeout=60, limits=ONCE) as http:
        for sample in samples:
            asked += look(http, sample.path.read_bytes())["verdict"] == "review"
            file = handle_file(str(sample.path))
            client.predict(file, MODEL, "wrong", "", api_name="/flag")
    client.close()
    took["inspected and flagged"] = time.monotonic() - started
    started = time.monotonic()
    command(here, "push", "--budget", str(len(samples)), "--json")
    took["sent to Label Studio"] = time.monotonic() - started
    started = time.monotonic()
    desk = open_desk(load_settings(None))
    for item in desk.queue.items(state="verified", limit=10_000):
        if item.image_sha256 in says and item.task_id is not None:
            here.studio.annotate(item.task_id, _choice(says[item.image_sha256]))
    desk.ledger.close()
    took["answered"] = time.monotonic() - started
    return asked, took


def _choice(label: str) -> dict[str, Any]:
    value = {"choices": [label]}
    return {"from_name": "verdict", "to_name": "image", "type": "choices", "value": value}


def command(here: Installation, *words: str) -> str:
    """A command of the product, as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "active_learning", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


@contextmanager
def watching(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m active_learning watch`, ended in good order."""
    with (root / "watch.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "active_learning", "watch"], cwd=ROOT, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)


def ended_run(n: int) -> RetrainingRun:
    """The n-th run of the model, once it has ended."""
    desk = open_desk(load_settings(None))
    runs = RetrainingRuns(desk.ledger, who="drill")

    def look_up() -> RetrainingRun | None:
        found = runs.newest(model=MODEL)
        return found[0] if len(found) == n and found[0].state != "open" else None

    try:
        run: RetrainingRun = waited(look_up, every_s=1)
    finally:
        desk.ledger.close()
    return run


def go_round(
    here: Installation,
    address: str,
    clients: Clients,
    measured: Measured,
    pool: Sequence[Sample],
    careless: Sequence[Sample],
    test: Sequence[Sample],
    ignorant: str,
) -> None:
    """The circle, the bad candidate, and the way back."""
    measured.recalls["before"] = recalls(address, test)
    asked, took = review(here, address, pool, {s.sha256: str(s.label) for s in pool})
    measured.facts["images of the unseen kinds, inspected and reviewed"] = len(pool)
    measured.facts["of these, asked for a person by themselves"] = asked
    measured.seconds |= {f"{what} ({len(pool)} images)": s for what, s in took.items()}
    with watching(here.root):
        run = ended_run(1)
        measured.runs.append(run)
        measured.expect(run.state == "promoted", "the candidate is promoted")
        if run.state != "promoted" or run.candidate is None:
            return
        swapped = clients.wait_for(run.candidate, since=run.phases["published"], patience_s=WAIT_S)
        measured.seconds["first answer of the running app after the channel moved"] = max(
            (swapped - run.phases["activated"]).total_seconds(), 0.0
        )
        measured.recalls["after"] = recalls(address, test)
        for kind in UNSEEN:
            found = measured.recalls["after"][kind]
            measured.expect(found > 0.5, f"most {kind} images are found: {100 * found:.1f} %")
        measured.expect(on_hub() == run.candidate, "the Hub has the candidate live")

        is_, said = CARELESS
        _, took = review(here, address, careless, {s.sha256: said for s in careless})
        measured.facts[f"images of {is_} that a careless person called {said}"] = len(careless)
        typer.echo(act(address, "train"))
        bad = ended_run(2)
        measured.runs.append(bad)
        measured.expect(bad.state == "refused", "the candidate of careless answers is refused")
        measured.expect(bad.why.startswith("asked for by reviewer"), "it was ordered on the page")
        measured.expect(served_revision(address) == run.candidate, "the good release stays live")

        pressed = datetime.now(UTC)
        typer.echo(act(address, f"back:{ignorant}"))
        back = clients.wait_for(ignorant, since=pressed, patience_s=WAIT_S)
        measured.seconds["rolled back: from the button to the first answer of the old release"] = (
            back - pressed
        ).total_seconds()
        measured.recalls["rolled back"] = recalls(address, test)
        measured.expect(
            measured.recalls["rolled back"] == measured.recalls["before"],
            "the old release answers as it did",
        )
        measured.expect(on_hub() == ignorant, "the Hub has the old release live again")


def on_hub() -> str | None:
    """Revision that the Hub has live."""
    channel = live_on_hub(MODEL, load_settings(None).hub)
    return channel.live.revision if channel else None


def served_revision(address: str) -> str:
    """Revision that the app says it serves."""
    [model] = Client(address, verbose=False).predict(api_name="/models")
    return str(model["revision"])


def main(
    data: Annotated[Path, typer.Option(help="Folder with the prepared neu-cls.")] = Path(
        "data/datasets"
    ),
    side_px: int = 96,
    first_epochs: Annotated[int, typer.Option(help="Of the model that knows four kinds.")] = 6,
    epochs: Annotated[int, typer.Option(help="Of each retraining; 20 is the product's own.")] = 20,
    reviews: Annotated[int, typer.Option(help="Reviewed images of each unseen kind.")] = 100,
    careless: Annotated[int, typer.Option(help="Images that are answered wrongly.")] = 60,
    output: Path = REPORT,
) -> None:
    """Go round once and write the report; exit code 1 if a promise was not kept."""
    measured, started = Measured(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running() as studio, serve() as hub:
        here = Installation(Path(folder), studio, hub, epochs=epochs, enough=2 * reviews)
        settings = here.move_in()
        dataset, hidden = without_unseen(data, settings.paths.datasets)
        pool = [s for kind in UNSEEN for s in drawn(hidden, kind, reviews)]
        wrong = [s for s in dataset.split("leak-free", "train") if s.label == CARELESS[0]]
        test = dataset.split("leak-free", "test")
        with measured.timed(f"first training, four kinds, {first_epochs} epochs"):
            ignorant = train_ignorant(settings, dataset, epochs=first_epochs, side_px=side_px)
        measured.facts |= {
            "training images of the first model": len(dataset.split("leak-free", "train")),
            "test images": len(test),
        }
        picture = test[0].path.read_bytes()
        with served(here.root, settings.paths.bundled, **here.environment) as address:
            # A machine that also trains should not only answer: they rest a little.
            with (
                httpx.Client(base_url=address, timeout=60, limits=ONCE) as http,
                Clients(
                    lambda: look(http, picture)["revision"], count=CLIENTS, pause_s=0.1
                ) as clients,
            ):
                try:
                    go_round(
                        here, address, clients, measured, pool, wrong[:careless], test, ignorant
                    )
                except KeyboardInterrupt:  # what was measured until then is worth its page
                    measured.expect(False, "the drill goes on to its end")
            measured.facts["requests of the clients meanwhile"] = len(clients.answers)
            measured.facts["of these, failed"] = len(clients.failures)
            measured.expect(not clients.failures, f"no request failed {clients.failures[:1]}")
        measured.seconds["all of it"] = time.monotonic() - started
        typer.echo((here.root / "watch.log").read_text())
    options = (
        f"--side-px {side_px} --first-epochs {first_epochs} --epochs {epochs} "
        f"--reviews {reviews} --careless {careless}"
    )
    output.write_text(page(measured, options), encoding="utf-8")
    typer.echo(json.dumps(measured.wrong))
    raise typer.Exit(1 if measured.wrong else 0)


# --- the page ----------------------------------------------------------------------------------


def page(measured: Measured, options: str) -> str:
    """docs/benchmarks/loop.md."""
    commit, _, changed = git_commit().partition("-")
    where = f"{describe_machine('cpu')}, commit {'-'.join(filter(None, (commit[:12], changed)))}"
    parts = [
        "# The loop on real images, phase by phase",
        "Written by `python -m tests.loop_drill "
        f"{options}` on {datetime.now(UTC):%Y-%m-%d}, {where}, "
        f"load average {os.getloadavg()[1]:.0f} on {os.cpu_count()} CPUs (the machine was busy "
        f"otherwise, so the times are upper bounds). One run, seed {SEED}.",
        f"MobileSteelNet (light) is trained on NEU-CLS without {' and '.join(UNSEEN)}, from random "
        "weights. The real app inspects pictures of the two, a person flags them and answers in a "
        "real Label Studio 1.23.2, `watch` finds the model due, trains, proves, publishes to a Hub "
        "on the loopback and puts the candidate live. Then a careless person's answers are trained "
        "on, ordered on the page *Training*; and the release is rolled back there. Clients ask "
        "the app without a pause all the while.",
        "## What is found",
        _recalls(measured),
        "Recall on the leak-free test split as the running app answers, in percent. Nothing was "
        "chosen by it.",
        "## What was done",
        _table("what", "number", measured.facts),
        _table("part", "seconds", {what: f"{s:.1f}" for what, s in measured.seconds.items()}),
    ]
    for title, run in zip(
        ("The good candidate", "The careless candidate"), measured.runs, strict=False
    ):
        parts += [f"## {title}: {run.state}", _run(run)]
    kept = "Every promise of the drill was kept."
    broken = "\n".join(f"- {promise}" for promise in measured.wrong)
    parts += ["## Promises", f"Not kept:\n\n{broken}" if broken else kept]
    parts.append(
        "`tests/test_loop.py` goes round the same circle in a minute, with drawn steel and two "
        "convolutions in the network's place, at every change of the code."
    )
    return "\n\n".join(parts) + "\n"


def _recalls(measured: Measured) -> str:
    moments = list(measured.recalls)
    rows = [
        f"| {label}{' (unseen at first)' if label in UNSEEN else ''} | "
        + " | ".join(f"{100 * measured.recalls[m][label]:.1f}" for m in moments)
        + " |"
        for label in next(iter(measured.recalls.values()))
    ]
    head = f"| recall (%) | {' | '.join(moments)} |"
    return "\n".join([head, f"| --- |{' ---: |' * len(moments)}", *rows])


def _run(run: RetrainingRun) -> str:
    reached = [(phase, run.phases[phase]) for phase in PHASES if phase in run.phases]
    times = {
        phase: f"{(at - before).total_seconds():.1f}"
        for (_, before), (phase, at) in pairwise(reached)
    }
    told = [f"Started because: {run.why}", _table("until", "seconds", times)]
    if run.decision is not None:
        verdict = run.decision
        told.append(
            f"{verdict.metric} {100 * verdict.before:.1f} % → {100 * verdict.after:.1f} % on "
            f"{verdict.n} test images; 95 % interval of the change "
            f"{100 * verdict.low:+.1f} to {100 * verdict.high:+.1f} points."
        )
    told.append(" ".join(run.reasons))
    return "\n\n".join(told)


def _table(what: str, number: str, rows: Mapping[str, object]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([f"| {what} | {number} |", "| --- | ---: |", *lines])


if __name__ == "__main__":
    typer.run(main)
