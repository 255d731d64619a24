"""The wheel, the sdist and the editable installation hold everything that the package needs at run time."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def hatch(target: str, folder: Path) -> Path:
    """Builds a wheel or sdist with the installed build backend (no network, no build environment)."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the test extra is not installed")
    return hatch("wheel", tmp_path_factory.mktemp("wheel"))


def packaged_sources() -> set[str]:
    """Every tracked kind of file, as it is named in the wheel."""
    names = set()
    for module in ("SAMMed3D", "SAMMed3DTraining"):
        library = ROOT / module / f"{module}Lib"
        for file in (*library.rglob("*.py"), library / "py.typed"):
            names.add(file.relative_to(ROOT / module).as_posix())
    for kind in ("Models", "Shapes"):
        for file in (ROOT / "SAMMed3D" / "Resources" / kind).glob("*"):
            if not file.name.startswith("."):
                names.add(f"SAMMed3DLib/Resources/{kind}/{file.name}")
    return names


def test_the_wheel_holds_both_packages_and_the_resources_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == packaged_sources()


def test_the_wheel_names_the_license_the_command_and_the_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        by_name = {name.rpartition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(by_name["METADATA"]).decode()
        assert "sammed3d = SAMMed3DLib.cli:main" in archive.read(by_name["entry_points.txt"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "License-File: SAMMed3D/Resources/Shapes/ATTRIBUTION.txt" in metadata, "the shapes are CC BY"
    assert {"LICENSE.txt", "ATTRIBUTION.txt"} <= set(by_name)
    assert {"train", "eval", "test"} <= {
        line.removeprefix("Provides-Extra: ") for line in metadata.splitlines() if line.startswith("Provides-Extra: ")
    }


def test_an_installed_wheel_finds_its_resources(wheel: Path, tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(tmp_path / "t"),
            str(wheel),
        ],
        check=True,
        capture_output=True,
    )
    code = (
        "import SAMMed3DTrainingLib, SAMMed3DLib.weights as weights\n"
        "print(weights.__file__); print(weights.default_checkpoint())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "t")},
    )
    assert run.returncode == 0, run.stderr
    where, checkpoint = (Path(line) for line in run.stdout.split("\n")[:2])
    assert where == tmp_path / "t" / "SAMMed3DLib" / "weights" / "__init__.py"
    assert checkpoint == tmp_path / "t" / "SAMMed3DLib" / "Resources" / "Models" / "sammed3d_nodule.pth"


def test_the_sdist_holds_what_the_wheel_is_made_of(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the test extra is not installed")
    with tarfile.open(hatch("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE.txt", "README.md", "SAMMed3D/SAMMed3DLib/cli.py"} <= names
    for name in packaged_sources():
        module = "SAMMed3DTraining" if name.startswith("SAMMed3DTrainingLib") else "SAMMed3D"
        assert f"{module}/{name.replace('SAMMed3DLib/Resources', 'Resources')}" in names


def test_an_editable_installation_points_into_the_checkout(tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.build", reason="the test extra is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        built = tmp_path / build.build_editable(str(tmp_path))
    with zipfile.ZipFile(built) as archive:
        (path_file,) = [name for name in archive.namelist() if name.endswith(".pth")]
        folders = archive.read(path_file).decode().split()
    assert {Path(folder) for folder in folders} == {ROOT / "SAMMed3D", ROOT / "SAMMed3DTraining"}
