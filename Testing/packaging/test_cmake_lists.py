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
    folder = ROOT / module
    files = [*(folder / f"{module}Lib").rglob("*.py"), *(folder / "Resources").rglob("*")]
    files += [folder / f"{module}.py"] if (folder / f"{module}.py").is_file() else []
    return {
        file.relative_to(folder).as_posix() for file in files if file.is_file() and not file.name.startswith(".")
    }


def test_the_parser_reads_lists_with_comments_and_variables() -> None:
    text = "set(MODULE_NAME M)  # name\nset(X\n  ${MODULE_NAME}Lib/a.py  # why\n  b.py\n  )\n"
    assert cmake_list(text, "X") == ["MLib/a.py", "b.py"]


@pytest.mark.parametrize("module", MODULES)
def test_every_file_is_listed_and_every_listed_file_exists(module: str) -> None:
    names = listed(module)
    assert len(names) == len(set(names)), "a file is listed twice"
    assert set(names) == on_disk(module)


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
