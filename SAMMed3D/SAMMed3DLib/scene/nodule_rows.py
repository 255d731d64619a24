"""The nodules of a document as rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..inference.nodule_table import MEASURED, table_text
from .document import Document
from .nodule_segmentation import score


@dataclass(frozen=True)
class NoduleRow:
    """One nodule in the list.

    Attributes:
        segmentId: of its segment.
        color: (r, g, b), 0 to 1.
        name: of its segment.
        measurements: as in :class:`SAMMed3DLib.inference.NoduleRecord`; empty until they are known, and of an empty
            segment.
        predictedIou: the model's own estimate in [0, 1], or None.
        status: "AI", "reviewed" or "flagged".
        visible: whether the segment is shown.
        score: probability that it is a nodule, where *Segment all* found it.
        isPending: its mask is being computed.
    """

    segmentId: str
    color: tuple[float, float, float]
    name: str
    measurements: Mapping[str, Any] = field(default_factory=dict)
    predictedIou: float | None = None
    status: str = "AI"
    visible: bool = True
    score: float | None = None
    isPending: bool = False

    @property
    def volumeMm3(self) -> float | None:
        """None until it is known."""
        return self.measurements.get("volume_mm3")


def rowsOf(document: Document) -> list[NoduleRow]:
    """One row for each segment, in the order of the segmentation."""
    document.sync()
    node = document.segmentationNode
    return [] if node is None else [_row(document, one) for one in node.GetSegmentation().GetSegmentIDs()]


def _row(document: Document, segmentId: str) -> NoduleRow:
    node, state = document.segmentationNode, document.nodules[segmentId]
    segment, display = node.GetSegmentation().GetSegment(segmentId), node.GetDisplayNode()
    record = document.record(segmentId)
    return NoduleRow(
        segmentId=segmentId,
        color=tuple(segment.GetColor()),
        name=segment.GetName() or "",
        measurements=record.measurements,
        predictedIou=score(node, segmentId),
        status=document.status(segmentId),
        visible=display is None or bool(display.GetSegmentVisibility(segmentId)),
        score=record.probability,
        isPending=state.awaited is not None,
    )


def tableText(rows: Sequence[NoduleRow], delimiter: str = "\t") -> str:
    """The rows as text, with the headers of the command line's tables: tabs for the clipboard, commas for a file."""
    values = [
        {"name": row.name, "status": row.status, "score": row.score, "predicted_iou": row.predictedIou}
        | dict(row.measurements)
        for row in rows
    ]
    return table_text(values, ("name", "status", "score", "predicted_iou", *MEASURED), delimiter)
