"""Who may import whom, and what opening the module must not import.

Slicer imports every module at its start, and a module that fails or dawdles there is missing or a nuisance. So at file
scope Slicer's side uses only what is part of Slicer; PyTorch comes in on the worker thread, inside functions.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "SAMMed3D", ROOT / "SAMMed3DTraining")
#: Part of every Slicer, and quick to import.
OF_SLICER = {"slicer", "vtk", "vtkmodules", "numpy", "qt", "ctk"}
#: Part of every Slicer too, but slow.
HEAVY = {"torch", "scipy", "SimpleITK", "nibabel", "matplotlib"}


def module_files() -> dict[str, Path]:
    """Every module of ours by its name, such as SAMMed3DLib.model.sam."""
    files = {}
    for folder in FOLDERS:
        paths = [*folder.glob("SAMMed3D*.py"), *folder.glob("SAMMed3D*Lib/**/*.py")]
        for path in paths:
            parts = path.relative_to(folder).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = module_files()


def at_file_scope(nodes: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the file is imported; not those in functions or for type checkers."""
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from at_file_scope(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for name in ("body", "orelse", "finalbody"):
                yield from at_file_scope(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                yield from at_file_scope(handler.body)


@functools.cache
def imported(module: str) -> frozenset[str]:
    """Full names of what a module of ours imports at file scope, and the packages around them."""
    return imports_of(module, at_file_scope(ast.parse(FILES[module].read_text(encoding="utf-8")).body))


def imports_of(module: str, nodes: Iterable[ast.Import | ast.ImportFrom]) -> frozenset[str]:
    """Full names of what a module of ours imports by the given statements, and the packages around them."""
    path, names = FILES[module], set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        names |= {f"{source}.{alias.name}" if f"{source}.{alias.name}" in FILES else source for alias in node.names}
    parts = [name.split(".") for name in names]
    return frozenset(".".join(each[:length]) for each in parts for length in range(1, len(each) + 1))


def reached(module: str) -> set[str]:
    """All that importing a module of ours imports at file scope, by way of ours too; outside names up to the dot."""
    seen, todo, outside = set(), [module], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for each in imported(name):
            if each in FILES:
                todo.append(each)
            else:
                outside.add(each.partition(".")[0])
    return (outside - set(sys.stdlib_module_names)) | (seen - {module})


def modules(*prefixes: str) -> list[str]:
    return sorted(name for name in FILES if any(name == each or name.startswith(f"{each}.") for each in prefixes))


def test_the_graph_sees_what_there_is() -> None:
    assert "torch" in reached("SAMMed3DLib.inference.predictor")
    assert "SAMMed3DLib.model.sam" in reached("SAMMed3DLib.model.checkpoint")
    assert "torch" not in reached("SAMMed3DLib.torch_setup.device"), "inside a function"
    found = reached("SAMMed3DLib.files.output_files")
    assert "SAMMed3DLib.inference" in found, "a package around a module is imported too"


#: The rooms of each library in the order of the data's way, and the files in its root; each may import those above it.
ROOMS = {
    "SAMMed3DLib": [
        "signal",
        "translation",
        "model",
        "inference",
        "torch_setup",
        "weights",
        "synthesis",
        "finding",
        "files",
        "report",
        "worker",
        "scene",
        "gui",
        "commandline",
        "volume_io",
        "selftest",
        "cli",
    ],
    "SAMMed3DTrainingLib": [
        "options",
        "data",
        "store",
        "runs",
        "job",
        "evaluate",
        "train",
        "scene",
        "session",
        "gui",
        "selftest",
        "commands",
        "__main__",
    ],
}


def test_every_room_has_its_place() -> None:
    there = {tuple(name.split(".")[:2]) for name in FILES if name.count(".") and name.partition(".")[0] in ROOMS}
    assert there == {(library, room) for library, rooms in ROOMS.items() for room in rooms}


@pytest.mark.parametrize("module", modules(*ROOMS))
def test_no_room_imports_one_that_is_built_on_it(module: str) -> None:
    """Imports in functions and for type checkers count too; only the public names of ``inference`` reach further."""
    path = FILES[module]
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = imports_of(module, [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))])
    library, _, rest = module.partition(".")
    if library == "SAMMed3DLib":
        assert not any(name.partition(".")[0] == "SAMMed3DTrainingLib" for name in names)
    if rest and module != "SAMMed3DLib.inference":
        rooms = {name.split(".")[1] for name in names if name.startswith(f"{library}.")}
        above = ROOMS[library][: ROOMS[library].index(rest.partition(".")[0]) + 1]
        assert not [room for room in rooms if room in ROOMS[library] and room not in above]


