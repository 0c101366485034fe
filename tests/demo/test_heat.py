"""Heat maps on the page: colours, what shows through, what is computed once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from core.errors import InputError
from core.settings import PathSettings, ServingSettings, Settings
from core.types import DecodedImage, FloatArray
from demo import handlers
from demo.draw import Layers
from demo.heat import CHOICES, HeatMaps, colours, legend, paint
from demo.latest import Latest
from demo.service import Service
from hub.registry import resolve
from models._release import read_release
from tests.demo.releases import PICTURE, write


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> PathSettings:
    root = tmp_path_factory.mktemp("heat")
    write(root / "bundled" / "mobilesteelnet", "mobilesteelnet")
    return PathSettings(bundled=root / "bundled", data=root / "data")


def inspected(service: Service, picture: Path) -> handlers.Shown:
    """What the page shows once the classifier has looked at a picture."""
    image = service.decode(picture)
    shown, _ = handlers.inspect(
        service,
        str(picture),
        picture.name,
        image=image,
        model="mobilesteelnet",
        score_threshold=None,
    )
    return shown


def test_the_colours_are_infernos() -> None:
    import matplotlib

    heat = np.linspace(0, 1, 101, dtype=np.float32)[None]
    expected = 255 * matplotlib.colormaps["inferno"](heat)[..., :3]
    assert np.abs(colours(heat) - expected).max() < 9  # of 255, between 17 stops


def test_cold_places_keep_their_grey_and_hot_ones_a_third_of_it() -> None:
    pixels = np.full((1, 2, 3), 100, np.uint8)
    painted = paint(pixels, np.array([[0.0, 1.0]], np.float32))
    assert painted[0, 0].tolist() == [100, 100, 100]
    # #fcffa4 is 252, 255, 164: 0.35 · 100 + 0.65 · (252, 255, 164)
    assert painted[0, 1].tolist() == [199, 201, 142]


def test_a_legend_says_what_much_means_and_there_is_none_without_heat() -> None:
    assert legend("off") == ""
    assert "what raised the score" in legend("layer")
    assert "strongest pattern" in legend("eigen")
    assert [value for _, value in CHOICES] == ["off", "layer", "eigen"]


def test_heat_is_painted_under_what_is_drawn_and_computed_once(
    bundled: PathSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(Settings(paths=bundled, serving=ServingSettings(runtime="torch")))
    shown = inspected(service, PICTURE)
    plain = handlers.redraw(service, shown, Layers())
    heated = handlers.redraw(service, shown, Layers(), heat="layer")
    assert heated.shape == plain.shape
    assert (heated != plain).any()
    assert (plain[..., 0] == plain[..., 2]).all()  # a grey picture
    monkeypatch.setattr(HeatMaps, "_explainer", None)  # calling it again would fail
    np.testing.assert_array_equal(handlers.redraw(service, shown, Layers(), heat="layer"), heated)


def test_only_the_last_networks_and_maps_are_kept(bundled: PathSettings) -> None:
    service = Service(Settings(paths=bundled, serving=ServingSettings(runtime="torch")))
    release = resolve("mobilesteelnet", bundled)
    maps = HeatMaps()
    pixels = np.zeros((8, 8, 3), np.uint8)
    for number in range(18):
        image = type(service.decode(PICTURE))(pixels, sha256=f"{number:064d}")
        heat = maps(release, image, "eigen", revision=release.config.revision)
        assert heat.shape == (8, 8)
    assert len(maps._maps) == 16
    assert len(maps._explainers) == 1


def test_a_size_that_was_chosen_anew_is_explained_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "bundled" / "mobilesteelnet", "mobilesteelnet")
    paths = PathSettings(bundled=tmp_path / "bundled", data=tmp_path / "data")
    service, maps, seen = Service(Settings(paths=paths)), HeatMaps(), []

    def explainer(folder: Path) -> Callable[..., FloatArray]:
        size = read_release(folder).image_size
        return lambda image, *, method: seen.append(size) or np.zeros((1, 1), np.float32)  # type: ignore[func-returns-value]

    monkeypatch.setattr("models._cam.load_explainer", explainer)
    image = service.decode(PICTURE)
    record = tmp_path / "bundled" / "mobilesteelnet" / "config.json"
    for size in (64, 64, 96):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"image_size": size}))
        release = resolve("mobilesteelnet", paths)
        maps(release, image, "eigen", revision=release.config.revision)
    assert seen == [64, 96]


def test_an_answer_is_not_explained_by_a_release_that_went_live_after_it(
    bundled: PathSettings,
) -> None:
    service = Service(Settings(paths=bundled, serving=ServingSettings(runtime="torch")))
    shown = inspected(service, PICTURE)
    live = shown.inspection.revision
    before = shown.inspection.model_copy(update={"revision": "0" * 12})
    with pytest.raises(InputError, match=f"0{{12}} has given this answer, and {live} is live"):
        handlers.redraw(service, replace(shown, inspection=before), Layers(), heat="layer")


def test_a_picture_that_is_gone_is_said_in_the_legend_s_place(
    bundled: PathSettings, tmp_path: Path
) -> None:
    from demo.drawing import DrawingPanel

    service = Service(Settings(paths=bundled, serving=ServingSettings(runtime="torch")))
    copy = tmp_path / "x.jpg"
    copy.write_bytes(PICTURE.read_bytes())
    shown = inspected(service, copy)
    copy.unlink()
    panel = object.__new__(DrawingPanel)
    panel._service = service
    _, said, _ = panel._redraw(shown, [], "layer", None)
    assert "has been cleared from the server" in said


def test_the_committee_is_drawn_without_heat_and_that_is_said_quietly(
    bundled: PathSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from demo.drawing import DrawingPanel

    service = Service(Settings(paths=bundled, serving=ServingSettings(runtime="torch")))
    shown = inspected(service, PICTURE)
    of_committee = shown.inspection.model_copy(update={"model": "committee"})
    monkeypatch.setattr(service, "heat", lambda *_: pytest.fail("it has no network of its own"))
    panel = object.__new__(DrawingPanel)
    panel._service = service
    asked = replace(shown, inspection=of_committee)
    picture, said, selected = panel._redraw(asked, ["Boxes"], "layer", 1)
    assert picture.ndim == 3
    assert "The committee has no network of its own" in said
    assert "This did not work" not in said
    assert selected == 1


def test_heat_that_comes_after_it_was_switched_off_is_not_shown(
    bundled: PathSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gradio as gr

    from demo.drawing import DrawingPanel

    service = Service(Settings(paths=bundled, serving=ServingSettings(runtime="torch")))
    shown = inspected(service, PICTURE)
    visitor = SimpleNamespace(session_hash="one")
    panel = object.__new__(DrawingPanel)
    panel._service, panel._highlights = service, Latest()
    switched_off = []

    def slow(image: DecodedImage, *_: object) -> FloatArray:
        switched_off.append(panel._change(shown, [], "off", None, visitor))  # while it is computed
        return np.zeros(image.pixels.shape[:2], np.float32)

    monkeypatch.setattr(service, "heat", slow)
    assert panel._heated(shown, [], "layer", None, visitor) == (gr.skip(),) * 3
    [(picture, told, _)] = switched_off
    assert (picture.ndim, told) == (3, "")
