"""How many CPUs a process may use: in a container often fewer than the machine has.

A container's share (`docker run --cpus 2`, a Space's "2 vCPU") is a quota of CPU time, which the
number of CPUs does not show. As many threads as the machine has CPUs use it up early in each period
and then stand still together, in the middle of a forward pass.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cpus_granted(root: Path = Path("/")) -> int | None:
    """Whole CPUs that the quotas on this process allow, rounded up; None where there is no quota.

    Args:
        root: of the file system; control groups of version 1 and 2 are read below it.
    """
    quotas = list(_quotas(root))
    return max(1, math.ceil(min(quotas))) if quotas else None


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each control group allows, from the process's own outwards."""
    mounts = root / "sys" / "fs" / "cgroup"
    with suppress(OSError):  # no Linux
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if not controllers:
                mount = mounts
            elif "cpu" in controllers.split(","):
                mount = mounts / "cpu"
            else:
                continue
            for folder in _outwards(mount, place):
                quota = _quota(folder)
                if quota is not None:
                    yield quota


def _outwards(mount: Path, place: str) -> Iterator[Path]:
    """The folder of a group and those around it; inside a container the outer part is not there."""
    parts = [part for part in place.split("/") if part]
    if os.pardir in parts:  # seen from another name space
        parts = []
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _quota(folder: Path) -> float | None:
    with suppress(OSError, ValueError):  # nothing there, or "max"
        limit, period = (folder / "cpu.max").read_text().split()
        return int(limit) / int(period)
    with suppress(OSError, ValueError):
        limit = (folder / "cpu.cfs_quota_us").read_text()
        period = (folder / "cpu.cfs_period_us").read_text()
        return int(limit) / int(period) if int(limit) > 0 else None
    return None
