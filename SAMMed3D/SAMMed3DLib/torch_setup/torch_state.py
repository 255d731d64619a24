"""Whether PyTorch is installed, found without importing it: an import takes seconds and locks its files on Windows."""

from __future__ import annotations

import enum
import importlib.metadata
import importlib.util
import sys
from pathlib import Path


class TorchState(enum.Enum):
    """MISSING: nothing of it is here. PRESENT: whole, as far as can be seen. LEFTOVERS: an installation that can be
    removed by pip lacks its code. HALF_REMOVED: files without the list by which pip could remove or replace them.
    """

    MISSING = "missing"
    PRESENT = "present"
    LEFTOVERS = "leftovers"
    HALF_REMOVED = "half removed"


def torchState() -> TorchState:
    """How much of PyTorch is installed."""
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
