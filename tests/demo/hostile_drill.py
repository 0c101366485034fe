"""`python -m tests.demo.hostile_drill`: what the app stands, behind docs/benchmarks/hostile.md.

A real app with the bundled models is started on the loopback and meets, one after the other: files
that are no images, paths that climb, addresses of inner servers, a visitor who tries every event of
the pages, noise in place of HTTP, far too many clients, and a long time. Checkpoints that would run
code are brought to every door that reads weights.

The report says what was found, whether or not it is what one would like; the exit code is 1 if a
promise was not kept.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import numpy as np
import typer
from PIL import Image

from core.errors import RollmarkError
from core.settings import PathSettings, ServingSettings
from tests.active_learning.drill_results import Result
from tests.core import bad_images
from tests.demo.conftest import served
from tests.demo.hostile_requests import (
    ENDPOINTS,
    READING,
    Answer,
    ask,
    call,
    climbing,
    file_data,
    inner_addresses,
    listener,
    noise,
    send,
    uploaded,
)
from tests.demo.load import OCTETS, App, call_models, overload, soak
from tests.training.hostile_checkpoints import doors, payloads
from training.runs import describe_machine, git_commit

REPORT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "hostile.md"
PASSWORD = "galvanised-steel"
HANGS_S = 5.0  # of computing: on a busy machine a clock on the wall tells of the machine
SECRET = b"cold-rolled secret"
# None of them may leave the server: accounts, our file, the reviewer's password, our own code.
LEAKS = (b"root:x:", SECRET, PASSWORD.encode(), b'"""Start the app: `python app.py`')


