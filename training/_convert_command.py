"""`python -m training convert`: an ultralytics checkpoint as the plain arrays that --init takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training._cli import errors_on_one_line


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Of an ultralytics detector: yolo11n.pt.")],
    output: Annotated[
        Path | None, typer.Option(help="NPZ file to write; default: beside it, as .npz.")
    ] = None,
) -> None:
    """Turn an ultralytics checkpoint into the arrays that a detector can start from."""
    with errors_on_one_line():
        import io

        import numpy as np

        from core.errors import InputError
        from core.files import write_atomically
        from models._coco import fold_checkpoint

        arrays = fold_checkpoint(checkpoint)
        target = checkpoint.with_suffix(".npz") if output is None else output
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        try:
            write_atomically(target, buffer.getvalue())
        except OSError as exc:
            raise InputError(f"Cannot write {target}: {exc.strerror or exc}.") from exc
        typer.echo(f"{len(arrays)} arrays: {target}")
