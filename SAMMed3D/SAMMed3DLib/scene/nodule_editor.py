"""Turns what happens to prompts into steps of the history and requests, and answers into masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..signal import Signal
from ..worker.requests import Measure, Result, Segmented
from .document import Document
from .errors import SceneError
from .mask_block import EMPTY_BLOCK, MaskBlock
from .nodule_state import NoduleSnapshot, NoduleState, OpenStep
from .pipeline import Pipeline
from .translation import tr as _
from .undo_stack import NoduleChange, UndoStack


class NoduleEditor:
    """The nodules of one document under work.

    Attributes:
        nodulesChanged, noduleChanged, selectionChanged, message: see Session.
        history: of this document.
        selectedId: segment ID of the nodule that further clicks refine.
    """

    def __init__(self, document: Document, pipeline: Pipeline) -> None:
        self.nodulesChanged, self.noduleChanged = Signal(), Signal()
        self.selectionChanged, self.message = Signal(), Signal()
        self.document = document
        self.pipeline = pipeline
        self.history = UndoStack(self._restore)
        self.selectedId: str | None = None

    def close(self) -> None:
        """Wait for no more answers."""
        for state in self.document.nodules.values():
            self._forget(state)

    @property
    def isWaiting(self) -> bool:
        """Whether an answer to a click is awaited."""
        return any(state.awaited is not None for state in self.document.nodules.values())

    # -- steps -------------------------------------------------------------------------------------------------------

    def step(self, text: str, before: Mapping[str, NoduleSnapshot | None]) -> NoduleChange:
        """A new step of the history."""
        size = sum(snapshot.nbytes for snapshot in before.values() if snapshot is not None)
        return self.history.push(NoduleChange(text, dict(before), self.selectedId, size))

    def begin(self, text: str, segmentId: str) -> NoduleState:
        """A step that changes a nodule's prompts; edits by hand until now become a step of their own before it."""
        self._noteEdit(segmentId, self.document.begin(segmentId))
        state = self.document.nodule(segmentId)
        change = self.step(text, {segmentId: self.document.snapshot(segmentId)})
        state.open.append(OpenStep(change, state.awaited))
        return state

    def beginNew(self) -> NoduleState:
        """A step that makes a new nodule."""
        state = self.document.addNodule()
        state.open.append(OpenStep(self.step(_("New nodule"), {state.segmentId: None}), None))
        return state

    def change(self, text: str, segmentId: str) -> None:
        """A step that changes something else than prompts. Raises SceneError."""
        self._noteEdit(segmentId, self.document.adopt(segmentId))
        self.step(text, {segmentId: self.document.snapshot(segmentId)})

    def _noteEdit(self, segmentId: str, before: NoduleSnapshot | None) -> bool:
        if before is not None:
            self.step(_("Edit by hand"), {segmentId: before})
        return before is not None

    def delete(self, segmentId: str) -> None:
        """Remove a nodule. Raises SceneError."""
        state = self.document.nodule(segmentId)
        self.change(_("Delete nodule"), segmentId)
        self._forget(state)
        self.document.remove(segmentId)
        self.refreshList()

    def dropEmpty(self, state: NoduleState) -> None:
        """A nodule whose last point is gone; its step has begun."""
        self._forget(state)
        state.open.clear()
        self.document.remove(state.segmentId)
        self.refreshList()

    def losePrompts(self) -> None:
        """The point list is gone: the masks stay and are what further clicks change."""
        document = self.document
        for state in document.nodules.values():
            self._forget(state)
            state.isForeign = state.isForeign or bool(state.prompts)
            state.prompts, state.absorbed, state.dragged = [], set(), None
            self._settle(state)
        document.forgetPrompts()
        self.refreshList()

    def noteRemoved(self) -> None:
        """Others have removed segments: their points go too, and Undo brings both back."""
        for state in self.document.sync():
            self.step(_("Delete nodule"), {state.segmentId: self.document.lastKnown(state)})
            self._forget(state)
            self.document.dropPrompts(state.prompts)
        self.refreshList()

    def refreshList(self) -> None:
        """Nodules came or went."""
        if self.selectedId is not None and self.selectedId not in self.document.nodules:
            self.select(None)
        self.nodulesChanged()

    def select(self, segmentId: str | None) -> None:
        """Show one nodule's points; None shows all."""
        if segmentId is not None and segmentId not in self.document.nodules:
            segmentId = None
        if self.document.store is not None:
            self.document.store.showOnly(segmentId)
        if segmentId != self.selectedId:
            self.selectedId = segmentId
            self.selectionChanged(segmentId)

    # -- undo and redo -----------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Take back the latest step; an edit by hand since then first."""
        change = self.history.top
        if change is not None:
            for segmentId in [one for one in change.before if one in self.document.nodules]:
                if self._noteEdit(segmentId, self.document.adopt(segmentId)):
                    break
            self.history.undo()

    def redo(self) -> None:
        """Make the latest step that was taken back again, unless the nodule was edited by hand meanwhile."""
        change = self.history.next
        if change is None:
            return
        for segmentId in [one for one in change.before if one in self.document.nodules]:
            if self._noteEdit(segmentId, self.document.adopt(segmentId)):
                self.message(_("The nodule was edited by hand, so nothing can be made again."), False)
                return
        self.history.redo()

    def _restore(self, change: NoduleChange) -> NoduleChange:
        document = self.document
        after = {segmentId: document.snapshot(segmentId) for segmentId in change.before}
        size = sum(snapshot.nbytes for snapshot in after.values() if snapshot is not None)
        reverse = NoduleChange(change.text, after, self.selectedId, size, change.context)
        for segmentId, snapshot in change.before.items():
            self.put(segmentId, snapshot)
        if change.context is not None:
            change.context.onRestored(reverse)
        self.select(change.selection)
        self.refreshList()
        return reverse

    def put(self, segmentId: str, snapshot: NoduleSnapshot | None) -> None:
        """Bring a nodule to a state; what its mask does not show yet is asked for."""
        state = self.document.nodules.get(segmentId)
        if state is not None:
            self._forget(state)
        try:
            if snapshot is None:
                self.document.remove(segmentId)
            elif not self.document.restore(snapshot).isSettled:
                self.request(segmentId)
        except SceneError as error:
            self.message(str(error), True)

    def _forget(self, state: NoduleState) -> None:
        self.pipeline.drop(state.awaited)
        state.awaited = None

    # -- requests and answers ----------------------------------------------------------------------------------------

    def request(self, segmentId: str) -> None:
        """Ask for the mask that a nodule's prompts give."""
        document, state = self.document, self.document.nodule(segmentId)
        state.isSettled = False
        asked = document.predictRequest(segmentId)
        if asked is None:
            self._forget(state)
            self._withoutPrompts(state)
        elif not self.pipeline.ensure(document.geometry):
            self._giveUp(state, self.pipeline.error)
        else:
            state.awaited = self.pipeline.submit(asked, lambda result: self._onAnswer(state, result))
            document.setRecord(segmentId, isPending=True)
            self.noduleChanged(segmentId)

    def _withoutPrompts(self, state: NoduleState) -> None:
        """No prompt says anything: what remains is the start mask, or nothing."""
        block = EMPTY_BLOCK if state.start is None else MaskBlock(state.start.mask, state.start.offset_kji)
        self.document.write(state.segmentId, Segmented(block.mask, block.offset_kji, None, {}, 0))
        self._settle(state)
        if state.start is not None:
            self.measure([state.segmentId])
        elif state.active:
            self.message(_("Click inside the nodule first; then clicks outside take parts away."), False)
        self.noduleChanged(state.segmentId)

    def _settle(self, state: NoduleState) -> None:
        state.awaited, state.isSettled = None, True
        state.open.clear()
        self.document.setRecord(state.segmentId, isPending=False)

    def _onAnswer(self, state: NoduleState, result: Result) -> None:
        try:
            self._take(state, result)
        except SceneError as error:  # the volume cannot be placed any more; when it can, the nodule is asked for again
            state.awaited = None
            state.open.clear()
            self.message(str(error), True)

    def _take(self, state: NoduleState, result: Result) -> None:
        """An answer to the latest request, or to one before it, which is shown while the latest is on its way."""
        document, segmentId = self.document, state.segmentId
        if document.nodules.get(segmentId) is not state or state.awaited is None or result.generation > state.awaited:
            return
        isLatest = result.generation == state.awaited
        isSame = result.request.identity == document.geometry.identity()
        if result.error is not None or result.cancelled or not isSame:
            if isLatest and result.error is None and not isSame and not self.pipeline.error:
                self.request(segmentId)  # the volume has changed meanwhile
            elif isLatest:
                self._giveUp(state, result.error or "", result.details)  # what is wrong with the model was told
            return
        unanswered = self._unanswered(state)
        if self._noteEdit(segmentId, document.begin(segmentId, unanswered)):
            self.request(segmentId)  # edited by hand while the answer was on its way: ask again, on top of the edit
            return
        isCut = document.write(segmentId, result.value)
        if isLatest:
            self._settle(state)
        else:
            self._settleBefore(state, result.generation)
        if isCut:
            self.measure([segmentId])
        self.noduleChanged(segmentId)

    def _unanswered(self, state: NoduleState) -> set[str]:
        """Points that were given or moved since the last answer."""
        known: Sequence[Any] = ()
        if state.open:
            snapshot = state.open[0].change.before.get(state.segmentId)
            known = () if snapshot is None else snapshot.prompts
        places = {prompt.id: (prompt.ras, prompt.positive) for prompt in known}
        return {prompt.id for prompt in state.prompts if places.get(prompt.id) != (prompt.ras, prompt.positive)}

    def _settleBefore(self, state: NoduleState, generation: int) -> None:
        """The steps that this answer belongs to are done; the next step now knows the mask before it."""
        for number, step in enumerate(state.open):
            if step.awaited == generation:
                before = step.change.before.get(state.segmentId)
                if before is not None and not before.isSettled:
                    step.change.before[state.segmentId] = self.document.settled(before)
                del state.open[:number]
                return

    def _giveUp(self, state: NoduleState, text: str, details: str = "") -> None:
        """The engine cannot answer: back to the last state that it could."""
        self._forget(state)
        steps, segmentId = list(state.open), state.segmentId
        state.open.clear()
        state.isSettled = True
        if steps:
            before = steps[0].change.before.get(segmentId)
            for step in steps:
                step.change.before.pop(segmentId, None)
                if not step.change.before:
                    self.history.discard(step.change)
            if before is None:
                self.document.remove(segmentId)
            else:
                self.document.restore(before).isSettled = True
        else:
            self.document.setRecord(segmentId, isPending=False)
        if text:
            self.message(text, True)
        if details:
            self.pipeline.failed("", details)
        self.refreshList()

    def cancel(self) -> None:
        """Take back all clicks that have no answer yet."""
        for state in [one for one in self.document.nodules.values() if one.awaited is not None]:
            self._giveUp(state, "")

    # -- measurements ------------------------------------------------------------------------------------------------

    def measure(self, segmentIds: Sequence[str]) -> None:
        """Measure the masks as they are."""
        document = self.document
        for segmentId in segmentIds:
            block = document.writer.read(segmentId)
            if block.isEmpty:
                document.setRecord(segmentId, measurements={})
                self.noduleChanged(segmentId)
            elif self.pipeline.ensure(document.geometry):
                geometry = document.geometry
                request = Measure(geometry.identity(), {segmentId: block}, geometry.ijkToWorld)
                self.pipeline.submit(request, self._onMeasured)

    def _onMeasured(self, result: Result) -> None:
        for segmentId, measurements in (result.value or {}).items():
            if segmentId in self.document.nodules:
                self.document.setRecord(segmentId, measurements=measurements)
                self.noduleChanged(segmentId)
