"""The session: everything between the user's clicks and the segments, without a widget."""

from __future__ import annotations

import dataclasses
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from ..files.mark_files import read_marks
from ..inference.errors import InputError
from ..signal import Signal
from ..translation import tr as _
from ..worker.requests import FindLungs, FunctionRequest, Generate, ModelInfo, Prefetch, Priority, Progress, Result
from . import views
from .click_preview import ClickPreview
from .finding import Finding, VolumeQueue, volumesOf
from .input_gate import Oddities, odditiesOf, seriesUid
from .interchange import cropsOf, exportLabelMap, exportPoints, freeFolder, marksOf, showLungs, writeCrops
from .mask_block import MaskBlock
from .measure_view import MeasureView
from .nodule_editor import NEW, NoduleEditor
from .nodule_segmentation import showWith
from .open_volume import OpenVolume, Options, told
from .pipeline import ModelProvider, Pipeline
from .prompt_store import PromptStore
from .review import Review
from .states import SessionFacts, State, busyText, stateOf, textOf
from .undo_stack import UndoStack
from .volume_geometry import SceneError, VolumeGeometry

#: Longest time that small pieces of work take in one turn of the event loop.
_TURN_SECONDS = 0.008

_open: weakref.WeakSet[Session] = weakref.WeakSet()


def sessionOn(volumeNode: Any, segmentationNode: Any = None) -> Session | None:
    """Finds the open session that works on these nodules (None: the volume's own); scripts must work through it."""
    for session in _open:
        if session.volumeNode is volumeNode and segmentationNode in (None, session.segmentationNode):
            return session
    return None


