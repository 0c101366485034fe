"""Networks in memory: which release of a model is live, and a bounded number of them loaded.

A promotion is noticed without a restart: the few files that decide which release is live are looked
at (not read) on every request, and the new revision is loaded when one of them has changed. A new
revision that cannot be loaded leaves the one before it in service. On a CPU a network answers from
torch until its OpenVINO export is made and proven, in the background. Safe to use from any thread.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from core.cpus import memory_granted_mb
from core.errors import ConfigError, RollmarkError, WeightsError, WeightsNotFoundError
from core.images import MEGA, decode
from core.records import ReleaseConfig
from core.settings import PathSettings, ServingSettings
from core.types import DecodedImage, Predictor
from demo import gpu
from demo.batching import Batcher
from hub.registry import Release, resolve, switches
from models import accelerate, choose_device, load, names, use_threads
from models._release import CONFIG_FILE

logger = logging.getLogger(__name__)

_BUILT_IN = ("labels", "image_size", "dataset", "class_thresholds")  # what `models.load` builds in
_ENOUGH_MB = 2000  # for five networks, their exports and a large picture; docs/serving.md
_EXAMPLES = Path(__file__).parent / "examples"  # real pictures, on which an export is proven


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network in memory and the release it was built from."""

    release: Release
    predictor: Batcher


_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """A release read from disk, and the files whose change would mean another one is live."""

    release: Release
    files: tuple[Path, ...]
    stamp: _Stamp


