"""Which release a caller means by a name, and which one `auto` is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from core.errors import ConfigError, UnknownModelError, WeightsNotFoundError
from hub.registry import Release
from models import names
from models._committee import COMMITTEE

AUTO: Final = "auto"
NOTHING_SERVED: Final = (
    "No model has weights yet: put a release into hub/bundled, or train one with "
    "`python -m training train grace --data neu-det`."
)


def check_auto_model(name: str) -> None:
    """Refuse a setting that names no model.

    Raises:
        ConfigError: if `name` is neither empty nor a model's nor the committee's.
    """
    known = (*names(), COMMITTEE)
    if name and name not in known:
        raise ConfigError(
            f"ROLLMARK_SERVING__AUTO_MODEL is {name!r}: it must be empty or one of "
            f"{', '.join(known)}."
        )


def choose(model: str, offered: Sequence[Release], *, auto_model: str) -> Release:
    """The release behind a name.

    `auto` is what `auto_model` names if that is offered, else the detector that validated best,
    else the first.

    Args:
        model: a name.
        offered: the live releases, and the committee where there is one.
        auto_model: of the settings; "" for none.

    Raises:
        UnknownModelError: if none that is offered has that name.
        WeightsNotFoundError: if none is offered at all.
    """
    if not offered:
        raise WeightsNotFoundError(NOTHING_SERVED)
    by_name = {release.config.name: release for release in offered}
    if model != AUTO:
        if model not in by_name:
            raise UnknownModelError(str(model)[:60], [AUTO, *by_name])
        return by_name[model]
    if auto_model in by_name:
        return by_name[auto_model]
    alone = [release for release in offered if release.config.name != COMMITTEE]
    detectors = [release for release in alone if release.config.task == "detect"]
    return max(detectors, key=_validated) if detectors else alone[0]


def _validated(release: Release) -> float:
    return release.config.run.validation.get("mAP50_95", 0.0)
