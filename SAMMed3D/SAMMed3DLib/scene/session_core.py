"""The session's ground: which nodes are open, which state holds, and the event loop."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import slicer

from ..signal import Signal
from ..worker.requests import Generate, ModelInfo, Prefetch, Progress
from .document import Document
from .errors import SceneError
from .options import Options
from .pipeline import ModelProvider, Pipeline
from .scene_closing import SceneClosing
from .segment_all import DEFAULT_SENSITIVITY
from .states import Facts, State, stateOf, textOf
from .translation import tr as _
from .volume_geometry import VolumeGeometry
from .workbench import Workbench

#: Longest time that small pieces of work take in one turn of the event loop.
_TURN_SECONDS = 0.008


_open: weakref.WeakSet[SessionCore] = weakref.WeakSet()


def sessionOn(volumeNode: Any, segmentationNode: Any = None) -> Any | None:
    """The open Session that works on these nodules (None: the volume's own): two would take each other for users."""
    for session in _open:
        if session.volumeNode is volumeNode and segmentationNode in (None, session.segmentationNode):
            return session
    return None


class SessionCore:
    """Opens and closes documents and keeps the worker's answers coming; :class:`.session.Session` is built on it."""

    def __init__(self, worker: Any, models: ModelProvider, scene: Any = None) -> None:
        self.stateChanged, self.nodulesChanged, self.noduleChanged = Signal(), Signal(), Signal()
        self.selectionChanged, self.historyChanged = Signal(), Signal()
        self.progressed, self.message = Signal(), Signal()
        self.busyChanged, self.documentChanged = Signal(), Signal()
        self.options = Options()
        self._models = models
        self._scene = slicer.mrmlScene if scene is None else scene
        self._pipeline = Pipeline(worker, models)
        self._pipeline.progressed.connect(self._onProgress)
        self._pipeline.failed.connect(self._onFailed)
        self._pipeline.noted.connect(self._onNoted)
        self._bench: Workbench | None = None
        self._volumeNode: Any = None
        self._problem = ""
        self._sensitivity = DEFAULT_SENSITIVITY
        self._shows3d = False
        self._preloads = False
        self._prefetched: Any = None
        self._nodes: tuple[Any, Any] = (None, None)
        self._isBusy = False
        self._told: tuple[State, str] | None = None
        self._closing = SceneClosing(self._scene, self.suspend, self.resume)
        _open.add(self)

    # -- what is being worked on -------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the session can do at the moment."""
        return stateOf(self._facts())

    @property
    def stateText(self) -> str:
        """The state in a sentence, translated."""
        facts = self._facts()
        return textOf(stateOf(facts), facts)

    @property
    def modelInfo(self) -> ModelInfo | None:
        """Path, name, device, precision and a note about the loaded model, or None."""
        return self._pipeline.modelInfo

    @property
    def volumeNode(self) -> Any:
        """The CT, or None."""
        return self._volumeNode

    @property
    def segmentationNode(self) -> Any:
        """Where nodules are, None before the first one."""
        return None if self._bench is None else self._bench.document.segmentationNode

    @property
    def promptsNode(self) -> Any:
        """The point list, None before the first click."""
        return None if self._bench is None else self._bench.document.promptsNode

    @property
    def store(self) -> Any:
        """The PromptStore, None before the first click."""
        return None if self._bench is None else self._bench.document.store

    @property
    def selectedId(self) -> str | None:
        """Segment ID of the selected nodule; None = the next click starts a new one."""
        return None if self._bench is None else self._bench.editor.selectedId

    @property
    def polarity(self) -> bool:
        """The sign of points that come from the Markups toolbar."""
        return self.options.polarity

    @polarity.setter
    def polarity(self, on: bool) -> None:
        self.options.polarity = bool(on)

    @property
    def everyClickIsNew(self) -> bool:
        """Each positive click makes a new nodule."""
        return self.options.everyClickIsNew

    @everyClickIsNew.setter
    def everyClickIsNew(self, on: bool) -> None:
        self.options.everyClickIsNew = bool(on)

    @property
    def doNotOverlap(self) -> bool:
        """Voxels of other segments are left out."""
        return self.options.doNotOverlap

    @doNotOverlap.setter
    def doNotOverlap(self, on: bool) -> None:
        self.options.doNotOverlap = bool(on)

    def setVolume(self, node: Any | None) -> None:
        """Work on a volume; its segmentation and point list are found in the scene, or made with the first click."""
        if node is not self._volumeNode or (node is not None and self._bench is None):
            self._open(node)

    def setSegmentation(self, node: Any | None) -> None:
        """Put nodules into this segmentation; None = the volume's own, made with the first click."""
        if self._volumeNode is not None and node is not self.segmentationNode:
            self._open(self._volumeNode, node)

    def setPrompts(self, node: Any | None) -> None:
        """Take this point list as prompts; its points that belong to no nodule yet are taken as clicks."""
        if self._volumeNode is None or node is self.promptsNode:
            return
        selected = self.selectedId
        self._open(self._volumeNode, self.segmentationNode, node)
        if self._bench is not None:
            self._bench.editor.select(selected)
            if node is not None and self.state.takesClicks:
                document = self._bench.document
                if document.ownsPrompts:
                    self._bench.events.adoptGroups()
                self._bench.events.adopt(document.store.untagged())

    def _open(self, volumeNode: Any, segmentationNode: Any = None, promptsNode: Any = None) -> None:
        self._closeBench()
        self._volumeNode, self._problem = volumeNode, ""
        if volumeNode is not None:
            try:
                bench = Workbench(self._pipeline, self.options, volumeNode, segmentationNode, promptsNode)
                self._use(bench)
            except SceneError as error:
                self._problem = str(error)
                self.message(str(error), True)
        self.documentChanged()
        self.nodulesChanged()
        self.historyChanged()
        if self._preloads:
            self.preload()
        self._update()

    def _use(self, bench: Workbench) -> None:
        self._bench = bench
        self._nodes = (bench.document.segmentationNode, bench.document.promptsNode)
        bench.segmentAll.sensitivity = self._sensitivity
        bench.editor.nodulesChanged.connect(self._onNodulesChanged)
        bench.editor.noduleChanged.connect(self._onNoduleChanged)
        bench.editor.selectionChanged.connect(self.selectionChanged.emit)
        bench.editor.history.changed.connect(self.historyChanged.emit)
        bench.editor.message.connect(self.message.emit)
        bench.nodesGone.connect(self._onNodesGone)
        bench.workToDo.connect(self._update)
        if self._shows3d:
            bench.show3d(True)

    def _closeBench(self) -> None:
        bench, self._bench = self._bench, None
        if bench is not None:
            hadSelection = bench.editor.selectedId is not None
            bench.close()
            if hadSelection:
                self.selectionChanged(None)
        self._pipeline.dropAll()
        self._prefetched = None

    def setModel(self) -> None:
        """The provider's choice has changed (or PyTorch was installed): load it; nodules stay."""
        if self._bench is not None:
            self._bench.segmentAll.stop()
        self._pipeline.forgetModel()
        self._prefetched = None
        self.preload()

    def preload(self) -> None:
        """Load model and volume and encode a first crop, in the background; nothing if something is missing."""
        self._preloads = False  # opening again would call this
        self.retry()
        self._preloads = True
        facts = self._facts()
        if self._bench is not None and facts.hasTorch and facts.hasWeights and not self._problem:
            try:
                geometry = self._bench.document.geometry
                if self._pipeline.ensure(geometry):
                    self._bench.refresh()
                    if self._prefetched is None:
                        center = (geometry.ijkToWorld @ [*(n // 2 for n in geometry.shapeKji[::-1]), 1.0])[:3]
                        self._prefetch(geometry, center)
            except SceneError as error:
                self.message(str(error), True)
        self._update()

    def _prefetch(self, geometry: VolumeGeometry, rasWorld: Sequence[float]) -> None:
        voxel = tuple((geometry.worldToIjk(rasWorld) + 0.5).astype(int).tolist())
        if (geometry.identity(), voxel) != self._prefetched:
            self._prefetched = (geometry.identity(), voxel)
            request = Prefetch(geometry.identity(), geometry.worldToLocal(rasWorld).tolist())
            self._pipeline.submit(request, lambda _result: None)

    def retry(self) -> None:
        """What could not be used may have been mended meanwhile: a transform hardened, voxels corrected."""
        if self._problem:
            self._open(self._volumeNode)
        elif self._pipeline.error and self._bench is not None:
            with self._telling():
                self._pipeline.ensure(self._bench.document.geometry)

    def suspend(self) -> None:
        """Let go of all nodes, before the scene is closed."""
        self._closeBench()
        self._volumeNode, self._problem = None, ""
        self.documentChanged()
        self.nodulesChanged()
        self.historyChanged()
        self._update()

    def resume(self) -> None:
        """The scene is there again."""
        self._update()

    def close(self) -> None:
        """Let go of everything, for good; the worker goes on living."""
        _open.discard(self)
        self._closing.close()
        self._closeBench()
        self._volumeNode = None

    def _document(self) -> Document:
        """The open document. Raises SceneError."""
        if self._bench is None:
            raise SceneError(_("No volume is selected."))
        return self._bench.document

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What goes wrong is told; afterwards state and polling are brought up to date."""
        try:
            yield
        except SceneError as error:
            self.message(str(error), True)
        finally:
            self._update()

    # -- the event loop ----------------------------------------------------------------------------------------------

    @property
    def isBusy(self) -> bool:
        """Whether :meth:`poll` must be called."""
        return self._pipeline.isBusy or (self._bench is not None and self._bench.hasWork)

    def poll(self, timeout: float = 0.005) -> bool:
        """Wait up to ``timeout`` seconds for the worker and take at most one answer; returns whether to go on polling.

        Waiting is what lets the worker run: Slicer's main thread holds Python's lock otherwise.
        """
        hasWork = self._bench is not None and self._bench.hasWork
        try:
            self._pipeline.take(0.0005 if hasWork else timeout)
            if self._bench is not None and self._bench.hasWork:
                self._bench.work(_TURN_SECONDS)
        except SceneError as error:
            self.message(str(error), True)
        self._update()
        return self._isBusy

    def waitUntilIdle(self, timeout: float = 60.0, keepAlive: Callable[[], None] | None = None) -> bool:
        """Poll until everything is answered; False after ``timeout`` seconds. For scripts and tests.

        Args:
            timeout: seconds.
            keepAlive: called between polls, such as slicer.app.processEvents.
        """
        end = time.monotonic() + timeout
        while self.poll(0.02):
            if keepAlive is not None:
                keepAlive()
            if time.monotonic() > end:
                return False
        return True

    def _facts(self) -> Facts:
        bench = self._bench
        return Facts(
            hasTorch=self._models.torchInstalled(),
            hasWeights=self._models.path is not None,
            hasVolume=self._volumeNode is not None,
            error=self._problem or self._pipeline.error,
            isGenerating=bench is not None and bench.segmentAll.isRunning,
            isLoading=self._pipeline.isLoading,
            isPredicting=bench is not None and bench.editor.isWaiting,
        )

    def _update(self) -> None:
        """Tell what has changed about state and polling."""
        facts = self._facts()
        state = stateOf(facts)
        told = (state, textOf(state, facts))
        if told != self._told:
            self._told = told
            self.stateChanged(state)
        if self.isBusy != self._isBusy:
            self._isBusy = not self._isBusy
            self.busyChanged(self._isBusy)

    def _onNodulesChanged(self) -> None:
        nodes = (self.segmentationNode, self.promptsNode)
        if nodes != self._nodes:
            self._nodes = nodes
            self.documentChanged()
        self.nodulesChanged()
        self._update()

    def _onNoduleChanged(self, segmentId: str) -> None:
        self.noduleChanged(segmentId)
        self._update()

    def _onNodesGone(self) -> None:
        document = self._bench.document
        self._open(document.volumeNode, None, document.promptsNode)

    def _onProgress(self, progress: Progress) -> None:
        text = progress.text
        if isinstance(progress.request, Generate):
            text = _("Looking for nodules")
            if progress.seconds_left is not None:
                text = _("Looking for nodules, about {seconds} s left").format(seconds=round(progress.seconds_left))
        if text:
            self.progressed(progress.done, progress.total, text)

    def _onNoted(self, text: str) -> None:
        self.message(text, False)

    def _onFailed(self, text: str, details: str) -> None:
        if details:
            logging.error(details)
        if text:
            self.message(text, True)
