"""Draws the selected nodule's long and short axis in the slice where they were measured, with volume and diameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from ..inference.nodule_table import BY_HAND, shown
from ..signal import Signal
from ..translation import tr as _
from ..worker.requests import AXES
from .beside_volume import placingStays

#: Marks our lines.
MEASURE_MARK = "SAMMed3D.Measure"
_CLASS = "vtkMRMLMarkupsLineNode"
_TEXT_SCALE, _GLYPH_SCALE = 2.5, 0.8


class MeasureView:
    """Draws two lines whose ends can be dragged; made when first needed, neither listed nor saved with the scene.

    Attributes:
        dragged: Signal(ends, final): (2, 2, 3) world RAS of both ends of the long and the short axis, as the user
            drags one; ``final`` where it is let go after it was moved.
    """

    def __init__(self, scene: Any) -> None:
        self.dragged = Signal()
        self._scene = scene
        self._ids: list[str] = []
        self._isDragging = self._isMoved = False
        self._drawn: tuple[Any, ...] | None = None

    @property
    def lines(self) -> list[Any]:
        """The nodes of the long and the short axis, while there is something to show."""
        nodes = [self._scene.GetNodeByID(nodeId) for nodeId in self._ids]
        return [] if any(node is None or not node.GetAttribute(MEASURE_MARK) for node in nodes) else nodes

    def show(
        self, measurements: Mapping[str, Any], toWorld: NDArray, color: tuple[float, float, float], isLocked: bool
    ) -> None:
        """Draw the axes of a nodule; while the user drags one of them only the label is written anew.

        Args:
            measurements: of the voxels that are drawn; without the axes' ends nothing is shown.
            toWorld: (4, 4) from the volume's local RAS.
            color: of its segment.
            isLocked: nobody can drag the axes.
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
        if measurements.get("diameters") == BY_HAND:
            label = _("{measure}, by hand").format(measure=label)
        self.prepare()
        lines = self.lines
        if self._isDragging:
            lines[0].SetName(label)
            return
        axes = (np.asarray(ends, dtype=float) @ toWorld[:3, :3].T + toWorld[:3, 3]).tolist()
        drawn = (label, axes, tuple(color), isLocked)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        for node, axis, text in zip(lines, axes, (label, ""), strict=True):
            with slicer.util.NodeModify(node):
                for number, end in enumerate(axis):
                    node.SetNthControlPointPositionWorld(number, *end)
                node.SetName(text or _("Short axis"))
                node.SetLocked(isLocked)
                node.GetDisplayNode().SetSelectedColor(*((1.0 + part) / 2.0 for part in color))  # seen on the fill
                node.GetDisplayNode().SetPropertiesLabelVisibility(bool(text))
                node.SetDisplayVisibility(True)

    def hide(self) -> None:
        """Hides the lines, when nothing is selected or the nodule has no measurements."""
        self._drawn = None
        for node in self.lines:
            node.SetDisplayVisibility(False)

    def close(self) -> None:
        """Remove the lines."""
        for node in self.lines:
            self._scene.RemoveNode(node)
        self._ids = []

    def prepare(self) -> None:
        """Makes the lines, hidden, unless they are there: adding nodes takes the application a while."""
        if self.lines:
            return
        self.close()
        with placingStays(self._scene):
            nodes = [self._scene.AddNewNodeByClass(_CLASS) for _number in range(2)]
        for node in nodes:
            node.SetAttribute(MEASURE_MARK, "1")
            node.SetSaveWithScene(False)
            node.SetHideFromEditors(True)
            node.GetMeasurement("length").SetEnabled(False)  # the label says it, with the digits of the table
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSaveWithScene(False)
            display.SetPointLabelsVisibility(False)
            display.SetTextScale(_TEXT_SCALE)
            display.SetGlyphScale(_GLYPH_SCALE)
            display.SetVisibility3D(False)
            display.SetVisibility(False)
            for _end in range(2):
                node.AddControlPointWorld(0.0, 0.0, 0.0)
            node.SetFixedNumberOfControlPoints(True)
            node.AddObserver(node.PointStartInteractionEvent, self._onStart)
            node.AddObserver(node.PointModifiedEvent, self._onMoved)
            node.AddObserver(node.PointEndInteractionEvent, self._onEnd)
            self._ids.append(node.GetID())
        self._drawn = None

    # -- what the user does ------------------------------------------------------------------------------------------

    def _onStart(self, _node: Any, _event: str) -> None:
        self._isDragging, self._isMoved = True, False

    def _onMoved(self, _node: Any, _event: str) -> None:
        if self._isDragging:
            self._isMoved, self._drawn = True, None
            self._tell(False)

    def _onEnd(self, _node: Any, _event: str) -> None:
        self._isDragging = False
        if self._isMoved:
            self._tell(True)

    def _tell(self, final: bool) -> None:
        lines = self.lines
        if lines:
            ends = [[each.GetNthControlPointPositionWorld(end) for end in range(2)] for each in lines]
            self.dragged(np.array(ends), final)
