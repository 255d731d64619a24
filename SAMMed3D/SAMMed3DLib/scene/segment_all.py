"""*Segment all*: the request, what is kept, one step of history, and the sensitivity slider."""

from __future__ import annotations

from collections import deque

from ..worker.requests import Generate, Generated, Result, Segmented
from . import nodule_segmentation
from .candidate_run import Candidate, CandidateRun, overlapsAny
from .errors import SceneError
from .mask_block import MaskBlock
from .nodule_editor import NoduleEditor
from .nodule_state import NoduleState, digest
from .pipeline import Pipeline
from .translation import tr as _
from .undo_stack import NoduleChange

#: A probability of one half.
DEFAULT_SENSITIVITY = 0.5


class SegmentAll:
    """Finds all nodules of a document.

    Segments are made and removed one at a time, from :meth:`work`, so that no turn of the event loop takes long.

    Attributes:
        sensitivity: 0 (fewest) to 1 (all).
    """

    def __init__(self, editor: NoduleEditor, pipeline: Pipeline) -> None:
        self.sensitivity = DEFAULT_SENSITIVITY
        self._editor = editor
        self._document = editor.document
        self._pipeline = pipeline
        self._generation: int | None = None
        self._run: CandidateRun | None = None
        self._todo: deque[tuple[Candidate, bool]] = deque()
        self._ending: tuple[str, bool] | None = None

    # -- the run -----------------------------------------------------------------------------------------------------

    @property
    def isRunning(self) -> bool:
        """Whether nodules are being looked for."""
        return self._generation is not None

    @property
    def hasWork(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return bool(self._todo)

    def start(self) -> None:
        """Look for nodules; a running search goes on. Raises SceneError."""
        geometry = self._document.geometry
        if self.isRunning or not self._pipeline.ensure(geometry):
            return
        keep = [self._blockOf(segmentId) for segmentId in self._document.nodules if self.isKept(segmentId)]
        request = Generate(geometry.identity(), [one for one in keep if one.mask.any()], {}, geometry.ijkToWorld)
        self._generation = self._pipeline.submit(request, self._onResult)

    def stop(self) -> None:
        """End the search; what was found so far is shown."""
        self._pipeline.stop(self._generation)

    def close(self) -> None:
        """Forget the search and the candidates."""
        self._pipeline.drop(self._generation)
        self._generation, self._run = None, None
        self._todo.clear()

    def isKept(self, segmentId: str) -> bool:
        """Whether a nodule stays when nodules are looked for again: whatever somebody has touched."""
        document = self._document
        state, record = document.nodules[segmentId], document.record(segmentId)
        isAsMade = record.probability is not None and not record.isTouched and not state.prompts
        if not isAsMade or document.status(segmentId) != nodule_segmentation.AI:
            return True
        if state.block is None:
            document.adopt(segmentId)
        return state.isForeign and not self._isAsFound(state) or document.writer.wasEdited(segmentId)

    def _isAsFound(self, state: NoduleState) -> bool:
        """Whether the voxels of a reopened segment are those that were found."""
        return self._document.record(state.segmentId).mask == digest(state.block)

    def _blockOf(self, segmentId: str) -> MaskBlock:
        return self._document.writer.read(segmentId)

    def _onResult(self, result: Result) -> None:
        if result.generation != self._generation:
            return
        self._generation = None
        if result.error is not None:
            self._editor.message(result.error, True)
            return
        if result.request.identity != self._document.geometry.identity():
            self._editor.message(_("The volume has changed meanwhile: start Segment all again."), True)
        elif result.value is None:
            self._editor.message(_("The search was canceled."), False)
        else:
            self._take(result.value, result.cancelled)

    def _take(self, generated: Generated, wasStopped: bool) -> None:
        """Earlier findings that nobody touched make room for the new ones, in one step of the history."""
        editor, document = self._editor, self._document
        old = [segmentId for segmentId in list(document.nodules) if not self.isKept(segmentId)]
        kept = [self._blockOf(segmentId) for segmentId in document.nodules if segmentId not in old]
        run = CandidateRun((one for one in generated.found if not overlapsAny(one, kept)), self._run)
        before = {segmentId: document.snapshot(segmentId) for segmentId in old}
        run.change = NoduleChange(_("Segment all"), dict(before), editor.selectedId, context=_RunInHistory(self, run))
        editor.history.push(run.change)
        for segmentId in old:
            document.remove(segmentId)
        self._run = run
        self._ending = generated.note, wasStopped
        self._plan()
        editor.refreshList()

    # -- the slider --------------------------------------------------------------------------------------------------

    @property
    def hasCandidates(self) -> bool:
        """Whether the slider has something to decide."""
        return self._run is not None and bool(self._run.candidates)

    @property
    def counts(self) -> tuple[int, int]:
        """(shown, found)."""
        return len(self.shownIds), 0 if self._run is None else len(self._run.candidates)

    @property
    def shownIds(self) -> list[str]:
        """Segment IDs of the candidates that are shown, the largest first."""
        ids = [] if self._run is None else [one.segmentId for one in self._run.candidates]
        return [segmentId for segmentId in ids if segmentId is not None and self._exists(segmentId)]

    def setSensitivity(self, sensitivity: float) -> None:
        """Show or hide candidates by their score."""
        self.sensitivity = min(1.0, max(0.0, float(sensitivity)))
        if self.hasCandidates:
            self._plan()

    def _exists(self, segmentId: str) -> bool:
        return segmentId in self._document.nodules

    def _plan(self) -> None:
        show, hide = self._run.plan(self.sensitivity, self._exists, self.isKept)
        self._todo = deque([(one, False) for one in hide] + [(one, True) for one in show])
        if not self._todo:
            self._done()

    def work(self) -> None:
        """Show or hide one candidate."""
        if not self._todo:
            return
        candidate, show = self._todo.popleft()
        try:
            if show:
                self._show(candidate)
            else:
                self._hide(candidate)
        except SceneError as error:
            self._todo.clear()
            self._editor.message(str(error), True)
        if not self._todo:
            self._done()

    def use(self, run: CandidateRun | None) -> None:
        """The slider decides on the candidates of this run."""
        self._run = run

    def pause(self) -> None:
        """Show or hide nothing more until the sensitivity changes."""
        self._todo.clear()

    def _done(self) -> None:
        self._editor.refreshList()
        if self._ending is not None:
            (note, wasStopped), self._ending = self._ending, None
            self._tell(note, wasStopped)

    def _tell(self, note: str, wasStopped: bool) -> None:
        """How the search ended, and what the engine has to say about it."""
        shown, found = self.counts
        if found and wasStopped:
            text = _("{found} nodules found until the search was canceled, {shown} shown.")
        elif found:
            text = _("{found} nodules found, {shown} shown: accept or reject them; the slider shows more or fewer.")
        else:
            text = _("The search was canceled before it found a nodule.") if wasStopped else _("No nodules were found.")
        self._editor.message(" ".join([text.format(found=found, shown=shown), note]).strip(), False)

    def _hide(self, candidate: Candidate) -> None:
        candidate.hidden = self._document.snapshot(candidate.segmentId)
        self._document.remove(candidate.segmentId)

    def _show(self, candidate: Candidate) -> None:
        document, run = self._document, self._run
        if candidate.hidden is not None:
            document.restore(candidate.hidden)
            candidate.hidden = None
            return
        state = document.addNodule()
        candidate.segmentId = segmentId = state.segmentId
        run.change.before.setdefault(segmentId, None)
        state.start = candidate.start
        document.setRecord(segmentId, probability=candidate.found.score)
        document.write(segmentId, _answerOf(candidate))
        following = run.positionOf(candidate, self._exists)
        if following is not None:
            document.moveBefore(segmentId, following)
        if document.options.doNotOverlap:
            self._editor.measure([segmentId])


class _RunInHistory:
    """Tells a run when its step is undone and redone: the slider works only in between."""

    def __init__(self, owner: SegmentAll, run: CandidateRun) -> None:
        self._owner = owner
        self._run = run
        self._isDone = True

    def onRestored(self, change: NoduleChange) -> None:
        """The step was undone or redone; ``change`` leads back."""
        self._run.change = change
        self._isDone = not self._isDone
        self._owner.use(self._run if self._isDone else self._run.previous)


def _answerOf(candidate: Candidate) -> Segmented:
    found = candidate.found
    return Segmented(found.mask, found.offset_kji, found.predicted_iou, found.measurements, 0)
