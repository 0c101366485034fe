"""The processes that load a detector's images: drawing by a sampler of ours, and ended at once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ultralytics.data.build import InfiniteDataLoader


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
