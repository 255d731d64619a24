"""Every way in which installing PyTorch is known to end, with stand-ins for Slicer and its PyTorch extension."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from SAMMed3DLib.torch_setup import install as module
from SAMMed3DLib.torch_setup.install import (
    Outcome,
    SlicerServices,
    TorchInstaller,
    TorchState,
    torchAvailable,
    torchState,
)


class Services(SlicerServices):
    """An application in which the installer does what a test says."""

    def __init__(self, install: Callable[[], object] | None = None) -> None:
        self.install = install or (lambda: types.SimpleNamespace(__version__="2.9"))
        self.state = TorchState.MISSING
        self.after = TorchState.PRESENT
        self.asked: list[dict] = []
        self.removed: list[str] = []
        self.isTesting = self.isBusy = self.extensionMissing = False
        self.packages = [{"numpy": "2.0"}, {"numpy": "2.0", "torch": "2.9"}]
        self.problem = ""

    def pyTorchLogic(self) -> object:
        if self.extensionMissing:
            raise ModuleNotFoundError("No module named 'PyTorchUtils'")

        def installTorch(**options: object) -> object:
            self.asked.append(options)
            self.state = self.after
            return self.install()

        return types.SimpleNamespace(installTorch=installTorch)

    def testing(self) -> bool:
        return self.isTesting

    def pipIsBusy(self) -> bool:
        return self.isBusy

    def uninstall(self, package: str) -> None:
        self.removed.append(package)

    def versions(self) -> dict[str, str]:
        return self.packages.pop(0)

    def cudaProblem(self) -> str:
        return self.problem

    def result(self, **options: object) -> module.InstallResult:
        return TorchInstaller(self, lambda: self.state).install(**options)


@pytest.fixture(autouse=True)
def torch_not_imported(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def raising(error: Exception) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


def test_with_torch_nothing_is_asked_or_done() -> None:
    services = Services()
    services.state = TorchState.PRESENT
    services.isTesting = services.isBusy = services.extensionMissing = True
    assert services.result().outcome is Outcome.READY
    assert services.asked == []


def test_an_installation_that_works() -> None:
    services = Services()
    result = services.result()
    assert (result.outcome, result.details, result.cpuOnlyMayHelp) == (Outcome.READY, "", False)
    assert services.asked == [
        {"askConfirmation": True, "forceComputationBackend": None, "torchVersionRequirement": ">=2.5"}
    ]


def test_the_build_for_the_cpu_only_can_be_asked_for() -> None:
    services = Services()
    services.result(cpuOnly=True, askConfirmation=False)
    assert services.asked[0]["forceComputationBackend"] == "cpu"
    assert services.asked[0]["askConfirmation"] is False


def test_declining_is_no_error() -> None:
    services = Services(lambda: None)
    services.after = TorchState.MISSING
    assert services.result() == module.InstallResult(Outcome.DECLINED, "")


def test_without_the_extension_the_way_to_it_is_told() -> None:
    services = Services()
    services.extensionMissing = True
    result = services.result()
    assert result.outcome is Outcome.EXTENSION_MISSING
    assert "Extensions Manager" in result.message and "restart" in result.message


def test_nothing_is_installed_in_tests_or_beside_another_installation() -> None:
    services = Services()
    services.isTesting = True
    assert services.result().outcome is Outcome.TESTING
    services.isTesting, services.isBusy = False, True
    assert services.result().outcome is Outcome.BUSY
    assert services.asked == []


@pytest.mark.parametrize(
    ("error", "words", "cpu_only"),
    [
        (subprocess.CalledProcessError(1, "pip"), "Is this computer online", True),
        (ValueError("Failed to get computation backend"), "Failed to get computation backend. The build", True),
        (FileNotFoundError("[WinError 206] The filename or extension is too long"), "long paths", False),
        (PermissionError(13, "Permission denied"), "administrator", False),
        (OSError(28, "No space left on device"), "disk is full", True),
        (TypeError("'NoneType' object is not iterable"), "half removed", False),
    ],
)
def test_failures_name_the_cure(error, words, cpu_only) -> None:
    services = Services(raising(error))
    services.after = TorchState.MISSING
    result = services.result()
    assert result.outcome is Outcome.FAILED
    assert words in result.message
    assert result.cpuOnlyMayHelp is cpu_only
    assert result.details
    services.packages = [{}, {}]
    assert not services.result(cpuOnly=True).cpuOnlyMayHelp, "it was the CPU build that failed"


def test_windows_tells_its_number() -> None:
    error = OSError("too long")
    error.winerror = 206
    assert "long paths" in Services(raising(error)).result().message


def test_a_torch_that_does_not_start_at_once_asks_for_a_restart() -> None:
    result = Services(raising(OSError("[WinError 1114] c10.dll"))).result()
    assert result.outcome is Outcome.RESTART_REQUIRED
    assert result.cpuOnlyMayHelp
    assert "c10.dll" in result.details


def test_replacing_packages_in_use_asks_for_a_restart() -> None:
    services = Services()
    services.packages = [{"numpy": "2.0", "unused-package": "1"}, {"numpy": "2.1", "unused-package": "2", "torch": "2"}]
    result = services.result()
    assert (result.outcome, result.details) == (Outcome.RESTART_REQUIRED, "numpy")
    services = Services()
    services.packages = [{"unused-package": "1"}, {"unused-package": "2"}]
    assert services.result().outcome is Outcome.READY


def test_a_card_that_does_not_compute_leaves_the_cpu() -> None:
    services = Services()
    services.problem = "no kernel image is available"
    result = services.result()
    assert result.outcome is Outcome.READY
    assert "CPU" in result.message and "no kernel image" in result.details


def test_leftovers_are_removed_first_and_half_removed_ones_named(monkeypatch) -> None:
    services = Services()
    services.state = TorchState.LEFTOVERS
    assert services.result().outcome is Outcome.READY
    assert services.removed == ["torch"]
    services = Services()
    services.state = TorchState.HALF_REMOVED
    monkeypatch.setattr(module, "torchFolder", lambda: Path("/slicer/site-packages/torch"))
    result = services.result()
    assert result.outcome is Outcome.FAILED
    assert str(Path("/slicer/site-packages/torch")) in result.message
    assert services.asked == []


def install_files(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / "site-packages" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            "Name: torch\nVersion: 2.9\n"
            if name.endswith("METADATA")
            else "torch/__init__.py,,\n"
            if name.endswith("RECORD")
            else ""
        )


INFO = ("torch-2.9.dist-info/METADATA", "torch-2.9.dist-info/RECORD")
CODE = ("torch/__init__.py", "torch/version.py")


@pytest.mark.parametrize(
    ("names", "state"),
    [
        ((), TorchState.MISSING),
        ((*CODE, *INFO), TorchState.PRESENT),
        (CODE, TorchState.PRESENT),
        (("torch/lib/c10.dll",), TorchState.HALF_REMOVED),
        (("torch/lib/c10.dll", INFO[0]), TorchState.HALF_REMOVED),
        ((*CODE, INFO[0]), TorchState.HALF_REMOVED),
        (("torch/__init__.py", *INFO), TorchState.LEFTOVERS),
        (INFO, TorchState.LEFTOVERS),
    ],
)
def test_how_much_of_torch_is_there(tmp_path, monkeypatch, names, state) -> None:
    install_files(tmp_path, *names)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages"), "/nowhere"])
    assert torchState() is state
    assert torchAvailable() is (state is TorchState.PRESENT)
    assert "torch" not in sys.modules


def test_a_torch_in_use_is_there() -> None:
    sys.modules["torch"] = types.ModuleType("torch")
    assert not module._hasCode(), "an empty module that a failed import left"
    sys.modules["torch"].__file__ = "torch/__init__.py"
    assert torchAvailable() is True


def slicer_modules(monkeypatch, packaging: bool, busy: bool = False) -> list[str]:
    """Puts a small slicer package into place, as in 5.12 with slicer.packaging or as in 5.10 without."""
    removed: list[str] = []
    slicer, util = types.ModuleType("slicer"), types.ModuleType("slicer.util")
    slicer.app = types.SimpleNamespace(testingEnabled=lambda: True)
    util.pip_uninstall = lambda name: removed.append(f"util {name}")
    slicer.util = util
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    monkeypatch.setitem(sys.modules, "slicer.util", util)
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    if packaging:
        module = types.ModuleType("slicer.packaging")
        module.isPipInstallInProgress = lambda: busy
        module.pip_uninstall = lambda name: removed.append(f"packaging {name}")
        monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    return removed


def test_services_of_slicer_5_12(monkeypatch) -> None:
    removed = slicer_modules(monkeypatch, packaging=True, busy=True)
    services = SlicerServices()
    assert services.pipIsBusy() and services.testing()
    services.uninstall("torch")
    assert removed == ["packaging torch"]


def test_services_of_slicer_5_10(monkeypatch) -> None:
    removed = slicer_modules(monkeypatch, packaging=False)
    services = SlicerServices()
    assert not services.pipIsBusy()
    services.uninstall("torch")
    assert removed == ["util torch"]
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(ImportError):
        services.pyTorchLogic()
    extension = types.ModuleType("PyTorchUtils")
    extension.PyTorchUtilsLogic = lambda: "logic"
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    assert services.pyTorchLogic() == "logic"


def test_versions_are_those_installed() -> None:
    assert SlicerServices().versions()["numpy"] == importlib.metadata.version("numpy")
