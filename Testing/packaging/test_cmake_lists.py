"""Slicer installs the files that CMakeLists.txt names: one that is not named is missing from the extension."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("SAMMed3D", "SAMMed3DTraining")

pytestmark = pytest.mark.skipif(not all(map(shutil.which, ("cmake", "cc"))), reason="needs CMake and a compiler")

#: Quick tests that between them use the scene's classes as the module does.
SCENE_TESTS = (
    "test_segment_writer.py",
    "test_session_clicks.py::test_the_first_click_makes_a_nodule_and_fills_it",
    "test_session_clicks.py::test_further_clicks_refine_the_selected_nodule_and_shift_clicks_take_away",
)
#: A Slicer package that only tells what it is given.
USE_FILE = """
set(BUILD_TESTING ON)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  file(WRITE ${CMAKE_BINARY_DIR}/${MY_NAME}.txt "${MY_SCRIPTS};${MY_RESOURCES}")
  file(APPEND ${CMAKE_BINARY_DIR}/rest.txt "${MY_WITH_GENERIC_TESTS};${MY_UNPARSED_ARGUMENTS};")
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT" "" ${ARGN})
  file(APPEND ${CMAKE_BINARY_DIR}/tests.txt "${MY_SCRIPT};")
endmacro()
"""


def configure(source: Path, folder: Path) -> Path:
    """The build folder of a configured extension, with ``MODULE.txt``, ``rest.txt`` and ``tests.txt`` in it."""
    slicer = folder / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(
        "".join(
            f'set({name} "{slicer.as_posix()}/{file}")\n'
            for name, file in (
                ("Slicer_USE_FILE", "Use.cmake"),
                ("Slicer_EXTENSION_GENERATE_CONFIG", "Nothing.cmake"),
                ("Slicer_EXTENSION_CPACK", "Nothing.cmake"),
            )
        )
    )
    (slicer / "Nothing.cmake").write_text("")
    (slicer / "Use.cmake").write_text(USE_FILE)
    run = subprocess.run(
        ["cmake", "-S", str(source), "-B", str(folder / "build"), f"-DSlicer_DIR={slicer}", "-Wno-dev"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder / "build"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield configure(ROOT, tmp_path_factory.mktemp("cmake"))


def listed(build: Path, module: str) -> list[str]:
    return [name for name in (build / f"{module}.txt").read_text(encoding="utf-8").split(";") if name]


def on_disk(module: str) -> set[str]:
    """What the running module needs: its own file, its package, its resources.

    Not py.typed: that tells type checkers, which read the wheel.
    """
    folder = ROOT / module
    files = [*(folder / f"{module}Lib").rglob("*"), *(folder / "Resources").rglob("*"), folder / f"{module}.py"]
    return {
        file.relative_to(folder).as_posix()
        for file in files
        if file.is_file() and not file.name.startswith((".", "py.typed")) and "__pycache__" not in file.parts
    }


@pytest.mark.parametrize("module", MODULES)
def test_every_file_is_listed_once(module: str, build: Path) -> None:
    names = listed(build, module)
    assert len(names) == len(set(names)), "a file is listed twice"
    assert set(names) == on_disk(module)


@pytest.mark.parametrize("module", MODULES)
def test_slicer_would_not_take_another_script_for_a_module(module: str, build: Path) -> None:
    """Slicer tries to load every script that is installed outside a folder."""
    assert {name for name in listed(build, module) if "/" not in name} == {f"{module}.py"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_what_slicer_looks_for(module: str, build: Path) -> None:
    assert f"Resources/Icons/{module}.png" in listed(build, module), "the icon of the list has the module's name"
    assert f"Resources/UI/{module}.ui" in listed(build, module)


def test_both_modules_are_built_with_tests_and_nothing_unknown(build: Path) -> None:
    assert (build / "rest.txt").read_text(encoding="utf-8") == "TRUE;;" * len(MODULES)
    assert (build / "tests.txt").read_text(encoding="utf-8") == "".join(f"{module}.py;" for module in MODULES)


def test_a_new_file_is_listed_at_the_next_build(tmp_path: Path) -> None:
    """The lists are looked up, so that nobody can forget one."""
    source = tmp_path / "source"
    for name in ("CMakeLists.txt", *(f"{module}/CMakeLists.txt" for module in MODULES)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    new = source / "SAMMed3D" / "SAMMed3DLib" / "room" / "new.py"
    new.parent.mkdir(parents=True)
    new.write_text("")
    assert listed(configure(source, tmp_path), "SAMMed3D") == ["SAMMed3D.py", "SAMMed3DLib/room/new.py"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, build: Path) -> Path:
    """Slicer copies the listed files of all modules into one folder, Resources beside the packages."""
    folder = tmp_path_factory.mktemp("installed") / "qt-scripted-modules"
    for module in MODULES:
        for name in listed(build, module):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / module / name, target)
    return folder


def test_an_installed_extension_finds_its_resources(tmp_path: Path, installed: Path) -> None:
    """Every module of both packages is imported from there but those that need Slicer, which the test below does."""
    code = (
        "import SAMMed3DTrainingLib, SAMMed3DLib.weights as weights\n"
        "import SAMMed3DLib.inference, SAMMed3DLib.model, SAMMed3DLib.cli, SAMMed3DLib.commandline.cohort\n"
        "import SAMMed3DTrainingLib.train.trainer, SAMMed3DTrainingLib.evaluate.evaluation_run\n"
        "print(weights.__file__); print(weights.default_checkpoint())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )
    assert run.returncode == 0, run.stderr
    where, checkpoint = (Path(line) for line in run.stdout.split("\n")[:2])
    assert where.parents[2] == installed
    assert checkpoint == installed / "Resources" / "Models" / "sammed3d_nodule.pth"


@pytest.mark.skipif(find_spec("slicer_core") is None and find_spec("slicer") is None, reason="needs slicer-core")
def test_the_installed_files_pass_tests_of_the_scene(tmp_path: Path, installed: Path) -> None:
    """Clicks, undo and the written segments of a real scene, with nothing on the path but what CMake installs."""
    where = tmp_path / "test_where.py"
    where.write_text(
        "from pathlib import Path\nimport SAMMed3DLib\n\n\ndef test_where() -> None:\n"
        f"    assert Path(SAMMed3DLib.__file__).is_relative_to({str(installed)!r})\n",
        encoding="utf-8",
    )
    scene = ROOT / "Testing" / "scene"
    path = f"{installed} {ROOT / 'Testing'}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    command += ["-o", f"pythonpath={path}", str(where), *(str(scene / name) for name in SCENE_TESTS)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stdout[-4000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None and int(passed[1]) > 10, run.stdout[-2000:]
