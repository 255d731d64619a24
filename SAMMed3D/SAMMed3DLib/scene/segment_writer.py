"""The one owner of labelmaps: every mask that goes into a segment or comes out of one passes here.

Labelmaps need not match the volume: the Segment Editor changes their extent and may put several segments into one
layer, an imported segmentation has spacings of its own, and the segmentation may be under another transform.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from .mask_block import EMPTY_BLOCK, Index, MaskBlock, labeledBlock, sameMask, tightBlock
from .nodule_segmentation import NoduleSegmentation
from .volume_geometry import Affine, SceneError, VolumeGeometry, toArray, toVtk, toWorld, transformPoints

__all__ = ["MaskBlock", "SegmentWriter"]

BINARY_LABELMAP, CLOSED_SURFACE = "Binary labelmap", "Closed surface"
#: Two lattices whose voxels lie within this part of a voxel of each other are the same.
_SAME_LATTICE = 0.01


def segmentationToWorld(segmentationNode: Any) -> Affine:
    """The matrix from a segmentation's coordinates to the world. Raises SceneError for a non-linear transform."""
    matrix = toWorld(segmentationNode)
    if matrix is None:
        raise SceneError(
            f"Segmentation '{segmentationNode.GetName()}' is under a non-linear transform. Harden the transform "
            "(Transforms module) and try again."
        )
    return matrix


class SegmentLabelmap:
    """The voxels of one segment, to be read on the lattice of a volume.

    Raises:
        SceneError: the segmentation is under a non-linear transform.
    """

    def __init__(self, segmentationNode: Any, segmentId: str, geometry: VolumeGeometry) -> None:
        segment: Any = segmentationNode.GetSegmentation().GetSegment(segmentId)
        image: Any = segment.GetRepresentation(BINARY_LABELMAP) if segment is not None else None
        self._geometry = geometry
        voxels = labelmapVoxels(image)
        self.isEmpty = voxels is None
        if voxels is None:
            return
        self._array = voxels
        self._label = segment.GetLabelValue()
        i, j, k = image.GetExtent()[::2]
        self._start: Index = (k, j, i)
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        self._toVolume: Affine = (
            np.linalg.inv(geometry.ijkToWorld) @ segmentationToWorld(segmentationNode) @ toArray(matrix)
        )
        self._shift = self._latticeShift()

    @property
    def hasVoxels(self) -> bool:
        """Whether the segment holds any voxel, inside of the volume or not."""
        return not self.isEmpty and bool((self._array == self._label).any())

    def block(self) -> MaskBlock:
        """The whole segment as tight block in the volume's voxels; what lies outside the volume is left out."""
        if self.isEmpty:
            return EMPTY_BLOCK
        own = labeledBlock(self._array, self._label, self._start)
        if own.isEmpty:
            return EMPTY_BLOCK
        low = np.array(own.offset_kji[::-1], dtype=np.float64) - 0.5
        corners = np.array(np.meshgrid(*zip(low, low + own.mask.shape[::-1], strict=True))).reshape(3, -1).T
        reached = transformPoints(self._toVolume, corners)
        first = np.maximum(np.floor(reached.min(axis=0) + 0.5 - _SAME_LATTICE).astype(int), 0)
        last = np.minimum(np.floor(reached.max(axis=0) + 0.5).astype(int), np.array(self._geometry.shapeKji[::-1]) - 1)
        if np.any(last < first):
            return EMPTY_BLOCK
        offset = _index(first[::-1])
        return tightBlock(self.region(offset, _index((last - first + 1)[::-1])), offset)

    def region(self, offsetKji: Index, shapeKji: Index) -> NDArray[np.bool_]:
        """Returns which of the volume's voxels in a box belong to the segment: bool ``shapeKji``."""
        if self.isEmpty:
            return np.zeros(shapeKji, dtype=bool)
        if self._shift is not None:
            return self._cut(_index(np.subtract(offsetKji, self._shift)), shapeKji)
        return self._sample(offsetKji, shapeKji)

    def _latticeShift(self) -> Index | None:
        """(k, j, i) from the labelmap's index to the volume's where both have the same lattice, else None."""
        low = np.array(self._start[::-1], dtype=np.float64)
        corners = np.array([low, low + np.array(self._array.shape[::-1]) - 1.0])
        steps = transformPoints(self._toVolume, corners) - corners
        shift = np.round(steps[0])
        close = np.abs(self._toVolume[:3, :3] - np.eye(3)).max() < 1e-3
        if not close or np.abs(steps - shift).max() > _SAME_LATTICE:
            return None
        return _index(shift[::-1])

    def _cut(self, offsetKji: Index, shapeKji: Index) -> NDArray[np.bool_]:
        """A box of the labelmap's own voxels; outside its extent there is nothing."""
        result = np.zeros(shapeKji, dtype=bool)
        source, target = [], []
        for offset, count, start, size in zip(offsetKji, shapeKji, self._start, self._array.shape, strict=True):
            low, high = max(offset, start), min(offset + count, start + size)
            if low >= high:
                return result
            source.append(slice(low - start, high - start))
            target.append(slice(low - offset, high - offset))
        result[tuple(target)] = self._array[tuple(source)] == self._label
        return result

    def _sample(self, offsetKji: Index, shapeKji: Index) -> NDArray[np.bool_]:
        """Nearest voxel of the labelmap at each of the volume's voxel centers, slice by slice."""
        back = np.linalg.inv(self._toVolume)
        result = np.zeros(shapeKji, dtype=bool)
        j, i = np.ogrid[offsetKji[1] : offsetKji[1] + shapeKji[1], offsetKji[2] : offsetKji[2] + shapeKji[2]]
        sizes, start = self._array.shape[::-1], self._start[::-1]
        for row in range(shapeKji[0]):
            k = offsetKji[0] + row
            index = [
                np.floor(back[a, 0] * i + back[a, 1] * j + (back[a, 2] * k + back[a, 3] + 0.5)).astype(np.int64)
                - start[a]
                for a in range(3)
            ]
            valid = np.logical_and.reduce([(index[a] >= 0) & (index[a] < sizes[a]) for a in range(3)])
            result[row][valid] = self._array[tuple(x[valid] for x in index[::-1])] == self._label
        return result