SLICER_SIDE = [
    *modules("SAMMed3D", "SAMMed3DTraining"),
    *modules("SAMMed3DLib.scene", "SAMMed3DLib.gui"),
    "SAMMed3DLib.worker.thread",
    "SAMMed3DLib.worker.engine",
    *modules("SAMMed3DLib.weights"),
    "SAMMed3DLib.torch_setup.install",
    "SAMMed3DLib.commandline.weights_cli",
    *modules(
        "SAMMed3DTrainingLib.scene",
        "SAMMed3DTrainingLib.gui",
        "SAMMed3DTrainingLib.session",
        "SAMMed3DTrainingLib.runs",
        "SAMMed3DTrainingLib.store",
    ),
    "SAMMed3DTrainingLib.options",
    "SAMMed3DTrainingLib.data.case_names",
]


@pytest.mark.parametrize("module", SLICER_SIDE)
def test_opening_the_module_imports_nothing_slow(module: str) -> None:
    ours = {name for name in FILES if "." not in name}
    outside = {name for name in reached(module) if name not in FILES}
    assert outside <= OF_SLICER | ours, "at file scope"


@pytest.mark.parametrize(
    "module",
    [
        "SAMMed3DLib.inference",
        "SAMMed3DLib.inference.errors",
        "SAMMed3DLib.inference.geometry",
        "SAMMed3DLib.model",
        "SAMMed3DLib.model.profile",
        "SAMMed3DLib.files.output_files",
    ],
)
def test_an_error_or_a_matrix_needs_no_torch(module: str) -> None:
    assert "torch" not in reached(module)


@pytest.mark.parametrize("module", modules("SAMMed3DLib.model", "SAMMed3DLib.inference", "SAMMed3DLib.finding"))
def test_the_engine_knows_arrays_only(module: str) -> None:
    outside = {name for name in reached(module) if name not in FILES}
    assert outside <= {"numpy", "scipy", "torch"}
    ours = {name.split(".")[1] for name in reached(module) if name.count(".") > 0 and name in FILES}
    others = {"finding", "weights"} if module.startswith("SAMMed3DLib.finding") else set()
    assert ours <= {"model", "inference"} | others


@pytest.mark.parametrize(
    "module",
    modules(
        "SAMMed3DLib.scene",
        "SAMMed3DTrainingLib.scene",
        "SAMMed3DTrainingLib.session",
        "SAMMed3DTrainingLib.runs",
        "SAMMed3DTrainingLib.store",
    ),
)
def test_the_scene_knows_no_widgets(module: str) -> None:
    assert not {"qt", "ctk"} & reached(module)


@pytest.mark.parametrize("module", modules("SAMMed3D", "SAMMed3DTraining", "SAMMed3DLib", "SAMMed3DTrainingLib"))
def test_the_product_does_not_know_the_laboratory(module: str) -> None:
    """Research is not installed."""
    assert "Research" not in FILES[module].read_text(encoding="utf-8").replace("python -m Research", "")


def test_names_of_packages_are_ours_alone() -> None:
    """All extensions share one folder: a package named utils would be anybody's."""
    assert {name.partition(".")[0] for name in FILES} <= {
        "SAMMed3D",
        "SAMMed3DLib",
        "SAMMed3DTraining",
        "SAMMed3DTrainingLib",
    }


def test_no_two_classes_share_a_name() -> None:
    """The laboratory's classes count too: a name found anywhere means one thing."""
    places: dict[str, list[str]] = {}
    for path in sorted(each for folder in FOLDERS for each in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 300
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
