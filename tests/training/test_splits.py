from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.splits import (
    SPLITS,
    Item,
    few_shot,
    group_split,
    original_split,
    random_split,
    shares,
)


def one_class(n: int, label: str = "crazing") -> list[Item]:
    return [Item(f"{label}_{i}.jpg", (label,), f"{label}-{i}") for i in range(n)]


def sizes(assignment: dict[str, str]) -> tuple[int, int, int]:
    found = Counter(assignment.values())
    return found["train"], found["val"], found["test"]


@st.composite
def grouped_items(draw: st.DrawFn) -> list[Item]:
    """Up to four classes of 3 to 12 groups of 1 to 9 images, a group being of one class."""
    items = []
    for c in range(draw(st.integers(1, 4))):
        for g, n in enumerate(draw(st.lists(st.integers(1, 9), min_size=3, max_size=12))):
            items += [Item(f"{c}-{g}-{i}", (f"class{c}",), f"group{c}-{g}") for i in range(n)]
    return items


@given(grouped_items(), st.integers(0, 3))
@settings(max_examples=25)
def test_no_group_is_in_two_splits_and_every_class_is_in_all(items: list[Item], seed: int) -> None:
    assignment = group_split(items, seed=seed)

    splits_of: dict[str, set[str]] = {}
    for item in items:
        splits_of.setdefault(item.group, set()).add(assignment[item.key])
    assert all(len(splits) == 1 for splits in splits_of.values())
    for label in {item.classes[0] for item in items}:
        assert {assignment[i.key] for i in items if i.classes == (label,)} == set(SPLITS)


@given(grouped_items(), st.randoms(use_true_random=False))
@settings(max_examples=15)
def test_the_order_of_files_does_not_change_either_split(items: list[Item], rng: object) -> None:
    shuffled = items[:]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]

    assert group_split(shuffled, seed=0) == group_split(items, seed=0)
    quota = shares(0.1, 0.1)
    assert random_split(shuffled, quota, seed=0) == random_split(items, quota, seed=0)


def test_groups_of_one_are_divided_70_10_20_in_every_class() -> None:
    items = [*one_class(100), *one_class(40, "patches")]

    assignment = group_split(items, seed=0)

    by_class = {
        label: sizes({i.key: assignment[i.key] for i in items if i.classes == (label,)})
        for label in ("crazing", "patches")
    }
    assert by_class == {"crazing": (70, 10, 20), "patches": (28, 4, 8)}


def test_a_strip_that_is_half_of_its_class_goes_to_training() -> None:
    strip = [Item(f"strip_{i}", ("scratches",), "strip") for i in range(50)]
    assignment = group_split([*strip, *one_class(50, "scratches")], seed=3)

    assert {assignment[item.key] for item in strip} == {"train"}
    # 70/10/20 of 100, of which the strip's 50 are in train already
    assert sizes(assignment) == (70, 10, 20)


def test_an_image_with_two_classes_counts_for_both() -> None:
    items = [Item(f"{i}", ("inclusion", "patches"), f"{i}") for i in range(30)]
    items += [Item(f"x{i}", ("patches",), f"x{i}") for i in range(70)]

    assignment = group_split(items, seed=0)

    inclusion = sizes({i.key: assignment[i.key] for i in items if "inclusion" in i.classes})
    assert inclusion == (21, 3, 6)  # 70/10/20 of 30
    assert sizes(assignment) == (70, 10, 20)


def test_another_seed_gives_another_leak_free_split() -> None:
    assert group_split(one_class(60), seed=0) != group_split(one_class(60), seed=1)


def test_random_split_keeps_8_1_1_in_each_class() -> None:
    items = [*one_class(300), *one_class(57, "patches")]

    assignment = random_split(items, shares(0.1, 0.1), seed=0)

    patches = {k: v for k, v in assignment.items() if k.startswith("patches")}
    assert sizes(patches) == (45, 6, 6)  # round(5.7) = 6 twice
    crazing = {k: v for k, v in assignment.items() if k.startswith("crazing")}
    assert sizes(crazing) == (240, 30, 30)


def test_adding_a_class_does_not_move_the_images_of_another() -> None:
    alone = random_split(one_class(50), shares(0.1, 0.1), seed=0)
    together = random_split([*one_class(50), *one_class(50, "a")], shares(0.1, 0.1), seed=0)

    assert alone.items() <= together.items()


