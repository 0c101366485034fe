from __future__ import annotations

import numpy as np
import pytest
import torch

from training.augment import Views, draw, render, render_masks
from training.plan import AUGMENTATIONS, Augmentation


def _views(theta: list[list[float]], *, brightness: float = 1.0, contrast: float = 1.0) -> Views:
    return Views(torch.tensor([theta]), torch.tensor([brightness]), torch.tensor([contrast]))


IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
QUARTER = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]
IMAGE = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)  # 0, 0.2, 0.4, 1 as fractions


def test_an_augmentation_of_nothing_gives_the_image_back() -> None:
    views = draw(Augmentation(), 1, torch.Generator().manual_seed(0))
    for mode in ("bilinear", "bicubic"):
        pixels = render([IMAGE], views, size=2, mode=mode, stretch=True)
        expected = (IMAGE / 255).expand(3, -1, -1)[None]
        torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-6)


def test_a_quarter_turn_moves_image_and_mask_alike() -> None:
    # Output (row, column) reads input (column, 1 - row): the view is turned anticlockwise.
    turned = torch.tensor([[51, 255], [0, 102]], dtype=torch.uint8)
    pixels = render([IMAGE], _views(QUARTER), size=2, mode="bilinear", stretch=False)
    mask = render_masks([IMAGE[0]], _views(QUARTER), size=2)
    torch.testing.assert_close(pixels[0, 0], turned / 255, rtol=0, atol=1e-6)
    assert mask[0].tolist() == turned.tolist()


def test_contrast_pulls_from_the_mean_and_brightness_scales() -> None:
    # Mean 0.4. Contrast 0.5: 0.2, 0.3, 0.4, 0.7. Brightness 2: 0.4, 0.6, 0.8, 1.4 cut to 1.
    views = _views(IDENTITY, brightness=2.0, contrast=0.5)
    pixels = render([IMAGE], views, size=2, mode="bilinear", stretch=True)
    expected = torch.tensor([[0.4, 0.6], [0.8, 1.0]])
    torch.testing.assert_close(pixels[0, 2], expected, rtol=0, atol=1e-6)


def test_an_oblong_image_keeps_its_aspect_for_a_segmenter_and_is_stretched_for_a_classifier() -> (
    None
):
    rows = torch.tensor([[0, 255]], dtype=torch.uint8).repeat_interleave(2, 1)  # 1 x 4
    mask = render_masks([rows], _views(IDENTITY), size=4)
    assert mask[0].tolist() == [[0, 0, 255, 255]] * 4  # the missing rows are mirrored in
    squeezed = render([rows[None]], _views(IDENTITY), size=2, mode="bilinear", stretch=True)
    assert squeezed.shape == (1, 3, 2, 2)


def test_grey_and_colour_images_of_several_sizes_share_a_batch() -> None:
    colour = torch.zeros((3, 5, 4), dtype=torch.uint8)
    colour[1] = 255
    views = draw(Augmentation(), 2, torch.Generator().manual_seed(0))
    pixels = render([IMAGE, colour], views, size=4, mode="bilinear", stretch=True)
    assert pixels[1, :, 0, 0].tolist() == [0.0, 1.0, 0.0]
    torch.testing.assert_close(pixels[0, 0], pixels[0, 2])


def test_the_same_seed_draws_the_same_views_and_another_does_not() -> None:
    first, again, other = (
        draw(AUGMENTATIONS["segment"], 4, torch.Generator().manual_seed(seed)).theta
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_views_stay_within_the_recipe(task) -> None:
    recipe = AUGMENTATIONS[task]
    views = draw(recipe, 500, torch.Generator().manual_seed(0))
    area = torch.linalg.det(views.theta[:, :, :2].double()).abs().sqrt().numpy()
    low, high = recipe.crop / recipe.zoom[1], recipe.crop / recipe.zoom[0]
    assert low - 1e-6 <= area.min() < low + 0.05  # the whole range is used, and no more
    assert high - 0.05 < area.max() <= high + 1e-6
    flips = np.sign(torch.linalg.det(views.theta[:, :, :2]).numpy())
    assert 0.3 < (flips < 0).mean() < 0.7
