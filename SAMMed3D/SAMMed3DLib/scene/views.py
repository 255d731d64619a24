"""Sets what the views show: a place, a volume as chest radiologists expect it, and only that volume's nodules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray

from .beside_volume import ownerOf
from .nodule_segmentation import LUNGS_ATTRIBUTE, OWN_ATTRIBUTE
from .prompt_store import SEGMENTATION_ROLE, VOLUME_ROLE
from .volume_geometry import SceneError, VolumeGeometry, toArray, toVtk

#: Marks what was hidden because another volume was chosen.
_HIDDEN = "SAMMed3D.Hidden"
#: Marks volumes that were opened here once; and the window that a user had set by hand.
_OPENED, _OWN_WINDOW = "SAMMed3D.Opened", "SAMMed3D.OwnWindow"
#: Window and level, HU.
LUNG, MEDIASTINUM = (1500.0, -500.0), (400.0, 40.0)
#: Thickness of a slab of maximum intensity, which shows vessels as lines and nodules as dots.
SLAB_MM = 10.0
#: Body and lung when a chest is looked for, HU; and about how far apart voxels are looked at, mm.
_BODY_HU, _LUNG_HU, _STRIDE_MM = -300.0, -500.0, 5.0
#: Planes that hold less body than this share of the fullest one are table and noise; a chest holds more air than that.
_LEAST_SHARE, _LEAST_AIR = 0.1, 0.05


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


def zoomIn(fieldMm: float, scene: Any = None, exactly: bool = False) -> None:
    """Let slice views that show more than twice as much show this field of view, in mm; nearer ones stay.

    Args:
        fieldMm: the shorter side.
        scene: default: slicer.mrmlScene.
        exactly: all views.
    """
    scene = slicer.mrmlScene if scene is None else scene
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene):
        width, height, depth = node.GetFieldOfView()
        if exactly or min(width, height) > 2.0 * fieldMm:
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


# -- windows, fit, slab ----------------------------------------------------------------------------------------------


def openChest(volumeNode: Any) -> None:
    """Shows a newly opened chest as readers expect it: lung window, fitted to the body, no lines of other slices.

    It does so once a volume: later the views stay as the user has left them. A window that was set by hand stays, and
    so do volumes that show no lung.
    """
    display = volumeNode.GetDisplayNode()
    if display is None or volumeNode.GetAttribute(_OPENED):
        return
    volumeNode.SetAttribute(_OPENED, "1")
    try:
        if _bodyBox(volumeNode) is None:
            return
    except SceneError:  # others say so
        return
    for node in slicer.util.getNodesByClass("vtkMRMLSliceDisplayNode", volumeNode.GetScene()):
        node.SetIntersectingSlicesVisibility(False)
    if not _isByHand(display):
        _setWindow(display, LUNG)
    fitChest(volumeNode)


def nextWindow(volumeNode: Any) -> tuple[float, float] | None:
    """Switches from the lung window to the mediastinal one, then to the user's own where there is one, and around.

    Returns:
        window and level that are shown from now on; None for a volume that is not displayed.
    """
    display = volumeNode.GetDisplayNode()
    if display is None:
        return None
    now = (display.GetWindow(), display.GetLevel())
    own = display.GetAttribute(_OWN_WINDOW)
    if now == LUNG:
        wanted = MEDIASTINUM
    elif now == MEDIASTINUM and own:
        width, _comma, level = own.partition(",")
        wanted = (float(width), float(level))
    else:
        wanted = LUNG
        if now != MEDIASTINUM and _isByHand(display):
            display.SetAttribute(_OWN_WINDOW, f"{now[0]},{now[1]}")
    _setWindow(display, wanted)
    return wanted


def fitChest(volumeNode: Any) -> None:
    """Fit all slice views to the body that a volume shows, or to the whole volume where there is none.

    The slices stay; centers and fields of view change.
    """
    try:
        geometry, box = VolumeGeometry(volumeNode), _bodyBox(volumeNode)
    except SceneError:
        return
    low, high = (np.zeros(3), np.array(geometry.shapeKji[::-1]) - 1.0) if box is None else box
    corners = np.array([[*np.where(pick, high, low), 1.0] for pick in np.ndindex(2, 2, 2)]) @ geometry.ijkToWorld.T
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", volumeNode.GetScene()):
        toWorld = toArray(node.GetSliceToRAS())
        inSlice = corners @ np.linalg.inv(toWorld).T
        extent, middle = np.ptp(inSlice[:, :2], axis=0), (inSlice[:, :2].max(axis=0) + inSlice[:, :2].min(axis=0)) / 2
        columns, rows, _one = node.GetDimensions()
        width = max(extent[0], extent[1] * columns / max(rows, 1), 1.0)
        toWorld[:, 3] = toWorld @ [*middle, 0.0, 1.0]
        node.GetSliceToRAS().DeepCopy(toVtk(toWorld))
        node.UpdateMatrices()
        node.SetXYZOrigin(0.0, 0.0, 0.0)
        node.SetFieldOfView(width, width * rows / max(columns, 1), node.GetFieldOfView()[2])


def setSlab(on: bool, scene: Any = None) -> None:
    """Show slabs of maximum intensity in the axial views, or single slices again."""
    scene = slicer.mrmlScene if scene is None else scene
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene):
        if on and not node.GetOrientation().startswith("Axial"):
            continue
        if on:
            node.SetSlabReconstructionType(vtk.VTK_IMAGE_SLAB_MAX)
            node.SetSlabReconstructionThickness(SLAB_MM)
        node.SetSlabReconstructionEnabled(on)


def seenPoint(volumeNode: Any, sliceNode: Any, ras: Sequence[float]) -> list[float]:
    """The world point that is seen at a point of a slice: in a slab of maximum intensity the brightest one behind it.

    Raises:
        SceneError: as VolumeGeometry.
    """
    point = np.array([float(x) for x in ras])
    isMaximum = sliceNode.GetSlabReconstructionType() == vtk.VTK_IMAGE_SLAB_MAX
    if not sliceNode.GetSlabReconstructionEnabled() or not isMaximum:
        return point.tolist()
    geometry = VolumeGeometry(volumeNode)
    normal = toArray(sliceNode.GetSliceToRAS())[:3, 2]
    reach = sliceNode.GetSlabReconstructionThickness() / 2.0
    depths = np.linspace(-reach, reach, 2 * max(1, round(4.0 * reach)) + 1)
    line = point + depths[np.argsort(np.abs(depths), kind="stable"), None] * normal  # of equals the nearest
    ijk = np.floor(geometry.worldToIjk(line) + 0.5).astype(int)
    inside = np.all((ijk >= 0) & (ijk < geometry.shapeKji[::-1]), axis=1)
    if not inside.any():
        return point.tolist()
    values = geometry.array()[tuple(ijk[inside, ::-1].T)].astype(np.float64)
    found: list[float] = line[inside][np.nanargmax(np.where(np.isnan(values), -np.inf, values))].tolist()
    return found


def fieldsOfView(scene: Any = None) -> dict[str, tuple[float, float, float]]:
    """Returns the field of view of each slice view, by its node's ID."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode", slicer.mrmlScene if scene is None else scene)
    return {node.GetID(): node.GetFieldOfView() for node in nodes}