@pytest.mark.parametrize(
    ("val", "test", "n", "expected"),
    [
        pytest.param(0.1, 0.2, 100, (10, 20), id="by the shares"),
        pytest.param(0.1, 0.2, 4, (1, 1), id="round(0.4) = 0, but at least one"),
        pytest.param(0.1, 0.2, 3, (1, 1), id="three are enough for all splits"),
        pytest.param(0.1, 0.2, 2, (0, 0), id="two stay in training"),
        pytest.param(0.1, 0.0, 3, (1, 0), id="no test split is asked for"),
        pytest.param(0.0, 0.2, 3, (0, 1), id="no validation split is asked for"),
    ],
)
def test_shares_give_at_least_one_image_of_three_or_more(
    val: float, test: float, n: int, expected: tuple[int, int]
) -> None:
    assert shares(val, test)(n) == expected


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        pytest.param(300, (15, 15, 270), id="full NEU-DET class: 5/5/90 % of 300"),
        pytest.param(270, (15, 15, 240), id="reduced class keeps the number of shots"),
        pytest.param(30, (10, 10, 10), id="small class: a third each"),
        pytest.param(3, (1, 1, 1), id="three images"),
        pytest.param(2, (1, 1, 0), id="two images"),
        pytest.param(1, (1, 0, 0), id="one image"),
    ],
)
def test_few_shot_quota_takes_fifteen_a_class(n: int, expected: tuple[int, int, int]) -> None:
    assert sizes(random_split(one_class(n), few_shot(15, 15), seed=42)) == expected


def test_original_test_part_stays_test_and_training_part_is_divided_9_1() -> None:
    inner = [Item(f"training_{i}", ("patches",), f"{i}", "training") for i in range(90)]
    outer = [Item(f"test_{i}", ("patches",), f"t{i}", "test") for i in range(20)]

    assignment = original_split([*inner, *outer], val=0.1, seed=0)

    assert {assignment[item.key] for item in outer} == {"test"}
    assert sizes(assignment) == (81, 9, 20)


def test_without_an_original_test_part_a_fifth_is_drawn() -> None:
    assert sizes(original_split(one_class(100), val=0.1, seed=0)) == (70, 10, 20)
    assert original_split(one_class(100), val=0.1, seed=1) != original_split(
        one_class(100), val=0.1, seed=0
    )


def test_a_set_of_test_images_alone_has_nothing_to_divide() -> None:
    outer = [Item(f"{i}", ("patches",), f"{i}", "test") for i in range(3)]
    assert sizes(original_split(outer, val=0.1, seed=0)) == (0, 0, 3)


def test_a_split_is_the_same_in_every_release() -> None:
    # Published numbers name their test split; another draw would make them incomparable.
    widths = (9, 7, 7, 5, 4, 4, 3, 2, 2, 1, 1, 1)
    items = [
        Item(f"{g:02}-{i}", ("crazing",) if g % 3 else ("crazing", "patches"), f"{g:02}")
        for g, n in enumerate(widths)
        for i in range(n)
    ]
    leak_free = group_split(items, seed=0)
    groups = {item.group: leak_free[item.key] for item in items}
    images = random_split(items, shares(0.1, 0.1), seed=0)

    # 5 and 10 of 46 images, of which 70/10/20 would be 32.2, 4.6 and 9.2
    assert [g for g, split in groups.items() if split == "val"] == ["04", "09"]
    assert [g for g, split in groups.items() if split == "test"] == ["02", "06"]
    in_test = {key for key, split in images.items() if split == "test"}
    assert in_test == {"00-0", "00-6", "01-2", "01-4", "04-2"}


def test_tiny_sets_leave_no_split_empty() -> None:
    items = [*one_class(2), *one_class(2, "patches")]

    images = random_split(items, shares(0.1, 0.1), seed=0)
    assert sizes(images) == (2, 1, 1)
    assert (images["crazing_0.jpg"], images["patches_1.jpg"]) == ("val", "test")
    assert min(sizes(group_split(items, seed=0))) == 1


def test_two_groups_fill_training_and_test_first() -> None:
    assert sizes(group_split(one_class(2), seed=0)) == (1, 0, 1)