def _index(values: Iterable[Any]) -> Index:
    k, j, i = (int(value) for value in values)
    return k, j, i


def labelmapVoxels(image: Any) -> NDArray | None:
    """A labelmap's array [k, j, i], a view; None where it holds no voxels."""
    if image is None or image.GetPointData().GetScalars() is None:
        return None
    low, high = image.GetExtent()[::2], image.GetExtent()[1::2]
    if any(last < first for first, last in zip(low, high, strict=True)):
        return None
    shape = tuple(last - first + 1 for first, last in zip(low, high, strict=True))[::-1]
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)


@dataclass(frozen=True, eq=False)
class SegmentSnapshot:
    """A segment with everything in it at one moment.

    Attributes:
        segmentId: its ID, kept by :meth:`SegmentWriter.restore`.
        block: its voxels.
        metadata: a detached vtkSegment with name, color, terminology and tags (status, record, score); never changed.
        before: ID of the segment that followed it in the list, None for the last.
        visible: whether it was shown.
    """

    segmentId: str
    block: MaskBlock
    metadata: Any
    before: str | None
    visible: bool


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

    def isOutside(self, segmentId: str) -> bool:
        """Whether the segment has voxels, but none within the volume. Raises SceneError as :meth:`read`."""
        self._segment(segmentId)
        labelmap = SegmentLabelmap(self.segmentationNode, segmentId, VolumeGeometry(self.volumeNode))
        return labelmap.hasVoxels and labelmap.block().isEmpty

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
        free = np.asarray(block.mask) != 0
        for other in NoduleSegmentation(self.segmentationNode).ids:
            if other != segmentId:
                taken = SegmentLabelmap(self.segmentationNode, other, geometry).region(block.offset_kji, free.shape)
                free &= ~taken
        return tightBlock(free, block.offset_kji)

    def snapshot(self, segmentId: str) -> SegmentSnapshot:
        """Takes a snapshot of a segment. Raises SceneError where the segment does not exist or cannot be read."""
        segmentation = self.segmentationNode.GetSegmentation()
        block = self.read(segmentId)
        metadata = slicer.vtkSegment()
        metadata.DeepCopyMetadata(segmentation.GetSegment(segmentId))
        following = segmentation.GetSegmentIndex(segmentId) + 1
        before = segmentation.GetNthSegmentID(following) if following < segmentation.GetNumberOfSegments() else None
        display = self.segmentationNode.GetDisplayNode()
        visible = display is None or bool(display.GetSegmentVisibility(segmentId))
        return SegmentSnapshot(segmentId, block, metadata, before, visible)

    def restore(self, snapshot: SegmentSnapshot) -> None:
        """Restores the segment as it was; one that was removed comes back, in its place and under its ID.

        Raises:
            SceneError: Slicer refused to add the segment.
        """
        segmentation = self.segmentationNode.GetSegmentation()
        segment = segmentation.GetSegment(snapshot.segmentId)
        isNew = segment is None
        if segment is None:
            segment = slicer.vtkSegment()
        label = segment.GetLabelValue()
        segment.DeepCopyMetadata(snapshot.metadata)
        # The label value belongs to the labelmap that the segment lies in, not to the segment as it was.
        segment.SetLabelValue(label)
        segment.Modified()
        if isNew:
            before = snapshot.before if snapshot.before in segmentation.GetSegmentIDs() else ""
            if not segmentation.AddSegment(segment, snapshot.segmentId, before):
                raise SceneError(f"Segment '{snapshot.metadata.GetName()}' could not be brought back.")
            # Where other segments have a surface, Slicer gives the new one an image in its place.
            if segment.GetRepresentation(CLOSED_SURFACE) is not None:
                segment.AddRepresentation(CLOSED_SURFACE, vtk.vtkPolyData())
            segmentation.SeparateSegmentLabelmap(snapshot.segmentId)
        self.write(snapshot.segmentId, snapshot.block)
        display = self.segmentationNode.GetDisplayNode()
        if display is not None:
            display.SetSegmentVisibility(snapshot.segmentId, snapshot.visible)

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
    return tightBlock(block.mask[tuple(parts)], _index(np.maximum(block.offset_kji, 0)))


def _orientedImage(block: MaskBlock, ijkToSegmentation: np.ndarray) -> Any:
    (k, j, i), (nk, nj, ni) = block.offset_kji, block.mask.shape
    image = slicer.vtkOrientedImageData()
    image.SetExtent(i, i + ni - 1, j, j + nj - 1, k, k + nk - 1)
    image.SetImageToWorldMatrix(toVtk(ijkToSegmentation))
    voxels = np.ascontiguousarray(block.mask, dtype=np.uint8).reshape(-1)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(voxels, deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    return image
