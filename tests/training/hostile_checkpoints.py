"""Checkpoints that would run code, or ask for the impossible, and the doors they are brought to.

Unpickled without care, each of the first kind would make a folder, the canary.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models._coco import fold_checkpoint, load_coco_npz
from models._release import load_weights
from models._ultralytics import build_detector, yolo11_config
from tests.records import write_folder
from training.runs import load_checkpoint


class Hostile:
    """Unpickled without care, it would make a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def payloads(canary: Path) -> dict[str, bytes]:
    """Hostile files by kind."""
    path = str(canary).encode()
    zipped = _saved({"model": Hostile(canary)})
    array = io.BytesIO()
    np.save(array, np.array([Hostile(canary)], dtype=object), allow_pickle=True)
    objects = io.BytesIO()
    np.savez(objects, weights=np.array([Hostile(canary)], dtype=object))  # pickled by default
    return {
        "object that makes a folder, zip": zipped,
        "object that makes a folder, old format": _saved({"model": Hostile(canary)}, zipped=False),
        "plain pickle of it": pickle.dumps(Hostile(canary), protocol=2),
        "shell command": b"cposix\nsystem\n(S'mkdir " + path + b"'\ntR.",
        "eval": b'c__builtin__\neval\n(S\'__import__("os").mkdir("' + path + b"\")'\ntR.",
        "getattr of a module": (
            b"cbuiltins\ngetattr\n(cimportlib\nimport_module\n(S'os'\ntRS'mkdir'\ntR(S'"
            + path
            + b"'\ntR."
        ),
        "torch.load within": b"ctorch\nload\n(S'" + path + b"'\ntR.",
        "name of a package that is not there": b"crollmark_extra\nWeights\n(tR.",
        "names that climb out of the zip": _climbing(zipped),
        "zip cut off": zipped[: len(zipped) // 2],
        "a tensor larger than its bytes": _saved_view(),
        "a hundred thousand lists begun and one ended": b"(" * 100_000 + b".",
        "numpy array of objects": array.getvalue(),
        "numpy archive of objects": objects.getvalue(),
        "numpy array of two exabytes": _npy(1 << 58),
        "numpy array that is no archive": _npy(0),
        "safetensors of a huge header": struct.pack("<Q", 1 << 60) + b"{}",
        "safetensors beyond its end": _safetensors(b'"F32","shape":[9],"data_offsets":[0,36]'),
        "safetensors of unknown numbers": _safetensors(b'"X9","shape":[1],"data_offsets":[0,4]'),
        "nothing": b"",
    }


def doors(folder: Path) -> dict[str, Callable[[bytes], object]]:
    """Everything that reads weights from a file, by what it is for; each takes the file's bytes."""

    def placed(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    def served(data: bytes) -> object:
        release = Path(tempfile.mkdtemp(dir=folder)) / "release"
        config = write_folder(release, data)  # its hash is right: only the content lies
        return load_weights(nn.Linear(2, 1), release, config)

    network = cache(lambda: build_detector(yolo11_config("n"), 6))

    def begun(data: bytes) -> object:
        return load_coco_npz(network(), placed("yolo11n.npz", data), torch.zeros(1, 3, 64, 64))

    return {
        "weights of a release": served,
        "a run that is resumed": lambda data: load_checkpoint(placed("last.pt", data)),
        "training convert": lambda data: fold_checkpoint(placed("yolo11n.pt", data)),
        "training train --init": begun,
    }


def _saved(content: object, *, zipped: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def _saved_view() -> bytes:
    """A checkpoint whose record of numbers was shortened: its tensor asks for 1,000 of four."""
    source = io.BytesIO(_saved({"w": torch.zeros(1000)}))
    out = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:16] if name.endswith("data/0") else old.read(name))
    return out.getvalue()


def _climbing(archive: bytes) -> bytes:
    """The same records under names that lead out of a folder they would be unpacked to."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(f"../../canary/{name}", old.read(name))
    return out.getvalue()


def _npy(length: int) -> bytes:
    """The header of an array of float64, and nothing behind it."""
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({length},)}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def _safetensors(tensor: bytes) -> bytes:
    head = b'{"w":{"dtype":' + tensor + b"}}"
    return struct.pack("<Q", len(head)) + head + b"\0" * 4
