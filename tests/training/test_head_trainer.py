"""A detector of which only the head learns: maps, mirrored boxes, the same twice, and learning."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from training.head_trainer import IMAGE_SIZE, HeadTrainer


@pytest.fixture(scope="module")
def samples(tiny_neu_det):
    """Four images of 200 px; the first one with one box on its left."""
    first, *rest = tiny_neu_det.samples[:4]
    boxed = dataclasses.replace(first, boxes=(("inclusion", (20.0, 40.0, 60.0, 140.0)),))
    return (boxed, *rest)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory, tiny_neu_det, samples):
    arrays = tmp_path_factory.mktemp("arrays") / "coco.npz"
    np.savez(
        arrays,
        **{
            "model.0.conv.weight": np.full((16, 3, 3, 3), 0.05, np.float32),
            "model.0.conv.bias": np.zeros(16, np.float32),
        },
    )
    return HeadTrainer(arrays, tiny_neu_det.labels, samples)


@pytest.fixture(scope="module")
def maps(trainer, samples):
    return trainer.maps(samples)


def test_maps_are_those_of_three_strides(maps):
    assert [tuple(level.shape) for level in maps.levels] == [
        (4, 64, IMAGE_SIZE // 8, IMAGE_SIZE // 8),
        (4, 128, IMAGE_SIZE // 16, IMAGE_SIZE // 16),
        (4, 256, IMAGE_SIZE // 32, IMAGE_SIZE // 32),
    ]


def test_boxes_are_fractions_of_the_square_and_are_mirrored_with_it(trainer, samples, maps):
    # Class 1 of the set; centre (40, 90) of 200 px, size 40 × 100; mirrored, the centre is at 160.
    np.testing.assert_allclose(maps.targets[0], [[1, 0.2, 0.45, 0.2, 0.5]], atol=1e-6)
    mirrored = trainer.maps(samples[:1], mirrored=True)
    np.testing.assert_allclose(mirrored.targets[0], [[1, 0.8, 0.45, 0.2, 0.5]], atol=1e-6)
    assert not torch.equal(mirrored.levels[0][0], maps.levels[0][0])


def test_the_same_seed_gives_the_same_head_and_another_another(trainer, maps):
    outside = torch.random.get_rng_state()
    first, again, other = (trainer.train([maps], [0, 1], seed=s, steps=2) for s in (3, 3, 4))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    assert not torch.equal(other.cv3[0][-1].weight, first.cv3[0][-1].weight)
    assert torch.equal(torch.random.get_rng_state(), outside)


def test_a_head_learns_the_class_that_it_is_shown_again_and_again(trainer, maps):
    head = trainer.train([maps], [0], seed=0, steps=12).train()  # few steps settle no BatchNorm
    with torch.no_grad():
        said = head([level[[0, 0]] for level in maps.levels])["scores"]  # (2, C, A)
    assert int(said.sigmoid().mean((0, 2)).argmax()) == 1


def test_no_box_reaches_a_threshold_of_one(trainer, maps):
    head = trainer.train([maps], [0], seed=0, steps=2)
    assert [len(scores) for _, scores, _ in trainer.look(head, maps, [2, 0], threshold=1)] == [0, 0]
