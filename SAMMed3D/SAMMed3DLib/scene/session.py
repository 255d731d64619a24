"""The session: everything between the user's clicks and the segments, without a widget."""

from __future__ import annotations

from collections.abc import Sequence

from . import nodule_segmentation, views
from .errors import SceneError
from .nodule_rows import NoduleRow, rowsOf
from .pipeline import ModelProvider
from .prompt_events import NEW
from .session_core import SessionCore
from .states import State
from .translation import tr as _

__all__ = ["ModelProvider", "Session"]

Point = Sequence[float]


class Session(SessionCore):
    """The one object behind the widget, the logic for scripts and the self-test.

    All methods belong to the main thread and return at once; points are world RAS, mm. While :attr:`busyChanged` has
    last said True, :meth:`poll` must be called every 5 ms or so.

    Args:
        worker: an :class:`SAMMed3DLib.worker.thread.Worker`.
        models: the chosen model.
        scene: default: slicer.mrmlScene.

    Attributes (signals):
        stateChanged: (State) the state or its text.
        nodulesChanged: () rows were added, removed or reordered, or all may have changed.
        noduleChanged: (segmentId) one row changed.
        selectionChanged: (segmentId or None).
        historyChanged: () canUndo, canRedo or their texts.
        progressed: (done, total, text) of long work; total 0 = unknown.
        message: (text, isError) for the status line.
        busyChanged: (bool) start or stop polling.
        documentChanged: () another volume, segmentation or point list is in use (also by a node's deletion): node
            selectors follow :attr:`volumeNode`, :attr:`segmentationNode` and :attr:`promptsNode`.

    Attributes (options, which may be set at any time):
        polarity: the sign of points that come from the Markups toolbar; True = inside.
        everyClickIsNew: each positive click makes a new nodule even while one is selected.
        doNotOverlap: voxels of other segments are left out of what is written.
    """

    #: For :meth:`click`: a nodule of its own, whatever is selected.
    NEW = NEW

    # -- clicks ------------------------------------------------------------------------------------------------------

    def click(self, rasWorld: Point, positive: bool = True, segmentId: str | None = None) -> str | None:
        """A click in a slice view.

        Args:
            rasWorld: mm.
            positive: inside or outside.
            segmentId: its nodule, or :attr:`NEW`; default: as the selection and the options say.

        Returns:
            the ID of the nodule's segment, None if the click was refused (see :attr:`message`).
        """
        if self.state is State.ERROR:
            self.retry()
        if not self.state.takesClicks:
            self.message(self.stateText, True)
            return None
        answered = self._bench.events.click([float(x) for x in rasWorld], bool(positive), segmentId)
        self._update()
        return answered

    def addNodule(self) -> None:
        """The next click starts a new nodule."""
        self.select(None)

    def nextNodule(self) -> None:
        """The same, for who has just finished one."""
        self.select(None)

    def prefetch(self, rasWorld: Point) -> None:
        """The pointer rests here: prepare for a click, if it would start a new nodule."""
        isNew = self.selectedId is None or self.options.everyClickIsNew
        if self._bench is None or not isNew or self.state is not State.READY or not self._pipeline.isReady:
            return
        try:
            geometry = self._bench.document.geometry
            if geometry.contains(rasWorld) and self._pipeline.ensure(geometry):
                self._prefetch(geometry, rasWorld)
        except SceneError:
            return  # nobody asked; a click will say it
        self._update()

    # -- the list ----------------------------------------------------------------------------------------------------

    def rows(self) -> list[NoduleRow]:
        """One row for each segment, in the order of the segmentation."""
        return [] if self._bench is None else rowsOf(self._bench.document)

    def select(self, segmentId: str | None) -> None:
        """Show this nodule's points, hide the others'; further clicks refine it. None: a new nodule."""
        if self._bench is not None:
            self._bench.editor.select(segmentId)

    def jumpTo(self, segmentId: str) -> None:
        """Move all slice views, and the 3D views' focus, to a nodule."""
        with self._telling():
            place = None if self._bench is None else self._bench.centerOf(segmentId)
            if place is not None:
                views.showPoint(place, self._scene)

    def accept(self, segmentId: str) -> None:
        """Its status becomes "reviewed"."""
        self._setStatus(segmentId, nodule_segmentation.REVIEWED, _("Accept"))

    def flag(self, segmentId: str) -> None:
        """Its status becomes "flagged"."""
        self._setStatus(segmentId, nodule_segmentation.FLAGGED, _("Flag"))

    def unreview(self, segmentId: str) -> None:
        """Its status becomes "AI" again."""
        self._setStatus(segmentId, nodule_segmentation.AI, _("Reset status"))

    def _setStatus(self, segmentId: str, status: str, text: str) -> None:
        with self._telling():
            document = self._document()
            if document.status(segmentId) != status:
                self._bench.editor.change(text, segmentId)
                with document.changing():
                    nodule_segmentation.setStatus(document.segmentationNode, segmentId, status)
                self._onNoduleChanged(segmentId)

    def rename(self, segmentId: str, name: str) -> None:
        """Give a nodule a name; an empty one is refused."""
        with self._telling():
            document = self._document()
            segment, name = document.nodule(segmentId).segment, name.strip()
            if name and name != segment.GetName():
                self._bench.editor.change(_("Rename"), segmentId)
                with document.changing():
                    segment.SetName(name)
                document.setRecord(segmentId, isTouched=True)
            self._onNoduleChanged(segmentId)

    def setVisible(self, segmentId: str, on: bool) -> None:
        """Show or hide it in all views (not part of the history)."""
        with self._telling():
            self._document().nodule(segmentId)
            display = self._document().segmentationNode.GetDisplayNode()
            if display is not None:
                display.SetSegmentVisibility(segmentId, bool(on))
            self._onNoduleChanged(segmentId)

    def delete(self, segmentId: str) -> None:
        """Remove a nodule and its points; Undo brings both back."""
        with self._telling():
            self._document().nodule(segmentId)
            self._bench.editor.delete(segmentId)

    def acceptSelectedAndNext(self) -> None:
        """Accept the selected nodule, then select and show the next one that is not reviewed."""
        if self.selectedId is not None:
            following = self._following(self.selectedId)
            self.accept(self.selectedId)
            self._show(following)

    def rejectSelectedAndNext(self) -> None:
        """Delete the selected nodule, then select and show the next one that is not reviewed."""
        if self.selectedId is not None:
            following = self._following(self.selectedId)
            self.delete(self.selectedId)
            self._show(following)

    def _following(self, segmentId: str) -> str | None:
        """The next nodule in the list, from the top again after the last, that is not reviewed."""
        rows = self.rows()
        number = next((n for n, row in enumerate(rows) if row.segmentId == segmentId), 0)
        others = rows[number + 1 :] + rows[:number]
        return next((row.segmentId for row in others if row.status != nodule_segmentation.REVIEWED), None)

    def _show(self, segmentId: str | None) -> None:
        self.select(segmentId)
        if segmentId is None:
            self.message(_("All nodules are reviewed."), False)
        else:
            self.jumpTo(segmentId)

    def show3d(self, on: bool) -> None:
        """Closed surfaces of all nodules; brought up to date when the work pauses."""
        self._shows3d = bool(on)
        with self._telling():
            if self._bench is not None:
                self._bench.show3d(self._shows3d)

    # -- history -----------------------------------------------------------------------------------------------------

    @property
    def canUndo(self) -> bool:
        """Whether there is a step to take back."""
        return self._bench is not None and self._bench.editor.history.canUndo

    @property
    def canRedo(self) -> bool:
        """Whether there is a step to make again."""
        return self._bench is not None and self._bench.editor.history.canRedo

    @property
    def undoText(self) -> str:
        """What Undo would take back, or ""."""
        return "" if self._bench is None else self._bench.editor.history.undoText

    @property
    def redoText(self) -> str:
        """What Redo would make again, or ""."""
        return "" if self._bench is None else self._bench.editor.history.redoText

    def undo(self) -> None:
        """Take back the latest step: points and masks together, also while an answer is on its way."""
        with self._telling():
            if self._bench is not None:
                self._bench.segmentAll.pause()
                self._bench.editor.undo()

    def redo(self) -> None:
        """Make the step that was taken back last again."""
        with self._telling():
            if self._bench is not None:
                self._bench.segmentAll.pause()
                self._bench.editor.redo()

    # -- all nodules -------------------------------------------------------------------------------------------------

    def segmentAll(self) -> None:
        """Find all nodules, with progress; reviewed ones and ones with points are kept."""
        if not self.state.takesClicks:
            self.message(self.stateText, True)
            return
        with self._telling():
            self._bench.segmentAll.start()

    def cancel(self) -> None:
        """Stop *Segment all* (what was found is kept), or drop the clicks that wait for an answer, and loading."""
        if self._bench is None:
            return
        with self._telling():
            if self._bench.segmentAll.isRunning:
                self._bench.segmentAll.stop()
            else:
                self._bench.editor.cancel()
            self._pipeline.stopLoading()
            self._prefetched = None

    @property
    def sensitivity(self) -> float:
        """How many of the found nodules are shown, 0 to 1."""
        return self._sensitivity

    @property
    def hasCandidates(self) -> bool:
        """Whether the sensitivity slider has something to show or hide."""
        return self._bench is not None and self._bench.segmentAll.hasCandidates

    @property
    def foundIds(self) -> list[str]:
        """Segments of the latest *Segment all*, as far as they are shown, the largest first."""
        return [] if self._bench is None else self._bench.segmentAll.shownIds

    @property
    def candidateCounts(self) -> tuple[int, int]:
        """(shown, found) by the latest *Segment all*."""
        return (0, 0) if self._bench is None else self._bench.segmentAll.counts

    def setSensitivity(self, sensitivity: float) -> None:
        """Show more (towards 1) or fewer (towards 0) of the found nodules, without computing anything again."""
        self._sensitivity = min(1.0, max(0.0, float(sensitivity)))
        if self._bench is not None:
            with self._telling():
                self._bench.segmentAll.setSensitivity(self._sensitivity)
