"""The rows of a document's nodules."""

from __future__ import annotations

from .document import Document
from .nodule_segmentation import score
from .nodule_table import NoduleRow


def rowsOf(document: Document) -> list[NoduleRow]:
    """One row for each segment, in the order of the segmentation."""
    document.sync()
    node = document.segmentationNode
    return [] if node is None else [_row(document, one) for one in node.GetSegmentation().GetSegmentIDs()]


def _row(document: Document, segmentId: str) -> NoduleRow:
    node, state = document.segmentationNode, document.nodules[segmentId]
    segment, display = node.GetSegmentation().GetSegment(segmentId), node.GetDisplayNode()
    record = document.record(segmentId)
    values = record.measurements
    return NoduleRow(
        segmentId=segmentId,
        color=tuple(segment.GetColor()),
        name=segment.GetName() or "",
        volumeMm3=values.get("volume_mm3"),
        longAxisMm=values.get("long_axis_mm"),
        shortAxisMm=values.get("short_axis_mm"),
        meanHu=values.get("mean_hu"),
        predictedIou=score(node, segmentId),
        status=document.status(segmentId),
        visible=display is None or bool(display.GetSegmentVisibility(segmentId)),
        score=record.probability,
        isPending=state.awaited is not None,
    )