def bad_files(*, damages: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Files that are no images, or hardly, with the family of each."""
    for data, _ in bad_images.NO_IMAGES.values():
        yield "not an image that is taken", data
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        yield "cut off", bad_images.cut_off(kind)
    for kind in ("PNG", "TIFF", "WEBP"):
        yield "several pictures", bad_images.several_pictures(kind)
    for side in (7_000, 13_000, 16_000):
        yield "bomb", bad_images.bomb(side)
        yield "bomb", bad_images.png_header(side, side)
    yield "bomb", bad_images.huge_tiles()
    for dtype in (np.int32, np.float32):
        picture = Image.fromarray(np.ones((30, 30), dtype))
        yield "32 bits a sample", bad_images.encoded(picture, "TIFF")
    draw = np.random.default_rng(seed)
    for name, data in bad_images.seeds().items():
        for _ in range(damages):
            yield f"damaged {name.split()[0]}", bad_images.damaged(data, draw)


def file_drill(app: App, *, damages: int, seed: int) -> Result:
    """Every bad file is looked at as a picture, or refused in a sentence."""
    models = [each["name"] for each in call_models(app.address)]
    before = app.peak_mb(forget=True)
    families: Counter[str] = Counter()
    looked_at = refused = wrong = 0
    slowest = dearest = 0.0
    for number, (family, data) in enumerate(bad_files(damages=damages, seed=seed)):
        model = models[number % len(models)]
        spent = app.computing_s()
        answer = ask(app.address, f"/v1/inspect?model={model}", data, OCTETS)
        dearest = max(dearest, app.computing_s() - spent)
        families[family] += 1
        is_refused = answer.status in (400, 413) and _is_sentence(answer)
        looked_at += answer.status == 200
        refused += is_refused
        wrong += not is_refused and answer.status != 200
        slowest = max(slowest, answer.seconds)
    return Result(
        "Bad files",
        {
            "files": sum(families.values()),
            "refused in a sentence": refused,
            "damaged, and still a picture that was inspected": looked_at,
            "slowest answer, s": round(slowest, 2),
            "dearest answer, s of computing": round(dearest, 2),
            "peak resident memory before, MB": round(before),
            "peak resident memory, MB": round(app.peak_mb()),
        },
        {
            "answered in any other way": wrong,
            f"answers that took more than {HANGS_S:g} s of computing": int(dearest > HANGS_S),
            "restarts": int(not app.is_well()),
        },
        {"family": families},
    )


def checkpoint_drill(folder: Path) -> Result:
    """Every hostile checkpoint at every door that reads weights."""
    canary = folder / "canary"
    tried: Counter[str] = Counter()
    executed = otherwise = 0
    for door, bring in doors(folder).items():
        for data in payloads(canary).values():
            tried[door] += 1
            try:
                bring(data)
                otherwise += 1  # taken: nothing of it is weights
            except RollmarkError:
                pass
            except Exception:  # whatever it is, it is no sentence of ours
                otherwise += 1
            if canary.exists():
                executed += 1
                canary.rmdir()
    return Result(
        "Hostile checkpoints",
        {"kinds of file": len(payloads(canary)), "tried": sum(tried.values())},
        {"code executions": executed, "not refused in a sentence": otherwise},
        {"brought to": tried},
    )


def climb_drill(app: App, *, most: int, seed: int) -> Result:
    """Every path that climbs, on every route that takes one, as an upload's name, and in a call."""
    secret = app.root / "secret.txt"
    secret.write_bytes(SECRET)
    every = climbing(secret)
    paths = random.Random(seed).sample(every, min(most, len(every)))
    [plain] = uploaded(app.address, "a.jpg").json
    cache = Path(plain).resolve().parents[1]  # above the folder that is named by the content
    tried: Counter[str] = Counter()
    leaks = outside = 0
    for path in paths:
        for route in READING:
            tried[route.format("…")] += 1
            leaks += _leaks(ask(app.address, route.format(path)))
        tried["name of an upload"] += 1
        placed = uploaded(app.address, path).json
        outside += isinstance(placed, list) and not Path(placed[0]).resolve().is_relative_to(cache)
        for name, rest in ENDPOINTS.items():
            tried[f"call of {name}"] += 1
            answer = call(app.address, name, [file_data(path), *rest])
            leaks += _leaks(answer) or b"event: complete" in answer.body
    return Result(
        "Paths that climb",
        {"paths": len(paths), "requests": sum(tried.values())},
        {
            "files read": leaks,
            "files written outside the upload folder": outside,
            "restarts": int(not app.is_well()),
        },
        {"route": tried},
    )


def address_drill(app: App, *, most: int, seed: int) -> Result:
    """Addresses in place of pictures: a server on this machine waits for somebody to come."""
    tried: Counter[str] = Counter()
    inspected = 0
    with listener() as (port, came):
        every = inner_addresses(port)
        addresses = random.Random(seed).sample(every, min(most, len(every)))
        for place in addresses:
            for name, rest in ENDPOINTS.items():
                tried[f"call of {name}"] += 1
                answer = call(app.address, name, [file_data(place), *rest])
                inspected += b"event: complete" in answer.body
            for route in READING[:2]:
                tried[route.format("…")] += 1
                ask(app.address, route.format(quote(place.strip(), safe=":/[]@%\\")))
        visits = len(came)
    return Result(
        "Addresses of inner servers",
        {"addresses": len(addresses), "requests": sum(tried.values())},
        {
            "connections to the inner server": visits,
            "addresses that were inspected": inspected,
            "restarts": int(not app.is_well()),
        },
        {"route": tried},
    )


def visitor_drill(app: App) -> Result:
    """A visitor calls every event of the pages by plain HTTP."""
    events = ask(app.address, "/config").json["dependencies"]
    refused = 0
    for event in events:
        answer = call(app.address, str(event["api_name"]), [None] * len(event["inputs"]))
        refused += b"Only reviewers may do this" in answer.body
    acts = re.findall(r"\breviewer does \w+", app.log)
    return Result(
        "A visitor who tries everything",
        {"events of the pages called": len(events), "refused as a reviewer's": refused},
        {
            "acts of a reviewer carried out": len(acts),
            "no event asked for a reviewer": int(not refused),
            "restarts": int(not app.is_well()),
        },
    )


def noise_drill(app: App, *, count: int, seed: int) -> Result:
    """Noise in place of HTTP; afterwards the app still answers as it did."""
    statuses: Counter[str] = Counter()
    slowest = 0.0
    for raw in noise(seed, count):
        answer = send(app.address, raw, all_of_it=True)
        kind = f"{answer.status // 100}xx" if answer.status else "closed without an answer"
        statuses[kind] += 1
        slowest = max(slowest, answer.seconds)
    failed = statuses["5xx"]
    return Result(
        "Noise in place of HTTP",
        {
            "requests": count,
            "answered 5xx (%)": f"{failed} ({100 * failed / count:.1f})",
            "slowest answer, s": round(slowest, 2),
        },
        {"restarts": int(not app.is_well())},
        {"answer": statuses},
    )


def _is_sentence(answer: Answer) -> bool:
    told = answer.json
    sentence = told.get("error") if isinstance(told, dict) else None
    return isinstance(sentence, str) and sentence.endswith(".") and "\n" not in sentence


def _leaks(answer: Answer) -> bool:
    return any(mark in answer.body for mark in LEAKS)


def page(results: Sequence[Result], command: str, *, commit: str) -> str:
    """The report of the drills so far.

    Args:
        results: of each drill.
        command: that has run them.
        commit: of the code that was run; another may have come while a night went by.
    """
    broken = [f"{r.title}: {what} {n}" for r in results for what, n in r.wrong.items() if n]
    head = (
        "# What the app stands\n\n"
        f"Written by `{command}`\n"
        f"at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit[:12]}, "
        f"{describe_machine('cpu')}, {os.cpu_count()} CPUs,\nload average {os.getloadavg()[2]:.0f} "
        "(where it is above the number of CPUs, times are upper bounds and rates lower ones).\n"
        "One app process with the bundled models in torch on one thread, its caps as they come, "
        "asked over\nthe loopback; checkpoints are brought to the code that reads weights.\n\n"
        "Not tested here, and not claimed: an app behind a proxy or on a Space, a GPU, a network "
        "between\ntwo machines, many addresses at once, and holes that nobody has written down."
    )
    promises = "\n".join(f"- not kept: {line}" for line in broken) or "Every promise was kept."
    return "\n\n".join([head, *(r.render() for r in results), f"## Promises\n\n{promises}"]) + "\n"


def main(
    damages: Annotated[int, typer.Option(min=1, help="Of each kind of file.")] = 60,
    paths: Annotated[int, typer.Option(min=1, help="That climb, and addresses, at most.")] = 200,
    requests: Annotated[int, typer.Option(min=1, help="Of noise.")] = 2000,
    clients: Annotated[int, typer.Option(min=1, help="Of the overload.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="Of the overload.")] = 60,
    minutes: Annotated[float, typer.Option(help="Of the soak; 480 for a night.")] = 10,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 20261121,
    output: Annotated[
        Path,
        typer.Option(
            help="File of the report; default: hostile.md in docs/benchmarks.", show_default=False
        ),
    ] = REPORT,
) -> None:
    """Run all drills and write the report; exit code 1 if a promise was not kept."""
    command = (
        f"python -m tests.demo.hostile_drill --damages {damages} --paths {paths} --requests "
        f"{requests} --clients {clients} --seconds {seconds:g} --minutes {minutes:g} --seed {seed}"
    )
    commit = git_commit()
    serving = ServingSettings()
    caps = {
        "ROLLMARK_SERVING__MAX_IMAGE_MB": f"{serving.max_image_mb:g}",
        "ROLLMARK_SERVING__MAX_UPLOAD_MB": f"{serving.max_upload_mb:g}",
        "ROLLMARK_SERVING__MAX_MEGAPIXELS": f"{serving.max_megapixels:g}",
        "ROLLMARK_SERVING__REVIEWER_PASSWORD": PASSWORD,
    }
    results = []
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as root:
        results.append(checkpoint_drill(Path(name)))
        with served(Path(root), PathSettings().bundled.resolve(), **caps) as address:
            app = App(address, Path(root))
            for drill in (
                lambda: file_drill(app, damages=damages, seed=seed),
                lambda: climb_drill(app, most=paths, seed=seed),
                lambda: address_drill(app, most=paths, seed=seed),
                lambda: visitor_drill(app),
                lambda: noise_drill(app, count=requests, seed=seed),
                lambda: overload(app, clients=clients, seconds=seconds),
                lambda: soak(app, minutes=minutes, seed=seed),
            ):
                results.append(drill())
                typer.echo(results[-1].render() + "\n")
                # After each of them: what a night has found is not lost by what comes after.
                output.write_text(page(results, command, commit=commit), encoding="utf-8")
    if any(any(result.wrong.values()) for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
