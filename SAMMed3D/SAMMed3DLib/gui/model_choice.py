"""The chosen model: kept in the application's settings, read by the session."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer

from ..torch_setup.install import torchAvailable
from ..weights.catalog import ModelEntry, WeightsError
from ..weights.store import BUNDLED, WeightsStore

_MODEL, _DEVICE, _PRECISION = "SAMMed3D/Model", "SAMMed3D/Device", "SAMMed3D/Precision"


def applicationStore() -> WeightsStore:
    """The store in the application's own data folder, which an update of the extension leaves alone."""
    place = qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppDataLocation)
    return WeightsStore(Path(place) / "SAMMed3D")


class ModelChoice:
    """What the session asks about the model (its ModelProvider)."""

    def __init__(self, store: WeightsStore) -> None:
        self.store = store
        self._torchInstalled = False
        self._entry: ModelEntry | None = None

    @property
    def entry(self) -> ModelEntry:
        """The chosen model; the bundled one where the chosen one is no longer on the list. As of the last refresh."""
        return self._entry or self.refresh()

    def refresh(self) -> ModelEntry:
        """Look at the files; the session asks for the chosen model far more often than they change."""
        try:
            self._entry = self.store.entry(str(slicer.app.userSettings().value(_MODEL) or BUNDLED))
        except WeightsError:
            self._entry = self.store.entry(BUNDLED)
        return self._entry

    def choose(self, name: str) -> None:
        slicer.app.userSettings().setValue(_MODEL, name)
        self.refresh()

    @property
    def path(self) -> Path | None:
        entry = self.entry
        return entry.path if entry.installed else None

    @property
    def device(self) -> str:
        return str(slicer.app.userSettings().value(_DEVICE) or "auto")

    @property
    def precision(self) -> str:
        return str(slicer.app.userSettings().value(_PRECISION) or "auto")

    def torchInstalled(self) -> bool:
        """Looked up anew only as long as it is not there: the session asks often."""
        self._torchInstalled = self._torchInstalled or torchAvailable()
        return self._torchInstalled
