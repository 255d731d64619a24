"""The one owner of labelmaps: every mask that goes into a segment or comes out of one passes here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from .errors import SceneError
from .mask_block import EMPTY_BLOCK, MaskBlock, labeledBlock, sameMask, tightBlock
from .matrices import toVtk
from .segment_labelmap import BINARY_LABELMAP, SegmentLabelmap, labelmapVoxels, segmentationToWorld
from .volume_geometry import VolumeGeometry

__all__ = ["MaskBlock", "SegmentWriter"]

CLOSED_SURFACE = "Closed surface"


@dataclass(frozen=True)
class _Written:
    block: MaskBlock
    time: int


class SegmentWriter:
    """Writes and reads segments as small blocks of a volume's voxels.

    Only the block's own extent is written, into a layer that no other segment shares: 0.2 to 2 ms instead of about a
    second for a whole CT, and a neighbor can never be erased. Volume and segmentation may be under different linear
    transforms: the block is stored where it lies in the world.

    Raises:
        SceneError: no segmentation, one made of surfaces, or a volume that VolumeGeometry refuses.
    """

    def __init__(self, segmentationNode: Any, volumeNode: Any) -> None:
        if segmentationNode is None or not segmentationNode.IsA("vtkMRMLSegmentationNode"):
            raise SceneError("No segmentation is selected. Select one or create a new one.")
        VolumeGeometry(volumeNode)
        segmentation = segmentationNode.GetSegmentation()
        if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
            raise SceneError(
                f"Segmentation '{segmentationNode.GetName()}' is stored as {segmentation.GetSourceRepresentationName()}"
                ". Make 'Binary labelmap' its source representation (Segmentations module) or create a new one."
            )
        self.segmentationNode = segmentationNode
        self.volumeNode = volumeNode
        self._written: dict[str, _Written] = {}

    def write(self, segmentId: str, block: MaskBlock, surface: bool = True) -> None:
        """Replace the whole segment by a block (anything with ``mask`` and ``offset_kji``); nothing inside clears it.

        Voxels outside the volume are cut off.

        Args:
            segmentId: the segment.
            block: its voxels.
            surface: where closed surfaces are shown, bring this one up to date too (10 ms and more); else it stays as
                it is until :meth:`updateSurface`.

        Raises:
            SceneError: unknown segment, or a non-linear transform.
        """
        geometry = VolumeGeometry(self.volumeNode)
        segmentation = self.segmentationNode.GetSegmentation()
        segment = self._segment(segmentId)
        tight = _clipped(tightBlock(block.mask, block.offset_kji), geometry.shapeKji)
        toSegmentation = np.linalg.inv(segmentationToWorld(self.segmentationNode)) @ geometry.ijkToWorld
        _leaveSharedLayer(segmentation, segmentId)
        surfaces, shown, later = self._hasSurfaces(), segment.GetRepresentation(CLOSED_SURFACE), None
        if surfaces and (tight.isEmpty or not surface):
            # VTK's surface filter reports an error for a labelmap without any voxel inside.
            later = vtk.vtkPolyData() if tight.isEmpty or shown is None else shown
            segment.RemoveRepresentation(CLOSED_SURFACE)
        elif surfaces and shown is None:
            # Slicer brings up to date what is there; an empty surface will do.
            segment.AddRepresentation(CLOSED_SURFACE, vtk.vtkPolyData())
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        image = _orientedImage(tight, toSegmentation)
        if not logic.SetBinaryLabelmapToSegment(image, self.segmentationNode, segmentId, logic.MODE_REPLACE):
            raise SceneError(f"Segment '{segment.GetName()}' could not be written. Remove it and click again.")
        if later is not None:
            segment.AddRepresentation(CLOSED_SURFACE, later)
            segmentation.InvokeEvent(segmentation.RepresentationModified, segmentId)
        self._written[segmentId] = _Written(tight, self._labelmapTime(segmentId))

    def read(self, segmentId: str) -> MaskBlock:
        """The segment as tight block in the volume's voxels, whatever lattice its labelmap has.

        Raises:
            SceneError: unknown segment, or a non-linear transform.
        """
        self._segment(segmentId)
        return SegmentLabelmap(self.segmentationNode, segmentId, VolumeGeometry(self.volumeNode)).block()

    def wasEdited(self, segmentId: str) -> bool:
        """Whether somebody else changed the segment since the last write here.

        A segment that was never written here counts as edited when it is not empty.

        Raises:
            SceneError: unknown segment, or a non-linear transform.
        """
        self._segment(segmentId)
        last = self._written.get(segmentId)
        time = self._labelmapTime(segmentId)
        if last is not None and last.time == time:
            return False
        expected = EMPTY_BLOCK if last is None else last.block
        if not sameMask(expected, self.read(segmentId)):
            return True
        # Touched but not changed: the next look is cheap again.
        self._written[segmentId] = _Written(expected, time)
        return False

    def withoutOthers(self, segmentId: str, block: MaskBlock) -> MaskBlock:
        """The block without the voxels that belong to other segments. Raises SceneError for a non-linear transform."""
        geometry = VolumeGeometry(self.volumeNode)
        segmentation = self.segmentationNode.GetSegmentation()
        free = np.asarray(block.mask) != 0
        for other in segmentation.GetSegmentIDs():
            if other != segmentId:
                taken = SegmentLabelmap(self.segmentationNode, other, geometry).region(block.offset_kji, free.shape)
                free &= ~taken
        return tightBlock(free, block.offset_kji)

    def showSurfaces(self, on: bool) -> None:
        """Make or drop the closed surfaces of all segments. While they exist, each write updates its own (about 10 ms).

        Raises:
            SceneError: the surfaces could not be made.
        """
        node = self.segmentationNode
        if not on:
            node.RemoveClosedSurfaceRepresentation()
            return
        segmentation = node.GetSegmentation()
        empty = [segmentId for segmentId in segmentation.GetSegmentIDs() if self.read(segmentId).isEmpty]
        for segmentId in empty:
            segmentation.GetSegment(segmentId).AddRepresentation(CLOSED_SURFACE, vtk.vtkPolyData())
        if len(empty) < segmentation.GetNumberOfSegments() and not node.CreateClosedSurfaceRepresentation():
            raise SceneError("The 3D surfaces could not be made. Check that the segments are not damaged.")
        display = node.GetDisplayNode()
        if display is not None:
            display.SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
            display.SetVisibility3D(True)

    def updateSurface(self, segmentId: str) -> None:
        """Make one segment's closed surface, or bring it up to date, from what was last written here.

        Segments that others have changed keep the surface that Slicer made of them.

        Raises:
            SceneError: unknown segment, or a non-linear transform.
        """
        segment = self._segment(segmentId)
        if segmentId in self._written and not self.wasEdited(segmentId):
            if segment.GetRepresentation(CLOSED_SURFACE) is None:
                segment.AddRepresentation(CLOSED_SURFACE, vtk.vtkPolyData())
            self.write(segmentId, self._written[segmentId].block)

    def _segment(self, segmentId: str) -> Any:
        segment = self.segmentationNode.GetSegmentation().GetSegment(segmentId)
        if segment is None:
            raise SceneError(f"Segment '{segmentId}' is not there any more. Add a new nodule.")
        return segment

    def _hasSurfaces(self) -> bool:
        segmentation = self.segmentationNode.GetSegmentation()
        count = segmentation.GetNumberOfSegments()
        return any(segmentation.GetNthSegment(n).GetRepresentation(CLOSED_SURFACE) is not None for n in range(count))

    def _labelmapTime(self, segmentId: str) -> int:
        image = self._segment(segmentId).GetRepresentation(BINARY_LABELMAP)
        return -1 if image is None else image.GetMTime()


def _leaveSharedLayer(segmentation: Any, segmentId: str) -> None:
    """Give a segment that shares its labelmap an empty one of its own; reopened scenes have few layers.

    The same as vtkSegmentation's SeparateSegmentLabelmap for a segment that is about to be replaced, in a tenth of the
    time: that function copies the whole layer twice.
    """
    segment = segmentation.GetSegment(segmentId)
    image = segment.GetRepresentation(BINARY_LABELMAP)
    others = (segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments()))
    if image is None or not any(
        other is not segment and other.GetRepresentation(BINARY_LABELMAP) is image for other in others
    ):
        return
    voxels = labelmapVoxels(image)
    if voxels is not None:
        label = segment.GetLabelValue()
        old = labeledBlock(voxels, label, (0, 0, 0))
        part = voxels[tuple(slice(o, o + n) for o, n in zip(old.offset_kji, old.mask.shape, strict=True))]
        # Only this segment's voxels change, so that nobody who sees the others has to be told.
        part[part == label] = 0
    segment.AddRepresentation(BINARY_LABELMAP, slicer.vtkOrientedImageData())
    segment.SetLabelValue(1)


def _clipped(block: MaskBlock, shapeKji: tuple[int, int, int]) -> MaskBlock:
    parts = []
    for offset, count, size in zip(block.offset_kji, block.mask.shape, shapeKji, strict=True):
        parts.append(slice(max(0, -offset), max(0, min(count, size - offset))))
    if all(part == slice(0, count) for part, count in zip(parts, block.mask.shape, strict=True)):
        return block
    offset = tuple(max(o, 0) for o in block.offset_kji)
    return tightBlock(block.mask[tuple(parts)], offset)


def _orientedImage(block: MaskBlock, ijkToSegmentation: np.ndarray) -> Any:
    (k, j, i), (nk, nj, ni) = block.offset_kji, block.mask.shape
    image = slicer.vtkOrientedImageData()
    image.SetExtent(i, i + ni - 1, j, j + nj - 1, k, k + nk - 1)
    image.SetImageToWorldMatrix(toVtk(ijkToSegmentation))
    voxels = np.ascontiguousarray(block.mask, dtype=np.uint8).reshape(-1)
    image.GetPointData().SetScalars(
        numpy_support.numpy_to_vtk(voxels, deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
    )
    return image
