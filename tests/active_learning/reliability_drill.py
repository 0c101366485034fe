"""`python -m tests.active_learning.reliability_drill`: the long run behind docs/benchmarks.

Three drills against a real Label Studio, with one seed that decides everything random:

- kills: pushing processes are killed with signal 9 at named points drawn from the seed, through a
  proxy that breaks a share of all requests, until every item has arrived;
- answers: every task that arrived is answered, and pulled through the same broken network;
- outage: items pile up while Label Studio is down, then drain for a while.

The report says what was done and what was lost; it is written whether or not anything was.
"""

from __future__ import annotations

import os
import platform
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from active_learning.labelling import NO_DEFECT
from core.errors import LabelStudioError, LeaseHeld
from tests.active_learning import round_trip
from tests.active_learning.drill_results import REPORT, Result, section
from tests.active_learning.fault_proxy import FAULTS, drawn, fault_proxy
from tests.active_learning.label_studio_server import Server, running
from tests.active_learning.review_desk import LABELLING, Desk, open_test_desk
from tests.databases import in_children
from tests.ports import free_port
from training.runs import git_commit

POINTS = (
    *("recover:written", "claim:written", "claim:committed", "push:uploaded", "push:created"),
    *("mark_sent:written", "mark_sent:committed", "push:read back", "mark_verified:written"),
)
KILL_TITLE = "Drill kills {seed}"
DRAINED_A_PASS = 100  # items
QUICK_KINDS = tuple(f for f in FAULTS if not f.startswith("stall") and "Retry-After" not in f)
CHOICE = {
    "from_name": "verdict",
    "to_name": "image",
    "type": "choices",
    "value": {"choices": [NO_DEFECT]},
}


def kill_drill(server: Server, folder: Path, *, kills: int, items: int, seed: int) -> Result:
    source = random.Random(seed)
    title = KILL_TITLE.format(seed=seed)
    desk = open_test_desk(folder, title)
    for number in range(items):
        desk.flag(number, priority=source.random())
    project = server.client().project(title, LABELLING)
    killed: Counter[str] = Counter()
    passes = 0
    with fault_proxy(server.port, drawn(seed, share=0.05, kinds=QUICK_KINDS)) as proxy:
        while not _done(desk) and passes < 20 * kills:
            passes += 1
            point = source.choice(POINTS) if sum(killed.values()) < kills else ""
            left = source.randint(1, 3)

            def one_pass(point: str = point, left: int = left) -> None:
                countdown = [left]

                def on_point(reached: str) -> None:
                    if reached == point:
                        countdown[0] -= 1
                        if countdown[0] == 0:
                            os.kill(os.getpid(), signal.SIGKILL)

                mine = open_test_desk(folder, title, on_point=on_point)
                budget = 4 if point else 1000  # so that kills are spread over all items
                with suppress(LabelStudioError, LeaseHeld):
                    mine.push(
                        server.client(url=proxy.url), on_point=on_point, lease_s=0.2, budget=budget
                    )

            if in_children(one_pass, timeout_s=300) == [-9]:
                killed[point] += 1
            time.sleep(0.25)
        injected = proxy.injected.copy()
    swept = desk.sweep(server.client())
    result = _checked("Killed pushes through a broken network", desk, server, project.id, items)
    result.numbers |= {
        "seed": seed,
        "kills": sum(killed.values()),
        "kinds of kill point": len(killed),
        "requests that met a fault": sum(injected.values()),
        "kinds of fault": len(injected),
        "second tasks merged by the sweep": swept.merged,
    }
    result.tallies = {"killed at": killed, "fault": injected}
    desk.ledger.close()
    return result


def outage_drill(server: Server, folder: Path, *, items: int, minutes: float) -> Result:
    title = f"Drill outage {items}"
    desk = open_test_desk(folder, title)
    project = server.client().project(title, LABELLING)
    for number in range(items):
        desk.flag(number)
    with free_port() as port:
        try:
            desk.push(server.client(url=f"http://127.0.0.1:{port}"))
            refused = False
        except LabelStudioError:
            refused = True
    waiting = desk.queue.counts()["pending"]
    started = time.monotonic()
    studio = server.client()
    while not _done(desk) and time.monotonic() - started < 60 * minutes:
        with suppress(LabelStudioError):
            desk.push(studio, budget=DRAINED_A_PASS)
    seconds = time.monotonic() - started
    result = _checked("Outage and drain", desk, server, project.id, items)
    counts = desk.queue.counts()
    result.numbers |= {
        "items that waited": waiting,
        "the outage was told": "yes" if refused else "no",
        "time taken to drain, s": round(seconds),
        "items a second": round(counts["verified"] / seconds, 2),
        "items that still wait, in good order": counts["pending"],
        "peak memory of this process, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        // 1024,
    }
    desk.ledger.close()
    return result


