"""Reads marks of nodules from other nodes of the scene, and exports nodules as nodes that other modules understand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import vtk
from vtk.util import numpy_support

from ..files.mark_files import Mark
from ..inference.geometry import label_map
from ..translation import tr as _
from .beside_volume import createBeside
from .mask_block import MaskBlock, tightBlock
from .open_volume import OpenVolume
from .segment_writer import SegmentLabelmap, labelmapVoxels
from .volume_geometry import Affine, SceneError, VolumeGeometry, toArray, toVtk, toWorld, transformPoints

#: Marks the nodes that were exported.
EXPORT_ATTRIBUTE = "SAMMed3D.Export"


def marksOf(node: Any, volumeNode: Any) -> list[Mark]:
    """Returns the points of a list, or one point deep inside each segment or label. World RAS.

    Raises:
        SceneError: a node that holds no marks, or cannot be read.
    """
    if node is None:
        raise SceneError(_("Choose a point list, a segmentation or a label map first."))
    if node.IsA("vtkMRMLMarkupsFiducialNode"):
        marks = [
            Mark(
                tuple(node.GetNthControlPointPositionWorld(n)),
                bool(node.GetNthControlPointSelected(n)),
                node.GetNthControlPointDescription(n) or "",
            )
            for n in range(node.GetNumberOfControlPoints())
            if node.GetNthControlPointPositionStatus(n) == node.PositionDefined
        ]
    elif node.IsA("vtkMRMLSegmentationNode"):
        marks = list(_marksOfSegments(node, volumeNode))
    elif node.IsA("vtkMRMLLabelMapVolumeNode"):
        marks = list(_marksOfLabels(node))
    else:
        raise SceneError(_("{name} holds no marks.").format(name=node.GetName()))
    if not marks:
        raise SceneError(_("{name} holds no marks.").format(name=node.GetName()))
    return marks


def _marksOfSegments(node: Any, volumeNode: Any) -> Iterator[Mark]:
    geometry = VolumeGeometry(volumeNode)
    if not node.GetSegmentation().CreateRepresentation("Binary labelmap"):  # of DICOM RT outlines, for example
        raise SceneError(_("{name} could not be turned into voxels.").format(name=node.GetName()))
    for segmentId in node.GetSegmentation().GetSegmentIDs():
        block = SegmentLabelmap(node, segmentId, geometry).block()
        if not block.isEmpty:
            yield _markIn(block, geometry.ijkToWorld)


def _marksOfLabels(node: Any) -> Iterator[Mark]:
    from scipy import ndimage

    labels, rasToWorld = labelmapVoxels(node.GetImageData()), toWorld(node)
    if labels is None or rasToWorld is None:
        raise SceneError(
            _("{name} has no voxels, or a non-linear transform: harden it first.").format(name=node.GetName())
        )
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    whole = np.asarray(labels).astype(np.int32)
    for label, box in enumerate(ndimage.find_objects(whole), start=1):
        if box is not None:
            k, j, i = (int(part.start) for part in box)
            yield _markIn(MaskBlock((whole[box] == label).astype(np.uint8), (k, j, i)), rasToWorld @ toArray(matrix))


def _markIn(block: MaskBlock, ijkToWorld: Affine) -> Mark:
    """Makes a mark at the most interior voxel of a mask; of several, at the one nearest to its centroid."""
    from ..inference.mask_regions import most_interior_voxel

    k_mm, j_mm, i_mm = np.linalg.norm(ijkToWorld[:3, :3], axis=0)[::-1].tolist()
    kji = np.add(most_interior_voxel(block.mask, (k_mm, j_mm, i_mm)), block.offset_kji)
    r, a, s = transformPoints(ijkToWorld, kji[::-1]).tolist()
    return Mark((r, a, s))


def exportPoints(volume: OpenVolume) -> Any:
    """Makes a point list with a point deep inside each nodule, which bears its name. Raises SceneError."""
    nodules = _nodules(volume)
    node = createBeside(volume.volumeNode, "vtkMRMLMarkupsFiducialNode", EXPORT_ATTRIBUTE, "nodule points")
    for segmentId, block in nodules:
        index = node.AddControlPointWorld(*_markIn(block, volume.geometry.ijkToWorld).ras)
        node.SetNthControlPointLabel(index, volume.segmentation.segment(segmentId).GetName() or "")
    return node


def exportLabelMap(volume: OpenVolume) -> Any:
    """Makes a label map in the CT's voxels: 1, 2, ... in the order of the list. Raises SceneError."""
    nodules, geometry = _nodules(volume), volume.geometry
    labels = label_map({label: block for label, (_id, block) in enumerate(nodules, start=1)}, geometry.shapeKji)
    node = createBeside(volume.volumeNode, "vtkMRMLLabelMapVolumeNode", EXPORT_ATTRIBUTE, "nodule labels")
    image = vtk.vtkImageData()
    image.SetDimensions(*geometry.shapeKji[::-1])
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(labels.reshape(-1), deep=True))
    node.SetIJKToRASMatrix(toVtk(geometry.ijkToRas))
    node.SetAndObserveImageData(image)
    return node


def _nodules(volume: OpenVolume) -> list[tuple[str, MaskBlock]]:
    """Segment ID and mask of the nodules that hold any voxel, in the order of the list."""
    ids = [one for one in volume.segmentation.ids if one not in volume.concealed] if volume.nodules else []
    blocks = [(one, volume.writer.read(one)) for one in ids]
    filled = [(one, tightBlock(block.mask, block.offset_kji)) for one, block in blocks if not block.isEmpty]
    if not filled:
        raise SceneError(_("There are no nodules to export yet."))
    return filled
