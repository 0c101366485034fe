"""What a model says about one image: three frozen result types and the protocol that makes them.

Arrays live here, stored records in `core.records`. Images are uint8 RGB (H, W, 3). Boxes are xyxy,
float32 pixels of the source image with the origin at its top-left corner; a box from x1 = 0 to
x2 = W covers the whole width. Scores and probabilities lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from models._spec import ModelSpec

Task: TypeAlias = Literal["detect", "segment", "classify"]
TASKS: tuple[Task, ...] = ("detect", "segment", "classify")

Image: TypeAlias = NDArray[np.uint8]
FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a result comes from: which weights looked at which bytes, and for how long.

    `features` (D,) is how the image looks to these very weights, where the network tells it; only
    vectors of one revision can be compared.
    """

    model: str
    revision: str
    image_sha256: str
    width: int  # px
    height: int  # px
    latency_ms: float
    features: FloatArray | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes found in one image, highest score first.

    Raises:
        ValueError: if the arrays disagree in length or a class id has no label.
    """

    xyxy: FloatArray  # (n, 4) px of the source image
    scores: FloatArray  # (n,)
    class_ids: NDArray[np.int64]  # (n,), index into labels
    labels: tuple[str, ...]
    source: Provenance

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.xyxy.shape != (n, 4) or self.class_ids.shape != (n,):
            raise ValueError(
                f"{n} scores need boxes ({n}, 4) and class ids ({n},), "
                f"got {self.xyxy.shape} and {self.class_ids.shape}."
            )
        if n and not 0 <= int(self.class_ids.min()) <= int(self.class_ids.max()) < len(self.labels):
            raise ValueError(f"Class ids must lie in [0, {len(self.labels)}).")

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A class for every pixel: 0 is background, k is `labels[k - 1]`.

    Raises:
        ValueError: if class map and scores differ in shape.
    """

    class_map: NDArray[np.uint8]  # (H, W)
    scores: FloatArray  # (H, W), probability of the class chosen at that pixel
    labels: tuple[str, ...]
    source: Provenance

    def __post_init__(self) -> None:
        if self.class_map.ndim != 2 or self.class_map.shape != self.scores.shape:
            raise ValueError(
                f"Class map {self.class_map.shape} and scores {self.scores.shape} must be the "
                "same (H, W)."
            )


@dataclass(frozen=True, slots=True)
class Classification:
    """One probability per class, summing to 1.

    Raises:
        ValueError: if the number of probabilities is not the number of labels.
    """

    probabilities: FloatArray  # (C,)
    labels: tuple[str, ...]
    source: Provenance

    def __post_init__(self) -> None:
        if self.probabilities.shape != (len(self.labels),):
            raise ValueError(
                f"{len(self.labels)} labels need ({len(self.labels)},) probabilities, "
                f"got {self.probabilities.shape}."
            )

    @property
    def best(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())


Prediction: TypeAlias = Detections | Segmentation | Classification


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded picture with the identity of the bytes it came from."""

    pixels: Image  # (H, W, 3) RGB
    sha256: str  # of the encoded bytes
    is_grey: bool = field(default=False)  # all three channels are equal

    @property
    def width(self) -> int:
        """Width in px."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in px."""
        return int(self.pixels.shape[0])


class Predictor(Protocol):
    """A network with weights, ready to look at images; safe to call from several threads."""

    @property
    def spec(self) -> ModelSpec:
        """What the network is."""
        ...

    @property
    def revision(self) -> str:
        """Which weights it carries."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, background left out."""
        ...

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look at each image; detections below the threshold are left out."""
        ...
