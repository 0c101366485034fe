"""Prepared data sets for every room's tests: tiny ones always, full ones where they are."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from core.logs import OURS
from training.datasets import Dataset, open_dataset, prepare

pytest_plugins = (
    "tests.browsers",
    "tests.databases",
    "tests.active_learning.label_studio_server",
    "tests.hub.loopback",
)

# The same examples at every run, on a machine of whatever speed.
hypothesis.settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")

FIXTURES = Path(__file__).parent / "fixtures"
PUBLIC_SETS = ("neu-det", "neu-cls", "neu-seg", "x-sdd")
_SOURCE = {"neu-cls": "neu-det"}  # the same images


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """For tests that let an entry point set up logging in this process: its stderr is not ours."""
    root, hook, show = logging.getLogger(), threading.excepthook, warnings.showwarning
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    warnings.showwarning, threading.excepthook = show, hook
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def full_data_folder() -> Path | None:
    """Folder with the full archives, from ROLLMARK_TEST_DATA; None where they are not."""
    folder = os.environ.get("ROLLMARK_TEST_DATA")
    return Path(folder) if folder else None


@pytest.fixture(scope="session")
def tiny_data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with all four sets prepared from the fixtures that ship with the tests."""
    root = tmp_path_factory.mktemp("tiny-datasets")
    for name in PUBLIC_SETS:
        prepare(name, FIXTURES / _SOURCE.get(name, name), root)
    return root


@pytest.fixture(scope="session")
def full_dataset(
    tmp_path_factory: pytest.TempPathFactory, tiny_data_root: Path
) -> Callable[[str], Dataset]:
    """Opens a set by name, the full one where there is one, prepared when first asked for."""
    archives = full_data_folder()
    if archives is None:
        return lambda name: open_dataset(name, tiny_data_root)
    root = tmp_path_factory.mktemp("full-datasets")

    def opened(name: str) -> Dataset:
        if not (root / name).exists():
            prepare(name, archives / f"{_SOURCE.get(name, name)}.zip", root)
        return open_dataset(name, root)

    return opened


@pytest.fixture(scope="session")
def data_root_full(full_dataset: Callable[[str], Dataset]) -> Path:
    """Folder with all four sets prepared: full ones where there are, else the tiny ones."""
    roots = {full_dataset(name).root.parent for name in PUBLIC_SETS}
    return roots.pop()


@pytest.fixture(scope="session")
def tiny_neu_det(tiny_data_root: Path) -> Dataset:
    """12 images with boxes, two a class."""
    return open_dataset("neu-det", tiny_data_root)


@pytest.fixture(scope="session")
def tiny_neu_cls(tiny_data_root: Path) -> Dataset:
    """The 12 images of tiny_neu_det with one class each."""
    return open_dataset("neu-cls", tiny_data_root)


@pytest.fixture(scope="session")
def tiny_neu_seg(tiny_data_root: Path) -> Dataset:
    """6 images with index masks."""
    return open_dataset("neu-seg", tiny_data_root)


@pytest.fixture(scope="session")
def tiny_x_sdd(tiny_data_root: Path) -> Dataset:
    """21 images, three a class."""
    return open_dataset("x-sdd", tiny_data_root)
