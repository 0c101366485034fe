"""Putting a release on the shelf: weights, evaluations and card together, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from core.errors import WeightsError
from core.records import Evaluation, ReleaseConfig
from hub.card import write_card
from models import get_spec
from models._release import read_release, read_side_file, read_weights, write_config

CARD_FILE = "README.md"


def read_whole(folder: Path) -> tuple[ReleaseConfig, dict[str, bytes]]:
    """The description of a release and every file that it names, each checked by its SHA-256.

    Raises:
        WeightsNotFoundError: if there is no release, or one of its files is missing.
        WeightsError: if a file is damaged.
    """
    config = read_release(folder)
    beside = {s.file: read_side_file(folder, s.file, s.sha256) for s in config.side_files}
    return config, {config.weights_file: read_weights(folder, config), **beside}


def complete(config: ReleaseConfig, evaluations: Sequence[Evaluation]) -> ReleaseConfig:
    """The release's description with what was measured on its weights.

    Where it was not chosen by what it finds (`config.operating`), a detector's threshold for
    findings worth showing becomes the confidence at which mean F1 was highest on the validation
    split, if that was measured; a test split decides nothing.

    Raises:
        WeightsError: if an evaluation is of other weights, of a model that looks at mirrored
            pictures too, or on images that the release has learned from.
    """
    for evaluation in evaluations:
        if (evaluation.model, evaluation.revision) != (config.name, config.revision):
            raise WeightsError(
                f"The evaluation is of {evaluation.model} {evaluation.revision}, the release is "
                f"{config.name} {config.revision}: evaluate these weights."
            )
        if evaluation.settings.get("tta"):
            raise WeightsError(
                f"The evaluation on {evaluation.split} looked at mirrored pictures, too, and the "
                "app does not: evaluate without --tta."
            )
        if learned := evaluation.settings.get("learned_images"):
            raise WeightsError(
                f"{config.name} {config.revision} has learned from {learned} of the images of "
                f"{evaluation.dataset} {evaluation.protocol} {evaluation.split}: evaluate it on "
                "images that it has not."
            )
    changes: dict[str, object] = {
        "title": get_spec(config.name).title,  # what the model is called today
        "evaluations": tuple(evaluations),
    }
    for evaluation in evaluations:
        is_own = evaluation.split == "val" and evaluation.protocol == config.protocol
        if is_own and not config.operating:
            best = evaluation.settings.get("confidence_of_best_F1")
            if best is not None:
                changes["score_threshold"] = round(float(best), 3)
    return config.model_copy(update=changes)


def shelve(release: Path, target: Path, evaluations: Sequence[Evaluation]) -> ReleaseConfig:
    """Copy a run's release to `target` with its evaluations and its card; replaces what is there.

    What its config names beside the weights travels with it.

    Args:
        release: folder of `config.json` and weights, as a training run writes it.
        target: the new folder, for example `hub/bundled/grace`.
        evaluations: of these very weights.

    Raises:
        WeightsNotFoundError: if there is no release, or one of its files is missing.
        WeightsError: if a file fails its hash or an evaluation does not tell of the release.
    """
    config, files = read_whole(release)
    config = complete(config, evaluations)
    card = write_card(config, get_spec(config.name))
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for file, data in files.items():
        (fresh / file).write_bytes(data)
    write_config(fresh, config)
    (fresh / CARD_FILE).write_text(card, encoding="utf-8")
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    fresh.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    return config
