"""Which model answers, what stays in memory, and how a promotion is noticed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from core.errors import (
    ConfigError,
    InputError,
    UnknownModelError,
    WeightsError,
    WeightsNotFoundError,
)
from core.settings import PathSettings, ServingSettings, Settings
from demo import loaded as loaded_module
from demo import service as service_module
from demo.service import Service
from tests.active_learning.review_desk import picture
from tests.demo import releases
from tests.demo.fakes import FakePredictor, Loader
from tests.demo.releases import PICTURE
from tests.records import make_run


def test_auto_is_the_detector_that_validated_best(service: Service) -> None:
    assert service.choose("auto").config.name == "grace"


def test_without_a_detector_auto_is_the_first_model(paths: PathSettings, loader: Loader) -> None:
    releases.describe(paths.bundled / "mobilesteelnet", "mobilesteelnet", task="classify")
    assert Service(Settings(paths=paths)).choose().config.name == "mobilesteelnet"


@pytest.mark.parametrize("name", ["da_yolo", "mobilesteelnet", "committee"])
def test_auto_is_what_the_settings_name(paths: PathSettings, service: Service, name: str) -> None:
    settings = Settings(paths=paths, serving=ServingSettings(auto_model=name))
    assert Service(settings).choose().config.name == name


def test_auto_that_is_named_and_not_served_is_the_best_detector(
    paths: PathSettings, service: Service
) -> None:
    settings = Settings(paths=paths, serving=ServingSettings(auto_model="gms2_yolo"))
    assert Service(settings).choose().config.name == "grace"


def test_auto_that_names_no_model_at_all_is_told_at_once(paths: PathSettings) -> None:
    settings = Settings(paths=paths, serving=ServingSettings(auto_model="yolov99"))
    with pytest.raises(ConfigError, match="AUTO_MODEL is 'yolov99': it must be empty or one of "):
        Service(settings)


def test_what_may_stay_is_judged_by_the_mills_rules_and_drift_knows_nothing_of_them(
    paths: PathSettings, service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "tolerances.toml"
    rules.write_text("[scratches]\nup_to_px = 170\n[scratch]\nup_to_px = 1\n")  # one is misspelt
    serving = ServingSettings(tolerances=rules)
    tolerant = Service(Settings(paths=paths, serving=serving))
    look = tolerant.inspect(PICTURE)  # a scratch of 30 × 170 px
    assert look.inspection.detections[0].tolerated
    assert look.inspection.verdict == "accept"
    assert look.inspection.reasons[0] == "scratches: 1 of 1 place within the tolerance of 170 px"
    assert (look.usual().verdict, look.usual().detections[0].tolerated) == ("defect", False)
    assert not service.inspect(PICTURE).inspection.detections[0].tolerated
    tolerant.preload().join()
    assert "no served model knows the class scratch that has a tolerance" in caplog.text
    assert "class scratches" not in caplog.text
    rules.write_text("[scratches]\nup_to_mm = 5\n")
    with pytest.raises(ConfigError, match="does not say how much steel a pixel shows"):
        Service(Settings(paths=paths, serving=serving))


def test_without_any_release_the_error_says_what_to_do(paths: PathSettings) -> None:
    with pytest.raises(WeightsNotFoundError, match="put a release into hub/bundled, or train one"):
        Service(Settings(paths=paths)).inspect(PICTURE)


def test_an_unknown_model_is_told_which_ones_there_are(service: Service) -> None:
    with pytest.raises(UnknownModelError) as caught:
        service.inspect(PICTURE, "resnet")
    assert str(caught.value) == (
        "Unknown model 'resnet'. Available: auto, da_yolo, grace, mobilesteelnet, committee."
    )


def test_a_damaged_description_keeps_one_model_away_and_no_other(
    service: Service, paths: PathSettings
) -> None:
    (paths.bundled / "grace" / "config.json").write_text("{")
    assert [model.name for model in service.models()] == ["da_yolo", "mobilesteelnet"]


def test_a_damaged_description_keeps_nobody_from_the_review_queue(
    service: Service, paths: PathSettings
) -> None:
    (paths.bundled / "grace" / "config.json").write_text("{")
    service.flag(picture(0), "da_yolo", reason="wrong")
    assert service.status()["queue"]["pending"] == 1


def test_an_inspection_shows_what_reaches_the_threshold(service: Service) -> None:
    found = service.inspect(PICTURE, "grace").inspection.detections
    assert [(box.label, box.score) for box in found] == [("scratches", 0.93), ("inclusion", 0.30)]
    above = service.inspect(PICTURE, "grace", score_threshold=0.5).inspection.detections
    assert [box.label for box in above] == ["scratches"]


def test_the_threshold_of_the_settings_comes_before_the_release_s_own(
    service: Service, paths: PathSettings
) -> None:
    strict = Service(Settings(paths=paths, serving=ServingSettings(score_threshold=0.5)))
    assert len(strict.inspect(PICTURE, "grace").inspection.detections) == 1


@pytest.mark.parametrize("threshold", [-0.01, 1.01, math.nan, math.inf])
def test_a_threshold_outside_0_to_1_is_refused(service: Service, threshold: float) -> None:
    with pytest.raises(InputError, match=r"it must lie in 0 to 1\."):
        service.inspect(PICTURE, score_threshold=threshold)


def test_a_comparison_decodes_the_image_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = _counted(monkeypatch, service_module, "decode")
    comparison = service.compare(PICTURE)
    assert [look.inspection.model for look in comparison.looks] == [
        *("da_yolo", "grace", "mobilesteelnet")
    ]
    assert len(decoded) == 1


def test_a_model_named_twice_is_compared_once(service: Service) -> None:
    assert service.chosen(["grace", "auto", "grace"]) == ("grace",)


def test_comparing_no_model_is_refused(service: Service) -> None:
    with pytest.raises(InputError, match="choose at least one"):
        service.compare(PICTURE, [])


def test_a_network_is_loaded_once_however_many_ask(
    service: Service, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_ask = threading.Barrier(4)

    def ask() -> None:
        all_ask.wait()
        service.inspect(PICTURE, "grace")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loader.loaded) == 1


def test_the_least_recently_used_network_leaves_a_full_memory(
    service: Service, paths: PathSettings
) -> None:
    small = Service(Settings(paths=paths, serving=ServingSettings(max_models=2)))
    for name in ("grace", "da_yolo", "grace", "mobilesteelnet"):
        small.inspect(PICTURE, name)
    loaded = {name: entry["loaded"] for name, entry in small.status()["models"].items()}
    assert loaded == {"da_yolo": False, "grace": True, "mobilesteelnet": True}


def test_preloading_begins_with_the_automatic_choice(service: Service, paths: PathSettings) -> None:
    one = Service(Settings(paths=paths, serving=ServingSettings(max_models=1)))
    one.preload().join()
    assert one.status()["models"]["grace"]["loaded"] is True


def test_preloading_begins_with_the_members_of_a_committee_that_answers(
    service: Service, paths: PathSettings
) -> None:
    serving = ServingSettings(auto_model="committee", max_models=2)
    committee = Service(Settings(paths=paths, serving=serving))
    committee.preload().join()
    assert _in_memory(committee) == {"da_yolo", "grace"}


def test_exports_begin_when_everything_is_loaded(
    service: Service, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded_before_the_first: list[int] = []
    accelerate = loader.accelerate

    def watched(*args: Any, **options: Any) -> bool:
        loaded_before_the_first.append(len(loader.loaded))
        return accelerate(*args, **options)

    monkeypatch.setattr(loaded_module, "accelerate", watched)
    service.preload().join(60)
    _wait_for(lambda: len(loader.accelerated) == 3)
    assert loaded_before_the_first == [3, 3, 3]


def test_preloading_and_a_request_do_not_wait_for_each_other_s_exports(
    paths: PathSettings, service: Service, loader: Loader
) -> None:
    waits = Service(Settings(paths=paths, serving=ServingSettings(runtime="openvino")))
    preloading = waits.preload()
    asking = [
        threading.Thread(target=waits.inspect, args=(PICTURE, name))
        for name in ("mobilesteelnet", "da_yolo")
    ]
    for thread in asking:
        thread.start()
    for thread in (preloading, *asking):
        thread.join(60)
        assert not thread.is_alive()
    assert len(loader.accelerated) == 3


def test_a_damaged_model_does_not_keep_the_others_from_being_preloaded(
    service: Service, paths: PathSettings, loader: Loader
) -> None:
    folder = paths.bundled / "grace"
    releases.describe(folder, "grace", task="detect", validated=0.43, weights="e" * 64)
    loader.refused["e" * 12] = WeightsError("The weights do not fit.")
    service.preload().join(60)
    assert _in_memory(service) == {"da_yolo", "mobilesteelnet"}


def test_a_promotion_is_served_without_a_restart(service: Service, paths: PathSettings) -> None:
    assert service.inspect(PICTURE, "grace").inspection.revision == "d" * 12
    releases.promote(paths.releases, "grace", task="detect", weights="e" * 64)
    assert service.inspect(PICTURE, "grace").inspection.revision == "e" * 12
    assert service.status()["models"]["grace"] == {
        "revision": "e" * 12,
        "source": "local",
        "loaded": True,
    }


def test_who_chose_before_a_promotion_does_not_bring_the_old_network_back(
    service: Service, paths: PathSettings, loader: Loader
) -> None:
    old = service.choose("grace")
    releases.promote(paths.releases, "grace", task="detect", weights="e" * 64)
    service.inspect(PICTURE, "grace")
    assert service._models.load(old).release.config.revision == "e" * 12
    assert loader.loaded == ["e" * 12]


def test_a_promoted_revision_that_cannot_be_loaded_leaves_the_old_one_in_service(
    service: Service, paths: PathSettings, loader: Loader
) -> None:
    service.inspect(PICTURE, "grace")
    loader.refused["e" * 12] = WeightsError("torn")
    releases.promote(paths.releases, "grace", task="detect", weights="e" * 64)
    for _ in range(2):
        assert service.inspect(PICTURE, "grace").inspection.revision == "d" * 12
    assert loader.tried == ["d" * 12, "e" * 12]  # the new one once, not on every request


def test_weights_that_could_not_be_loaded_are_tried_again_when_they_were_repaired(
    service: Service, paths: PathSettings, loader: Loader
) -> None:
    service.inspect(PICTURE, "grace")
    loader.refused["e" * 12] = WeightsError("torn")
    releases.promote(paths.releases, "grace", task="detect", weights="e" * 64)
    assert service.inspect(PICTURE, "grace").inspection.revision == "d" * 12
    loader.refused.clear()
    (service.choose("grace").folder / "model.safetensors").write_bytes(b"whole again")
    assert service.inspect(PICTURE, "grace").inspection.revision == "e" * 12
    assert loader.tried == ["d" * 12, "e" * 12, "e" * 12]


def test_damaged_weights_are_reported_without_a_path_of_the_server(
    service: Service, loader: Loader
) -> None:
    loader.refused["d" * 12] = WeightsError("/srv/secret/model.safetensors is torn")
    with pytest.raises(WeightsError) as caught:
        service.inspect(PICTURE, "grace")
    assert str(caught.value) == (
        "The weights of grace (revision dddddddddddd) are damaged; "
        "fetch the release again or choose another model."
    )


def test_a_device_that_is_not_here_is_no_damage_to_weights(
    service: Service, paths: PathSettings, caplog: pytest.LogCaptureFixture
) -> None:
    absent = Service(Settings(paths=paths, serving=ServingSettings(device="cuda:99")))
    with pytest.raises(ConfigError, match=r"^Device 'cuda:99' is not here\. Available: cpu"):
        absent.inspect(PICTURE, "grace")
    absent.preload().join()
    for name in ("da_yolo", "grace", "mobilesteelnet"):
        assert f"{name} could not be loaded: Device 'cuda:99' is not here" in caplog.text


def test_a_new_calibration_of_the_same_weights_is_used_at_once(
    service: Service, paths: PathSettings, loader: Loader
) -> None:
    service.inspect(PICTURE, "grace")
    config = releases.describe(paths.bundled / "grace", "grace", task="detect", validated=0.43)
    releases.write_config(
        paths.bundled / "grace", config.model_copy(update={"score_threshold": 0.5})
    )
    assert len(service.inspect(PICTURE, "grace").inspection.detections) == 1
    assert loader.loaded == ["d" * 12]


@pytest.mark.parametrize(
    "described",
    [{"class_thresholds": {"crazing": 0.3}}, {"image_size": 416}],
    ids=["class thresholds", "size"],
)
def test_what_is_built_into_a_network_of_the_same_weights_loads_it_anew(
    service: Service, paths: PathSettings, loader: Loader, described: dict[str, object]
) -> None:
    """`active_learning size` and `thresholds` change no weight, and so no revision."""
    service.inspect(PICTURE, "grace")
    config = service.choose("grace").config
    assert config.image_size != 416
    releases.write_config(paths.bundled / "grace", config.model_copy(update=described))
    service.inspect(PICTURE, "grace")
    assert loader.loaded == ["d" * 12, "d" * 12]


def test_nothing_waits_for_review_before_anyone_has_flagged(service: Service) -> None:
    status = service.status()
    assert status["queue"] == {
        "pending": 0,
        "sending": 0,
        "sent": 0,
        "verified": 0,
        "parked": 0,
        "unknown": 0,
    }
    assert status["last_run"] is None


def test_status_says_what_the_newest_run_was(paths: PathSettings, service: Service) -> None:
    (paths.runs / "grace-1").mkdir(parents=True)
    (paths.runs / "grace-1" / "run.json").write_text(
        make_run(id="grace-1", epochs=3, epochs_planned=40, finished_at=None).model_dump_json()
    )
    told = service.status()["last_run"]
    assert (told["id"], told["model"], told["dataset"]) == ("grace-1", "grace", "neu-det")
    assert (told["epochs"], told["epochs_planned"], told["finished_at"]) == (3, 40, None)
    assert datetime.fromisoformat(told["started_at"]).tzinfo is not None
    assert set(told) == {
        *("id", "model", "dataset", "epochs", "epochs_planned"),
        *("started_at", "finished_at", "validation"),
    }


def test_a_flagged_image_is_one_item_with_what_the_model_said(service: Service) -> None:
    item = service.flag(PICTURE, "grace", reason="missed", note="at the edge")
    again = service.flag(PICTURE.read_bytes(), "da_yolo", reason="wrong")
    assert again.id == item.id
    assert again.reasons == (
        "a person says that a defect was missed",
        "a person says that the answer is wrong",
    )
    assert {said.model for said in again.predictions} == {"grace", "da_yolo"}
    assert (again.note, again.priority, again.state) == ("at the edge", 1.0, "pending")
    assert service.status()["queue"]["pending"] == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        pytest.param(
            {"reason": "ugly"},
            r"Unknown reason 'ugly'\. Available: wrong, missed, new_defect\.",
            id="reason",
        ),
        pytest.param(
            {"reason": "wrong", "note": "x" * 501},
            "The note has 501 characters; at most 500 are kept",
            id="note",
        ),
        pytest.param(
            {"reason": "wrong", "note": "half a \ud83d"}, "signs that are no text", id="half a pair"
        ),
        pytest.param({"reason": "wrong", "note": "a\0b"}, "signs that are no text", id="a NUL"),
    ],
)
def test_a_flag_that_cannot_be_kept_says_why(
    service: Service, given: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        service.flag(PICTURE, "grace", **given)
    assert service.status()["queue"]["pending"] == 0


def test_a_detector_is_asked_for_near_misses_too(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    original = FakePredictor.__call__

    def noted(self: FakePredictor, images: Any, *, score_threshold: float) -> Any:
        asked.append(score_threshold)
        return original(self, images, score_threshold=score_threshold)

    monkeypatch.setattr(FakePredictor, "__call__", noted)
    service.inspect(PICTURE, "grace")
    service.inspect(PICTURE, "grace", score_threshold=0.001)
    assert asked == [0.05, 0.001]


def test_a_picture_that_is_decoded_already_is_not_decoded_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = service.decode(PICTURE)
    decoded = _counted(monkeypatch, service_module, "decode")
    assert service.inspect(PICTURE, "grace", image=image).image is image
    assert decoded == []


def _counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    calls: list[Any] = []
    original: Callable[..., Any] = getattr(module, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_memory_above_its_bound_puts_away_the_models_not_used_for_longest(
    service: Service, paths: PathSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = {"mb": 300.0}
    monkeypatch.setattr(loaded_module, "resident_mb", lambda: used["mb"])
    bounded = Service(Settings(paths=paths, serving=ServingSettings(max_memory_mb=400)))
    bounded.inspect(PICTURE, "da_yolo")
    bounded.inspect(PICTURE, "grace")
    assert _in_memory(bounded) == {"da_yolo", "grace"}
    used["mb"] = 450.0
    bounded.inspect(PICTURE, "da_yolo")  # is there already, and is now the last one used
    bounded.inspect(PICTURE, "mobilesteelnet")
    assert _in_memory(bounded) == {"mobilesteelnet"}  # the last one is never put away


@pytest.mark.parametrize(
    ("granted_mb", "warnings"), [(1000.0, 1), (2000.0, 0), (None, 0)], ids=["1 GB", "2 GB", "free"]
)
def test_a_container_with_little_memory_is_told_of_before_it_kills(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    granted_mb: float | None,
    warnings: int,
) -> None:
    monkeypatch.setattr(loaded_module, "memory_granted_mb", lambda: granted_mb)
    service.preload().join()
    told = [r.getMessage() for r in caplog.records if "this container grants" in r.getMessage()]
    assert len(told) == warnings
    assert all("1000 MB of memory" in line and "grant 2000 MB" in line for line in told)


def test_a_network_is_moved_to_openvino_behind_its_first_answer(
    service: Service, loader: Loader
) -> None:
    look = service.inspect(PICTURE, "grace")
    _wait_for(lambda: loader.accelerated == [look.inspection.revision])


@pytest.mark.parametrize(
    ("runtime", "accelerated_before_the_answer"), [("openvino", 1), ("torch", 0)]
)
def test_openvino_is_waited_for_and_torch_stays(
    paths: PathSettings,
    service: Service,
    loader: Loader,
    runtime: str,
    accelerated_before_the_answer: int,
) -> None:
    serving = ServingSettings(runtime=runtime)
    Service(Settings(paths=paths, serving=serving)).inspect(PICTURE, "grace")
    assert len(loader.accelerated) == accelerated_before_the_answer
    assert [t for t in threading.enumerate() if t.name.startswith("export ")] == []


def _in_memory(service: Service) -> set[str]:
    return {name for name, model in service.status()["models"].items() if model["loaded"]}


def _wait_for(is_so: Callable[[], bool]) -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("export "):
            thread.join(60)
    assert is_so()
