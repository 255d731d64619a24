"""The review: the list of nodules, the user's actions on its rows, and the walk through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..inference.nodule_table import BY_HAND, MEASURED, table_text
from ..signal import Signal
from ..translation import tr as _
from ..worker.requests import AXES
from . import views
from .nodule_editor import NoduleEditor
from .nodule_segmentation import AI, FLAGGED, HIGH_IOU, REVIEWED, isDoubtful
from .open_volume import told

#: The field of view of a close-up.
CLOSE_UP_MM = 60.0
#: A surface runs so far at most from the middle of its voxels: half a voxel of thick slices, and what smoothing adds.
PICK_REACH_MM = 5.0
#: Field of view of a nodule, as a multiple of its long axis, and its limits.
_FIELD_DIAMETERS, _LEAST_FIELD_MM, _MOST_FIELD_MM = 6.0, 60.0, 200.0


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
    def isDoubtful(self) -> bool:
        """Whether its mask is not to be trusted."""
        return isDoubtful(self.measurements, self.predictedIou)

    @property
    def confidence(self) -> str | None:
        """The model's own estimate as "high", "medium" or "low", which it is whatever speaks against the mask too."""
        if self.isDoubtful:
            return "low"
        if self.predictedIou is None:
            return None
        return "high" if self.predictedIou >= HIGH_IOU else "medium"

    @property
    def isByHand(self) -> bool:
        """Whether the user drew the axes that its diameters are of."""
        return self.measurements.get("diameters") == BY_HAND

    @property
    def volumeMm3(self) -> float | None:
        """Volume of the nodule; None until it is known."""
        return self.measurements.get("volume_mm3")


