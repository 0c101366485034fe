from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from core.errors import DatasetError
from core.images import decode
from models import get_spec
from tests.training.synthetic import TinyNetwork, draw_dataset
from training.__main__ import app
from training._blending import Texture, blend, match_tone, seam, texture
from training._cuttings import Training
from training.datasets import Dataset, Sample
from training.progress import TrainingProgress
from training.runs import RunFolder
from training.synthesis import read_traces, shortfall, synthesise, training_set
from training.tails import LEFT_OUT
from training.torch_trainer import train_network

SIDE = 64


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area that two boxes share, px."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """30 noisy plates: a dark spot on most, a bright scratch down the whole of every fifth."""
    root = tmp_path_factory.mktemp("plates")
    rng = np.random.default_rng(11)
    parts = ("train",) * 20 + ("val",) * 5 + ("test",) * 5
    samples = []
    for index, part in enumerate(parts):
        pixels = rng.normal(120, 6, (SIDE, SIDE)).clip(0, 255).astype(np.uint8)
        if index % 5 == 0:
            x = int(rng.integers(8, SIDE - 8))
            pixels[:, x : x + 6] = 220
            box = ("scratch", (x, 0, x + 6, SIDE))
        else:
            x, y = (int(v) for v in rng.integers(8, SIDE - 20, 2))
            pixels[y : y + 10, x : x + 10] = 50
            box = ("spot", (x, y, x + 10, y + 10))
        path = root / "images" / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        samples.append(
            Sample(
                file=path.name,
                path=path,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                width=SIDE,
                height=SIDE,
                group=path.name,
                boxes=(box,),
                splits={"paper": "train", "leak-free": part},
            )
        )
    return Dataset("plates", "detect", ("scratch", "spot"), root, tuple(samples))


def test_classes_whose_names_are_alike_in_files_do_not_share_their_files(
    plates: Dataset, tmp_path: Path
) -> None:
    new = {"scratch": "Rust A", "spot": "rust-a"}
    samples = [
        replace(sample, boxes=tuple((new[label], box) for label, box in sample.boxes))
        for sample in plates.samples
    ]
    alike = replace(plates, labels=("Rust A", "rust-a"), samples=tuple(samples))

    synthesise(alike, {"Rust A": 1, "rust-a": 1}, tmp_path, protocol="leak-free", seed=3)

    files = ["synthetic-rust-a_1-0000.png", "synthetic-rust-a_2-0000.png"]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == files
    assert [trace.file for trace in read_traces(tmp_path / "synthetic.jsonl")] == files


@pytest.fixture(scope="module")
def grown(plates: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    folder = tmp_path_factory.mktemp("grown")
    wanted = {"scratch": 6, "spot": 2}
    return synthesise(plates, wanted, folder, protocol="leak-free", seed=3), folder


def added(dataset: Dataset) -> list[Sample]:
    return [sample for sample in dataset.samples if sample.file.startswith("synthetic")]


# ------------------------------------------------------------------------------------- boxes


def test_the_training_split_grows_by_what_was_wanted_and_nothing_else_changes(
    plates: Dataset, grown: tuple[Dataset, Path]
) -> None:
    dataset, _ = grown
    labels = Counter(sample.boxes[-1][0] for sample in added(dataset))
    assert labels == {"scratch": 6, "spot": 2}
    assert added(dataset)[-1].file == "synthetic-spot-0001.png"
    assert len(dataset.split("leak-free", "train")) == 28
    assert dataset.split("leak-free", "val+test") == plates.split("leak-free", "val+test")
    assert dataset.split("paper", "all") == plates.split("paper", "all")
    assert {s.splits["paper"] for s in added(dataset)} == {LEFT_OUT}


def test_everything_comes_from_the_training_split_of_the_protocol(
    plates: Dataset, grown: tuple[Dataset, Path]
) -> None:
    dataset, folder = grown
    known = {sample.sha256: sample for sample in plates.split("leak-free", "train")}
    traces = read_traces(folder / "synthetic.jsonl")
    files = {sample.file: sample for sample in added(dataset)}
    assert [trace.file for trace in traces] == sorted(files)
    for trace in traces:
        assert trace.target_sha256 in known
        assert trace.source_sha256 in known
        assert trace.target_sha256 != trace.source_sha256
        assert (trace.label, trace.source_box) in [
            (label, tuple(map(int, box))) for label, box in known[trace.source_sha256].boxes
        ]
        assert files[trace.file].boxes == (
            *known[trace.target_sha256].boxes,
            (trace.label, tuple(map(float, trace.box))),
        )
        assert (trace.seed, trace.dataset_id) == (3, plates.id)
        data = files[trace.file].path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == trace.sha256 == files[trace.file].sha256
        with Image.open(files[trace.file].path) as picture:
            assert picture.mode == "L"  # as the one it was put into


def test_no_defect_is_put_over_another(grown: tuple[Dataset, Path]) -> None:
    for sample in added(grown[0]):
        (_, new), (_, old) = sample.boxes[-1], sample.boxes[0]
        assert overlap(new, old) == 0


def test_the_pasted_defect_is_there_and_the_rest_of_the_target_is_as_it_was(
    plates: Dataset, grown: tuple[Dataset, Path]
) -> None:
    dataset, folder = grown
    paths = {sample.file: sample.path for sample in dataset.samples}
    for trace in read_traces(folder / "synthetic.jsonl"):
        before, after = (decode(paths[f]).pixels[..., 0] for f in (trace.target_file, trace.file))
        x1, y1, x2, y2 = trace.box
        inside = after[y1:y2, x1:x2].astype(float).mean() - 120
        assert inside > 40 if trace.label == "scratch" else inside < -30
        far = np.ones_like(before, dtype=bool)
        far[max(0, y1 - 7) : y2 + 7, max(0, x1 - 7) : x2 + 7] = False
        assert np.array_equal(before[far], after[far])


def test_a_defect_that_spans_its_image_spans_the_new_one_at_its_own_size(
    grown: tuple[Dataset, Path],
) -> None:
    scratches = [t for t in read_traces(grown[1] / "synthetic.jsonl") if t.label == "scratch"]
    assert {(t.box[1], t.box[3], t.box[2] - t.box[0], t.zoom) for t in scratches} == {
        (0, SIDE, 6, 1.0)
    }


def test_the_same_seed_makes_the_same_bytes(
    plates: Dataset, grown: tuple[Dataset, Path], tmp_path: Path
) -> None:
    def made(seed: int) -> set[str]:
        folder = tmp_path / str(seed)
        wanted = {"spot": 2, "scratch": 6}  # in another order
        dataset = synthesise(plates, wanted, folder, protocol="leak-free", seed=seed)
        return {sample.sha256 for sample in added(dataset)}

    assert made(3) == {sample.sha256 for sample in added(grown[0])}
    traces = [folder / "synthetic.jsonl" for folder in (tmp_path / "3", grown[1])]
    assert traces[0].read_bytes() == traces[1].read_bytes()
    made(4)
    other = read_traces(tmp_path / "4" / "synthetic.jsonl")
    assert [t.source_file for t in other] != [t.source_file for t in read_traces(traces[0])]


def test_a_class_is_short_of_half_the_largest(plates: Dataset) -> None:
    # leak-free: 4 scratches and 16 spots to train on; half of 16 is 8
    assert shortfall(plates, protocol="leak-free") == {"scratch": 4}
    assert shortfall(plates, protocol="leak-free", share=0.25) == {}
    # Of a class that no training image holds nothing can be cut out.
    assert shortfall(replace(plates, labels=("dent", "scratch", "spot")), protocol="leak-free") == {
        "scratch": 4
    }
    clean = tuple(replace(sample, boxes=()) for sample in plates.samples)
    with pytest.raises(DatasetError, match="No training image of plates holds a class"):
        shortfall(replace(plates, samples=clean), protocol="leak-free")


def test_where_no_class_is_short_the_set_stays_as_it_is(plates: Dataset, tmp_path: Path) -> None:
    same = synthesise(plates, {"spot": 0}, tmp_path, protocol="leak-free", seed=0)
    assert same == plates
    assert read_traces(tmp_path / "synthetic.jsonl") == []


def test_where_there_is_no_room_nothing_is_made(plates: Dataset, tmp_path: Path) -> None:
    full = tuple(replace(s, boxes=(*s.boxes, ("spot", (0, 0, SIDE, SIDE)))) for s in plates.samples)
    with pytest.raises(DatasetError, match="No image could be synthesised from plates"):
        synthesise(
            replace(plates, samples=full), {"spot": 2}, tmp_path, protocol="leak-free", seed=0
        )


def test_an_unknown_class_is_refused(plates: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="plates has no class 'dent'; it has: scratch, spot"):
        synthesise(plates, {"dent": 1}, tmp_path, protocol="leak-free", seed=0)


def test_a_defect_with_a_neighbour_is_not_cut_out(plates: Dataset) -> None:
    (label, (x1, y1, x2, y2)) = plates.samples[1].boxes[0]
    beside = replace(
        plates.samples[1], boxes=((label, (x1, y1, x2, y2)), ("spot", (x2 + 2, y1, x2 + 9, y2)))
    )
    dataset = replace(plates, samples=(beside,))
    assert Training(dataset, "leak-free").cutting("spot", 0, np.random.default_rng(0)) is None


def put_down(folder: Path, label: str, pictures: list[Any], *boxes: Any) -> Dataset:
    """Pictures of one class on disk, all to train on: with boxes to detect, else to classify."""
    folder.mkdir()
    samples = []
    for index, pixels in enumerate(pictures):
        path = folder / f"{index}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        samples.append(
            Sample(
                file=path.name,
                path=path,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                width=SIDE,
                height=SIDE,
                group=path.name,
                boxes=((label, boxes[index]),) if boxes else (),
                label=None if boxes else label,
                splits={"paper": "train"},
            )
        )
    task = "detect" if boxes else "classify"
    return Dataset("put down", task, (label,), folder, tuple(samples))  # type: ignore[arg-type]


def test_colours_stay_and_the_trace_tells_which_way_a_defect_was_turned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.normal((180, 130, 90), 3, (SIDE, SIDE, 3)) for _ in range(6)]
    for pixels in pictures:
        pixels[20:32, 40:52] -= 30
        pixels[20:26, 40:46] -= 60  # its upper left quarter is darkest
    plates = put_down(tmp_path / "data", "spot", pictures, *[(40, 20, 52, 32)] * 6)
    synthesise(plates, {"spot": 8}, tmp_path / "out", protocol="paper", seed=0)
    turns, zooms = set(), set()
    for trace in read_traces(tmp_path / "out" / "synthetic.jsonl"):
        made = decode(tmp_path / "out" / "images" / trace.file).pixels
        x1, y1, x2, y2 = trace.box
        target = decode(tmp_path / "data" / trace.target_file).pixels
        corner = np.s_[:8, :8] if min(x1, y1) > 14 else np.s_[-8:, -8:]
        assert np.array_equal(made[corner], target[corner])
        defect = made[y1:y2, x1:x2].astype(float).mean(2)
        right = defect[:, 6:].mean() < defect[:, :-6].mean()
        down = defect[6:].mean() < defect[:-6].mean()
        assert (trace.flip_horizontal, trace.flip_vertical) == (right, down)
        assert x2 - x1 == pytest.approx(12 * trace.zoom, abs=1)
        turns.add((right, down))
        zooms.add(trace.zoom)
    assert {(True, False), (False, True)} <= turns
    assert 0.85 <= min(zooms) < max(zooms) <= 1.15


def test_a_defect_of_dark_steel_is_not_put_on_bright_steel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.normal(level, 3, (SIDE, SIDE)) for level in (60, 200)]
    for pixels in pictures:
        pixels[20:32, 40:52] -= 40
    plates = put_down(tmp_path / "data", "spot", pictures, *[(40, 20, 52, 32)] * 2)
    # Of brightness alone 140 / 24 = 5.8 unlike, where 2 is the most.
    with pytest.raises(DatasetError, match="No image could be synthesised"):
        synthesise(plates, {"spot": 1}, tmp_path / "out", protocol="paper", seed=0)


def test_where_images_have_labels_alone_plain_steel_covers_nothing_rougher(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain, rough = (rng.normal(120, spread, (SIDE, SIDE)) for spread in (4, 10))
    plates = put_down(tmp_path / "data", "scale", [plain, rough])
    grown = synthesise(plates, {"scale": 2}, tmp_path / "out", protocol="paper", seed=0)
    assert len(added(grown)) == 2
    traces = read_traces(tmp_path / "out" / "synthetic.jsonl")
    assert {(trace.source_file, trace.target_file) for trace in traces} == {("1.png", "0.png")}


# ------------------------------------------------------------------------- masks, image labels


def test_a_mask_gets_the_pixels_of_the_pasted_region(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path / "data", "segment", side=48)
    grown = synthesise(dataset, {"spot": 3}, tmp_path / "out", protocol="paper", seed=0)
    training = Training(grown, "paper")
    targets = {sample.file: sample for sample in dataset.samples}
    for trace in read_traces(tmp_path / "out" / "synthetic.jsonl"):
        sample = next(s for s in grown.samples if s.file == trace.file)
        before, after = training.mask(targets[trace.target_file]), training.mask(sample)
        x1, y1, x2, y2 = trace.box
        assert (after[y1:y2, x1:x2] == 1).all()  # the square is solid
        changed = after != before
        assert changed.sum() == (x2 - x1) * (y2 - y1)
        assert (before[changed] == 0).all()
        assert sample.mask is not None
        assert sample.mask_sha256 == hashlib.sha256(sample.mask.read_bytes()).hexdigest()
        assert sample.boxes == ()
    assert len(grown.split("paper", "train")) == 15


def test_image_labels_are_mixed_within_their_class(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path / "data", "classify", side=32)
    grown = synthesise(dataset, {"line": 3}, tmp_path / "out", protocol="paper", seed=0)
    labels = {sample.sha256: sample.label for sample in dataset.split("paper", "train")}
    traces = read_traces(tmp_path / "out" / "synthetic.jsonl")
    assert len(traces) == 3
    for trace in traces:
        assert labels[trace.source_sha256] == labels[trace.target_sha256] == "line"
    assert [(s.label, s.mask, s.boxes) for s in added(grown)] == [("line", None, ())] * 3


# ---------------------------------------------------------------------------------------- blending


def test_texture_by_hand() -> None:
    ramp = np.repeat((np.arange(8, dtype=np.uint8) * 10)[None], 6, axis=0)  # 10 levels per column
    found = texture(np.stack([ramp] * 3, axis=2), np.pad(np.ones((4, 6), bool), 1))
    assert found.mean == pytest.approx(35.0)  # columns 1 to 6: 10 … 60
    assert (found.gradient, found.across) == (pytest.approx(10.0), pytest.approx(1.0))


def test_texture_distance_adds_what_differs_in_its_units() -> None:
    one, other = Texture(100, 10, 5, 0.5), Texture(124, 4, 5, 0.65)
    assert one.distance(other) == pytest.approx(1 + 0.5 + 0 + 1)
    assert one.distance(one) == 0


def test_tone_takes_brightness_and_a_bounded_contrast() -> None:
    piece = np.full((1, 2, 3), 100, np.uint8)
    piece[0, 1] = 110
    toned = match_tone(piece, of=Texture(100, 10, 0, 0.5), to=Texture(50, 12, 0, 0.5))
    assert toned[0, :, 0].tolist() == [50, 62]  # 1.2 · 10
    bounded = match_tone(piece, of=Texture(100, 10, 0, 0.5), to=Texture(50, 90, 0, 0.5))
    assert bounded[0, :, 0].tolist() == [50, 64]  # 1.4 · 10, not 9 · 10


def test_a_constant_offset_vanishes_in_the_blend_and_a_step_does_not() -> None:
    target = np.full((40, 40, 3), 100, np.uint8)
    piece = np.full((20, 20, 3), 180, np.uint8)
    mask = np.ones((20, 20), bool)
    assert np.abs(blend(target, piece, mask, x=10, y=10).astype(int) - 100).max() <= 1
    piece[8:12, 8:12] = 120  # 60 below its own surroundings
    blended = blend(target, piece, mask, x=10, y=10).astype(int)
    assert np.abs(blended[18:22, 18:22] - 40).max() <= 3


@pytest.mark.parametrize(("x", "y"), [(0, 10), (20, 10), (10, 0), (10, 20), (0, 0)])
def test_a_defect_at_the_edge_keeps_its_contrast_up_to_the_edge(x: int, y: int) -> None:
    target = np.full((40, 40, 3), 100, np.uint8)
    piece = np.full((20, 20, 3), 100, np.uint8)
    piece[5:15] = 200 if x in (0, 20) and y == 10 else 100
    piece[:, 5:15] = 200 if y in (0, 20) else piece[:, 5:15]
    mask = np.ones((20, 20), bool)
    blended = blend(target, piece, mask, x=x, y=y)
    if y == 10:
        column = 0 if x == 0 else 39
        assert blended[y + 7 : y + 13, column].min() > 170
    else:
        row = 0 if y == 0 else 39
        assert blended[row, x + 7 : x + 13].min() > 170


def test_a_seam_is_what_varies_along_the_edge_of_the_mask() -> None:
    mask = np.zeros((12, 12), bool)
    mask[2:10, 2:10] = True
    target = np.full((12, 12, 3), 100, np.uint8)
    assert seam(target, target + 40, mask) == pytest.approx(0.0)
    crossed = target.copy()
    crossed[:, 6:] = 140
    assert seam(target, crossed, mask) > 15


# ----------------------------------------------------------------------------------- runs, command


def test_a_run_is_trained_with_synthetic_images_for_as_long_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    steps = TrainingProgress.step
    monkeypatch.setattr(TrainingProgress, "step", lambda *a, **k: (seen.append(1), steps(*a, **k)))
    monkeypatch.setattr("training.plots.draw_curves", lambda *_, **__: None)
    kinds = (0, 0, 0, 1) * 5  # three spots to a line
    parts = ["train" if (i % 2, k) in ((0, 0), (1, 1)) else "val" for i, k in enumerate(kinds)]
    dataset = draw_dataset(tmp_path / "data", "classify", parts=parts, side=32)
    counts = dataset.counts("leak-free")["train"]
    assert (counts["spot"], counts["line"]) == (10, 5)
    spec = replace(get_spec("mobilesteelnet"), build=lambda n, _: TinyNetwork(n, dense=False))
    options: dict[str, Any] = {
        "protocol": "leak-free",
        "scale": spec.default_scale,
        "image_size": 32,
        "batch": 4,
        "seed": 0,
        "device": "cpu",
        "initial_weights": None,
    }
    overrides = {"balance": "synthesis", "balance_strength": 0.8, "ema": 0.0}
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    record = train_network(spec, dataset, run=run, epochs=1, overrides=overrides, **options)
    assert record.recipe["balance_strength"] == 0.8
    assert record.dataset_id == dataset.id
    assert [trace.label for trace in read_traces(run.synthetic)] == ["line"] * 3
    assert not run.scratch.exists()
    assert len(seen) == 4  # 15 images, 4 a step; with the synthetic ones 18 would take 5


def test_what_a_run_trains_on_is_the_data_set_unless_its_recipe_says_otherwise(
    plates: Dataset, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    asked: dict[str, Any] = {"protocol": "leak-free", "seed": 0, "run": run}
    assert training_set(plates, {"balance": "none"}, **asked) is plates
    recipe = {"balance": "synthesis", "balance_strength": 0.75}
    grown = training_set(plates, recipe, **asked)
    assert len(added(grown)) == 8  # three quarters of 16, of which 4 are there
    assert len(read_traces(run.synthetic)) == 8
    assert {sample.path.parent.parent for sample in added(grown)} == {run.scratch / "synthesis"}


def test_the_command_writes_images_traces_and_a_sheet(
    tiny_data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "datasets").symlink_to(tiny_data_root)
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    out = tmp_path / "out"
    arguments = ["synthesise", "neu-det", "--output", str(out), "--per-class", "inclusion=2"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    lines = (out / "synthetic.jsonl").read_text().splitlines()
    assert answer.stdout == (f"inclusion: {len(lines)} of 2\nimages, masks and traces: {out}\n")
    assert {json.loads(line)["file"] for line in lines} == {
        path.name for path in (out / "images").iterdir()
    }
    assert (out / "sheet.png").read_bytes().startswith(b"\x89PNG")
    wrong = CliRunner().invoke(app, [*arguments[:-1], "inclusion"])
    assert wrong.exit_code == 2
