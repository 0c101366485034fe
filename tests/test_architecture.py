"""The house rules: who imports whom, what stays light, how long files are, what fits together."""

from __future__ import annotations

import ast
import fnmatch
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "core": {"core"},
    "models": {"core", "models"},
    "training": {"core", "models", "training"},
    "hub": {"core", "models", "hub"},
    "active_learning": {"core", "models", "training", "hub", "active_learning"},
    "demo": {"core", "models", "hub", "active_learning", "demo"},
    "app": {"core", "demo"},
}
ROOMS = tuple(room for room in MAY_IMPORT if room != "app")
CORE_LIBRARIES = {
    *("numpy", "PIL", "pydantic", "pydantic_settings", "annotated_types", "dotenv"),
    *("sqlalchemy", "alembic"),
}

# Which files may name a library at all, and which at their top.
NEVER: tuple[str, ...] = ()
ZOO = ("models/*.py",)
DOORS = {
    "torch": (("models/*.py", "training/*.py", "active_learning/*.py", "demo/service.py"), None),
    "ultralytics": (("models/*.py", "training/*.py"), None),
    "segmentation_models_pytorch": (ZOO, ZOO),
    "timm": (ZOO, ZOO),
    "openvino": (("models/*.py", "training/*.py"), NEVER),
    "label_studio_sdk": (("active_learning/*.py",), NEVER),
    "gradio": (("demo/*.py", "demo/tabs/*.py", "app.py"), ("demo/*.py", "demo/tabs/*.py")),
    "huggingface_hub": (("hub/*.py",), NEVER),
    "cv2": (("models/*.py", "training/*.py", "demo/live_feeds.py"), None),
}
# Read without waiting for a network library: by the command line, the queue, the gate.
LIGHT = (
    *("core/*", "hub/*", "active_learning/*", "demo/*"),
    *("models/__init__.py", "models/_spec.py", "models/_release.py"),
    *("training/__init__.py", "training/__main__.py", "training/datasets.py"),
    *("training/export.py", "training/splits.py", "training/runs.py"),
)
HEAVY = ("torch", "torchvision", "ultralytics", "segmentation_models_pytorch", "timm", "openvino")
HEAVY_AT_HELP = (*HEAVY, "label_studio_sdk", "gradio", "huggingface_hub", "cv2", "sklearn", "scipy")


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    at_top: bool  # runs when the file is imported


@dataclass(frozen=True)
class Source:
    path: str  # from the root, with slashes
    room: str
    lines: int
    imports: tuple[Import, ...]

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_in(tree: ast.Module) -> Iterator[Import]:
    """Every import that can run; what only the type checker reads is left out."""

    def walk(node: ast.AST, *, at_top: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for branch in node.orelse:
                yield from walk(branch, at_top=at_top)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_top)
        elif isinstance(node, ast.ImportFrom):
            yield Import("." * node.level + (node.module or ""), node.lineno, at_top)
            for alias in node.names:  # `from core import geometry` names a module, too
                yield Import(f"{node.module}.{alias.name}", node.lineno, at_top)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_top=at_top and not inside)

    yield from walk(tree, at_top=True)


def read_sources() -> tuple[Source, ...]:
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    files += [file for file in [ROOT / "app.py"] if file.exists()]
    found = []
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        text = file.read_text(encoding="utf-8")
        room = path.partition("/")[0].removesuffix(".py")
        imports = tuple(imports_in(ast.parse(text, path)))
        found.append(Source(path, room, len(text.splitlines()), imports))
    return tuple(found)


SOURCES = read_sources()


def first(module: str) -> str:
    return module.partition(".")[0]


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600
    )


def test_rooms_import_only_downwards():
    wrong = [
        f"{source.path}:{found.line} imports {found.module}"
        for source in SOURCES
        for found in source.imports
        if first(found.module) in MAY_IMPORT and first(found.module) not in MAY_IMPORT[source.room]
    ]
    assert wrong == []


def test_nobody_imports_by_dots_or_from_the_tests():
    wrong = [
        f"{source.path}:{found.line} imports {found.module}"
        for source in SOURCES
        for found in source.imports
        if found.module.startswith(".") or first(found.module) == "tests"
    ]
    assert wrong == []