def setFieldsOfView(fields: Mapping[str, tuple[float, float, float]], scene: Any = None) -> None:
    """Restores what :func:`fieldsOfView` returned; views that are gone are ignored."""
    scene = slicer.mrmlScene if scene is None else scene
    for nodeId, field in fields.items():
        if (node := scene.GetNodeByID(nodeId)) is not None:
            node.SetFieldOfView(*field)


def _setWindow(display: Any, wanted: tuple[float, float]) -> None:
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(*wanted)


def _isByHand(display: Any) -> bool:
    """Whether neither Slicer nor the file has chosen the window."""
    now = (display.GetWindow(), display.GetLevel())
    count = display.GetNumberOfWindowLevelPresets()
    presets = [(display.GetWindowPreset(n), display.GetLevelPreset(n)) for n in range(count)]
    return not display.GetAutoWindowLevel() and now not in (*presets, LUNG, MEDIASTINUM)


def _bodyBox(volumeNode: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The first and last voxel (i, j, k) of the body in a CT of the chest; None where no lung is seen in a body."""
    geometry = VolumeGeometry(volumeNode)
    spacing = np.linalg.norm(geometry.ijkToRas[:3, :3], axis=0)[::-1]
    step = np.maximum(1, np.round(_STRIDE_MM / spacing)).astype(int)
    sample = geometry.array()[tuple(slice(None, None, int(n)) for n in step)]
    body = sample > _BODY_HU
    if not body.any() or np.mean(sample < _LUNG_HU) < _LEAST_AIR:
        return None
    box = []
    for axis in range(3):
        profile = body.sum(axis=tuple(other for other in range(3) if other != axis))
        full = np.flatnonzero(profile > _LEAST_SHARE * profile.max()) * step[axis]
        box.append((max(0, full[0] - step[axis] + 1), min(geometry.shapeKji[axis] - 1, full[-1] + step[axis] - 1)))
    low, high = np.array(box[::-1], dtype=np.float64).T
    return low, high


# -- what was shown before -------------------------------------------------------------------------------------------


class SlicesBefore:
    """The slice views at one moment, to be restored later: volumes, place and zoom."""

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
        """Restores the earlier views where this volume is still the background, but none that the user has changed."""
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
        if node.GetAttribute(OWN_ATTRIBUTE) or node.GetAttribute(LUNGS_ATTRIBUTE) or node in clicked
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
