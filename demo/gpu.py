"""The GPU that a ZeroGPU Space lends for the length of one call; everywhere else nothing changes.

There the process that serves has no GPU of its own: what a function marked with `spaces.GPU` does
happens in another process, to which arguments and results are pickled. So the networks live there:
built when first asked for, kept as long as that process is. Neither `spaces` nor such a machine is
needed to run or to test anything else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from core.types import DecodedImage, Prediction, Predictor
from models import load

if TYPE_CHECKING:
    from models._spec import ModelSpec

LENT: Final = "lent"  # the name of such a device, beside cpu and cuda:N
_SECONDS: Final = 15  # what one call may take; a visitor's quota is counted in these
_DEVICE: Final = "cuda:0"


class _Look(Protocol):
    def __call__(
        self, folder: Path, images: list[DecodedImage], score_threshold: float
    ) -> list[Prediction]: ...


def is_lent() -> bool:
    """Whether this is a ZeroGPU Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def prepare() -> None:
    """Mark what needs a GPU, if one is lent: to be called before torch is used, at the start."""
    if is_lent():
        _marked()


class Lent:
    """A release whose network runs on the lent GPU; looks like any other predictor.

    Raises:
        WeightsNotFoundError: if the folder holds no release.
        WeightsError: if the weights fail their hash or do not fit the network.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        here = load(folder, device="cpu")  # proves the release before anybody asks for it
        self.spec: ModelSpec = here.spec
        self.revision, self.labels = here.revision, here.labels

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look at each image; detections below the threshold are left out."""
        return _marked()(self._folder, list(images), score_threshold)


@cache
def _marked() -> _Look:
    """`_look`, taken to the GPU by `spaces`."""
    gpu = import_module("spaces").GPU
    return cast(_Look, gpu(duration=_SECONDS)(_look))


def _look(folder: Path, images: list[DecodedImage], score_threshold: float) -> list[Prediction]:
    return _built(folder)(images, score_threshold=score_threshold)


@cache
def _built(folder: Path) -> Predictor:
    """The network of a release, in the process that has the GPU; a folder never changes weights."""
    return load(folder, device=_DEVICE)
