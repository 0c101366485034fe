"""What to expect of a model from a score on, in the mill's words."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from core.errors import WeightsError
from core.operating import OperatingCurve, read_operating
from core.records import ReleaseConfig
from core.taxonomy import title
from demo.service import Service
from demo.words import number

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What to expect of a model from a score on: in a few words, and in full; "" if not counted."""

    brief: str = ""
    full: str = ""


def expect(config: ReleaseConfig, threshold: float) -> Expectation:
    """How many defects a model finds from a score on, and how many of its findings are none.

    Nothing is promised where what the release has counted is damaged: it can look all the same.
    """
    try:
        curve = read_operating(config)
    except WeightsError as exc:
        logger.warning("%s", exc)
        return Expectation()
    rates = curve and curve.at(threshold)
    if not curve or not rates:
        return Expectation()
    worst = min(curve.defects, key=lambda label: _found(curve, threshold, label))
    found, none = (f"{100 * share:.0f} %" for share in (rates.found, rates.wrong))
    return Expectation(
        f"Finds {found} of defects; {none} of its findings are none",
        f"From a score of {number(threshold)} on it found {found} of the "
        f"{sum(curve.defects.values())} labelled defects in its {curve.n} validation pictures, "
        f"{title(worst)} least ({100 * _found(curve, threshold, worst):.0f} %); {none} of its "
        f"findings were none, {rates.wrong_per_image:.2f} a picture. On other steel it may differ.",
    )


def _found(curve: OperatingCurve, threshold: float, label: str) -> float:
    rates = curve.at(threshold, label)
    return rates.found if rates else 1.0  # nothing of it was there to be missed


def expectation(service: Service, model: str, threshold: float | None) -> tuple[float, Expectation]:
    """The lowest score that a model shows unless told, and what to expect at `threshold`, or there.

    Raises:
        RollmarkError: if the model is not served.
    """
    config = service.choose(model).config
    usual = service.usual_threshold(config)
    return usual, expect(config, usual if threshold is None else threshold)