class Session:
    """The one object behind the panel, the calls for scripts and the self-test.

    All methods belong to the main thread and return at once; points are world RAS, mm. While :attr:`busyChanged` has
    last said True, :meth:`poll` must be called every 5 ms or so. Its parts are those of the open volume: another volume
    has others, and without a volume they are there and hold nothing.

    Args:
        worker: an :class:`SAMMed3DLib.worker.thread.Worker`.
        models: the chosen model.
        scene: default: slicer.mrmlScene.

    Attributes (parts):
        volume: the open volume.
        history: whether there is something to undo or redo, and what.
        review: the list of nodules, and what is done with its rows.
        finding: the search for all nodules, and which of them are shown.
        options: the user's choices, which may be set at any time.

    Attributes:
        oddities: what is odd about the volume for measuring.
        unseen: whether a click was refused because its view shows another volume; :meth:`showVolume` would help.

    Attributes (signals):
        stateChanged: (State) the state or its text.
        nodulesChanged: () rows were added, removed or reordered, or all may have changed.
        noduleChanged: (segmentId) one row changed.
        selectionChanged: (segmentId or None).
        historyChanged: () canUndo, canRedo or their texts.
        progressed: (done, total, text) of long work; total 0 = unknown.
        message: (text, isError) for the status line.
        busyChanged: (bool) start or stop polling.
        dragging: (bool) the user takes hold of a point, or lets go of it.
        documentChanged: () another volume, segmentation or point list is in use (also by a node's deletion): node
            selectors follow :attr:`volumeNode`, :attr:`segmentationNode` and :attr:`promptsNode`.
    """

    #: For :meth:`click`: a nodule of its own, whatever is selected.
    NEW = NEW

    volume: OpenVolume
    history: UndoStack
    review: Review
    finding: Finding

    def __init__(self, worker: Any, models: ModelProvider, scene: Any = None) -> None:
        self.stateChanged, self.nodulesChanged, self.noduleChanged = Signal(), Signal(), Signal()
        self.selectionChanged, self.historyChanged = Signal(), Signal()
        self.progressed, self.message = Signal(), Signal()
        self.busyChanged, self.documentChanged, self.dragging = Signal(), Signal(), Signal()
        self.options = Options()
        self._models = models
        self._scene = slicer.mrmlScene if scene is None else scene
        self._pipeline = Pipeline(worker, models)
        self._pipeline.progressed.connect(self._onProgress)
        self._pipeline.failed.connect(self._onFailed)
        self._pipeline.noted.connect(self._onNoted)
        self._volumeNode: Any = None
        self._problem = ""
        self.unseen = False
        self.queue: VolumeQueue | None = None
        self._job: tuple[int, str] | None = None
        self._preloads = False
        self._prefetched: Any = None
        self._isBusy = False
        self._selectedBefore: str | None = None
        self._later: deque[Callable[[], None]] = deque()
        self._complained = False
        self._watched: list[tuple[Any, int]] = []
        self.oddities = Oddities()
        self._measure = MeasureView(self._scene)
        self._measure.dragged.connect(self._onAxesDragged)
        self.selectionChanged.connect(lambda _segmentId: self.showMeasure())
        self.noduleChanged.connect(self._onMeasureChanged)
        self.nodulesChanged.connect(self.showMeasure)
        self._preview = ClickPreview(self._scene)
        self._hovered: tuple[float, float, float] | None = None
        changes = (self.stateChanged, self.nodulesChanged, self.noduleChanged, self.selectionChanged)
        for signal in (*changes, self.historyChanged):
            signal.connect(self.hidePreview)
        self._told: tuple[State, str] | None = None
        self.message.connect(self._onOwnMessage)
        self._use(OpenVolume(self.options))
        scene = self._scene
        self._tags = [
            scene.AddObserver(scene.StartCloseEvent, lambda *_event: self.suspend()),
            scene.AddObserver(scene.EndCloseEvent, lambda *_event: self._update()),
        ]
        _open.add(self)

    # -- state -------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The present state of the session."""
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
        """The segmentation that holds the nodules, None before the first one."""
        return self.volume.segmentationNode

    @property
    def promptsNode(self) -> Any:
        """The point list, None before the first click."""
        return self.volume.promptsNode

    @property
    def store(self) -> PromptStore | None:
        """The points, None before the first click."""
        return self.volume.store

    @property
    def selectedId(self) -> str | None:
        """Segment ID of the selected nodule; None = the next click starts a new one."""
        return self.volume.selectedId

    def _facts(self) -> SessionFacts:
        return SessionFacts(
            hasTorch=self._models.torchInstalled(),
            hasWeights=self._models.path is not None,
            hasVolume=self._volumeNode is not None,
            error=self._problem or self._pipeline.error,
            isGenerating=self.finding.isRunning,
            isLoading=self._pipeline.isLoading,
            isPredicting=self._editor.isWaiting,
            job="" if self._job is None else self._job[1],
        )

    def _update(self) -> None:
        """Emits the signals for changes of state and polling."""
        facts = self._facts()
        state = stateOf(facts)
        told = (state, textOf(state, facts))
        if told != self._told:
            self._told = told
            self.stateChanged(state)
        if self.isBusy != self._isBusy:
            self._isBusy = not self._isBusy
            self.busyChanged(self._isBusy)

    # -- the open volume ---------------------------------------------------------------------------------------------

    def setVolume(self, node: Any | None) -> None:
        """Opens a volume; its segmentation and point list are found in the scene, or made with the first click."""
        if node is not self._volumeNode or (node is not None and self.volume.volumeNode is None):
            self._openVolume(node)

    def showVolume(self, everywhere: bool = True) -> None:
        """Shows the volume with its own nodules, and none of another volume's.

        Args:
            everywhere: in all slice views, fitted; else only where no view shows it yet.
        """
        node = self.volume.volumeNode
        if node is not None:
            with slicer.util.RenderBlocker():
                if everywhere or not views.isOnScreen(node):
                    views.showVolume(node)
                    views.fitChest(node)
                views.openChest(node)
                views.showNodulesOf(node)
            self.unseen = False

    def setSegmentation(self, node: Any | None) -> None:
        """Chooses the segmentation for nodules; None = the volume's own, made with the first click."""
        if self._volumeNode is not None and node is not self.segmentationNode:
            self._openVolume(self._volumeNode, node)

    def setPrompts(self, node: Any | None) -> None:
        """Chooses the point list; its points that belong to no nodule yet are taken as clicks."""
        if self._volumeNode is None or node is self.promptsNode:
            return
        selected = self.selectedId
        self._openVolume(self._volumeNode, self.segmentationNode, node)
        self.volume.select(selected)
        if node is not None and self.state.takesClicks:
            if self.volume.ownsPrompts:
                self._editor.adoptGroups()
            self._editor.adoptPoints()

    def _openVolume(self, volumeNode: Any, segmentationNode: Any = None, promptsNode: Any = None) -> None:
        self._closeVolume()
        isOther = volumeNode is not self._volumeNode
        self._volumeNode, self._problem, self.unseen = volumeNode, "", False
        if volumeNode is None:
            self.oddities = Oddities()
        if volumeNode is not None:
            try:
                self._use(OpenVolume(self.options, volumeNode, segmentationNode, promptsNode))
            except SceneError as error:
                self._problem = str(error)
                self.message(str(error), True)
            if isOther:
                self.oddities = odditiesOf(volumeNode)
            self._watched = [
                (volumeNode, volumeNode.AddObserver(event, lambda *_event: self._onVolumeChanged()))
                for event in (volumeNode.TransformModifiedEvent, volumeNode.ImageDataModifiedEvent)
            ]
            self._watched.append((volumeNode, volumeNode.AddObserver("ModifiedEvent", self.hidePreview)))
        self.documentChanged()
        self.nodulesChanged()
        self.historyChanged()
        if self._preloads:
            self.preload()
        self._update()

    def _use(self, volume: OpenVolume) -> None:
        self.volume = volume
        self._editor = NoduleEditor(volume, self._pipeline)
        self.history = self._editor.history
        self.review = Review(self._editor, self._scene)
        self.finding = Finding(self._editor)
        self._nodes = (volume.segmentationNode, volume.promptsNode)
        volume.nodulesChanged.connect(self._onNodulesChanged)
        volume.noduleChanged.connect(self._onNoduleChanged)
        volume.selectionChanged.connect(self.selectionChanged.emit)
        volume.message.connect(self.message.emit)
        volume.nodesGone.connect(self._onNodesGone)
        volume.worked.connect(self._update)
        volume.dragging.connect(self.dragging.emit)
        self.finding.ended.connect(self._onSearchEnded)
        self.review.went.connect(self._onWent)
        self.history.changed.connect(self.historyChanged.emit)

    def _closeVolume(self) -> None:
        """Releases all nodes; everything stays in the scene."""
        self.hidePreview()
        hadSelection = self.selectedId is not None
        for node, tag in self._watched:
            node.RemoveObserver(tag)
        self._watched = []
        self.finding.close()
        self._editor.close()
        self.volume.close()
        self._use(OpenVolume(self.options))
        if hadSelection:
            self.selectionChanged(None)
        self._pipeline.dropAll()
        self._later.clear()
        self._job = None
        self._prefetched = None

    def suspend(self) -> None:
        """Releases all nodes, before the scene is closed."""
        self.queue = None
        self._measure.close()
        self._openVolume(None)
        self._preview.close()

    def close(self) -> None:
        """Releases all nodes for good; the worker goes on running."""
        _open.discard(self)
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []
        self._closeVolume()
        self._measure.close()
        self._preview.close()
        self._volumeNode = None

    # -- model and volume on the worker ------------------------------------------------------------------------------

    def setModel(self) -> None:
        """Loads the provider's model after its choice has changed or PyTorch was installed; nodules stay."""
        self.finding.stop()
        self._pipeline.forgetModel()
        self._prefetched = None
        self.preload()

    def preload(self) -> None:
        """Loads model and volume and encodes a first crop, in the background; does nothing if something is missing."""
        self._preloads = False  # opening again would call this
        self.retry()
        self._preloads = True
        facts = self._facts()
        if self.volume.volumeNode is not None and facts.hasTorch and facts.hasWeights:
            self._prepare()
        self._update()

    @told
    def _prepare(self) -> None:
        geometry = self.volume.geometry
        if self._pipeline.ensure(geometry):
            if self.options.showsMeasure:
                self._later.append(self._measure.prepare)
            if self.options.showsPreview:
                self._later.append(self._preview.prepare)
            self._editor.refresh()
            if self._prefetched is None:
                r, a, s, _one = geometry.ijkToWorld @ [*(n // 2 for n in geometry.shapeKji[::-1]), 1.0]
                self._prefetch(geometry, (r, a, s))

    @property
    def previewed(self) -> MaskBlock | None:
        """What is outlined where the pointer rests, None while nothing is."""
        return self._preview.block

    def prefetch(self, rasWorld: Sequence[float], sliceNode: Any = None) -> None:
        """Prepares for a click where the pointer rests in a view, if it would start a new nodule, and outlines that."""
        try:
            isReady = self.state is State.READY and self._pipeline.isReady
            place = self._newNoduleAt(rasWorld, sliceNode) if isReady else None
            if place is None or not self._pipeline.ensure(self.volume.geometry):
                self.hidePreview()
            elif not self.options.showsPreview:
                self._prefetch(self.volume.geometry, place)
            elif place != self._hovered:  # what was outlined a few pixels from here stays until there is an answer
                self._hovered = place
                self._prefetch(
                    self.volume.geometry, place, lambda result: self._outline(result, place, rasWorld, sliceNode)
                )
        except SceneError:
            self.hidePreview()  # nobody asked; a click will say it
        self._update()

    def _newNoduleAt(self, ras: Sequence[float], sliceNode: Any) -> tuple[float, float, float] | None:
        """Returns the world point from which a click in a view would begin a nodule, or None. Raises SceneError."""
        if sliceNode is not None:
            if views.seenInstead(self._volumeNode, sliceNode) is not None:
                return None
            ras = views.seenPoint(self._volumeNode, sliceNode, ras)
        r, a, s = (float(x) for x in ras)
        return (r, a, s) if self.options.polarity and self._editor.beginsNodule((r, a, s)) else None

    def _outline(self, result: Result, place: Sequence[float], rasWorld: Sequence[float], sliceNode: Any) -> None:
        """Outlines the answer for a place where the pointer still rests, or nothing where there is no nodule."""
        if place is not self._hovered:
            return
        block = None
        with suppress(SceneError):
            geometry = self.volume.geometry
            isSame = result.request.identity == geometry.identity() and result.value is not None
            if isSame and self._newNoduleAt(rasWorld, sliceNode) == place:
                block = self._editor.newBlock(result.value)
            if block is not None:
                self._preview.show(block, geometry.ijkToWorld, self.volume.nextColor())
        if block is None:
            self._preview.hide()

    def hidePreview(self, *_told: Any) -> None:
        """Takes the outline away, and draws none that is on its way: the pointer has moved, or something changed."""
        self._hovered = None
        self._preview.hide()

    def _prefetch(
        self, geometry: VolumeGeometry, rasWorld: Sequence[float], onResult: Callable[[Result], None] | None = None
    ) -> None:
        """Encodes the crop that a click here would need, again only for someone who waits for what it would give."""
        voxel = tuple(np.floor(geometry.worldToIjk(rasWorld) + 0.5).astype(int).tolist())
        if onResult is not None or (geometry.identity(), voxel) != self._prefetched:
            self._prefetched = (geometry.identity(), voxel)
            request = Prefetch(geometry.identity(), geometry.worldToLocal(rasWorld).tolist())
            self._pipeline.submit(request, onResult or (lambda _result: None))

    def _onWent(self, segmentId: str) -> None:
        """Prepares for corrections of the nodule that is looked at, and of the next one that is not reviewed."""
        if self.state is State.READY and self._pipeline.isReady:
            self._prefetchAt(segmentId, self.review.following(segmentId))
            self._update()

    @told
    def _prefetchAt(self, segmentId: str, following: str | None = None) -> None:
        def goOn(result: Result) -> None:
            if following is not None and not result.cancelled and result.error is None:
                self._prefetchAt(following)

        place = self.volume.centerOf(segmentId) if segmentId in self.volume.nodules else None
        if place is not None and self._pipeline.ensure(self.volume.geometry):
            self._prefetch(self.volume.geometry, place, None if following is None else goOn)

    def retry(self) -> None:
        """Tries again a volume that could not be used: a transform may be hardened meanwhile, or voxels corrected."""
        if self._problem:
            self._openVolume(self._volumeNode)
        elif self._pipeline.error and self.volume.volumeNode is not None:
            self._ensure()

    @told
    def _ensure(self) -> None:
        self._pipeline.ensure(self.volume.geometry)

    # -- commands ----------------------------------------------------------------------------------------------------

    def click(
        self, rasWorld: Sequence[float], positive: bool = True, segmentId: str | None = None, sliceNode: Any = None
    ) -> str | None:
        """Handles a click in a slice view.

        Args:
            rasWorld: mm.
            positive: inside or outside.
            segmentId: its nodule, or :attr:`NEW`; default: as the selection and the options say.
            sliceNode: the view that was clicked in: where it shows another volume the click is refused.

        Returns:
            the ID of the nodule's segment, None if the click was refused (see :attr:`message`).
        """
        if self.state is State.ERROR:
            self.retry()
        if not self.state.takesClicks:
            self.message(self.stateText, True)
            return None
        other = None if sliceNode is None else views.seenInstead(self._volumeNode, sliceNode)
        self.unseen = other is not None
        if other is not None:
            text = _("This view shows {seen}, but nodules are measured in {own}: show {own}, or choose {seen} as CT.")
            self.message(text.format(seen=other.GetName(), own=self._volumeNode.GetName()), True)
            return None
        return self._click(rasWorld, bool(positive), segmentId, sliceNode)

    @told
    def _click(self, ras: Sequence[float], positive: bool, segmentId: str | None, sliceNode: Any) -> str | None:
        if sliceNode is not None:
            ras = views.seenPoint(self._volumeNode, sliceNode, ras)
        return self._editor.click([float(x) for x in ras], positive, segmentId)

    def select(self, segmentId: str | None) -> None:
        """Selects a nodule: shows only its points, and further clicks refine it. None: the next click starts one."""
        with slicer.util.RenderBlocker():
            self.volume.select(segmentId)

    def showMeasure(self) -> None:
        """Draws the measure of the selected nodule, or none; none while one of its points is being dragged."""
        segmentId, volume = self.selectedId, self.volume
        state = None if segmentId is None else volume.nodules.get(segmentId)
        if segmentId is None or state is None or state.dragged is not None or not self.options.showsMeasure:
            self._measure.hide()
            return
        try:
            geometry, row = volume.geometry, volume.record(segmentId)
            visible = volume.segmentation.isVisible(segmentId)
            r, g, b = volume.segmentation.segment(segmentId).GetColor()
        except SceneError:
            self._measure.hide()
            return
        toWorld = geometry.ijkToWorld @ np.linalg.inv(geometry.ijkToRas)
        self._measure.show(row.measurements if visible else {}, toWorld, (r, g, b), volume.isLocked(segmentId))

    def _onAxesDragged(self, ends: NDArray, final: bool) -> None:
        if self.selectedId is not None:
            self._editor.drawAxes(self.selectedId, ends, final)

    def _onMeasureChanged(self, segmentId: str) -> None:
        if segmentId == self.selectedId:
            self.showMeasure()

    def setLook(self, outlineWidth: float, fillOpacity: float) -> None:
        """Sets how nodules are drawn in the slices: width of the outline in pixels, opacity of the fill 0 to 1."""
        self.options.outlineWidth, self.options.fillOpacity = outlineWidth, fillOpacity
        if self.segmentationNode is not None:
            showWith(self.segmentationNode, outlineWidth, fillOpacity)

    def importMarks(self, source: Any) -> None:
        """Turns marks into nodules.

        Args:
            source: a point list, segmentation or label map of the scene; or the Path of a file, see
                :func:`SAMMed3DLib.files.mark_files.read_marks`, whose millimeters are those of the CT's file.
        """
        if not self.state.takesClicks:
            self.message(self.stateText, True)
        else:
            self._importMarks(source)

    @told
    def _importMarks(self, source: Any) -> None:
        if not isinstance(source, Path):
            self._editor.importMarks(marksOf(source, self._volumeNode))
            return
        geometry = self.volume.geometry
        try:
            marks = read_marks(source, geometry.shapeKji, geometry.ijkToRas, seriesUid(self._volumeNode))
        except InputError as error:
            raise SceneError(str(error)) from error
        places = geometry.localToWorld([mark.ras for mark in marks]).tolist()
        self._editor.importMarks(
            [dataclasses.replace(mark, ras=(r, a, s)) for mark, (r, a, s) in zip(marks, places, strict=True)]
        )

    @told
    def exportPoints(self, chosen: Sequence[str] = ()) -> Any:
        """Makes a point list with one point a nodule; None, after a message, where there is no nodule.

        ``chosen`` here and below: segment IDs, default all nodules.
        """
        node = exportPoints(self.volume, chosen)
        self.message(_("The points are in {name}: save them with the scene.").format(name=node.GetName()), False)
        return node

    @told
    def exportLabelMap(self, chosen: Sequence[str] = ()) -> Any:
        """Makes a label map with the nodules; None, after a message, where there is no nodule."""
        node = exportLabelMap(self.volume, chosen)
        self.message(_("The label map is {name}: save it with the scene.").format(name=node.GetName()), False)
        return node

    @told
    def exportCrops(self, folder: Path, chosen: Sequence[str] = ()) -> None:
        """Writes image and mask around each nodule into a new folder inside of ``folder``, in the background."""
        crops, target = cropsOf(self.volume, chosen), freeFolder(folder, self._volumeNode)
        request = FunctionRequest(lambda report: writeCrops(target, crops, report), Priority.LONG)
        text = _("{count} nodules are in {path}.").format(count=len(crops), path=target)
        self._beginJob(request, _("Writing crops"), lambda value: self.message(text, False))

    @told
    def showLungs(self) -> None:
        """Makes a segmentation of what *Segment all* takes as lung, in the background; it counts as no nodule."""
        geometry = self.volume.geometry
        if not self.state.takesClicks:
            raise SceneError(self.stateText)
        if self._pipeline.ensure(geometry):
            self._beginJob(FindLungs(geometry.identity()), _("Looking for the lungs"), self._onLungs)

    @told
    def _onLungs(self, lungs: Any) -> None:
        node = showLungs(self.volume, lungs)
        text = _("{name}: {note}.").format(name=node.GetName(), note=lungs.note)
        self.message(text, False)

    def _beginJob(self, request: Any, text: str, onValue: Callable[[Any], None]) -> None:
        """Begins a long request. Raises SceneError while a search or another job is running."""
        if self._job is not None or self.finding.isRunning or self.queue is not None:
            raise SceneError(busyText())

        def onResult(result: Result) -> None:
            self._job = None
            if result.error is not None:
                self._onFailed(result.error, result.details)
            elif result.cancelled:
                self.message(_("{what}: canceled.").format(what=text), False)
            else:
                onValue(result.value)

        self._job = self._pipeline.submit(request, onResult), text

    @told
    def undo(self) -> None:
        """Takes back the latest step: points and masks together, also while an answer is on its way."""
        self.finding.pause()
        self._editor.undo()

    @told
    def redo(self) -> None:
        """Redoes the step that was taken back last."""
        self.finding.pause()
        self._editor.redo()

    def segmentAllVolumes(self) -> None:
        """Finds all nodules in one CT of the scene after the other, then comes back to this one. Cancel ends all."""
        if not self.state.takesClicks:
            self.message(self.stateText, True)
        elif self.queue is None and not self.finding.isRunning and self._job is None:
            others = [node for node in volumesOf(self._scene) if node is not self._volumeNode]
            self.queue = VolumeQueue(self._volumeNode, [self._volumeNode, *others])
            self._update()

    def _goOn(self) -> None:
        """Opens the next volume of the queue, once the search in the one before is over."""
        queue = self.queue
        if queue is None or self.finding.isRunning or self.finding.hasWork:
            return
        if queue.current is not None and queue.current is not self._volumeNode:
            self.queue = None  # the user has gone elsewhere
            return
        if queue.current is not None:
            queue.finish(self.finding.wasSearched, self.finding.counts[0])
        node = queue.next()
        if node is None:
            self.queue = None
        if (node or queue.home) is not self._volumeNode and (node or queue.home).GetScene() is not None:
            self.setVolume(node or queue.home)
            self.showVolume()
        if node is None:
            self.message(queue.summary, bool(queue.failed))
        elif self.state.takesClicks:
            self.segmentAll()

    def segmentAll(self) -> None:
        """Finds all nodules, with progress; reviewed ones and ones with points are kept."""
        if not self.state.takesClicks:
            self.message(self.stateText, True)
            return
        if self._job is not None:
            self.message(busyText(), True)
            return
        self._selectedBefore = self.selectedId
        self.finding.start()

    @told
    def cancel(self) -> None:
        """Stops *Segment all* (what was found is kept), or drops the clicks that wait for an answer, and loading."""
        if self.queue is not None:
            self.queue.stop()
        if self._job is not None:
            self._pipeline.stop(self._job[0])
        elif self.finding.isRunning:
            self.finding.stop()
        else:
            self._editor.cancel()
        self._pipeline.stopLoading()
        self._prefetched = None

    # -- the event loop ----------------------------------------------------------------------------------------------

    @property
    def isBusy(self) -> bool:
        """Whether :meth:`poll` must be called."""
        return self._pipeline.isBusy or self._hasWork or self.queue is not None

    @property
    def _hasWork(self) -> bool:
        return self._editor.hasWork or self.finding.hasWork or bool(self._later) or self._hasSurfaces

    @property
    def _hasSurfaces(self) -> bool:
        """Surfaces wait until no answer is awaited: while a point is dragged they would be of no use."""
        return self.volume.hasStaleSurfaces and not self._editor.isWaiting

    def poll(self, timeout: float = 0.005) -> bool:
        """Waits up to ``timeout`` seconds for the worker, takes at most one answer; returns whether to go on polling.

        Waiting is what lets the worker run: Slicer's main thread holds Python's lock otherwise.
        """
        with slicer.util.RenderBlocker():
            try:
                self._pipeline.take(0.0005 if self._hasWork else timeout)
                self._work(_TURN_SECONDS)
                self._goOn()
            except SceneError as error:
                self.message(str(error), True)
            self._update()
        return self._isBusy

    def _work(self, seconds: float) -> None:
        """Does small pieces of work for about so many seconds."""
        end = time.monotonic() + seconds
        while self._hasWork and time.monotonic() < end:
            if self._editor.hasWork:
                self._editor.work()
            elif self.finding.hasWork:
                self.finding.work()
            elif self._later:
                self._later.popleft()()
                return  # each of these changes what is drawn, which takes the rest of the turn
            else:
                self.volume.updateSurface()

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
        self._openVolume(self.volume.volumeNode, None, self.volume.promptsNode)

    def _onSearchEnded(self, segmentId: str | None) -> None:
        """Selects the likeliest new nodule in the next turn, unless another one was selected meanwhile."""
        if segmentId is not None:
            self._later.append(lambda: self._goTo(segmentId))

    def _goTo(self, segmentId: str) -> None:
        isFree = self.selectedId in (None, self._selectedBefore) and not self._editor.isWaiting
        if isFree and segmentId in self.volume.nodules:
            self.select(segmentId)
            self._later.append(lambda: self._show(segmentId))

    def _show(self, segmentId: str) -> None:
        """Moves the views to the selected nodule, in a turn after that in which its selection was drawn."""
        if segmentId == self.selectedId:
            self.review.jumpTo(segmentId)

    def _onVolumeChanged(self) -> None:
        """Withdraws the message on an unusable volume that a change has made usable; measures in a new scale."""
        self.hidePreview()
        with suppress(SceneError):
            self._editor.rescale()
        if self._problem or self._pipeline.error:
            self.retry()
            self.oddities = odditiesOf(self._volumeNode)
            self._update()
        elif self._complained:
            try:
                VolumeGeometry(self._volumeNode)
            except SceneError:
                return
            self.message("", False)

    def _onOwnMessage(self, text: str, isError: bool) -> None:
        self._complained = isError

    def _onProgress(self, progress: Progress) -> None:
        text = progress.text
        if isinstance(progress.request, Generate):
            self.finding.onProgress(progress)
            text = _("Looking for nodules") if progress.request.detector is None else _("Thorough search for nodules")
            if progress.seconds_left is not None:
                text = _("{what}, {time}").format(what=text, time=_leftText(progress.seconds_left))
            if self.queue is not None:
                text = f"{text} ({self.queue.position})"
        elif self._job is not None and progress.generation == self._job[0]:
            text = self._job[1]
        if text:
            self.progressed(progress.done, progress.total, text)

    def _onNoted(self, text: str) -> None:
        self.message(text, False)

    def _onFailed(self, text: str, details: str) -> None:
        if details:
            logging.error(details)
        if text:
            self.message(text, True)


def _leftText(seconds: float) -> str:
    """Formats a remaining time, coarsely rounded."""
    if seconds < 90:
        step = 1 if seconds < 10 else 5
        return _("about {seconds} s left").format(seconds=step * round(seconds / step))
    return _("about {minutes} min left").format(minutes=round(seconds / 60))
