"""A segment as it was, to bring it back under the same ID."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from .errors import SceneError
from .mask_block import MaskBlock
from .segment_writer import CLOSED_SURFACE, SegmentWriter


@dataclass(frozen=True, eq=False)
class SegmentSnapshot:
    """Everything of a segment at one moment.

    Attributes:
        segmentId: its ID, kept by :func:`restoreSegment`.
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


def takeSnapshot(writer: SegmentWriter, segmentId: str) -> SegmentSnapshot:
    """A segment as it is now. Raises SceneError where the segment does not exist or cannot be read."""
    segmentation = writer.segmentationNode.GetSegmentation()
    block = writer.read(segmentId)
    metadata = slicer.vtkSegment()
    metadata.DeepCopyMetadata(segmentation.GetSegment(segmentId))
    following = segmentation.GetSegmentIndex(segmentId) + 1
    before = segmentation.GetNthSegmentID(following) if following < segmentation.GetNumberOfSegments() else None
    display = writer.segmentationNode.GetDisplayNode()
    visible = display is None or bool(display.GetSegmentVisibility(segmentId))
    return SegmentSnapshot(segmentId, block, metadata, before, visible)


def restoreSegment(writer: SegmentWriter, snapshot: SegmentSnapshot) -> None:
    """Make the segment what it was; one that was removed comes back, in its place and under its ID.

    Raises:
        SceneError: Slicer refused to add the segment.
    """
    segmentation = writer.segmentationNode.GetSegmentation()
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
    writer.write(snapshot.segmentId, snapshot.block)
    display = writer.segmentationNode.GetDisplayNode()
    if display is not None:
        display.SetSegmentVisibility(snapshot.segmentId, snapshot.visible)