def test_only_the_conductor_trains():
    wrong = [
        f"{source.path}:{found.line} imports {found.module}"
        for source in SOURCES
        if source.room == "demo" or source.path == "app.py"
        for found in source.imports
        if found.module.startswith("active_learning.loop")
    ]
    assert wrong == []


def test_core_stands_on_few_libraries():
    wrong = [
        f"{source.path}:{found.line} imports {found.module}"
        for source in SOURCES
        if source.room == "core"
        for found in source.imports
        if found.at_top
        and first(found.module) not in {*CORE_LIBRARIES, *sys.stdlib_module_names, "core"}
    ]
    assert wrong == []


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_named_only_by_its_door(library):
    anywhere, at_top = DOORS[library]
    wrong = [
        f"{source.path}:{found.line}{' at its top' if found.at_top else ''}"
        for source in SOURCES
        for found in source.imports
        if first(found.module) == library
        and (
            not matches(source.path, anywhere)
            or (found.at_top and at_top is not None and not matches(source.path, at_top))
        )
    ]
    assert wrong == []


def test_heavy_imports_stay_late_where_files_are_light():
    wrong = [
        f"{source.path}:{found.line} imports {found.module} at its top"
        for source in SOURCES
        if matches(source.path, LIGHT)
        for found in source.imports
        if found.at_top and first(found.module) in HEAVY
    ]
    assert wrong == []


def test_no_import_goes_in_a_circle():
    modules = {source.module for source in SOURCES}
    graph = {
        source.module: {found.module for found in source.imports if found.at_top} & modules
        for source in SOURCES
    }
    for module, needs in graph.items():
        needs.discard(module)
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_no_source_file_is_longer_than_350_lines():
    assert [f"{s.path} has {s.lines}" for s in SOURCES if s.lines > 350] == []


def test_there_are_no_drawers():
    drawers = re.compile(r"_?(utils?|commons?|helpers?|misc|shared|tools)")
    assert [s.path for s in SOURCES if drawers.fullmatch(Path(s.path).stem)] == []


def test_every_file_says_what_it_is():
    silent = [
        source.path
        for source in SOURCES
        if not ast.get_docstring(ast.parse((ROOT / source.path).read_text(encoding="utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("room", [r for r in ROOMS if (ROOT / r / "__main__.py").exists()])
def test_help_answers_without_a_network_library(room):
    done = run(
        "import json, runpy, sys\n"
        f"sys.argv = [{room!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({room!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as exit:\n"
        f"    loaded = sorted(sys.modules.keys() & set({HEAVY_AT_HELP!r}))\n"
        "    print(json.dumps([exit.code, loaded]))\n"
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_light_modules_load_without_a_network_library():
    # gradio itself is at home in demo/, so of that room only the rest is loaded here.
    light = [
        source.module
        for source in SOURCES
        if matches(source.path, LIGHT)
        and not source.path.endswith("__main__.py")
        and "migrations/" not in source.path
        and not any(first(found.module) == "gradio" for found in source.imports)
    ]
    done = run(
        "import importlib, sys\n"
        f"for module in {light!r}:\n"
        "    importlib.import_module(module)\n"
        f"    loaded = sys.modules.keys() & set({HEAVY!r})\n"
        "    assert not loaded, f'{module} loads {sorted(loaded)}'\n"
    )
    assert done.returncode == 0, done.stderr


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def test_both_opencv_packages_are_one_release_and_the_one_that_runs():
    # They write the same folder: with different versions the last one installed wins, and
    # removing either leaves an empty shell while pip finds nothing broken.
    import cv2

    pin = pins()["opencv-python"]
    assert pins()["opencv-python-headless"] == pin
    assert metadata.version("opencv-python") == pin
    assert metadata.version("opencv-python-headless") == pin
    assert pin.startswith(cv2.__version__)


def test_installed_packages_fit_each_other():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import torch.nn", [("torch.nn", True)]),
        ("def f():\n    import torch", [("torch", False)]),
        ("class A:\n    import torch", [("torch", True)]),
        ("try:\n    import torch\nexcept ImportError:\n    pass", [("torch", True)]),
        ("if TYPE_CHECKING:\n    import torch", []),
        ("from core import geometry", [("core", True), ("core.geometry", True)]),
    ],
)
def test_the_guard_itself_sees_every_import(code, expected):
    assert [(i.module, i.at_top) for i in imports_in(ast.parse(code))] == expected
