"""Turns clicks and control points into steps of the history and requests, and the engine's answers into masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files.mark_files import Mark
from ..inference.nodule_table import BY_HAND
from ..translation import tr as _
from ..worker.requests import AXES, Measure, Result, Segmented
from .mask_block import EMPTY_BLOCK, MaskBlock
from .nodule_state import NoduleSnapshot, NoduleState, OpenStep, digest, isOfScale
from .open_volume import OpenVolume, told
from .pipeline import Pipeline
from .prompt_store import Prompt, readTag
from .undo_stack import NoduleChange, UndoStack
from .volume_geometry import SceneError

#: Instead of a segment ID: a nodule of its own, whatever is selected.
NEW = "SAMMed3D.New"
#: Fewer voxels are no nodule: they have neither axes nor a density to speak of.
LEAST_VOXELS = 3


class NoduleEditor:
    """Edits the nodules of an open volume: gives clicks and points their meaning, sends requests, keeps the history.

    Attributes:
        volume: the open volume.
        history: of this volume.
    """

    def __init__(self, volume: OpenVolume, pipeline: Pipeline) -> None:
        self.volume = volume
        self.pipeline = pipeline
        self.history = UndoStack(self._restore)
        self._toLookAt: dict[str, None] = {}
        self._drawing: str | None = None
        self._isRefreshed = False
        self._scale = ""
        with suppress(SceneError):
            self._scale = volume.geometry.scale()
        volume.placed.connect(self._onPlaced)
        volume.moved.connect(self._onMoved)
        volume.removed.connect(self._onRemoved)
        volume.relabelled.connect(self._onRelabelled)
        volume.promptsGone.connect(self._onPromptsGone)
        volume.segmentsGone.connect(self._onSegmentsGone)
        volume.voxelsChanged.connect(self._onVoxelsChanged)

    def close(self) -> None:
        """Drops all answers that are still awaited."""
        for state in self.volume.nodules.values():
            self._forget(state)

    @property
    def isWaiting(self) -> bool:
        """Whether an answer to a click is awaited."""
        return any(state.awaited is not None for state in self.volume.nodules.values())

    # -- steps -------------------------------------------------------------------------------------------------------

    def step(self, text: str, before: Mapping[str, NoduleSnapshot | None], context: Any = None) -> NoduleChange:
        """Pushes a new step of the history."""
        size = sum(snapshot.nbytes for snapshot in before.values() if snapshot is not None)
        return self.history.push(NoduleChange(text, dict(before), self.volume.selectedId, size, context))

    def change(self, text: str, *segmentIds: str) -> None:
        """Begins a step that changes something other than prompts. Raises SceneError."""
        for segmentId in segmentIds:
            self._noteEdit(segmentId, self.volume.adopt(segmentId))
        self.step(text, {segmentId: self.volume.snapshot(segmentId) for segmentId in segmentIds})

    def _begin(self, text: str, segmentId: str) -> NoduleState:
        """Begins a step that changes a nodule's prompts; edits by hand so far become a step of their own before it."""
        self._noteEdit(segmentId, self.volume.begin(segmentId))
        state = self.volume.nodule(segmentId)
        change = self.step(text, {segmentId: self.volume.snapshot(segmentId)})
        state.open.append(OpenStep(change, state.awaited))
        return state

    def _beginNew(self) -> NoduleState:
        """Begins a step that makes a new nodule."""
        state = self.volume.addNodule()
        state.open.append(OpenStep(self.step(_("New nodule"), {state.segmentId: None}), None))
        return state

    def _noteEdit(self, segmentId: str, before: NoduleSnapshot | None) -> bool:
        if before is not None:
            self.step(_("Edit by hand"), {segmentId: before})
        return before is not None

    def delete(self, *segmentIds: str) -> None:
        """Removes nodules, in one step. Raises SceneError."""
        states = [self.volume.nodule(segmentId) for segmentId in segmentIds]
        text = _("Delete nodule") if len(states) == 1 else _("Delete {n} nodules").format(n=len(states))
        self.change(text, *segmentIds)
        self._drop(*states)

    def _drop(self, *states: NoduleState) -> None:
        for state in states:
            self._forget(state)
            state.open.clear()
            self.volume.remove(state.segmentId)
        self.volume.refreshList()

    def _forget(self, state: NoduleState) -> None:
        self.pipeline.drop(state.awaited)
        state.awaited = None

    # -- undo and redo -----------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Takes back the latest step; an edit by hand since then first."""
        self._noteEditsBefore(self.history.top)
        self.history.undo()

    def redo(self) -> None:
        """Redoes the step that was taken back last, unless the nodule was edited by hand meanwhile."""
        if self._noteEditsBefore(self.history.next):
            self.volume.message(_("The nodule was edited by hand meanwhile, so there is nothing to redo."), False)
        self.history.redo()

    def _noteEditsBefore(self, change: NoduleChange | None) -> bool:
        """Makes edits by hand of a step's nodules a step of their own; returns whether there was one."""
        known = [] if change is None else [one for one in change.before if one in self.volume.nodules]
        return any(self._noteEdit(segmentId, self.volume.adopt(segmentId)) for segmentId in known)

    def _restore(self, change: NoduleChange) -> NoduleChange:
        volume = self.volume
        after = {segmentId: volume.snapshot(segmentId) for segmentId in change.before}
        size = sum(snapshot.nbytes for snapshot in after.values() if snapshot is not None)
        reverse = NoduleChange(change.text, after, volume.selectedId, size, change.context)
        for segmentId, snapshot in change.before.items():
            self._put(segmentId, snapshot)
        if change.context is not None:
            change.context.onRestored(reverse)
        volume.select(change.selection)
        volume.refreshList()
        return reverse

    def _put(self, segmentId: str, snapshot: NoduleSnapshot | None) -> None:
        """Brings a nodule to a state; a request is sent for prompts that its mask does not show yet."""
        state = self.volume.nodules.get(segmentId)
        if state is not None:
            self._forget(state)
        try:
            if snapshot is None:
                self.volume.remove(segmentId)
            elif not self.volume.restore(snapshot).isSettled:
                self._request(segmentId)
            elif not self.volume.isMeasured(segmentId):
                self.measure(segmentId)
        except SceneError as error:
            self.volume.message(str(error), True)

    # -- new points --------------------------------------------------------------------------------------------------

    @told
    def click(self, ras: Sequence[float], positive: bool, segmentId: str | None = None) -> str | None:
        """Makes a point for a click in a slice view. Returns the nodule's segment ID, None for a refused click."""
        if segmentId is None and positive and self._selectsInside(ras):
            return None
        state = self._noduleFor(ras, positive, segmentId)
        if state is None:
            return None
        return self._give(state, self.volume.ensurePrompts().add(ras, positive, state.segmentId))

    def _selectsInside(self, ras: Sequence[float]) -> bool:
        """Whether a click lies inside a nodule that is not the selected one, which is selected now."""
        volume = self.volume
        hit = self._otherAt(ras)
        if hit is None:
            return False
        volume.select(hit)
        text = _("{name} is selected: click once more to correct it.")
        if volume.isLocked(hit):
            text = _("{name} is selected. It is accepted and locked: U unlocks it.")
        volume.message(text.format(name=volume.nodule(hit).segment.GetName()), False)
        return True

    def _otherAt(self, ras: Sequence[float]) -> str | None:
        """The nodule that a click here would select, None where it would give a point."""
        volume = self.volume
        hit = volume.noduleAt(ras) if volume.options.selectsInside and volume.nodules else None
        return None if hit == volume.selectedId else hit

    def beginsNodule(self, ras: Sequence[float]) -> bool:
        """Whether a click that adds would begin a new nodule here. Raises SceneError."""
        volume = self.volume
        isFree = volume.selectedId not in volume.nodules or volume.options.everyClickIsNew
        return isFree and volume.geometry.contains(ras) and self._otherAt(ras) is None

    def newBlock(self, answer: Segmented) -> MaskBlock | None:
        """The voxels that a click with this answer would give a new nodule, None for no nodule. Raises SceneError."""
        block = self.volume.withoutOthers(MaskBlock(answer.mask, answer.offset_kji))
        return block if _isNodule(block) else None

    def _isLocked(self, segmentId: str) -> bool:
        """Whether a nodule is accepted and thus locked; if so, the user is told."""
        if not self.volume.isLocked(segmentId):
            return False
        name = self.volume.nodule(segmentId).segment.GetName()
        text = _("{name} is accepted and locked, so nothing was changed. U unlocks it; N begins a new nodule.")
        self.volume.message(text.format(name=name), True)
        return True

    def adoptPoints(self) -> None:
        """Turns points that belong to no nodule yet, such as those of a list that the user picked, into clicks.

        They go into the selected nodule. Without one each positive point makes its own nodule, to which the negative
        ones after it belong.
        """
        selected = self.volume.selectedId
        for prompt in [] if self.volume.store is None else self.volume.store.untagged():
            if selected is None and prompt.positive:
                self.volume.select(None)
            self._place(prompt.id, prompt.positive, isOurs=False)
        self.volume.select(selected)

    def adoptGroups(self) -> None:
        """Makes the nodules of points again whose nodules are not there, in a list saved from another scene."""
        store, selected = self.volume.ensurePrompts(), self.volume.selectedId
        for segmentId in [one for one in store.segmentIds() if one not in self.volume.nodules]:
            group = sorted(store.prompts(segmentId), key=lambda prompt: not prompt.positive)
            made = NEW
            for prompt in group if group[0].positive else []:
                made = self._place(prompt.id, prompt.positive, isOurs=False, named=made) or made
        self.volume.select(selected)

    @told
    def importMarks(self, marks: Sequence[Mark]) -> None:
        """Turns marks (world RAS) into clicks: each positive one a new nodule, the negative ones after it belong to it.

        Those that a list of this module says belong together make one nodule; those that lie in a nodule make none.
        """
        volume, selected = self.volume, self.volume.selectedId
        made: dict[str, str] = {}
        last: str | None = None
        new: list[str] = []
        known = outside = 0
        for mark in marks:
            tag = readTag(mark.description)
            positive = mark.positive if tag is None else tag.positive
            nodule = last if tag is None and not positive else None if tag is None else made.get(tag.segmentId)
            if not volume.geometry.contains(mark.ras):
                outside += 1
                last = None if positive else last
                continue
            if nodule is None and not positive:
                continue  # beside a nodule that was not made
            if nodule is None and volume.nodules and volume.noduleAt(mark.ras) is not None:
                known, last = known + 1, None
                continue
            segmentId = self.click(mark.ras, positive, nodule or NEW)
            if nodule is None and segmentId is not None:
                new.append(segmentId)
                last = segmentId
                if tag is not None:
                    made[tag.segmentId] = segmentId
        volume.select(new[0] if new else selected)
        text = _("{new} new nodules from {all} marks; {known} lie in nodules that are there, {outside} outside the CT.")
        volume.message(text.format(new=len(new), all=len(marks), known=known, outside=outside), not (new or known))

    @told
    def _onPlaced(self, pointId: str) -> None:
        prompt = self.volume.prompt(pointId)
        positive = self.volume.options.polarity if prompt.segmentId is None else prompt.positive
        self._place(pointId, positive, isOurs=True)

    @told
    def _place(self, pointId: str, positive: bool, isOurs: bool, named: str | None = None) -> str | None:
        """Turns a point of the list into a click; one that cannot be used is removed if it was only just placed.

        Returns the nodule's segment ID.
        """
        store = self.volume.ensurePrompts()
        prompt = store.prompt(pointId)
        state = self._noduleFor(prompt.ras, positive, named or prompt.segmentId)
        if state is None:
            if isOurs:
                store.remove(pointId)
            return None
        store.assign(pointId, state.segmentId, positive)
        return self._give(state, pointId)

    def _noduleFor(self, ras: Sequence[float], positive: bool, named: str | None = None) -> NoduleState | None:
        """Returns the nodule of a new point, with its step begun; None, after a message, for a point of no use."""
        volume = self.volume
        if not volume.geometry.contains(ras):
            place = ", ".join(f"{name} {value:.1f}" for name, value in zip("RAS", ras, strict=True))
            volume.message(
                _("The point ({place} mm) lies outside the volume {volume}: click inside it.").format(
                    place=place, volume=volume.volumeNode.GetName()
                ),
                True,
            )
            return None
        if named is not None and named in volume.nodules:
            return self._begin(_("Add point"), named)
        selected = volume.selectedId if volume.selectedId in volume.nodules and named != NEW else None
        if selected is not None and not (positive and volume.options.everyClickIsNew):
            return None if self._isLocked(selected) else self._begin(_("Add point"), selected)
        if not positive:
            volume.message(_("Select a nodule first: this click takes away from the selected nodule."), True)
            return None
        return self._beginNew()

    def _give(self, state: NoduleState, pointId: str) -> str:
        """Makes the point the nodule's newest prompt."""
        state.prompts.append(self.volume.prompt(pointId))
        self._request(state.segmentId)
        self.volume.nodulesChanged()
        if state.segmentId in self.volume.nodules:
            self.volume.select(state.segmentId)
        return state.segmentId

    # -- points that are there ---------------------------------------------------------------------------------------

    @told
    def _onMoved(self, pointId: str, final: bool) -> None:
        state = self.volume.noduleOf(pointId)
        if state is None:
            return
        prompt = self.volume.prompt(pointId)
        if state.dragged is None and self._isLocked(state.segmentId):
            self.volume.ensurePrompts().move(pointId, self.volume.toWorld(state.prompts[state.index(pointId)]))
            return
        if state.dragged != pointId:
            self._begin(_("Move point"), state.segmentId)
        state.dragged = None if final else pointId
        state.update(prompt)
        if self.volume.isInside(prompt):
            self._request(state.segmentId)
        elif final:
            self._putBackInside(state, pointId)

    def _putBackInside(self, state: NoduleState, pointId: str) -> None:
        """Returns a point that was dropped outside the volume to where it was."""
        volume = self.volume
        prompt = state.prompts[state.index(pointId)]
        if volume.isInside(prompt):
            return
        volume.message(_("The point was moved out of the volume: it is back where it was."), True)
        earlier = [one for step in reversed(state.open) for one in _promptsBefore(step, state) if one.id == pointId]
        before = next((one for one in earlier if volume.isInside(one)), None)
        if before is not None:
            volume.ensurePrompts().move(pointId, volume.toWorld(before))
            state.update(dataclasses.replace(prompt, ras=before.ras))
        self._request(state.segmentId)

    @told
    def _onRemoved(self, pointId: str, _prompt: Any) -> None:
        state = self.volume.noduleOf(pointId)
        if state is not None:
            if self.volume.isLocked(state.segmentId):
                state.isForeign = True  # the mask is what was accepted: it no longer depends on its points
            self._begin(_("Remove point"), state.segmentId)
            self._takeAway(state, pointId)

    def _takeAway(self, state: NoduleState, pointId: str) -> None:
        wasAbsorbed = pointId in state.absorbed
        del state.prompts[state.index(pointId)]
        state.absorbed.discard(pointId)
        if not state.prompts and state.start is None:
            self._drop(state)
            return
        if wasAbsorbed:
            text = _("The mask stays: it was accepted, or edited by hand, after this point had been placed.")
            self.volume.message(text, False)
        self._request(state.segmentId)

    @told
    def _onRelabelled(self, pointId: str) -> None:
        prompt = self.volume.prompt(pointId)
        state = self.volume.noduleOf(pointId)
        if state is not None and prompt.segmentId == state.segmentId:
            self._begin(_("Change point"), state.segmentId)
            state.update(prompt)
            self._request(state.segmentId)
            return
        if state is not None:
            self._begin(_("Remove point"), state.segmentId)
            self._takeAway(state, pointId)
        if prompt.segmentId in self.volume.nodules:
            self._place(pointId, prompt.positive, isOurs=False)

    # -- what others do ----------------------------------------------------------------------------------------------

    def _onPromptsGone(self) -> None:
        """Handles deleted points: the masks stay, and further clicks change them."""
        for state in self.volume.nodules.values():
            self._forget(state)
            state.isForeign = state.isForeign or bool(state.prompts)
            state.prompts, state.absorbed, state.dragged = [], set(), None
            self._settle(state)
        self.volume.forgetPrompts()
        self.volume.refreshList()

    def _onSegmentsGone(self) -> None:
        """Handles deleted segments: their points are deleted too, and Undo brings both back."""
        for state in self.volume.sync():
            self.step(_("Delete nodule"), {state.segmentId: self.volume.lastKnown(state)})
            self._forget(state)
            self.volume.dropPrompts(state.prompts)
        self.volume.refreshList()

    def _onVoxelsChanged(self, segmentId: str) -> None:
        self._toLookAt[segmentId] = None
        self.volume.worked()

    def rescale(self) -> None:
        """Has measured nodules measured anew after a transform that changes lengths. Raises SceneError."""
        before, self._scale = self._scale, self.volume.geometry.scale()
        if self._scale != before:
            known = self.volume.nodules
            self._toLookAt |= dict.fromkeys(one for one in known if self.volume.record(one).measurements)
            self.volume.worked()

    def refresh(self) -> None:
        """Catches up after opening a volume: unanswered points, edited masks and points without a nodule."""
        if self._isRefreshed:
            return
        self._isRefreshed = True
        for segmentId in self.volume.nodules:
            record = self.volume.record(segmentId)
            if record.mask or record.isPending:
                self._toLookAt[segmentId] = None
        self.adoptPoints()
        self.volume.worked()

    @property
    def hasWork(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return bool(self._toLookAt)

    @told
    def work(self) -> None:
        """Checks one nodule: measures voxels that others changed, or repeats a request that was never answered."""
        segmentId = next(iter(self._toLookAt))
        del self._toLookAt[segmentId]
        volume = self.volume
        state = volume.nodules.get(segmentId)
        if state is None or state.awaited is not None:
            return
        if state.block is None:
            volume.adopt(segmentId)
        record, drawn = volume.record(segmentId), digest(volume.writer.read(segmentId))
        if record.isPending and state.prompts and record.mask == drawn:
            volume.begin(segmentId, {state.prompts[-1].id})
            self._request(segmentId)
        elif not volume.isMeasured(segmentId):
            self.measure(segmentId)

    # -- requests and answers ----------------------------------------------------------------------------------------

    def _request(self, segmentId: str) -> None:
        """Requests the mask that a nodule's prompts give."""
        volume, state = self.volume, self.volume.nodule(segmentId)
        state.isSettled = False
        asked = volume.predictRequest(segmentId)
        if asked is None:
            self._forget(state)
            self._withoutPrompts(state)
        elif not self.pipeline.ensure(volume.geometry):
            self._giveUp(state, self.pipeline.error)
        else:
            state.awaited = self.pipeline.submit(asked, lambda result: self._onAnswer(state, result))
            if state.dragged is None or not volume.record(segmentId).isPending:
                volume.setRecord(segmentId, isPending=True)
                volume.noduleChanged(segmentId)

    def _withoutPrompts(self, state: NoduleState) -> None:
        """Shows the start mask, or nothing, for a nodule without effective prompts."""
        block = EMPTY_BLOCK if state.start is None else MaskBlock(state.start.mask, state.start.offset_kji)
        self.volume.write(state.segmentId, Segmented(block.mask, block.offset_kji, None, {}, 0))
        self._settle(state)
        if state.start is not None:
            self.measure(state.segmentId)
        elif state.active:
            self.volume.message(_("Click inside the nodule first; then clicks outside take parts away."), False)
        self.volume.noduleChanged(state.segmentId)

    def _settle(self, state: NoduleState) -> None:
        state.awaited, state.isSettled = None, True
        state.open.clear()
        if state.dragged is None:  # else the next request is on its way
            self.volume.setRecord(state.segmentId, isPending=False)

    def _onAnswer(self, state: NoduleState, result: Result) -> None:
        try:
            self._take(state, result)
        except SceneError as error:  # the volume cannot be placed any more; when it can, the nodule is asked for again
            state.awaited = None
            state.open.clear()
            self.volume.message(str(error), True)

    def _take(self, state: NoduleState, result: Result) -> None:
        """Shows an answer: to the latest request, or to one before it while the latest is on its way."""
        volume, segmentId = self.volume, state.segmentId
        if volume.nodules.get(segmentId) is not state or state.awaited is None or result.generation > state.awaited:
            return
        isLatest = result.generation == state.awaited
        isSame = result.request.identity == volume.geometry.identity()
        if result.error is not None or result.cancelled or not isSame:
            if isLatest and result.error is None and not isSame and not self.pipeline.error:
                self._request(segmentId)  # the volume has changed meanwhile
            elif isLatest:
                self._giveUp(state, result.error or "", result.details)  # what is wrong with the model was told
            return
        if self._noteEdit(segmentId, volume.begin(segmentId, _unanswered(state))):
            self._request(segmentId)  # edited by hand while the answer was on its way: ask again, on top of the edit
            return
        isUnmeasured = volume.write(segmentId, result.value)
        if not isLatest:
            self._settleBefore(state, result.generation)
        elif not _isNodule(state.block) and state.open and state.dragged is None:
            self._refuse(state)
            return
        else:
            self._settle(state)
        if isUnmeasured:
            self.measure(segmentId)
        volume.noduleChanged(segmentId)

    def _refuse(self, state: NoduleState) -> None:
        """Takes back a step whose answer is an empty mask, and tells the user why."""
        isNew = state.open[0].change.before.get(state.segmentId) is None
        if isNew:
            text = _("There is no nodule here. Click the middle of a nodule, in the slice where it is widest.")
        else:
            text = _("Nothing would be left of the nodule, so this was taken back. Delete the nodule to remove it.")
        self._giveUp(state, text)

    def _settleBefore(self, state: NoduleState, generation: int) -> None:
        """Closes the steps that an answer belongs to; the next step now knows the mask before it."""
        for number, step in enumerate(state.open):
            if step.awaited == generation:
                before = step.change.before.get(state.segmentId)
                if before is not None and not before.isSettled:
                    step.change.before[state.segmentId] = self.volume.settled(before)
                del state.open[:number]
                return

    def _giveUp(self, state: NoduleState, text: str, details: str = "") -> None:
        """Restores the last answered state when the engine cannot answer."""
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
                self.volume.remove(segmentId)
            else:
                self.volume.restore(before).isSettled = True
        else:
            self.volume.setRecord(segmentId, isPending=False)
        if text:
            self.volume.message(text, True)
        if details:
            self.pipeline.failed("", details)
        self.volume.refreshList()

    def cancel(self) -> None:
        """Takes back all clicks that have no answer yet."""
        for state in [one for one in self.volume.nodules.values() if one.awaited is not None]:
            self._giveUp(state, "")

    # -- measurements ------------------------------------------------------------------------------------------------

    def measure(self, segmentId: str) -> None:
        """Measures a mask as it is; until then it has no measurements, nor the predicted IoU of an earlier mask."""
        volume, block = self.volume, self.volume.writer.read(segmentId)
        with volume.changing():
            volume.segmentation.setScore(segmentId, None)
        volume.setMeasurements(segmentId, block, {})
        volume.noduleChanged(segmentId)
        if not block.isEmpty and self.pipeline.ensure(volume.geometry):
            geometry = volume.geometry
            request = Measure(geometry.identity(), {segmentId: block}, geometry.ijkToWorld)
            self.pipeline.submit(request, self._onMeasured)

    @told
    def drawAxes(self, segmentId: str, endsWorld: NDArray, final: bool) -> None:
        """The user drags an end of an axis: the diameters are what was drawn, until the voxels change.

        Args:
            segmentId: the nodule; an accepted one is left as it is.
            endsWorld: (2, 2, 3) both ends of the long and the short axis; what leaves the measured slice is brought
                back into it.
            final: False while it is being dragged: the two do not change roles.
        """
        volume = self.volume
        known = volume.record(segmentId).measurements
        if AXES not in known or not volume.isMeasured(segmentId) or self._isLocked(segmentId):
            self._drawing = None
            return
        ends = volume.intoSliceOfAxes(segmentId, endsWorld)
        lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
        if final and lengths[0] < lengths[1]:
            ends = ends[::-1]
        if self._drawing != segmentId:
            self.change(_("Move axis"), segmentId)
        self._drawing = None if final else segmentId
        diameters = {
            "long_axis_mm": float(lengths.max()),
            "short_axis_mm": float(lengths.min()),
            "mean_diameter_mm": float(lengths.mean()),
            "diameters": BY_HAND,
            AXES: np.round(volume.geometry.worldToLocal(ends), 3).tolist(),
        }
        block = volume.writer.read(segmentId)
        volume.setMeasurements(segmentId, block, {**known, **diameters}, isTouched=True)
        volume.noduleChanged(segmentId)

    def _onMeasured(self, result: Result) -> None:
        volume = self.volume
        for segmentId, measurements in (result.value or {}).items():
            block = result.request.blocks[segmentId]
            # Of voxels that have changed meanwhile they would be wrong; whoever changed them has them measured.
            if segmentId in volume.nodules and digest(block) == digest(volume.writer.read(segmentId)):
                if not isOfScale(measurements, volume.geometry.scale()):
                    self.measure(segmentId)
                    continue
                volume.setMeasurements(segmentId, block, measurements)
                volume.noduleChanged(segmentId)


def _isNodule(block: MaskBlock | None) -> bool:
    return block is not None and int(np.count_nonzero(block.mask)) >= LEAST_VOXELS


def _promptsBefore(step: OpenStep, state: NoduleState) -> Sequence[Prompt]:
    """A nodule's prompts before a step."""
    snapshot = step.change.before.get(state.segmentId)
    return () if snapshot is None else snapshot.prompts


def _unanswered(state: NoduleState) -> set[str]:
    """The points that were placed or moved since the last answer."""
    known = _promptsBefore(state.open[0], state) if state.open else ()
    places = {prompt.id: (prompt.ras, prompt.positive) for prompt in known}
    return {prompt.id for prompt in state.prompts if places.get(prompt.id) != (prompt.ras, prompt.positive)}
