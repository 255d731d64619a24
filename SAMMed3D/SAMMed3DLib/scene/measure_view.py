"""Draws the selected nodule's long and short axis in the slice where they were measured, with volume and diameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from ..inference.nodule_table import shown
from ..translation import tr as _
from ..worker.requests import AXES

_CLASS, _MARK = "vtkMRMLMarkupsLineNode", "SAMMed3D.Measure"
_TEXT_SCALE, _GLYPH_SCALE = 2.5, 0.8


class MeasureView:
    """Draws two lines that nobody can drag; made when first needed, neither listed nor saved with the scene."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._ids: list[str] = []

    @property
    def lines(self) -> list[Any]:
        """The nodes of the long and the short axis, while there is something to show."""
        nodes = [self._scene.GetNodeByID(nodeId) for nodeId in self._ids]
        return [] if any(node is None or not node.GetAttribute(_MARK) for node in nodes) else nodes

    def show(self, measurements: Mapping[str, Any], toWorld: NDArray, color: tuple[float, float, float]) -> None:
        """Draw the axes of a nodule.

        Args:
            measurements: of the voxels that are drawn; without the axes' ends nothing is shown.
            toWorld: (4, 4) from the volume's local RAS.
            color: of its segment.
        """
        ends = measurements.get(AXES)
        if not ends:
            self.hide()
            return
        label = _("{volume} mm³, {long} × {short} mm").format(
            volume=shown("volume_mm3", measurements.get("volume_mm3")),
            long=shown("long_axis_mm", measurements.get("long_axis_mm")),
            short=shown("short_axis_mm", measurements.get("short_axis_mm")),
        )
        axes = np.asarray(ends, dtype=float)
        for node, axis, text in zip(self.lines or self._make(), axes, (label, ""), strict=True):
            with slicer.util.NodeModify(node):
                for number, end in enumerate(axis @ toWorld[:3, :3].T + toWorld[:3, 3]):
                    node.SetNthControlPointPositionWorld(number, *(float(x) for x in end))
                node.SetName(text or _("Short axis"))
                node.GetDisplayNode().SetSelectedColor(*color)
                node.GetDisplayNode().SetPropertiesLabelVisibility(bool(text))
                node.SetDisplayVisibility(True)

    def hide(self) -> None:
        """Hides the lines, when nothing is selected or the nodule has no measurements."""
        for node in self.lines:
            node.SetDisplayVisibility(False)

    def close(self) -> None:
        """Remove the lines."""
        for node in self.lines:
            self._scene.RemoveNode(node)
        self._ids = []

    def _make(self) -> list[Any]:
        self.close()
        for _number in range(2):
            node = self._scene.AddNewNodeByClass(_CLASS)
            node.SetAttribute(_MARK, "1")
            node.SetSaveWithScene(False)
            node.SetHideFromEditors(True)
            node.SetLocked(True)
            node.GetMeasurement("length").SetEnabled(False)  # the label says it, with the digits of the table
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            display.SetPointLabelsVisibility(False)
            display.SetTextScale(_TEXT_SCALE)
            display.SetGlyphScale(_GLYPH_SCALE)
            display.SetVisibility3D(False)
            for _end in range(2):
                node.AddControlPointWorld(0.0, 0.0, 0.0)
            self._ids.append(node.GetID())
        return self.lines
