"""Clicks in slice views, and whatever happens to the control points: placed, moved, removed, relabelled."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..signal import Signal
from .errors import SceneError
from .nodule_editor import NoduleEditor
from .nodule_state import NoduleState, OpenStep
from .options import Options
from .prompt_store import Prompt, PromptStore
from .translation import tr as _

#: Instead of a segment ID: a nodule of its own, whatever is selected.
NEW = "SAMMed3D.New"


def _telling(slot: Callable[..., None]) -> Callable[..., None]:
    """Errors are told: nobody could catch them behind an event of the scene."""

    @functools.wraps(slot)
    def guarded(self: PromptEvents, *args: Any) -> None:
        try:
            slot(self, *args)
        except SceneError as error:
            self._editor.message(str(error), True)

    return guarded


class PromptEvents:
    """Which nodule a point belongs to, and what its coming, going and moving means.

    Args:
        editor: does the rest.
        options: the session's.
    """

    def __init__(self, editor: NoduleEditor, options: Options) -> None:
        self._editor = editor
        self._options = options
        self._document = editor.document
        self._store: PromptStore | None = None
        self.connect()

    def connect(self) -> None:
        """Listen to the document's point list, which may have been made meanwhile."""
        store = self._document.store
        if store is self._store:
            return
        self.disconnect()
        self._store = store
        if store is not None:
            for signal, slot in self._slots(store):
                signal.connect(slot)

    def disconnect(self) -> None:
        """Stop listening."""
        if self._store is not None:
            for signal, slot in self._slots(self._store):
                signal.disconnect(slot)
            self._store = None

    def _slots(self, store: PromptStore) -> list[tuple[Signal, Callable[..., None]]]:
        return [
            (store.placed, self._onPlaced),
            (store.moved, self._onMoved),
            (store.removed, self._onRemoved),
            (store.relabelled, self._onRelabelled),
        ]

    # -- new points --------------------------------------------------------------------------------------------------

    def click(self, ras: Sequence[float], positive: bool, segmentId: str | None = None) -> str | None:
        """A click in a slice view: the point is made. Returns the nodule's segment ID, None where it was refused."""
        try:
            state = self._noduleFor(ras, positive, segmentId)
            if state is None:
                return None
            pointId = self._document.ensurePrompts().add(ras, positive, state.segmentId)
        except SceneError as error:
            self._editor.message(str(error), True)
            return None
        self.connect()
        return self._give(state, pointId)

    def adopt(self, prompts: Sequence[Prompt]) -> None:
        """Points that belong to no nodule yet, such as those of a list that the user picked.

        They go into the selected nodule. Without one each positive point makes its own nodule, to which the negative
        ones after it belong.
        """
        selected = self._editor.selectedId
        for prompt in prompts:
            if selected is None and prompt.positive:
                self._editor.select(None)
            self._placed(prompt.id, prompt.positive, isOurs=False)
        self._editor.select(selected)

    def adoptGroups(self) -> None:
        """Points of nodules that are not there, in a list saved from another scene: each nodule is made again."""
        document, selected = self._document, self._editor.selectedId
        for segmentId in [one for one in document.store.segmentIds() if one not in document.nodules]:
            group = sorted(document.store.prompts(segmentId), key=lambda prompt: not prompt.positive)
            made = NEW
            for prompt in group if group[0].positive else []:
                made = self._placed(prompt.id, prompt.positive, isOurs=False, named=made) or made
        self._editor.select(selected)

    @_telling
    def _onPlaced(self, pointId: str) -> None:
        prompt = self._store.prompt(pointId)
        self._placed(pointId, self._options.polarity if prompt.segmentId is None else prompt.positive, isOurs=True)

    def _placed(self, pointId: str, positive: bool, isOurs: bool, named: str | None = None) -> str | None:
        """A point of the list becomes a click; one that cannot be used is removed where it was only just placed.

        Returns the nodule's segment ID.
        """
        try:
            prompt = self._store.prompt(pointId)
            state = self._noduleFor(prompt.ras, positive, named or prompt.segmentId)
            if state is None:
                if isOurs:
                    self._store.remove(pointId)
                return None
            self._store.assign(pointId, state.segmentId, positive)
        except SceneError as error:
            self._editor.message(str(error), True)
            return None
        return self._give(state, pointId)

    def _noduleFor(self, ras: Sequence[float], positive: bool, named: str | None = None) -> NoduleState | None:
        """The nodule of a new point, with its step begun; None where the point is of no use, which is said."""
        editor, document = self._editor, self._document
        if not document.geometry.contains(ras):
            place = ", ".join(f"{name} {value:.1f}" for name, value in zip("RAS", ras, strict=True))
            editor.message(
                _("The point ({place} mm) lies outside the volume {volume}: click inside it.").format(
                    place=place, volume=document.volumeNode.GetName()
                ),
                True,
            )
            return None
        if named is not None and named in document.nodules:
            return editor.begin(_("Add point"), named)
        selected = editor.selectedId if editor.selectedId in document.nodules and named != NEW else None
        if selected is not None and not (positive and self._options.everyClickIsNew):
            return editor.begin(_("Add point"), selected)
        if not positive:
            editor.message(_("Select the nodule to take a part from, then click outside of it."), True)
            return None
        return editor.beginNew()

    def _give(self, state: NoduleState, pointId: str) -> str:
        """The point becomes the nodule's newest prompt."""
        state.prompts.append(self._document.prompt(pointId))
        self._editor.request(state.segmentId)
        self._editor.nodulesChanged()
        if state.segmentId in self._document.nodules:
            self._editor.select(state.segmentId)
        return state.segmentId

    # -- points that are there ---------------------------------------------------------------------------------------

    @_telling
    def _onMoved(self, pointId: str, final: bool) -> None:
        state = self._document.noduleOf(pointId)
        if state is None:
            return
        prompt = self._document.prompt(pointId)
        number = state.index(pointId)
        if state.dragged == pointId and final and state.prompts[number].ras == prompt.ras:
            state.dragged = None
            self._putBackInside(state, pointId)
            return
        if state.dragged != pointId:
            self._editor.begin(_("Move point"), state.segmentId)
        state.dragged = None if final else pointId
        self._update(state, prompt)
        if self._isInside(prompt):
            self._editor.request(state.segmentId)
        elif final:
            self._putBackInside(state, pointId)

    def _isInside(self, prompt: Prompt) -> bool:
        return self._document.geometry.contains(self._document.toWorld(prompt))

    def _putBackInside(self, state: NoduleState, pointId: str) -> None:
        """A point that was dropped outside the volume returns to where it was."""
        if self._isInside(state.prompts[state.index(pointId)]):
            return
        self._editor.message(_("The point was moved out of the volume: it is back where it was."), True)
        step = next((step for step in reversed(state.open) if self._before(step, state, pointId)), None)
        if step is not None:
            before = self._before(step, state, pointId)
            self._store.move(pointId, self._document.toWorld(before))
            self._update(state, dataclasses.replace(state.prompts[state.index(pointId)], ras=before.ras))
        self._editor.request(state.segmentId)

    def _before(self, step: OpenStep, state: NoduleState, pointId: str) -> Prompt | None:
        snapshot = step.change.before.get(state.segmentId)
        prompts = () if snapshot is None else snapshot.prompts
        return next((prompt for prompt in prompts if prompt.id == pointId and self._isInside(prompt)), None)

    def _update(self, state: NoduleState, prompt: Prompt) -> None:
        """A point has moved or changed sides; where its old effect is part of the start mask it is a new click."""
        number = state.index(prompt.id)
        if prompt.id in state.absorbed:
            state.absorbed.discard(prompt.id)
            del state.prompts[number]
            state.prompts.append(prompt)
        else:
            state.prompts[number] = prompt

    @_telling
    def _onRemoved(self, pointId: str, _prompt: Any) -> None:
        state = self._document.noduleOf(pointId)
        if state is None:
            return
        self._editor.begin(_("Remove point"), state.segmentId)
        self._takeAway(state, pointId)

    def _takeAway(self, state: NoduleState, pointId: str) -> None:
        wasAbsorbed = pointId in state.absorbed
        del state.prompts[state.index(pointId)]
        state.absorbed.discard(pointId)
        if not state.prompts and state.start is None:
            self._editor.dropEmpty(state)
            return
        if wasAbsorbed:
            self._editor.message(_("The mask stays: it was edited by hand after this point had been placed."), False)
        self._editor.request(state.segmentId)

    @_telling
    def _onRelabelled(self, pointId: str) -> None:
        prompt = self._document.prompt(pointId)
        state = self._document.noduleOf(pointId)
        if state is not None and prompt.segmentId == state.segmentId:
            self._editor.begin(_("Change point"), state.segmentId)
            self._update(state, prompt)
            self._editor.request(state.segmentId)
            return
        if state is not None:
            self._editor.begin(_("Remove point"), state.segmentId)
            self._takeAway(state, pointId)
        if prompt.segmentId in self._document.nodules:
            self._placed(pointId, prompt.positive, isOurs=False)
