"""Whether PyTorch is installed, and installing it through Slicer's PyTorch extension, with known failures explained.

Whether it is there is found without importing it: an import takes seconds and locks its files on Windows.

The extension's installer blocks the application, asks by itself, and fails in ways that say little; what it does is
wrapped here and told as one :class:`InstallResult`. Call it on the main thread only, and only when the user asked.
"""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..translation import tr as _

#: Weights are loaded without running anything stored in the file since this version.
TORCH_REQUIREMENT = ">=2.5"
_ERROR_PATH_TOO_LONG = 206


class TorchState(enum.Enum):
    """MISSING: nothing of it is here. PRESENT: whole, as far as can be seen. LEFTOVERS: an installation that can be
    removed by pip lacks its code. HALF_REMOVED: files without the list by which pip could remove or replace them.
    """

    MISSING = "missing"
    PRESENT = "present"
    LEFTOVERS = "leftovers"
    HALF_REMOVED = "half removed"


def torchState() -> TorchState:
    """The state of PyTorch's installation."""
    importlib.invalidate_caches()  # it may have been installed a moment ago
    code = _hasCode()
    try:
        record = importlib.metadata.distribution("torch").read_text("RECORD")
    except importlib.metadata.PackageNotFoundError:
        # Without pip's record: whole if it is whole (built by hand, or by another package manager), or a folder's rest.
        return TorchState.PRESENT if code else TorchState.HALF_REMOVED if torchFolder() else TorchState.MISSING
    if record is None:
        return TorchState.HALF_REMOVED
    return TorchState.PRESENT if code else TorchState.LEFTOVERS


def torchAvailable() -> bool:
    """Whether a whole PyTorch is installed. Fast; nothing is imported, nobody is asked."""
    return torchState() is TorchState.PRESENT


def torchFolder() -> Path | None:
    """The folder named torch among the installed packages, whatever is in it."""
    for place in sys.path:
        folder = Path(place or ".") / "torch"
        if folder.is_dir() and "site-packages" in folder.resolve().parts:
            return folder
    return None


def _hasCode() -> bool:
    """Whether ``import torch`` would find Python code, not just a folder of that name."""
    if "torch" in sys.modules:
        return getattr(sys.modules["torch"], "__file__", None) is not None
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).with_name("version.py").is_file()


class Outcome(enum.Enum):
    """The outcome of an attempt to install."""

    READY = "ready"
    DECLINED = "declined"
    EXTENSION_MISSING = "extension missing"
    BUSY = "busy"
    TESTING = "testing"
    RESTART_REQUIRED = "restart required"
    FAILED = "failed"


@dataclass(frozen=True)
class InstallResult:
    """Attributes:
    outcome: how it ended.
    message: for the user, naming what to do; "" when the user declined.
    details: what the installer said, for the log and for bug reports.
    cpuOnlyMayHelp: offer a second button, ``install(cpuOnly=True)``.
    """

    outcome: Outcome
    message: str
    details: str = ""
    cpuOnlyMayHelp: bool = False


class PyTorchLogic(Protocol):
    """The used part of PyTorchUtils.PyTorchUtilsLogic."""

    def installTorch(
        self, askConfirmation: bool, forceComputationBackend: str | None, torchVersionRequirement: str | None
    ) -> Any: ...


class SlicerServices:
    """The application as the installer uses it. Slicer 5.10 has no ``slicer.packaging``."""

    def pyTorchLogic(self) -> PyTorchLogic:
        """Returns the PyTorch extension's logic. Raises ImportError where it is not installed."""
        import PyTorchUtils

        return PyTorchUtils.PyTorchUtilsLogic()

    def testing(self) -> bool:
        """Whether the application runs tests, in which nothing may be installed."""
        import slicer

        return bool(slicer.app.testingEnabled())

    def pipIsBusy(self) -> bool:
        """Whether another extension is installing something."""
        try:
            from slicer.packaging import isPipInstallInProgress
        except ImportError:
            return False
        return bool(isPipInstallInProgress())

    def uninstall(self, package: str) -> None:
        """Removes a Python package."""
        try:
            from slicer.packaging import pip_uninstall
        except ImportError:
            from slicer.util import pip_uninstall
        pip_uninstall(package)

    def versions(self) -> Mapping[str, str]:
        """Installed packages and their versions."""
        importlib.invalidate_caches()
        return {
            each.metadata["Name"]: each.version for each in importlib.metadata.distributions() if each.metadata["Name"]
        }

    def cudaProblem(self) -> str:
        """Returns why the graphics card does not work with the PyTorch just installed, or ""."""
        from .device import cuda_problem

        return cuda_problem()


