"""Bringing a place into sight in the slice and 3D views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util


def showPoint(ras: Sequence[float], scene: Any = None) -> None:
    """Move the slices of all slice views through a world point, center them on it and turn the 3D views to it.

    Zoom and orientation stay as they are.
    """
    scene = slicer.mrmlScene if scene is None else scene
    jumpSlices(ras, scene)
    center3d(ras, scene)


def jumpSlices(ras: Sequence[float], scene: Any = None) -> None:
    """Center all slice views on a world point."""
    scene = slicer.mrmlScene if scene is None else scene
    point = [float(x) for x in ras]
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *point, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def center3d(ras: Sequence[float], scene: Any = None) -> None:
    """Make a world point the center of the 3D views: their cameras are shifted, not turned."""
    scene = slicer.mrmlScene if scene is None else scene
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode", scene):
        focus, position = np.array(camera.GetFocalPoint()), np.array(camera.GetPosition())
        camera.SetPosition(*(position + np.asarray(ras, dtype=np.float64) - focus))
        camera.SetFocalPoint(*(float(x) for x in ras))
        camera.ResetClippingRange()