def answer_drill(server: Server, folder: Path, *, items: int, seed: int) -> Result:
    """Answers to all that the kill drill has sent."""
    title = KILL_TITLE.format(seed=seed)
    desk = open_test_desk(folder, title)
    project = server.client().project(title, LABELLING)
    for task in server.client().all_tasks(project.id):
        server.annotate(task["id"], CHOICE)
    with fault_proxy(server.port, drawn(seed, share=0.3, kinds=QUICK_KINDS)) as proxy:
        studio = server.client(url=proxy.url)
        for _ in range(50):
            with suppress(LabelStudioError):
                desk.pull(studio)
        injected = proxy.injected.copy()
    told = Counter(e.entity for e in desk.ledger.events(limit=10**6) if e.what == "annotated")
    swept = desk.sweep(server.client())
    result = Result("Answers through a broken network")
    result.numbers = {
        "seed": seed,
        "answers given": items,
        "answers applied": len(desk.inbox.current()),
        "requests that met a fault": sum(injected.values()),
    }
    result.tallies = {"fault": injected}
    result.wrong = {
        "answers lost": items - len(desk.inbox.current()),
        "answers applied twice": sum(n - 1 for n in told.values()),
        "left for the sweep": swept.taken.applied,
        "divergence after the sweep": swept.divergence,
    }
    desk.ledger.close()
    return result


def _checked(title: str, desk: Desk, server: Server, project_id: int, items: int) -> Result:
    """Compare ledger and Label Studio, item by item."""
    keys: Counter[str] = Counter()
    for task in server.client().all_tasks(project_id):
        keys[task["data"]["dedupe_key"]] += 1
    verified = desk.queue.items(state="verified", limit=items + 1)
    counts = desk.queue.counts()
    moves = Counter((event.before, event.after) for event in desk.ledger.events(limit=10**6))
    return Result(
        title,
        {
            "items enqueued": items,
            "items acknowledged by Label Studio": len(keys),
            "items verified": len(verified),
            "unknown outcomes": sum(
                n for (origin, to), n in moves.items() if to == "unknown" != origin
            ),
            "of these, had arrived": moves["unknown", "sent"],
            "of these, had not, and were sent again": moves["unknown", "pending"],
        },
        {
            "items lost": items - sum(counts.values()),
            "verified items without a task": sum(i.dedupe_key not in keys for i in verified),
            "items with more than one task": sum(n > 1 for n in keys.values()),
            "outcomes still unknown": counts["unknown"],
            "items parked": counts["parked"],
        },
    )


def _done(desk: Desk) -> bool:
    counts = desk.queue.counts()
    return not (counts["pending"] or counts["sending"] or counts["unknown"] or counts["sent"])


def main(
    kills: Annotated[int, typer.Option(min=1, help="Processes killed.")] = 200,
    items: Annotated[int, typer.Option(min=1, help="Of the kill and the answer drill.")] = 500,
    outage_items: Annotated[int, typer.Option(min=1, help="Of the outage drill.")] = 10_000,
    drain_minutes: Annotated[float, typer.Option(help="At most, of the outage drill.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 20261121,
    output: Annotated[
        Path,
        typer.Option(
            help="File of the report; default: reliability.md in docs/benchmarks.",
            show_default=False,
        ),
    ] = REPORT,
) -> None:
    """Run all drills and write the report; exit code 1 if a promise was not kept."""
    with running() as server, tempfile.TemporaryDirectory() as folder:
        killed, waited = Path(folder) / "killed", Path(folder) / "waited"
        killed.mkdir()
        waited.mkdir()
        results = []
        for drill in (
            lambda: kill_drill(server, killed, kills=kills, items=items, seed=seed),
            lambda: answer_drill(server, killed, items=items, seed=seed),
            lambda: outage_drill(server, waited, items=outage_items, minutes=drain_minutes),
        ):
            results.append(drill())
            typer.echo(results[-1].render() + "\n")
    head = (
        "# Reliability of the way to Label Studio and back\n\n"
        "Written by `python -m tests.active_learning.reliability_drill "
        f"--kills {kills} --items {items} --outage-items {outage_items} "
        f"--drain-minutes {drain_minutes:g} --seed {seed}`\n"
        f"at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {git_commit()[:12]}, "
        f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[2]:.0f}, "
        "Label Studio 1.23.2 on SQLite.\n"
        f"Faults are drawn from {len(QUICK_KINDS)} of the proxy's {len(FAULTS)} kinds, those that "
        "do not wait for half a\nminute; `tests/active_learning/test_faults.py` meets each of them "
        "alone, and kills a push and\na pull at every named point.\n\n"
        "Not tested here, and not claimed: power loss (processes are killed, power was not cut),\n"
        "a network between two machines (all is loopback), PostgreSQL under Label Studio, Label\n"
        "Studio Enterprise or its cloud, corrupted database pages, and weeks without a restart."
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    before = output.read_text("utf-8") if output.is_file() else ""
    kept = section(before, round_trip.TITLE)  # another command writes it
    text = "\n\n".join(filter(None, [head, *(r.render() for r in results), kept])) + "\n"
    output.write_text(text, encoding="utf-8")
    if any(any(result.wrong.values()) for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
