"""Unlike anything seen: how far the features of an image lie from those a network learned from.

A network answers with confidence about pictures of another kind of surface, of a hand before the
lens, of nothing at all. Its features betray them: each kind of training image has a centre, and the
distance to the nearest centre is measured in the spread of the training images around theirs
(Mahalanobis distance with one shrunken covariance, Lee et al. 2018). Features are scaled to length
1 first: their length is mostly contrast, and says little about what is seen.

What a distance means is told by images the network has not learned from: the novelty of an image is
the share of validation images that lie nearer. A fitted `Familiarity` is stored with its release,
in a file of its own that the release's config names with its SHA-256.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from active_learning.uncertainty import Floats, unit_rows
from core.errors import InputError, WeightsError
from core.records import ReleaseConfig, SideFile
from core.types import Prediction
from models import get_spec
from models._release import read_side_file

logger = logging.getLogger(__name__)

NOVELTY_FILE: Final = "novelty.safetensors"
ALARM: Final = 0.01  # share of ordinary images that may be called unlike anything seen
_LAYER: Final = "layer"  # in the file: the name of the layer, as bytes
_DIGITS: Final = 9  # of a quantile: 99 of 100 images are 0.99 whatever the rounding


@dataclass(frozen=True, slots=True)
class Familiarity:
    """What the images of a release's data set look like to its network.

    Raises:
        InputError: if the arrays do not belong together or hold a value that is no number.
    """

    whitening: NDArray[
        np.float32
    ]  # (D, R), makes the spread around the centres 1 in each direction
    centres: NDArray[np.float32]  # (K, R), whitened, one for each kind of image
    ordinary: NDArray[np.float32]  # (n,), rising: distances of the validation images

    def __post_init__(self) -> None:
        shapes = (self.whitening.shape, self.centres.shape, self.ordinary.shape)
        if [len(shape) for shape in shapes] != [2, 2, 1] or shapes[0][1] != shapes[1][1]:
            raise InputError(
                f"Whitening, centres and distances are {shapes}; (D, R), (K, R), (n,) are wanted."
            )
        if not all(shape[0] for shape in shapes):
            raise InputError(f"Whitening, centres and distances are {shapes}: none may be empty.")
        if not all(np.isfinite(a).all() for a in (self.whitening, self.centres, self.ordinary)):
            raise InputError("Whitening, centres or distances hold a value that is no number.")
        if (np.diff(self.ordinary) < 0).any():
            raise InputError("Distances of the validation images do not rise.")

    def distance(self, features: ArrayLike) -> Floats:
        """Distance to the nearest centre, in standard deviations of one direction.

        Args:
            features: (m, D), of the very weights that this was fitted for.

        Returns:
            (m,), min over k of ‖f W / ‖f‖ - μ_k‖.

        Raises:
            InputError: if the features are of another length.
        """
        rows = unit_rows(features)
        if rows.shape[1] != len(self.whitening):
            raise InputError(
                f"Features have length {rows.shape[1]}; this release's have {len(self.whitening)}."
            )
        white = rows @ self.whitening.astype(np.float64)
        apart = [np.linalg.norm(white - centre, axis=1) for centre in self.centres]
        return np.asarray(np.min(apart, axis=0))

    def novelty(self, features: ArrayLike) -> Floats:
        """Share of the validation images that lie nearer than each image; conformal.

        Among images like the validation images, at most a share a has a novelty of 1 - a or more,
        whatever their distribution. Nothing reaches 1: beyond all of n images it is n / (n + 1).

        Args:
            features: (m, D).

        Returns:
            (m,), in [0, 1): images that lie nearer, divided by n + 1.
        """
        # A validation image must not come out as further than itself by rounding.
        distance = self.distance(features) * (1 - 1e-5)
        nearer = np.searchsorted(self.ordinary, distance, side="left")
        return np.asarray((nearer / (len(self.ordinary) + 1)).round(_DIGITS))


def doubt(novelty: float) -> float:
    """What a novelty adds to an image's uncertainty: 0 for the ordinary, 0.5 at the alarm.

    It rises from 0 at 1 - 2 ALARM to 1 at a novelty of 1.

    Args:
        novelty: in [0, 1].

    Returns:
        In [0, 1].
    """
    return float(np.clip(round(1 - (1 - novelty) / (2 * ALARM), _DIGITS), 0, 1))


def novelty_of(prediction: Prediction, folder: Path, release: ReleaseConfig) -> float | None:
    """The novelty of the image that a prediction is about.

    Args:
        prediction: with the features of its image.
        folder: of the release that predicted.
        release: its config.

    Returns:
        In [0, 1); None if the answer has no features, or the release was never fitted for those
        that its network gives.

    Raises:
        WeightsError: if the file beside the weights is missing or damaged.
    """
    features = prediction.source.features
    if release.novelty is None or features is None:
        return None
    familiarity = _read(folder, release.novelty, release.name)
    if familiarity is None:
        return None
    try:
        return float(familiarity.novelty(features)[0])
    except InputError as exc:
        raise WeightsError(f"{release.novelty.file} of {release.name} does not fit: {exc}") from exc


def read_familiarity(folder: Path, release: ReleaseConfig) -> Familiarity:
    """What a release's images look like, its SHA-256 checked; read once for each revision.

    Raises:
        WeightsNotFoundError: if the file is missing.
        WeightsError: if the release names none, or one of other features, or the file is damaged.
    """
    found = None if release.novelty is None else _read(folder, release.novelty, release.name)
    if found is None:
        raise WeightsError(
            f"{release.name} {release.revision} does not know what it has seen: run "
            "`python -m active_learning calibrate` on it."
        )
    return found


@lru_cache(maxsize=32)
def _read(folder: Path, side: SideFile, model: str) -> Familiarity | None:
    """The file's content; None if it was fitted to features of another layer than today's."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = read_side_file(folder, side.file, side.sha256)
    try:
        arrays = load(data)
        found = Familiarity(arrays["whitening"], arrays["centres"], arrays["ordinary"])
    except (SafetensorError, KeyError, InputError) as exc:
        path = folder / side.file
        raise WeightsError(f"{path} is no file of `active_learning calibrate`.") from exc
    # Vectors of two layers may have one length, and still nothing to do with each other.
    fitted, given = bytes(arrays.get(_LAYER, ())).decode(), get_spec(model).feature_layer
    if fitted != given:
        logger.warning(
            "%s was fitted to features of %r, %s gives those of %r: calibrate it again",
            *(folder / side.file, fitted, model, given),
        )
        return None
    return found


def to_bytes(familiarity: Familiarity, *, layer: str) -> bytes:
    """The file beside the weights; the same arrays give the same bytes.

    Args:
        familiarity: what was fitted.
        layer: of the network, whose features it was fitted to.
    """
    from safetensors.numpy import save

    content: bytes = save(
        {
            "whitening": np.ascontiguousarray(familiarity.whitening),
            "centres": np.ascontiguousarray(familiarity.centres),
            "ordinary": np.ascontiguousarray(familiarity.ordinary),
            _LAYER: np.frombuffer(layer.encode(), np.uint8),
        }
    )
    return content
