"""Where a run's first weights come from: chance, an earlier release, or one of stock YOLO11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from core.errors import WeightsError, WeightsNotFoundError
from core.records import ReleaseConfig
from models import get_spec
from models._release import load_weights, read_release
from models._widening import widen

STOCK: Final = "yolo11"


@dataclass(frozen=True, slots=True)
class Origin:
    """First weights in words, and the revision of the release they were taken from, if any."""

    words: str
    revision: str | None = None


def release_folder(path: Path) -> Path:
    """The release that `path` means: the folder itself, or a weights file inside one.

    Raises:
        WeightsNotFoundError: if there is nothing at `path`.
    """
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    raise WeightsNotFoundError(f"No weights at {path}: give a release folder.")


def initialise(
    network: nn.Module,
    release: Path | None,
    *,
    scale: str,
    labels: Sequence[str],
    stock_layers: Mapping[int, int] | None = None,
) -> Origin:
    """Fill a new network with what fits it of an earlier release.

    A release with other classes, or the same in another order, lends all but the layers whose shape
    depends on how many there are. One of stock YOLO11 lends a paper's detector the layers that the
    paper left as they are. A detector of a narrower scale is widened, see `models._widening`: the
    network begins by computing what the release computes.

    Args:
        network: with random weights; its matching tensors are replaced.
        release: a release folder or the weights file in one; None leaves the network random.
        scale: of the network.
        labels: class names in the order of the network's answers.
        stock_layers: `ModelSpec.coco_layers` of a network that was made of YOLO11.

    Raises:
        WeightsNotFoundError: if there is no release.
        WeightsError: if it is damaged, or is of another network.
    """
    if release is None:
        return Origin("random")
    folder = release_folder(release)
    config = read_release(folder)
    stranger = WeightsError(
        f"{folder} holds {config.name}, scale {config.scale}: its layers are not those of the "
        f"network to be trained, of scale {scale}; start from a release of the same model and "
        "scale."
    )
    spec = get_spec(config.name)
    if config.scale != scale and spec.task != "detect":
        raise stranger
    donor = spec.build(len(config.labels), config.scale)
    load_weights(donor, folder, config)
    known, words = donor.state_dict(), f"release {config.revision} of {config.name}"
    if config.scale != scale:
        wide = spec.build(len(config.labels), scale).state_dict()
        try:
            known = widen(known, {name: tensor.shape for name, tensor in wide.items()})
        except WeightsError as exc:
            raise stranger from exc
        words += f", widened from scale {config.scale}"
    own = network.state_dict()
    if tuple(config.labels) != tuple(labels):
        known = _without_classes(known, config, scale)
    if config.name == STOCK and stock_layers is not None:
        from models._coco import renamed  # ultralytics is behind it, which no segmenter needs

        fitting = _fitting(own, renamed(known, stock_layers))
        network.load_state_dict(fitting, strict=False)
        return Origin(f"{words}, {len(fitting)} of {len(own)} tensors")
    if own.keys() != donor.state_dict().keys():
        raise stranger
    fitting = _fitting(own, known)
    network.load_state_dict(fitting, strict=False)
    if len(fitting) < len(own):
        words += f", {len(own) - len(fitting)} of {len(own)} tensors new"
    return Origin(words, config.revision)


def _without_classes(
    given: Mapping[str, Tensor], config: ReleaseConfig, scale: str
) -> dict[str, Tensor]:
    """A release's tensors at `scale`, but those whose shape depends on how many classes it has."""
    more = get_spec(config.name).build(len(config.labels) + 1, scale).state_dict()
    return {k: v for k, v in given.items() if more[k].shape == v.shape}


def _fitting(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of `given` the network has a place for."""
    return {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
