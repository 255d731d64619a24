"""Everything that belongs to one open document, and what to do when its nodes go away."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..signal import Signal
from .document import Document
from .document_watch import DocumentWatch
from .errors import SceneError
from .nodule_editor import NoduleEditor
from .nodule_state import digest
from .options import Options
from .pipeline import Pipeline
from .prompt_events import PromptEvents
from .segment_all import SegmentAll


class Workbench:
    """A document with its editor, its events and *Segment all*.

    Attributes:
        nodesGone: Signal(): volume or segmentation left the scene; the bench must be closed.
        workToDo: Signal(): :meth:`work` must be called soon.
    """

    def __init__(
        self, pipeline: Pipeline, options: Options, volumeNode: Any, segmentationNode: Any = None,
        promptsNode: Any = None,
    ) -> None:
        self.nodesGone, self.workToDo = Signal(), Signal()
        self.document = Document(volumeNode, options, segmentationNode, promptsNode)
        self.editor = NoduleEditor(self.document, pipeline)
        self.events = PromptEvents(self.editor, options)
        self.segmentAll = SegmentAll(self.editor, pipeline)
        self._pipeline = pipeline
        self._edited: dict[str, None] = {}
        self._shows3d = False
        self._surfacesLeft = False
        self._isRefreshed = False
        self._watch = DocumentWatch(self.document)
        self._watch.volumeRemoved.connect(self._onVolumeRemoved)
        self._watch.segmentationRemoved.connect(self._onSegmentationRemoved)
        self._watch.promptsRemoved.connect(self._onPromptsRemoved)
        self._watch.segmentsRemoved.connect(self.editor.noteRemoved)
        self._watch.segmentsChanged.connect(self.editor.refreshList)
        self._watch.voxelsChanged.connect(self._onVoxelsChanged)
        self.editor.nodulesChanged.connect(self._watch.update)

    def close(self) -> None:
        """Let go of all nodes; everything stays in the scene."""
        self._watch.close()
        self.events.disconnect()
        self.segmentAll.close()
        self.editor.close()
        self.document.close()

    # -- what others do ----------------------------------------------------------------------------------------------

    def _onVolumeRemoved(self) -> None:
        self.document.volumeNode = None
        self.nodesGone()

    def _onSegmentationRemoved(self) -> None:
        for state in self.document.nodules.values():
            self.document.dropPrompts(state.prompts)
        self.document.segmentationNode = None
        self.nodesGone()

    def _onPromptsRemoved(self) -> None:
        """The masks stay; with the next click they are what is clicked on."""
        self.events.disconnect()
        self.editor.losePrompts()

    def _onVoxelsChanged(self, segmentId: str) -> None:
        self._edited[segmentId] = None
        self.workToDo()

    # -- small pieces of work ----------------------------------------------------------------------------------------

    @property
    def hasWork(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return bool(self._edited) or self.segmentAll.hasWork or self._hasSurfaceWork

    @property
    def _hasSurfaceWork(self) -> bool:
        """Surfaces wait until no answer is awaited: while a point is dragged they would be of no use."""
        isWanted = self._surfacesLeft or (self._shows3d and bool(self.document.staleSurfaces))
        return isWanted and self.document.writer is not None and not self.editor.isWaiting

    def work(self, seconds: float) -> None:
        """Do small pieces of work for about so long."""
        end = time.monotonic() + seconds
        while self.hasWork and time.monotonic() < end:
            if self._edited:
                segmentId = next(iter(self._edited))
                del self._edited[segmentId]
                self._lookAgain(segmentId)
            elif self.segmentAll.hasWork:
                self.segmentAll.work()
            else:
                self._updateSurface()

    def show3d(self, on: bool) -> None:
        """Show closed surfaces, made one at a time, or drop them."""
        self._shows3d = self._surfacesLeft = on
        writer = self.document.writer
        if on:
            self.document.staleSurfaces = dict.fromkeys(self.document.nodules)
        elif writer is not None:
            with self.document.changing():
                writer.showSurfaces(False)
        self.workToDo()

    def _updateSurface(self) -> None:
        document = self.document
        with document.changing():
            if document.staleSurfaces:
                segmentId = next(iter(document.staleSurfaces))
                del document.staleSurfaces[segmentId]
                if segmentId in document.nodules:
                    document.writer.updateSurface(segmentId)
            else:
                self._surfacesLeft = False
                document.writer.showSurfaces(True)

    def refresh(self) -> None:
        """Once after opening: ask for what was not answered, measure what was edited, take points that wait."""
        if self._isRefreshed:
            return
        self._isRefreshed = True
        document = self.document
        for segmentId in document.nodules:
            record = document.record(segmentId)
            if record.mask or record.isPending:
                self._edited[segmentId] = None
        if document.store is not None:
            self.events.adopt(document.store.untagged())
        self.workToDo()

    def _lookAgain(self, segmentId: str) -> None:
        """Measurements of voxels that others changed, answers that never came."""
        document = self.document
        state = document.nodules.get(segmentId)
        if state is None or state.awaited is not None:
            return
        try:
            record = document.record(segmentId)
            if state.block is None:
                document.adopt(segmentId)
                isEdited = record.mask != digest(state.block) or not (record.measurements or record.isPending)
            else:
                isEdited = document.writer.wasEdited(segmentId)
            if isEdited:
                self.editor.measure([segmentId])
            elif record.isPending and state.prompts:
                document.begin(segmentId, {state.prompts[-1].id})
                self.editor.request(segmentId)
        except SceneError as error:
            self.editor.message(str(error), True)

    # -- places ------------------------------------------------------------------------------------------------------

    def centerOf(self, segmentId: str) -> tuple[float, float, float] | None:
        """World RAS of a nodule's middle, or of its newest point; None for an empty nodule without points.

        Raises:
            SceneError: the nodule is not there any more.
        """
        document = self.document
        state = document.nodule(segmentId)
        block = document.writer.read(segmentId)
        if not block.isEmpty:
            kji = np.argwhere(block.mask).mean(axis=0) + block.offset_kji
            point = document.geometry.ijkToWorld @ [*kji[::-1], 1.0]
            return float(point[0]), float(point[1]), float(point[2])
        return document.toWorld(state.prompts[-1]) if state.prompts else None
