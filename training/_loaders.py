"""How a detector's images are loaded: from memory or the disk, drawn by a sampler of ours, and the
processes that do it ended at once."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

from ultralytics.data.build import InfiniteDataLoader

from core.cpus import memory_granted_mb


def fits_in_memory(folder: Path, side: int) -> bool:
    """Whether a container grants twice what the images of a folder take.

    Ultralytics asks the same of the machine, which may have more: what takes more than is granted
    is killed.

    Args:
        folder: of the images.
        side: px to which they are shrunk.
    """
    granted_mb = memory_granted_mb()
    needed_mb = 2 * sum(1 for _ in folder.iterdir()) * 3 * side**2 / 1e6
    return granted_mb is None or needed_mb <= granted_mb


def draw_mosaics_from_all(dataset: Any, arguments: Any) -> None:
    """Let a training set that is read from the disk put together what one in memory would.

    Where not all images fit into memory, ultralytics puts those together that it has loaded last:
    what a run learns would depend on the memory that was free, and on whether it was resumed.
    """
    if dataset.cache != "ram":
        dataset.cache = "ram"  # its word for that no image is kept for a while
        dataset.transforms = dataset.build_transforms(hyp=copy(arguments))


def drawing_by(sampler: Any, stock: InfiniteDataLoader) -> InfiniteDataLoader:
    """A loader like the stock one, which draws by the sampler."""
    return InfiniteDataLoader(
        dataset=stock.dataset,
        batch_size=stock.batch_size,
        sampler=sampler,
        num_workers=stock.num_workers,
        prefetch_factor=stock.prefetch_factor,
        pin_memory=stock.pin_memory,
        collate_fn=stock.collate_fn,
        worker_init_fn=stock.worker_init_fn,
        generator=stock.generator,
    )


def end(loader: InfiniteDataLoader) -> None:
    """End a loader's processes now; its own `close` lets each finish the batch in hand."""
    for process in getattr(loader.iterator, "_workers", ()):
        process.terminate()
    with suppress(RuntimeError):  # a process that had hardly begun says that it was terminated
        loader.close()
