"""The GPU that a ZeroGPU Space lends for the length of one call; everywhere else nothing changes.

There the process that serves has no GPU of its own: what a function marked with `spaces.GPU` does
happens in another process, to which arguments and results are pickled. So the networks live there:
built when first asked for, kept until that process ends or is asked for another version. Neither
`spaces` nor such a machine is needed to run or to test anything else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from core.errors import WeightsError
from core.types import DecodedImage, Prediction, Predictor
from models import load
from models._release import CONFIG_FILE

if TYPE_CHECKING:
    from models._spec import ModelSpec

LENT: Final = "lent"  # the name of such a device, beside cpu and cuda:N
_SECONDS: Final = 15  # what one call may take; a visitor's quota is counted in these
_DEVICE: Final = "cuda:0"


@dataclass(frozen=True, slots=True)
class _Version:
    """A release as it was when it was proven; its folder may be given another one."""

    model: str
    folder: Path
    config_sha256: str  # of its config.json, which holds the hash of the weights


class _Look(Protocol):
    def __call__(
        self, version: _Version, images: list[DecodedImage], score_threshold: float
    ) -> list[Prediction]: ...


_networks: dict[str, tuple[_Version, Predictor]] = {}  # by model, in the process that has the GPU


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
        config_sha256 = _hash_config(folder)  # first: what is replaced while it is read is noticed
        here = load(folder, device="cpu")  # proves the release before anybody asks for it
        self._version = _Version(here.spec.name, folder, config_sha256)
        self.spec: ModelSpec = here.spec
        self.revision, self.labels = here.revision, here.labels

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look at each image; detections below the threshold are left out.

        Raises:
            WeightsError: if another release has taken the place of this one.
        """
        return _marked()(self._version, list(images), score_threshold)


@cache
def _marked() -> _Look:
    """`_look`, taken to the GPU by `spaces`."""
    gpu = import_module("spaces").GPU
    return cast(_Look, gpu(duration=_SECONDS)(_look))


def _look(
    version: _Version, images: list[DecodedImage], score_threshold: float
) -> list[Prediction]:
    return _built(version)(images, score_threshold=score_threshold)


def _built(version: _Version) -> Predictor:
    """The network of a release, in the process that has the GPU; of each model the last one."""
    held = _networks.get(version.model)
    if held is None or held[0] != version:
        predictor = load(version.folder, device=_DEVICE)
        if _hash_config(version.folder) != version.config_sha256:
            raise WeightsError(f"{version.model} has been replaced meanwhile; ask again.")
        held = _networks[version.model] = (version, predictor)
    return held[1]


def _hash_config(folder: Path) -> str:
    """Of the description of a release; "" where there is none, which `load` says better."""
    with suppress(OSError):
        return hashlib.sha256((folder / CONFIG_FILE).read_bytes()).hexdigest()
    return ""
