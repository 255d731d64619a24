"""Slicer installs exactly the files that CMakeLists.txt lists: an unlisted one is missing from the extension."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("SAMMed3D", "SAMMed3DTraining")


def cmake_list(text: str, name: str) -> list[str]:
    """The values of ``set(name ...)`` in a CMakeLists.txt, comments removed and ${MODULE_NAME} filled in."""
    text = re.sub(r"#.*", "", text)
    values = dict(re.findall(r"set\(\s*(\w+)\s([^)]*)\)", text))
    return values[name].replace("${MODULE_NAME}", values["MODULE_NAME"].strip()).split()


def listed(module: str) -> list[str]:
    text = (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8")
    return cmake_list(text, "MODULE_PYTHON_SCRIPTS") + cmake_list(text, "MODULE_PYTHON_RESOURCES")


def on_disk(module: str) -> set[str]:
    """What the running module needs: its own file, its package, its resources."""
    folder = ROOT / module
    files = [*(folder / f"{module}Lib").rglob("*"), *(folder / "Resources").rglob("*"), folder / f"{module}.py"]
    return {
        file.relative_to(folder).as_posix() for file in files
        if file.is_file() and not file.name.startswith(".") and "__pycache__" not in file.parts
    }


def has_module_file(module: str) -> bool:
    return (ROOT / module / f"{module}.py").is_file()


def test_the_parser_reads_lists_with_comments_and_variables() -> None:
    text = "set(MODULE_NAME M)  # name\nset(X\n  ${MODULE_NAME}Lib/a.py  # why\n  b.py\n  )\n"
    assert cmake_list(text, "X") == ["MLib/a.py", "b.py"]


@pytest.mark.parametrize("module", MODULES)
def test_every_file_is_listed_and_every_listed_file_exists(module: str) -> None:
    names = listed(module)
    assert len(names) == len(set(names)), "a file is listed twice"
    assert set(names) == on_disk(module)


@pytest.mark.parametrize("module", MODULES)
def test_slicer_would_not_take_another_script_for_a_module(module: str) -> None:
    """Slicer tries to load every script that is installed outside a folder."""
    assert {name for name in listed(module) if "/" not in name} <= {f"{module}.py"}


@pytest.mark.parametrize("module", [module for module in MODULES if has_module_file(module)])
def test_a_module_has_what_slicer_looks_for(module: str) -> None:
    assert f"Resources/Icons/{module}.png" in listed(module), "the icon of the module list has the module's name"
    assert f"Resources/UI/{module}.ui" in listed(module)
    text = (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "WITH_GENERIC_TESTS" in text
    assert "slicer_add_python_unittest(SCRIPT ${MODULE_NAME}.py)" in text


def test_an_installed_extension_finds_its_resources(tmp_path: Path) -> None:
    """Slicer copies the listed files of all modules into one folder, Resources beside the packages."""
    for module in MODULES:
        for name in listed(module):
            target = tmp_path / "qt-scripted-modules" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / module / name, target)
    code = (
        "import SAMMed3DTrainingLib, SAMMed3DLib.weights as weights\n"
        "import SAMMed3DLib.inference, SAMMed3DLib.model, SAMMed3DLib.cli\n"
        "print(weights.__file__); print(weights.default_checkpoint())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "qt-scripted-modules")},
    )
    assert run.returncode == 0, run.stderr
    where, checkpoint = (Path(line) for line in run.stdout.split("\n")[:2])
    assert where.parent.parent == tmp_path / "qt-scripted-modules"
    assert checkpoint == tmp_path / "qt-scripted-modules" / "Resources" / "Models" / "sammed3d_nodule.pth"


@pytest.mark.skipif(not all(map(shutil.which, ("cmake", "cc"))), reason="needs CMake and a compiler")
def test_cmake_configures_the_extension(tmp_path: Path) -> None:
    """With a Slicer package that only tells what it is given: CMake reads the same lists as these tests."""
    slicer = tmp_path / "slicer"
    slicer.mkdir()
    (slicer / "SlicerConfig.cmake").write_text(
        f'set(Slicer_USE_FILE "{slicer.as_posix()}/Use.cmake")\n'
        f'set(Slicer_EXTENSION_GENERATE_CONFIG "{slicer.as_posix()}/Nothing.cmake")\n'
        f'set(Slicer_EXTENSION_CPACK "{slicer.as_posix()}/Nothing.cmake")\n'
    )
    (slicer / "Nothing.cmake").write_text("")
    (slicer / "Use.cmake").write_text(
        "set(BUILD_TESTING ON)\n"
        "macro(slicerMacroBuildScriptedModule)\n"
        '  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})\n'
        '  file(WRITE ${CMAKE_BINARY_DIR}/${MY_NAME}.txt '
        '"${MY_SCRIPTS};${MY_RESOURCES};${MY_WITH_GENERIC_TESTS};${MY_UNPARSED_ARGUMENTS}")\n'
        "endmacro()\n"
        "macro(slicer_add_python_unittest)\n"
        '  cmake_parse_arguments(MY "" "SCRIPT" "" ${ARGN})\n'
        '  file(APPEND ${CMAKE_BINARY_DIR}/tests.txt "${MY_SCRIPT};")\n'
        "endmacro()\n"
    )
    build = tmp_path / "build"
    run = subprocess.run(
        ["cmake", "-S", str(ROOT), "-B", str(build), f"-DSlicer_DIR={slicer}", "-Wno-dev"], capture_output=True,
        text=True, check=False,
    )
    assert run.returncode == 0, run.stderr
    for module in MODULES:
        given = (build / f"{module}.txt").read_text(encoding="utf-8").split(";")
        expected = [*listed(module), "TRUE" if has_module_file(module) else "FALSE", ""]
        assert [each for each in given if each] == [each for each in expected if each]
    tests = (build / "tests.txt").read_text(encoding="utf-8").split(";") if (build / "tests.txt").exists() else [""]
    assert tests == [*(f"{module}.py" for module in MODULES if has_module_file(module)), ""]
