"""Reads marks of nodules from other nodes of the scene, and exports nodules as nodes that other modules understand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from ..files.mark_files import Mark
from ..files.output_files import safe_name
from ..inference.geometry import block_slices, label_map
from ..translation import tr as _
from ..worker.requests import FoundLungs, Report, RequestCancelled
from .beside_volume import createBeside, placingStays
from .mask_block import Index, MaskBlock, tightBlock
from .nodule_editor import LEAST_VOXELS
from .nodule_segmentation import NoduleSegmentation, createLungs
from .open_volume import OpenVolume
from .segment_writer import SegmentLabelmap, SegmentWriter, labelmapVoxels
from .volume_geometry import Affine, SceneError, VolumeGeometry, toArray, toVtk, toWorld, transformPoints

#: Marks the nodes that were exported.
EXPORT_ATTRIBUTE = "SAMMed3D.Export"
#: What a nodule's crop shows around it.
CROP_MARGIN_MM = 15.0


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
    for segmentId in NoduleSegmentation(node).ids:
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


def exportPoints(volume: OpenVolume, chosen: Sequence[str] = ()) -> Any:
    """Makes a point list with a point deep inside each nodule, which bears its name. Raises SceneError.

    ``chosen`` here and below: segment IDs, default all nodules.
    """
    nodules = _nodules(volume, chosen)
    with placingStays(volume.volumeNode.GetScene()):
        node = createBeside(volume.volumeNode, "vtkMRMLMarkupsFiducialNode", EXPORT_ATTRIBUTE, "nodule points")
    for segmentId, block in nodules:
        index = node.AddControlPointWorld(*_markIn(block, volume.geometry.ijkToWorld).ras)
        node.SetNthControlPointLabel(index, volume.segmentation.segment(segmentId).GetName() or "")
    return node


def exportLabelMap(volume: OpenVolume, chosen: Sequence[str] = ()) -> Any:
    """Makes a label map in the CT's voxels: 1, 2, ... in the order of the list. Raises SceneError."""
    nodules, geometry = _nodules(volume, chosen), volume.geometry
    labels = label_map({label: block for label, (_id, block) in enumerate(nodules, start=1)}, geometry.shapeKji)
    node = createBeside(volume.volumeNode, "vtkMRMLLabelMapVolumeNode", EXPORT_ATTRIBUTE, "nodule labels")
    image = vtk.vtkImageData()
    image.SetDimensions(*geometry.shapeKji[::-1])
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(labels.reshape(-1), deep=True))
    node.SetIJKToRASMatrix(toVtk(geometry.ijkToRas))
    node.SetAndObserveImageData(image)
    return node


@dataclass(frozen=True, eq=False)
class NoduleCrop:
    """A nodule with its surroundings.

    Attributes:
        name: of its two files, safe on every system.
        image_kji, mask_kji: copies of the CT's and the nodule's voxels.
        ijkToRas: (4, 4) of both, in the CT's own RAS as its file states them.
    """

    name: str
    image_kji: NDArray
    mask_kji: NDArray[np.uint8]
    ijkToRas: Affine


def cropsOf(volume: OpenVolume, chosen: Sequence[str] = ()) -> list[NoduleCrop]:
    """Cuts out the nodules, each with :data:`CROP_MARGIN_MM` around it as far as the CT reaches. Raises SceneError.

    Nodules too small to be measured are left out.
    """
    geometry, array, crops = volume.geometry, volume.geometry.array(), []
    margin = np.ceil(CROP_MARGIN_MM / np.linalg.norm(geometry.ijkToRas[:3, :3], axis=0))[::-1].astype(int)
    for number, (segmentId, block) in enumerate(_nodules(volume, chosen), start=1):
        if np.count_nonzero(block.mask) < LEAST_VOXELS:
            continue
        low = np.maximum(np.array(block.offset_kji) - margin, 0)
        high = np.minimum(np.array(block.offset_kji) + block.mask.shape + margin, geometry.shapeKji)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        mask = np.zeros(high - low, np.uint8)
        mask[block_slices(MaskBlock(block.mask, _index(block.offset_kji - low)))] = block.mask
        matrix = geometry.ijkToRas.copy()
        matrix[:3, 3] = transformPoints(geometry.ijkToRas, low[::-1])
        name = safe_name(f"{number:02d}_{volume.segmentation.segment(segmentId).GetName() or ''}", "nodule")
        crops.append(NoduleCrop(name, array[box].copy(), mask, matrix))
    if not crops:
        raise SceneError(_("No nodule is large enough to be measured: there is nothing to export."))
    return crops


def writeCrops(folder: Path, crops: Sequence[NoduleCrop], report: Report) -> None:
    """Writes NAME_image.nii.gz and NAME_mask.nii.gz of each crop into a new folder, whole or not at all.

    Raises:
        InputError: the folder cannot be written, or is there already.
        RequestCancelled: ``report`` said no; nothing is left behind.
    """
    from ..files.output_files import new_folder
    from ..files.segmentation_io import write_segmentation
    from ..files.volume_io import Volume, write_volume

    with new_folder(folder) as part:
        for number, crop in enumerate(crops):
            if not report(number, len(crops), ""):
                raise RequestCancelled
            path = part / f"{crop.name}_image.nii.gz"
            write_volume(path, Volume(crop.image_kji, crop.ijkToRas, crop.name, path))
            write_segmentation(part / f"{crop.name}_mask.nii.gz", crop.mask_kji, crop.ijkToRas)


def freeFolder(parent: Path, volumeNode: Any) -> Path:
    """Names a folder in ``parent``, not there yet, for the crops of a volume."""
    base = safe_name(f"{volumeNode.GetName() or ''} nodules", "nodules")
    path, number = parent / base, 2
    while path.exists():
        path, number = parent / f"{base}-{number}", number + 1
    return path


def showLungs(volume: OpenVolume, lungs: FoundLungs) -> Any:
    """Puts the lungs into the volume's segmentation for them, never taken for nodules. Raises SceneError."""
    node, segmentId = createLungs(volume.volumeNode)
    SegmentWriter(node, volume.volumeNode).write(segmentId, MaskBlock(lungs.mask, lungs.offset_kji))
    return node


def _index(values: NDArray) -> Index:
    k, j, i = (int(value) for value in values)
    return k, j, i


def _nodules(volume: OpenVolume, chosen: Sequence[str] = ()) -> list[tuple[str, MaskBlock]]:
    """Segment ID and mask of the nodules that hold any voxel, in the order of the list."""
    ids = [one for one in volume.segmentation.ids if one not in volume.concealed] if volume.nodules else []
    ids = [one for one in ids if not chosen or one in chosen]
    blocks = [(one, volume.writer.read(one)) for one in ids]
    filled = [(one, tightBlock(block.mask, block.offset_kji)) for one, block in blocks if not block.isEmpty]
    if not filled:
        raise SceneError(_("There are no nodules to export yet."))
    return filled
