"""From which uncertainty on a release asks for a person, fitted on its validation split alone.

One half is where an answer is as open as a tossed coin. A model of soft outlines or of classes that
people disagree about stands above it on most images, and who is asked about most images is asked
about none. So a release whose own validation images would go to a person more often than `MOST`
asks later; one that is surer keeps to one half and is not made to ask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from active_learning.uncertainty import ASK_FROM

MOST: Final = 0.25  # of the validation images, asked about
_STEPS: Final = 1000  # a threshold is told to three digits


def ask_from(uncertainties: Sequence[float]) -> float:
    """The lowest threshold from one half on that at most a share of `MOST` reaches.

    Args:
        uncertainties: of images as they come, each in [0, 1].

    Returns:
        In [0.5, 1], a multiple of a thousandth; 1 may be reached by more, where more are at 1.
    """
    ordered = sorted(uncertainties, reverse=True)
    spared = ordered[math.floor(MOST * len(ordered)) :]  # these must stay below it
    if not spared:
        return ASK_FROM
    above = (math.floor(spared[0] * _STEPS) + 1) / _STEPS
    return max(ASK_FROM, min(1.0, above))
