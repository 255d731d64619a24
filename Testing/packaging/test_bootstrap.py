"""The script behind the README's two commands, without making an environment."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "Testing" / "bootstrap.py"


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder that looks like a virtual environment."""
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    python.parent.mkdir(parents=True)
    python.touch()
    return tmp_path / "venv"


def test_ci_and_readme_use_the_same_test_command() -> None:
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1].removeprefix("exec ")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)
    assert command in {line for block in blocks for line in block.splitlines()}
    assert any(line.startswith("python3 Testing/bootstrap.py demo") for block in blocks for line in block.splitlines())


def test_it_needs_the_standard_library_only() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 7))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_without_a_command_it_explains_itself() -> None:
    run = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True)
    assert "bootstrap.py demo" in run.stdout


def test_it_installs_once_and_again_when_the_project_changes(bootstrap, environment, monkeypatch) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(bootstrap, "_pip", lambda python, *words, quiet=False: calls.append(words) or 0)
    monkeypatch.setattr(bootstrap, "_has_module", lambda python, name: True)
    python = bootstrap.prepare(environment, "test")
    assert Path(python).parent.parent == environment
    assert calls == [("install", "--editable", f"{ROOT}[test]")]
    assert bootstrap.prepare(environment, "test") == python
    assert len(calls) == 1
    (environment / "sammed3d-installed-test").write_text("of another pyproject.toml")
    bootstrap.prepare(environment, "test")
    bootstrap.prepare(environment, "")
    assert calls[2:] == [("install", "--editable", str(ROOT))]


def test_failures_name_the_cure(bootstrap, environment, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(bootstrap, "_has_module", lambda python, name: name == "torch")
    monkeypatch.setattr(bootstrap, "_pip", lambda python, *words, quiet=False: 1)
    with pytest.raises(bootstrap.SetupError, match="network connection"):
        bootstrap.prepare(environment, "")
    assert not list(environment.glob("sammed3d-installed-*")), "a failed installation is tried again"

    failed = subprocess.CompletedProcess([], 1, "", "ensurepip is not available")
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *words, **options: failed)
    with pytest.raises(bootstrap.SetupError, match=r"(?s)ensurepip is not available.*python3-venv"):
        bootstrap.prepare(tmp_path / "new", "")

    monkeypatch.setenv("SAMMED3D_VENV", str(tmp_path / "new"))
    assert bootstrap.main(["demo"]) == 1
    assert "bootstrap: error: " in capsys.readouterr().err


def test_an_old_python_looks_for_a_newer_one(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 8, 1))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/bin/{name}" if name == "python3.12" else None)
    started: list[list[str]] = []
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda words, **options: started.append(words) or 7)
    assert bootstrap.main(["demo", "--seed", "1"]) == 7
    assert started == [["/bin/python3.12", str(SCRIPT), "demo", "--seed", "1"]]
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert bootstrap.main(["demo"]) == 1
    assert "Python 3.8.1 is too old: SAMMed3D needs 3.10 or newer" in capsys.readouterr().err


def test_torch_comes_as_a_cpu_build_where_there_is_no_gpu(bootstrap, monkeypatch) -> None:
    def installed(local: bool, reachable: bool, system: str = "Linux", gpu: bool = False) -> list[tuple[str, ...]]:
        calls: list[tuple[str, ...]] = []

        def pip(python: str, *words: str, quiet: bool = False) -> int:
            calls.append(words)
            return 1 if "--no-index" in words and not local else 0

        monkeypatch.setattr(bootstrap, "_pip", pip)
        monkeypatch.setattr(bootstrap, "_reachable", lambda host: reachable)
        monkeypatch.setattr(bootstrap.platform, "system", lambda: system)
        monkeypatch.setattr(bootstrap.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "nvidia-smi" if gpu else None)
        bootstrap._install_torch("python")
        return calls[1:]

    assert installed(local=True, reachable=True) == [], "a wheel on this machine"
    (words,) = installed(local=False, reachable=True)
    assert "--index-url" in words
    assert installed(local=False, reachable=False) == [], "left to the requirements"
    assert installed(local=False, reachable=True, gpu=True) == []
    assert installed(local=False, reachable=True, system="Darwin") == []


def test_libraries_for_drawing_are_installed_as_root_and_named_otherwise(bootstrap, monkeypatch, capsys) -> None:
    calls: list[list[str]] = []

    def install(present: set[str], root: bool, apt: bool = True, works: int = 1, system: str = "Linux") -> str:
        """What is said; ``works``: which call of apt-get is the first to succeed."""
        calls.clear()
        monkeypatch.setattr(bootstrap, "_has_library", lambda name: name in present)
        monkeypatch.setattr(bootstrap.platform, "system", lambda: system)
        monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 0 if root else 1000, raising=False)
        monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "/usr/bin/apt-get" if apt else None)
        monkeypatch.setattr(
            bootstrap.subprocess, "call", lambda words, **options: calls.append(words) or int(len(calls) < works)
        )
        bootstrap.install_system_libraries()
        return capsys.readouterr().err

    everything = set(bootstrap.SYSTEM_LIBRARIES)
    assert install(everything, root=True) == "" and not calls
    assert install(set(), root=True, system="Darwin") == "" and not calls

    install(everything - {"libEGL.so.1"}, root=True)
    assert calls == [["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "libegl1"]]

    install(everything - {"libEGL.so.1"}, root=True, works=2)
    assert [words[1] for words in calls] == ["install", "update", "install"], "an image without package lists"

    for options in ({"root": False}, {"root": True, "apt": False}, {"root": True, "works": 9}):
        said = install(everything - {"libGL.so.1"}, **options)
        assert "tests that draw are skipped" in said and "apt-get install libgl1" in said, options
    install(set(), root=False)
    assert not calls, "no sudo, no password"


def test_other_commands_leave_the_system_alone(bootstrap, environment, monkeypatch) -> None:
    prepared: list[str] = []
    monkeypatch.setattr(bootstrap, "prepare", lambda folder, extra: prepared.append(extra) or "python")
    monkeypatch.setattr(bootstrap, "install_system_libraries", lambda: prepared.append("system"))
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda words, **options: 0)
    bootstrap.main(["demo"])
    assert prepared == [""]
    bootstrap.main(["test"])
    assert prepared == ["", "test", "system"]


def test_a_place_that_cannot_hold_the_environment_has_a_cure_of_its_own(bootstrap, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(bootstrap.SetupError, match="may not be written; set SAMMED3D_VENV to a folder"):
        bootstrap.prepare(tmp_path / "file" / "venv", "")
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 4e8}))
    with pytest.raises(bootstrap.SetupError, match="has 0.4 GB left: free some space, or set SAMMED3D_VENV"):
        bootstrap.prepare(tmp_path / "venv", "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