class Review:
    """Names, accepts, flags, hides and deletes the nodules of an open volume, and shows them one after the other.

    Attributes:
        went: Signal(segmentId): the views show this nodule.
        listed: segment IDs in the order in which the user sees them; None: all, in the order of the segmentation.
    """

    def __init__(self, editor: NoduleEditor, scene: Any) -> None:
        self.volume = editor.volume
        self.went = Signal()
        self.listed: list[str] | None = None
        self._editor = editor
        self._scene = scene

    def rows(self) -> list[NoduleRow]:
        """One row for each segment, in the order of the segmentation."""
        self.volume.sync()
        concealed = self.volume.concealed
        ids = self.volume.segmentation.ids if self.volume.nodules else []
        return [self._row(segmentId) for segmentId in ids if segmentId not in concealed]

    def _row(self, segmentId: str) -> NoduleRow:
        volume, segmentation = self.volume, self.volume.segmentation
        segment, record = segmentation.segment(segmentId), volume.record(segmentId)
        red, green, blue = segment.GetColor()
        return NoduleRow(
            segmentId=segmentId,
            color=(red, green, blue),
            name=segment.GetName() or "",
            measurements=record.measurements,
            predictedIou=segmentation.score(segmentId),
            status=segmentation.status(segmentId),
            visible=segmentation.isVisible(segmentId),
            score=record.probability,
            isPending=volume.nodules[segmentId].awaited is not None,
        )

    @told
    def pick(self, ras: Sequence[float]) -> None:
        """A surface was clicked in a 3D view: the nodule there is selected, and the slice views go to it."""
        hit = self.volume.noduleNear(ras, PICK_REACH_MM) if self.volume.nodules else None
        if hit is not None:
            self.volume.select(hit)
            self.jumpTo(hit, turns3d=False)

    @told
    def jumpTo(self, segmentId: str, turns3d: bool = True) -> None:
        """Move all slice views, and unless told otherwise the 3D views' focus, to a nodule, near enough to see it.

        The axial one shows the slice where the axes were measured, if they are drawn.
        """
        middle = self.volume.centerOf(segmentId)
        if middle is not None:
            place: Sequence[float] = middle
            if self.volume.options.showsMeasure and self.volume.record(segmentId).measurements.get(AXES):
                place = self.volume.intoSliceOfAxes(segmentId, middle).tolist()
            if self.volume.options.closeUp:
                views.zoomIn(CLOSE_UP_MM, self._scene, exactly=True)
            elif self.volume.options.zoomsIn:
                size = float(self.volume.record(segmentId).measurements.get("long_axis_mm") or 0.0)
                views.zoomIn(min(max(_FIELD_DIAMETERS * size, _LEAST_FIELD_MM), _MOST_FIELD_MM), self._scene)
            views.jumpSlices(place, self._scene)
            if turns3d:
                views.center3d(place, self._scene)
            self.went(segmentId)

    def accept(self, *segmentIds: str) -> None:
        """Marks nodules as "reviewed", which locks them."""
        self._setStatus(segmentIds, REVIEWED, _("Accept"))

    def flag(self, *segmentIds: str) -> None:
        """Marks nodules as "flagged"."""
        self._setStatus(segmentIds, FLAGGED, _("Flag"))

    def unreview(self, *segmentIds: str) -> None:
        """Marks nodules as "AI" again."""
        self._setStatus(segmentIds, AI, _("Reset status"))

    @told
    def _setStatus(self, segmentIds: Sequence[str], status: str, text: str) -> None:
        """Changes the status of nodules in one step of the history."""
        for segmentId in segmentIds:
            self.volume.nodule(segmentId)
        changed = [one for one in segmentIds if self.volume.segmentation.status(one) != status]
        if changed:
            self._editor.change(text, *changed)
        for segmentId in changed:
            self.volume.setStatus(segmentId, status)
            self.volume.noduleChanged(segmentId)

    @told
    def rename(self, segmentId: str, name: str) -> None:
        """Give a nodule a name; an empty one is refused."""
        segment, name = self.volume.nodule(segmentId).segment, name.strip()
        if name and name != segment.GetName():
            self._editor.change(_("Rename"), segmentId)
            with self.volume.changing():
                segment.SetName(name)
            self.volume.setRecord(segmentId, isTouched=True)
        self.volume.noduleChanged(segmentId)

    @told
    def setVisible(self, segmentId: str, on: bool) -> None:
        """Show or hide it in all views (not part of the history)."""
        self.volume.nodule(segmentId)
        self.volume.segmentation.setVisible({segmentId: on})
        self.volume.noduleChanged(segmentId)

    @told
    def delete(self, *segmentIds: str) -> None:
        """Remove nodules and their points, in one step; Undo brings them back."""
        self._editor.delete(*segmentIds)

    @told
    def acceptSelectedAndNext(self) -> None:
        """Accept the selected nodule, then select and show the next one that is not reviewed."""
        selected = self.volume.selectedId
        if selected is not None:
            following = self.following(selected)
            self.accept(selected)
            self._show(following)

    @told
    def rejectSelectedAndNext(self) -> None:
        """Delete the selected nodule, then select and show the next one that is not reviewed."""
        selected = self.volume.selectedId
        if selected is not None:
            following = self.following(selected)
            self.delete(selected)
            self._show(following)

    def following(self, segmentId: str) -> str | None:
        """Returns the next nodule of the list as seen, from the top again after the last, that is not reviewed."""
        rows = {row.segmentId: row for row in self.rows()}
        seen = list(rows) if self.listed is None or segmentId not in self.listed else self.listed
        number = seen.index(segmentId) if segmentId in seen else 0
        others = [rows[one] for one in seen[number + 1 :] + seen[:number] if one in rows]
        return next((row.segmentId for row in others if row.status != REVIEWED), None)

    def _show(self, segmentId: str | None) -> None:
        self.volume.select(segmentId)
        if segmentId is None:
            left = sum(row.status != REVIEWED for row in self.rows())
            text = _("All nodules are reviewed.")
            if left:
                text = _("All nodules of this list are reviewed; it does not show {n} others.").format(n=left)
            self.volume.message(text, False)
        else:
            self.jumpTo(segmentId)

    @told
    def show3d(self, on: bool) -> None:
        """Shows or drops the closed surfaces of all nodules, which are brought up to date when the work pauses."""
        self.volume.options.shows3d = bool(on)
        self.volume.show3d(bool(on))


def tableText(rows: Sequence[NoduleRow], delimiter: str = "\t") -> str:
    """Formats the rows with the headers of the command line's tables: tabs for the clipboard, commas for a file."""
    values = [
        {"name": row.name, "status": row.status, "score": row.score, "predicted_iou": row.predictedIou}
        | dict(row.measurements)
        for row in rows
    ]
    return table_text(values, ("name", "status", "score", "predicted_iou", *MEASURED, "diameters"), delimiter)