class TorchInstaller:
    """Installs PyTorch when asked."""

    def __init__(self, services: SlicerServices | None = None, state: Callable[[], TorchState] = torchState) -> None:
        self._services = services if services is not None else SlicerServices()
        self._state = state

    def install(self, cpuOnly: bool = False, askConfirmation: bool = True) -> InstallResult:
        """Installs PyTorch unless it is there; with it there, nothing is asked and nothing is done.

        Args:
            cpuOnly: the build without graphics card support, small and without driver trouble.
            askConfirmation: whether the extension asks before it downloads.
        """
        result = self._refusal() or self._install(cpuOnly, askConfirmation)
        if result.details:
            logging.warning("Installing PyTorch: %s: %s", result.outcome.value, result.details)
        return result

    def _refusal(self) -> InstallResult | None:
        """The answer where nothing is to be installed, or nothing can be."""
        state = self._state()
        if state is TorchState.PRESENT:
            return InstallResult(Outcome.READY, _("PyTorch is installed."))
        if self._services.testing():
            return InstallResult(Outcome.TESTING, _("Nothing is installed while Slicer runs tests."))
        if self._services.pipIsBusy():
            return InstallResult(
                Outcome.BUSY,
                _("Another extension is installing Python packages. Wait until it has ended, then try again."),
            )
        if state is TorchState.HALF_REMOVED:
            return _halfRemoved("")
        return None

    def _install(self, cpuOnly: bool, askConfirmation: bool) -> InstallResult:
        try:
            logic = self._services.pyTorchLogic()
        except ImportError as error:
            return InstallResult(
                Outcome.EXTENSION_MISSING,
                _(
                    "The PyTorch extension is missing. Install it: View > Extensions Manager > Install Extensions, "
                    "search for PyTorch, Install, then restart Slicer."
                ),
                str(error),
            )
        except Exception as error:  # a broken extension
            return _explained(error, cpuOnly)
        importedBefore = "torch" in sys.modules
        try:
            before = self._services.versions()
            if self._state() is TorchState.LEFTOVERS:  # else pip takes it for installed
                self._services.uninstall("torch")
            torch = logic.installTorch(
                askConfirmation=askConfirmation,
                forceComputationBackend="cpu" if cpuOnly else None,
                torchVersionRequirement=TORCH_REQUIREMENT,
            )
            changed = _changedUnderFoot(before, self._services.versions())
        except Exception as error:  # whatever a download, pip or a foreign library can raise
            return self._afterFailure(error, cpuOnly)
        if torch is None and self._state() is not TorchState.PRESENT:
            return InstallResult(Outcome.DECLINED, "")
        if changed or importedBefore:
            message = _("PyTorch was installed. Restart Slicer to use it: some of its parts were in use already.")
            return InstallResult(Outcome.RESTART_REQUIRED, message, ", ".join(changed))
        problem = self._services.cudaProblem()
        if problem:
            return InstallResult(
                Outcome.READY,
                _(
                    "PyTorch was installed, but this graphics card does not work with it: SAMMed3D runs on the CPU. A "
                    "newer graphics driver may help."
                ),
                problem,
            )
        return InstallResult(Outcome.READY, _("PyTorch was installed."))

    def _afterFailure(self, error: Exception, cpuOnly: bool) -> InstallResult:
        """The result after pip: installed but not usable in this session, or not installed."""
        if (
            isinstance(error, (ImportError, OSError))
            and not _pathTooLong(error)
            and (self._state() is TorchState.PRESENT)
        ):
            return InstallResult(
                Outcome.RESTART_REQUIRED,
                _(
                    "PyTorch was installed but did not start. Restart Slicer. If it still does not start then, install "
                    "it for the CPU only."
                ),
                _first(error),
                cpuOnlyMayHelp=not cpuOnly,
            )
        return _explained(error, cpuOnly)


def _explained(error: Exception, cpuOnly: bool) -> InstallResult:
    """A failed installation in a user's words."""
    if isinstance(error, TypeError):  # importlib.metadata.files('torch') is None in PyTorchUtils
        return _halfRemoved(_first(error))
    cpuOnlyMayHelp = not cpuOnly
    if _pathTooLong(error):
        cpuOnlyMayHelp = False
        message = _(
            "A file of PyTorch has a path that is too long for Windows. Allow long paths (search for 'Enable Win32 "
            "long paths' in the group policy editor, or set LongPathsEnabled to 1 in the registry), or install "
            "Slicer in a folder with a short name such as C:\\Slicer; then try again."
        )
    elif isinstance(error, PermissionError):
        cpuOnlyMayHelp = False
        message = _(
            "Slicer may not write into its own folder. Install Slicer where you may write, or start it once as "
            "administrator to install PyTorch."
        )
    elif isinstance(error, OSError) and error.errno == 28:
        message = _("The disk is full: PyTorch needs up to 6 GB, 1 GB for the CPU only.")
    else:
        if isinstance(error, subprocess.CalledProcessError):
            message = _(
                "Downloading or installing PyTorch failed. Is this computer online, and is there enough space on "
                "the disk? View > Error log shows what pip said."
            )
        else:
            message = _("PyTorch could not be installed: {error}.").format(error=_first(error).rstrip("."))
        if not cpuOnly:
            message += " " + _("The build for the CPU only needs no graphics driver and is smaller; it may work.")
    return InstallResult(Outcome.FAILED, message, _first(error), cpuOnlyMayHelp)


def _halfRemoved(details: str) -> InstallResult:
    folder = torchFolder()
    where = str(folder) if folder is not None else "lib/Python/Lib/site-packages/torch"
    return InstallResult(
        Outcome.FAILED,
        _(
            "An old PyTorch was only half removed, which blocks a new one. Close Slicer, delete the folder {folder} "
            "and the folders beside it whose names begin with torch- or ~orch, start Slicer and try again."
        ).format(folder=where),
        details,
    )


def _changedUnderFoot(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Packages in use whose files were replaced by another version."""
    return sorted(
        name
        for name, version in before.items()
        if after.get(name, version) != version and name.lower().replace("-", "_") in sys.modules
    )


def _pathTooLong(error: Exception) -> bool:
    return getattr(error, "winerror", None) == _ERROR_PATH_TOO_LONG or "WinError 206" in str(error)


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
