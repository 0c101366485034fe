"""Heat maps for the pages: computed when asked for, remembered for a while, painted with a legend.

The colours are inferno's (matplotlib, CC0): equal steps of heat look equally large, also in grey
and to the colour-blind. Cold places stay as they are, so that the steel is still to be seen.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import numpy as np

from core.errors import InputError
from core.types import DecodedImage, FloatArray, Image
from demo.colours import rgb
from demo.words import short
from hub.registry import Release
from models._committee import COMMITTEE

if TYPE_CHECKING:
    from models._cam import Explainer

_K = TypeVar("_K")
_V = TypeVar("_V")
_Network = tuple[str, str, int]  # name, revision, and px it is shown, which can be chosen anew
Heat = Literal["off", "layer", "eigen"]
CHOICES: Final[list[tuple[str, Heat]]] = [
    ("Off", "off"),
    ("LayerCAM", "layer"),
    ("Eigen-CAM", "eigen"),
]
OF_COMMITTEE: Final = "The committee has no network of its own; choose one of its members."
_MEANING: Final[dict[Heat, str]] = {
    "off": "",
    "layer": "what raised the score of what was found",
    "eigen": "the strongest pattern the network saw, whatever it made of it",
}
# inferno at 0, 1/16, … 1
_STOPS: Final = (
    *("#000004", "#0b0724", "#210c4a", "#3d0965", "#57106e", "#71196e", "#8a226a", "#a32c61"),
    *("#bc3754", "#d24644", "#e45a31", "#f1731d", "#f98e09", "#fcac11", "#f9cb35", "#f2ea69"),
    "#fcffa4",
)
_MOST_OPAQUE: Final = 0.65  # of the colour at the hottest place
_EXPLAINERS: Final = 2  # networks kept for explanations
_MAPS: Final = 16


class HeatMaps:
    """Explains answers; keeps the last networks and maps. Safe to use from any thread."""

    def __init__(self) -> None:
        self._explainers: OrderedDict[_Network, Explainer] = OrderedDict()
        self._maps: OrderedDict[tuple[_Network, str, str], FloatArray] = OrderedDict()
        self._lock = threading.Lock()  # one explanation at a time: they wait for the same cores

    def get_ready(self) -> None:
        """Load the libraries now, for which the first explanation would wait some seconds."""
        from models import import_libraries

        import_libraries()
        with self._lock:  # nor does anybody else begin with it meanwhile
            import pytorch_grad_cam  # noqa: F401

    def __call__(
        self,
        release: Release,
        image: DecodedImage,
        method: Literal["layer", "eigen"],
        *,
        revision: str,
    ) -> FloatArray:
        """Where the network of a release looked, (H, W) in [0, 1].

        Args:
            release: the live one.
            image: that it looked at.
            method: of explaining.
            revision: whose answer is explained.

        Raises:
            InputError: if it is the committee's, which has no network of its own, or another one
                has gone live since the answer: its heat would lie under findings that are not its.
            WeightsError: if its weights are damaged.
        """
        config = release.config
        if config.name == COMMITTEE:
            raise InputError(OF_COMMITTEE)
        if config.revision != revision:
            raise InputError(
                f"{short(config.title)} {revision} has given this answer, and {config.revision} "
                "is live by now: inspect the picture again."
            )
        key = (_network(release), image.sha256, method)
        with self._lock:
            heat = self._maps.get(key)
            if heat is None:
                heat = self._explainer(release)(image, method=method)
            _keep(self._maps, key, heat, _MAPS)
            return heat

    def _explainer(self, release: Release) -> Explainer:
        from models._cam import load_explainer

        model = _network(release)
        explainer = self._explainers.get(model) or load_explainer(release.folder)
        _keep(self._explainers, model, explainer, _EXPLAINERS)
        return explainer


def _network(release: Release) -> _Network:
    return release.config.name, release.config.revision, release.config.image_size


def _keep(kept: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


def paint(pixels: Image, heat: FloatArray) -> Image:
    """The picture (H, W, 3) with heat (H, W) over it: the hotter, the less of it shows through."""
    opaque = (_MOST_OPAQUE * np.sqrt(heat))[..., None]
    mixed: Image = (pixels * (1 - opaque) + colours(heat) * opaque).round().astype(np.uint8)
    return mixed


def colours(heat: FloatArray) -> FloatArray:
    """Colours (H, W, 3), 0 to 255, of heat (H, W) in [0, 1]."""
    stops = np.array([rgb(stop) for stop in _STOPS], np.float32)
    places = np.linspace(0, 1, len(stops))
    channels = [np.interp(heat, places, stops[:, k]) for k in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def caption(heat: Heat) -> str:
    """What heat shows, in a line for a picture that is handed on; "" without heat."""
    titles = {value: name for name, value in CHOICES}
    return f"{titles[heat]}: {_MEANING[heat]}" if heat != "off" else ""


def legend(heat: Heat) -> str:
    """What the colours mean, "" without heat."""
    if heat == "off":
        return ""
    bar = f"linear-gradient(90deg, {', '.join(_STOPS)})"
    return (
        '<p class="heat-legend"><span>little</span>'
        f'<span class="scale" style="background:{bar}" aria-hidden="true"></span>'
        f'<span>much</span><span class="quiet">{_MEANING[heat]}</span></p>'
    )
