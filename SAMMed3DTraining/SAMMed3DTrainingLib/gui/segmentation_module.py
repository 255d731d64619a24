"""The SAMMed3D module next door: its list of models, the model that it uses, the volume that it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from SAMMed3DLib.gui.model_panel import ModelChoice, applicationStore
from SAMMed3DLib.scene.views import showPoint

MODULE = "SAMMed3D"


class SegmentationModule:
    """Access to the SAMMed3D module: adopts models into its list, and opens volumes in it."""

    def __init__(self) -> None:
        self.store = applicationStore()

    def adopt(self, weights: Path, name: str) -> Any:
        """Copies weights into the list of models, after reading them; for a thread (seconds). Raises WeightsError."""
        from SAMMed3DLib.torch_setup.loading import load_torch

        load_torch()
        return self.store.adopt(weights, name)

    def use(self, name: str) -> None:
        """Makes a model of the list the one that the module uses; open nodules go on with it."""
        widget = self._widget()
        if widget is None:
            ModelChoice(self.store).choose(name)
        else:
            widget.useModel(name)

    @property
    def checkpoint(self) -> Path | None:
        """The weights that the module uses; None: the bundled ones."""
        return ModelChoice(self.store).path

    def openVolume(self, volumeNode: Any, pointRas: Any | None = None) -> None:
        """Opens the module with this volume, at a place in it."""
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
        slicer.util.selectModule(MODULE)
        widget = self._widget()
        if widget is not None:
            widget.logic.getParameterNode().inputVolume = volumeNode
        if pointRas is not None:
            showPoint(pointRas)

    @staticmethod
    def _widget() -> Any | None:
        """The module's widget; None where it was never opened."""
        widget = getattr(slicer.modules, f"{MODULE}Widget", None)
        return widget if widget is not None and getattr(widget, "panel", None) is not None else None
