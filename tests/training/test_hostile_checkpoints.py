"""Nothing that is loaded as weights runs code, and each is refused in a sentence of ours."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from core.errors import RollmarkError
from tests.training.hostile_checkpoints import Hostile, doors, payloads

DOORS = (
    *("weights of a release", "a run that is resumed"),
    *("training convert", "training train --init"),
)


@pytest.mark.parametrize("door", DOORS)
def test_a_hostile_checkpoint_is_refused_in_a_sentence_and_runs_nothing(
    tmp_path: Path, door: str
) -> None:
    canary = tmp_path / "canary"
    bring = doors(tmp_path)[door]
    outcomes = {}
    for kind, data in payloads(canary).items():
        try:
            bring(data)
        except RollmarkError as exc:
            outcomes[kind] = str(exc)
        except Exception as exc:  # told by kind below: a traceback for whoever brought it
            pytest.fail(f"{kind}: {type(exc).__name__}: {exc}")
        assert not canary.exists(), kind
    assert outcomes.keys() == payloads(canary).keys()
    assert all(sentence.endswith(".") for sentence in outcomes.values())


def test_every_door_is_tried(tmp_path: Path) -> None:
    assert tuple(doors(tmp_path)) == DOORS


def test_the_canary_dies_where_no_care_is_taken(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Hostile(tmp_path / "canary")))
    assert (tmp_path / "canary").is_dir()
