"""What a process may use of CPUs and memory: in a container often less than the machine has.

A container's share (`docker run --cpus 2`, a Space's "2 vCPU") is a quota of CPU time, which the
number of CPUs does not show. As many threads as the machine has CPUs use it up early in each period
and then stand still together, in the middle of a forward pass. Who takes more memory than is
granted is killed without a word.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_NO_LIMIT: Final = 1 << 60  # bytes


def cpus_granted(root: Path = Path("/")) -> int | None:
    """Whole CPUs that the quotas on this process allow, rounded up; None where there is no quota.

    Args:
        root: of the file system; control groups of version 1 and 2 are read below it.
    """
    quotas = list(_quotas(root))
    return max(1, math.ceil(min(quotas))) if quotas else None


def memory_granted_mb(root: Path = Path("/")) -> float | None:
    """Memory in megabytes that the limits on this process allow; None where there is no limit.

    Args:
        root: as for `cpus_granted`.
    """
    texts = (
        _read(folder / name)
        for folder in _groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    )
    # Without a limit version 2 says "max", and version 1 a number beyond all machines.
    limits = [int(text) for text in texts if text.isdigit() and int(text) < _NO_LIMIT]
    return min(limits) / 1e6 if limits else None


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each control group allows, from the process's own outwards."""
    for folder in _groups(root, "cpu"):
        quota = _quota(folder)
        if quota is not None:
            yield quota


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that a process is in, its own first."""
    mounts = root / "sys" / "fs" / "cgroup"
    with suppress(OSError):  # no Linux
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if not controllers:
                mount = mounts
            elif controller in controllers.split(","):
                mount = mounts / controller
            else:
                continue
            yield from _outwards(mount, place)


def _outwards(mount: Path, place: str) -> Iterator[Path]:
    """The folder of a group and those around it; inside a container the outer part is not there."""
    parts = [part for part in place.split("/") if part]
    if os.pardir in parts:  # seen from another name space
        parts = []
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _read(file: Path) -> str:
    """The text of a file; nothing where it is not there."""
    with suppress(OSError):
        return file.read_text().strip()
    return ""


def _quota(folder: Path) -> float | None:
    with suppress(OSError, ValueError):  # nothing there, or "max"
        limit, period = (folder / "cpu.max").read_text().split()
        return int(limit) / int(period)
    with suppress(OSError, ValueError):
        limit = (folder / "cpu.cfs_quota_us").read_text()
        period = (folder / "cpu.cfs_period_us").read_text()
        return int(limit) / int(period) if int(limit) > 0 else None
    return None