class LoadedModels:
    """The live release of every model, and the networks that are in memory.

    Args:
        paths: where releases lie.
        serving: where networks run and how many stay in memory.
    """

    def __init__(self, paths: PathSettings, serving: ServingSettings) -> None:
        self._paths = paths
        self._serving = serving
        self._known: dict[str, _Known] = {}
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()  # least recently used first
        # Stamps of weights that could not be loaded, by hash: repaired, they are tried again.
        self._refused: dict[str, _Stamp] = {}
        self._reported: dict[str, str] = {}  # damage already written to the log, by model
        self._lock = threading.Lock()  # of the four above; held for moments only
        # One network is built at a time: ultralytics sets class attributes while it builds.
        self._building = threading.Lock()
        self._exporting = threading.Lock()  # one at a time, and behind the one before

    def releases(self) -> tuple[Release, ...]:
        """The live release of every model that has a sound one, in the order of their names."""
        found = []
        for name in names():
            try:
                found.append(self._release(name))
            except WeightsNotFoundError:
                continue
            except WeightsError as exc:
                self._report_once(name, exc)
        return tuple(found)

    def revisions(self) -> dict[str, str]:
        """Revision in memory of each model that is."""
        with self._lock:
            return {name: held.release.config.revision for name, held in self._loaded.items()}

    def preload(self, releases: Sequence[Release], *, on_first: Callable[[], None]) -> None:
        """Build networks before they are asked for; those that are damaged are left out.

        Exports begin when all are there: until then the CPU is theirs, and of who asks first.

        Args:
            releases: the first of them first.
            on_first: called when that one is there.
        """
        granted_mb = memory_granted_mb()
        if granted_mb is not None and granted_mb < _ENOUGH_MB:
            logger.warning(
                "this container grants %.0f MB of memory, and kills the app for more: grant %d MB, "
                "or see docs/serving.md for what to lower",
                granted_mb,
                _ENOUGH_MB,
            )
        is_export_first = self._serving.runtime == "openvino"  # nothing answers before its own
        with nullcontext() if is_export_first else self._exporting:
            for number, release in enumerate(releases):
                try:
                    self.load(release)
                except RollmarkError as exc:
                    logger.error("%s could not be loaded: %s", release.config.name, exc)
                if number == 0:
                    on_first()

    def load(self, release: Release) -> Loaded:
        """The network of a release, or of the one that has taken its place, built if need be.

        Raises:
            ConfigError: if the device of the settings is not here and no earlier revision is in
                memory.
            WeightsError: if the weights are damaged and no earlier revision is in memory.
            WeightsNotFoundError: if the release was taken away.
        """
        held = self._in_memory(release)
        if held is not None:
            return held
        with self._building:
            # Another thread may have been faster, and a promotion than whoever chose this release:
            # built now, the old network would push the new one out again.
            release = self._release(release.config.name)
            held = self._in_memory(release)
            return held if held is not None else self._build(release)

    def _release(self, name: str) -> Release:
        with self._lock:
            known = self._known.get(name)
        if known is not None and _stamp(known.files) == known.stamp:
            return known.release
        deciding = switches(name, self._paths)
        before = _stamp(deciding)  # taken first: a change while reading is noticed next time
        release = resolve(name, self._paths)
        own = (release.folder / CONFIG_FILE,)
        known = _Known(release, deciding + own, before + _stamp(own))
        with self._lock:
            self._known[name] = known
        return release

    def _report_once(self, name: str, cause: WeightsError) -> None:
        with self._lock:
            is_news = self._reported.get(name) != str(cause)
            self._reported[name] = str(cause)
        if is_news:
            logger.error("%s is not offered: %s", name, cause)

    def _in_memory(self, release: Release) -> Loaded | None:
        config = release.config
        with self._lock:
            held = self._loaded.get(config.name)
            if held is None:
                return None
            if held.release.config.weights_sha256 != config.weights_sha256:
                is_refused = self._refused.get(config.weights_sha256) == _weights_stamp(release)
                return held if is_refused else None
            if not _is_built_alike(held.release.config, config):
                return None
            if held.release != release:  # same weights, newly described: a calibration, say
                held = self._loaded[config.name] = Loaded(release, held.predictor)
            self._loaded.move_to_end(config.name)
            return held

    def _build(self, release: Release) -> Loaded:
        config = release.config
        try:
            use_threads(self._serving.threads)
            device = gpu.LENT if gpu.is_lent() else choose_device(self._serving.device)
            predictor: Predictor = (
                gpu.Lent(release.folder)
                if device == gpu.LENT
                else load(
                    release.folder,
                    device=device,
                    runtime=self._serving.runtime,
                    cache=self._paths.cache,
                )
            )
        except RollmarkError as exc:
            logger.error("%s %s cannot be loaded: %s", config.name, config.revision, exc)
            return self._keep_previous(release, exc)
        held = Loaded(release, Batcher(predictor, tiles=partial(tiles_of, config)))
        if device == "cpu" and self._serving.runtime == "openvino":
            self._accelerate(held)
        with self._lock:
            self._loaded[config.name] = held
            self._loaded.move_to_end(config.name)
        self._put_away()
        logger.info("loaded %s %s", config.name, config.revision)
        if device == "cpu" and self._serving.runtime in ("auto", "int8"):
            name = f"export {config.name}"
            threading.Thread(target=self._accelerate, args=(held,), name=name, daemon=True).start()
        return held

    def _accelerate(self, held: Loaded) -> None:
        """Move a network to OpenVINO; where that cannot be, it stays where it is."""
        with self._exporting:
            images = [decode(path) for path in sorted(_EXAMPLES.glob("*.jpg"))]
            cache, folder = self._paths.cache, held.release.folder
            accelerate(held.predictor.predictor, folder, cache=cache, images=images)
        self._put_away()

    def _put_away(self) -> None:
        """Let go of the networks not used for longest until count and memory are within bounds."""
        while True:
            with self._lock:
                too_many = len(self._loaded) > self._serving.max_models
                if not too_many and (len(self._loaded) < 2 or not self._is_too_large()):
                    return
                gone, _ = self._loaded.popitem(last=False)
            gc.collect()  # a network refers to itself
            logger.info("put %s out of memory", gone)

    def _is_too_large(self) -> bool:
        bound = self._serving.max_memory_mb
        return bound is not None and resident_mb() > bound

    def _keep_previous(self, release: Release, cause: RollmarkError) -> Loaded:
        config = release.config
        with self._lock:
            held = self._loaded.get(config.name)
            if held is not None:
                self._refused[config.weights_sha256] = _weights_stamp(release)
                return held
        if isinstance(cause, ConfigError):  # no fault of the weights
            raise cause
        # The cause names folders of this machine; it is for the log, not for strangers.
        raise WeightsError(
            f"The weights of {config.name} (revision {config.revision}) are damaged; "
            "fetch the release again or choose another model."
        ) from cause


def tiles_of(config: ReleaseConfig, image: DecodedImage) -> int:
    """In how many tiles a release looks at a picture; 1 where it is looked at as a whole."""
    from models._tiling import tile

    cut = tile(image.width, image.height, native_px=config.native_px, image_size=config.image_size)
    return 1 if cut is None else len(cut.xs) * len(cut.ys)


def resident_mb() -> float:
    """Memory of this process that is really in use."""
    return float(psutil.Process().memory_info().rss) / MEGA


def _is_built_alike(one: ReleaseConfig, other: ReleaseConfig) -> bool:
    """Whether a predictor of the same weights would be the same: what it looks at, and decides by.

    The rest of a description, such as a calibration, is read with every answer.
    """
    return all(getattr(one, name) == getattr(other, name) for name in _BUILT_IN)


def _weights_stamp(release: Release) -> _Stamp:
    return _stamp((release.folder / release.config.weights_file,))


def _stamp(files: Sequence[Path]) -> _Stamp:
    """What changes when a file is replaced: its time, size and inode; None where it is missing."""
    stamps: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            facts = file.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((facts.st_mtime_ns, facts.st_size, facts.st_ino))
    return tuple(stamps)
