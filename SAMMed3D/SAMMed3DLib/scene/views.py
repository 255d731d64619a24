"""What the views show: a place, a volume, and the nodules of that volume only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util

from .beside_volume import ownerOf
from .nodule_segmentation import OWN_ATTRIBUTE
from .prompt_store import SEGMENTATION_ROLE, VOLUME_ROLE
from .volume_geometry import toArray, toVtk

#: Marks what was hidden because another volume was chosen.
_HIDDEN = "SAMMed3D.Hidden"


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


def zoomIn(fieldMm: float, scene: Any = None) -> None:
    """Let slice views that show more than twice as much show this field of view, in mm; nearer ones stay."""
    scene = slicer.mrmlScene if scene is None else scene
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene):
        width, height, depth = node.GetFieldOfView()
        if min(width, height) > 2.0 * fieldMm:
            factor = fieldMm / min(width, height)
            node.SetFieldOfView(width * factor, height * factor, depth)


def center3d(ras: Sequence[float], scene: Any = None) -> None:
    """Make a world point the center of the 3D views: their cameras are shifted, not turned."""
    scene = slicer.mrmlScene if scene is None else scene
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode", scene):
        focus, position = np.array(camera.GetFocalPoint()), np.array(camera.GetPosition())
        camera.SetPosition(*(position + np.asarray(ras, dtype=np.float64) - focus))
        camera.SetFocalPoint(*(float(x) for x in ras))
        camera.ResetClippingRange()


def seenInstead(volumeNode: Any, sliceNode: Any) -> Any | None:
    """The other volume that a slice view shows in a volume's place; None where it shows that one, or none at all."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", sliceNode.GetScene())
    layers = next((node for node in nodes if node.GetLayoutName() == sliceNode.GetLayoutName()), None)
    if layers is None:
        return None
    background = sliceNode.GetScene().GetNodeByID(layers.GetBackgroundVolumeID() or "")
    isInFront = layers.GetForegroundOpacity() > 0.0 and layers.GetForegroundVolumeID() == volumeNode.GetID()
    return None if background is volumeNode or isInFront else background


def isOnScreen(volumeNode: Any) -> bool:
    """Whether any slice view has the volume as its background."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", volumeNode.GetScene())
    return any(node.GetBackgroundVolumeID() == volumeNode.GetID() for node in nodes)


def showVolume(volumeNode: Any) -> None:
    """Make a volume the background of all slice views, which are fitted to it."""
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(volumeNode.GetID())
    logic.PropagateBackgroundVolumeSelection(1)


class SlicesBefore:
    """What the slice views show at a moment, to be given back later: volumes, place and zoom."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._layers = [
            (node, (node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), node.GetForegroundOpacity()))
            for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene)
        ]
        self._slices = {
            node.GetLayoutName(): (node, toArray(node.GetSliceToRAS()), node.GetFieldOfView(), node.GetXYZOrigin())
            for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene)
        }

    def giveBack(self, shownSince: Any) -> None:
        """Show it again wherever this volume is still the background; other views are the user's."""
        for node, (background, foreground, opacity) in self._layers:
            if node.GetScene() is not self._scene or node.GetBackgroundVolumeID() != shownSince.GetID():
                continue
            node.SetBackgroundVolumeID(background if self._scene.GetNodeByID(background or "") else None)
            node.SetForegroundVolumeID(foreground if self._scene.GetNodeByID(foreground or "") else None)
            node.SetForegroundOpacity(opacity)
            if node.GetLayoutName() in self._slices:
                sliceNode, matrix, field, origin = self._slices[node.GetLayoutName()]
                sliceNode.GetSliceToRAS().DeepCopy(toVtk(matrix))
                sliceNode.UpdateMatrices()
                sliceNode.SetFieldOfView(*field)
                sliceNode.SetXYZOrigin(*origin)


def showNodulesOf(volumeNode: Any) -> list[Any]:
    """Hide the nodules and points of other volumes, and bring back what was hidden of this one so.

    What the user has hidden stays hidden. Only nodes that this module made or worked on count.

    Returns:
        the nodes that were hidden now.
    """
    scene = volumeNode.GetScene()
    lists = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode", scene)
        if node.GetNodeReference(VOLUME_ROLE) is not None or node.GetNodeReference(SEGMENTATION_ROLE) is not None
    ]
    clicked = [node.GetNodeReference(SEGMENTATION_ROLE) for node in lists]
    segmentations = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene)
        if node.GetAttribute(OWN_ATTRIBUTE) or node in clicked
    ]
    owners = [(node, ownerOf(node)) for node in segmentations]
    owners += [
        (node, node.GetNodeReference(VOLUME_ROLE) or ownerOf(node.GetNodeReference(SEGMENTATION_ROLE)))
        for node in lists
    ]
    showAgain([node for node, owner in owners if owner in (None, volumeNode)])
    others = [node for node, owner in owners if owner not in (None, volumeNode) and node.GetDisplayVisibility()]
    for node in others:
        node.SetDisplayVisibility(False)
        node.SetAttribute(_HIDDEN, "1")
    return others


def showAgain(nodes: Sequence[Any]) -> None:
    """Bring back those of the nodes that :func:`showNodulesOf` has hidden and that are still in the scene."""
    for node in nodes:
        if node.GetScene() is not None and node.GetAttribute(_HIDDEN):
            node.SetDisplayVisibility(True)
            node.RemoveAttribute(_HIDDEN)
