"""The volume that is being worked on: its segmentation, its points, and the state of each nodule.

Segments and points belong to the user, who may change or remove any of them at any time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import ArrayLike, NDArray

from ..inference.geometry import slice_normal
from ..inference.nodule_table import BY_HAND
from ..signal import Signal
from ..translation import tr as _
from ..worker.requests import AXES, Predict, Segmented, Start
from .beside_volume import SharedTransform
from .mask_block import EMPTY_BLOCK, MaskBlock
from .nodule_segmentation import (
    COLORS,
    FILL_OPACITY,
    NAME_TEMPLATE,
    OUTLINE_WIDTH,
    REVIEWED,
    Naming,
    NoduleSegmentation,
    createSegmentation,
    findSegmentation,
    showWith,
    useGeometryOf,
)
from .nodule_state import DRAWN, NoduleSnapshot, NoduleState, SegmentRecord, digest, isOfScale
from .prompt_store import SEGMENTATION_ROLE, Point, Prompt, PromptStore, createPrompts, findPrompts
from .segment_writer import SegmentSnapshot, SegmentWriter
from .volume_geometry import SceneError, VolumeGeometry, transformPoints

P = ParamSpec("P")
R = TypeVar("R")


def told(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R | None]:
    """Makes a method of a class with a ``volume`` a command: a SceneError becomes a message, and None is returned.

    Commands are called by widgets and by the scene's events, where an exception could help nobody. All that one of them
    changes is drawn once: views that are drawn slowly are else drawn anew after each single change.
    """

    @functools.wraps(method)
    def command(self: Any, *args: P.args, **kwargs: P.kwargs) -> R | None:
        with slicer.util.RenderBlocker():
            try:
                return method(self, *args, **kwargs)
            except SceneError as error:
                self.volume.message(str(error), True)
                return None
            finally:
                self.volume.worked()

    return command


@dataclass
class Options:
    """The user's choices that hold for all volumes.

    Attributes:
        polarity: the sign of points that come from the Markups toolbar or a script; True = inside.
        everyClickIsNew: each positive point makes a new nodule, even while one is selected.
        selectsInside: a click inside another nodule selects that one instead of adding to the selected one.
        doNotOverlap: voxels of other segments are left out of what is written.
        shows3d: closed surfaces are shown.
        showsMeasure: the axes of the selected nodule are drawn, with its volume and diameters.
        showsPreview: what a click would give is outlined where the pointer rests.
        outlineWidth, fillOpacity: how new segmentations are drawn in slices: pixels, and 0 to 1.
        zoomsIn: going to a nodule zooms in where the slice views show far more than it.
        closeUp: going to a nodule shows the same small field of view of each.
        sensitivity: how many of the found nodules are shown, 0 (fewest) to 1 (all); 0.5 is a probability of one half.
        thorough: *Segment all* asks a detector of record too.
        nameTemplate: of new nodules' names, one that :meth:`.nodule_segmentation.Naming.checked` takes.
    """

    polarity: bool = True
    everyClickIsNew: bool = False
    selectsInside: bool = False
    doNotOverlap: bool = False
    shows3d: bool = False
    showsMeasure: bool = True
    showsPreview: bool = True
    outlineWidth: float = OUTLINE_WIDTH
    fillOpacity: float = FILL_OPACITY
    zoomsIn: bool = True
    closeUp: bool = False
    sensitivity: float = 0.5
    thorough: bool = False
    nameTemplate: str = NAME_TEMPLATE


class OpenVolume:
    """The nodules of one volume; only this class changes their segments, points and records.

    Without a volume it holds no nodules, and methods that need a volume raise SceneError.

    Args:
        options: the session's.
        volumeNode: the CT, or None.
        segmentationNode: where nodules are; default the one that this module made for the volume, if there is one.
        promptsNode: the point list; default the segmentation's.

    Attributes:
        volumeNode, segmentationNode, promptsNode: the last two are None until they are needed.
        store: the points of promptsNode, or None.
        nodules: by segment ID.
        concealed: of nodules that are about to be taken off: segment ID -> whether it was visible.
        selectedId: segment ID of the nodule that further clicks refine, or None.

    Attributes (signals):
        message, nodulesChanged, noduleChanged, selectionChanged: see Session.
        worked: () something was done; there may be more work, or another state.
        nodesGone: () volume or segmentation left the scene: this must be closed.
        promptsGone: () the point list left the scene.
        segmentsGone: () others removed segments; voxelsChanged: (segmentId) others changed its labelmap.
        placed, moved, dragging, removed, relabelled: see PromptStore.

    Raises:
        SceneError: a node that cannot be used.
    """

    def __init__(
        self, options: Options, volumeNode: Any = None, segmentationNode: Any = None, promptsNode: Any = None
    ) -> None:
        self.message, self.worked = Signal(), Signal()
        self.nodulesChanged, self.noduleChanged, self.selectionChanged = Signal(), Signal(), Signal()
        self.nodesGone, self.promptsGone, self.segmentsGone = Signal(), Signal(), Signal()
        self.voxelsChanged = Signal()
        self.placed, self.moved, self.dragging = Signal(), Signal(), Signal()
        self.removed, self.relabelled = Signal(), Signal()
        self.options = options
        self.volumeNode = volumeNode
        self.segmentationNode: Any = None
        self.promptsNode: Any = None
        self.store: PromptStore | None = None
        self.nodules: dict[str, NoduleState] = {}
        self.concealed: dict[str, bool] = {}
        self.selectedId: str | None = None
        self._writer: SegmentWriter | None = None
        self._segmentation: NoduleSegmentation | None = None
        self._staleSurfaces: dict[str, None] = {}
        self._showsLater = False
        self._isChanging = False
        self._shared: SharedTransform | None = None
        self._observers: list[tuple[Any, int]] = []
        if volumeNode is None:
            return
        VolumeGeometry(volumeNode)
        try:
            self._useNodes(segmentationNode, promptsNode)
        except SceneError:
            self.close()
            raise

    def _useNodes(self, segmentationNode: Any, promptsNode: Any) -> None:
        segmentationNode = segmentationNode or findSegmentation(self.volumeNode)
        if segmentationNode is not None:
            self._useSegmentation(segmentationNode)
        promptsNode = promptsNode or self._findPrompts()
        if promptsNode is not None:
            self._usePrompts(promptsNode)
        self.sync()
        scene = self.volumeNode.GetScene()
        self._observe(scene, slicer.vtkMRMLScene.NodeRemovedEvent, self._nodeHandler())
        if self.options.shows3d:
            self.show3d(True)

    def close(self) -> None:
        """Stops watching the nodes; everything stays in the scene."""
        for node, tag in self._observers:
            node.RemoveObserver(tag)
        self._observers = []
        if self.store is not None:
            self.store.close()
        if self._shared is not None:
            self._shared.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Marks the scene's changes within the block as our own, so that they are not taken for edits by others."""
        before, self._isChanging = self._isChanging, True
        try:
            yield
        finally:
            self._isChanging = before

    # -- nodes -------------------------------------------------------------------------------------------------------

    @property
    def geometry(self) -> VolumeGeometry:
        """Geometry of the volume as it is now. Raises SceneError."""
        return VolumeGeometry(self.volumeNode)

    @property
    def segmentation(self) -> NoduleSegmentation:
        """Access to the segments' names, states and records. Raises SceneError where there is no segmentation."""
        if self._segmentation is None:
            raise SceneError(_("There is no nodule yet."))
        if self.volumeNode is not None:
            self._segmentation.naming = Naming(self.options.nameTemplate, self.volumeNode.GetName() or "")
        return self._segmentation

    @property
    def writer(self) -> SegmentWriter:
        """Access to the segments' masks. Raises SceneError where there is no segmentation."""
        if self._writer is None:
            raise SceneError(_("There is no nodule yet."))
        return self._writer

    def ensureSegmentation(self) -> None:
        """Makes the segmentation where there is none. Raises SceneError."""
        if self.segmentationNode is None:
            with self.changing():
                self._useSegmentation(createSegmentation(self.volumeNode))
                showWith(self.segmentationNode, self.options.outlineWidth, self.options.fillOpacity)
                if self.promptsNode is not None and self.promptsNode.GetNodeReference(SEGMENTATION_ROLE) is None:
                    self.promptsNode.SetNodeReferenceID(SEGMENTATION_ROLE, self.segmentation.node.GetID())

    def ensurePrompts(self) -> PromptStore:
        """Returns the point list, made where there is none. Raises SceneError."""
        if self.store is not None:
            return self.store
        with self.changing():
            return self._usePrompts(createPrompts(self.volumeNode))

    def _useSegmentation(self, node: Any) -> None:
        role = node.GetReferenceImageGeometryReferenceRole()
        if not node.GetSegmentation().GetNumberOfSegments() and node.GetNodeReference(role) is None:
            with self.changing():  # somebody made an empty one for this purpose
                useGeometryOf(node, self.volumeNode)
        self._writer, self._segmentation = SegmentWriter(node, self.volumeNode), NoduleSegmentation(node)
        self.segmentationNode = node
        self._shareTransform()
        events = slicer.vtkSegmentation
        self._observe(node, events.SegmentRemoved, self._unlessChanging(self.segmentsGone.emit))
        for event in (events.SegmentAdded, events.SegmentModified, events.SegmentsOrderModified):
            self._observe(node, event, self._unlessChanging(self.refreshList))
        self._observe(node, events.SourceRepresentationModified, self._voxelsHandler())

    def _usePrompts(self, node: Any) -> PromptStore:
        self.store, self.promptsNode = PromptStore(node), node
        for mine, its in (
            (self.placed, self.store.placed),
            (self.moved, self.store.moved),
            (self.dragging, self.store.dragging),
            (self.removed, self.store.removed),
            (self.relabelled, self.store.relabelled),
        ):
            its.connect(mine.emit)
        if self.segmentationNode is not None and node.GetNodeReference(SEGMENTATION_ROLE) is None:
            node.SetNodeReferenceID(SEGMENTATION_ROLE, self.segmentationNode.GetID())
        self._shareTransform()
        return self.store

    @property
    def ownsPrompts(self) -> bool:
        """Whether the point list belongs to no other segmentation."""
        return self.promptsNode.GetNodeReference(SEGMENTATION_ROLE) in (None, self.segmentationNode)

    def _shareTransform(self) -> None:
        if self._shared is not None:
            self._shared.close()
        nodes = [node for node in (self.segmentationNode, self.promptsNode) if node is not None]
        self._shared = SharedTransform(self.volumeNode, nodes)

    def _findPrompts(self) -> Any | None:
        """The segmentation's point list; its IDs mean nothing in another segmentation."""
        if self.segmentationNode is None:
            return findPrompts(self.volumeNode)
        for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode", self.volumeNode.GetScene()):
            if node.GetNodeReference(SEGMENTATION_ROLE) is self.segmentationNode:
                return node
        found = findPrompts(self.volumeNode)
        return found if found is not None and found.GetNodeReference(SEGMENTATION_ROLE) is None else None

    # -- what others do ----------------------------------------------------------------------------------------------

    def _observe(self, node: Any, event: int, handler: Callable[..., Any]) -> None:
        self._observers.append((node, node.AddObserver(event, handler)))

    def _unlessChanging(self, handler: Callable[[], None]) -> Callable[..., None]:
        def guarded(_caller: Any, _event: str) -> None:
            if not self._isChanging:
                handler()

        return guarded

    def _voxelsHandler(self) -> Callable[..., None]:
        @vtk.calldata_type(vtk.VTK_STRING)
        def handler(_caller: Any, _event: str, segmentId: str | None = None) -> None:
            if not self._isChanging and segmentId:
                self.voxelsChanged(segmentId)

        return handler

    def _nodeHandler(self) -> Callable[..., None]:
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def handler(_caller: Any, _event: str, node: Any) -> None:
            if node is self.volumeNode:
                self.volumeNode = None
                self.nodesGone()
            elif node is self.segmentationNode:
                for state in self.nodules.values():
                    self.dropPrompts(state.prompts)
                self.segmentationNode = self._segmentation = self._writer = None
                self.nodesGone()
            elif node is self.promptsNode and node is not None:
                self.promptsGone()

        return handler

    def forgetPrompts(self) -> None:
        """Handles that the point list has left the scene."""
        if self.store is not None:
            self.store.close()
        self.store = self.promptsNode = None

    # -- the list ----------------------------------------------------------------------------------------------------

    def sync(self) -> list[NoduleState]:
        """Takes in segments that others added, and drops and returns the nodules whose segments are gone."""
        ids = [] if self._segmentation is None else self._segmentation.ids
        gone = [state for segmentId, state in self.nodules.items() if segmentId not in ids]
        for state in gone:
            del self.nodules[state.segmentId]
            self.concealed.pop(state.segmentId, None)
        for segmentId in ids:
            if segmentId not in self.nodules:
                self.nodules[segmentId] = self._stateOf(segmentId)
        return gone

    def _stateOf(self, segmentId: str) -> NoduleState:
        prompts = [] if self.store is None else [self._local(one) for one in self.store.prompts(segmentId)]
        segment = self.segmentation.segment(segmentId)
        return NoduleState(segmentId, segment, prompts, isSettled=not self.record(segmentId).isPending)

    def nodule(self, segmentId: str) -> NoduleState:
        """Returns the state of a nodule. Raises SceneError for a segment that is not there."""
        if segmentId not in self.nodules:
            self.sync()
        if segmentId not in self.nodules:
            raise SceneError(_("This nodule is not there any more."))
        return self.nodules[segmentId]

    def noduleOf(self, pointId: str) -> NoduleState | None:
        """Returns the nodule that a point belongs to; None without."""
        return next((state for state in self.nodules.values() if state.index(pointId) >= 0), None)

    def nextNumber(self, without: Sequence[str] = ()) -> int:
        """The next free number for a nodule's name, as if some segments were not there."""
        return 1 if self._segmentation is None else self.segmentation.nextNumber(without)

    def nextColor(self) -> tuple[float, float, float]:
        """The color of the next new nodule."""
        return COLORS[0] if self._segmentation is None else self._segmentation.nextColor()

    def addNodule(self, number: int | None = None) -> NoduleState:
        """Adds an empty nodule; the segmentation is made where there is none. Raises SceneError.

        Args:
            number: for its name; default the next free one, also where it is taken.
        """
        self.ensureSegmentation()
        with self.changing():
            segmentId = self.segmentation.addNodule(number=number)
            self.sync()
            state = self.nodules[segmentId]
            self.writer.write(segmentId, EMPTY_BLOCK)
            state.block = EMPTY_BLOCK
        self.setRecord(segmentId, clicks=0)
        return state

    def remove(self, segmentId: str) -> None:
        """Remove a nodule's segment and its points; unknown ones are ignored."""
        state = self.nodules.pop(segmentId, None)
        self.concealed.pop(segmentId, None)
        with self.changing():
            self.dropPrompts([] if state is None else state.prompts)
            if self._segmentation is not None:
                self._segmentation.remove(segmentId)

    def moveBefore(self, segmentId: str, following: str) -> None:
        """Put a segment in front of another one in the list."""
        with self.changing():
            self.segmentation.moveBefore(segmentId, following)

    def select(self, segmentId: str | None) -> None:
        """Selects a nodule and shows its points only; None shows all."""
        if segmentId not in self.nodules:
            segmentId = None
        if self.store is not None:
            self.store.showOnly(segmentId)
        if segmentId != self.selectedId:
            self.selectedId = segmentId
            self.selectionChanged(segmentId)

    def conceal(self, segmentIds: Sequence[str]) -> None:
        """Hides nodules in views and list, in one change of the display; their segments stay."""
        new = [one for one in segmentIds if one in self.nodules and one not in self.concealed]
        if new:
            self.concealed |= {one: self.segmentation.isVisible(one) for one in new}
            self.segmentation.setVisible(dict.fromkeys(new, False))

    def reveal(self, segmentIds: Sequence[str]) -> None:
        """Shows again what :meth:`conceal` has hidden; other segments are ignored."""
        back = {one: self.concealed.pop(one) for one in segmentIds if one in self.concealed}
        if back:
            self.segmentation.setVisible(back)

    def refreshList(self) -> None:
        """Announces that the list of nodules has changed."""
        if self.selectedId is not None and self.selectedId not in self.nodules.keys() - self.concealed.keys():
            self.select(None)
        self.nodulesChanged()

    # -- points ------------------------------------------------------------------------------------------------------

    def _local(self, prompt: Prompt) -> Prompt:
        """Converts a prompt to the volume's local RAS, which stays when the volume is moved."""
        r, a, s = self.geometry.worldToLocal(prompt.ras).tolist()
        return dataclasses.replace(prompt, ras=(r, a, s))

    def prompt(self, pointId: str) -> Prompt:
        """A point of the list, in the volume's local RAS. Raises SceneError."""
        return self._local(self.ensurePrompts().prompt(pointId))

    def toWorld(self, prompt: Prompt) -> Point:
        """Converts a nodule's prompt to world RAS."""
        r, a, s = self.geometry.localToWorld(prompt.ras).tolist()
        return r, a, s

    def isInside(self, prompt: Prompt) -> bool:
        """Whether a nodule's prompt lies in the volume."""
        return self.geometry.contains(self.toWorld(prompt))

    def dropPrompts(self, prompts: Sequence[Prompt]) -> None:
        """Remove points from the list."""
        if self.store is not None:
            for prompt in prompts:
                self.store.remove(prompt.id)

    # -- masks -------------------------------------------------------------------------------------------------------

    def adopt(self, segmentId: str) -> NoduleSnapshot | None:
        """Takes in what others did to the voxels since the last look: they become the start of the next click.

        Returns:
            the nodule before that edit, None where there was none.
        """
        state = self.nodule(segmentId)
        if state.block is None:
            self._recognize(state)
        elif self.writer.wasEdited(segmentId):
            before = self._snapshot(state, state.block)
            self._takeVoxels(state)
            state.isForeign = True
            return before
        return None

    def _recognize(self, state: NoduleState) -> None:
        """Reads a segment of a reopened scene, or of somebody else, for the first time."""
        block = self._takeVoxels(state)
        record = self.record(state.segmentId)
        isOurs = record.clicks is not None and record.mask == digest(block)
        state.isForeign = not isOurs or (record.clicks != len(state.prompts) and not record.isPending)

    def _takeVoxels(self, state: NoduleState) -> MaskBlock:
        block = self.writer.read(state.segmentId)
        with self.changing():
            self.writer.write(state.segmentId, block)  # from here on the writer notices changes
        state.block = block
        return block

    def begin(self, segmentId: str, unanswered: Container[str] = ()) -> NoduleSnapshot | None:
        """Prepares a nodule for a change of its prompts: :meth:`adopt`, then foreign voxels become the start mask.

        Args:
            segmentId: the nodule.
            unanswered: IDs of prompts whose effect these voxels do not show.
        """
        edit = self.adopt(segmentId)
        state = self.nodule(segmentId)
        if state.isForeign:
            block = state.block or EMPTY_BLOCK
            state.isForeign = False
            state.start = None if block.isEmpty else Start(block.mask, block.offset_kji)
            state.absorbed = {prompt.id for prompt in state.prompts if prompt.id not in unanswered}
            state.isSettled = True
        return edit

    def write(self, segmentId: str, answer: Segmented) -> bool:
        """Writes an answer into the segment; returns whether it has to be measured.

        It has where other segments' voxels were left out, or a transform has changed lengths since it was asked for.
        """
        state, whole = self.nodule(segmentId), MaskBlock(answer.mask, answer.offset_kji)
        block = self.withoutOthers(whole, segmentId)
        scale = self.geometry.scale()
        isUnmeasured = block is not whole or not isOfScale(answer.measurements, scale)
        measurements = {} if isUnmeasured else dict(answer.measurements)
        before = self.record(segmentId)
        if before.isOf(block, scale) and before.measurements.get("diameters") == BY_HAND:
            measurements |= {key: before.measurements[key] for key in DRAWN if key in before.measurements}
        with self.changing():
            self.writer.write(segmentId, block, surface=False)
            self._staleSurfaces[segmentId] = None
            state.block = block
            self.segmentation.setScore(segmentId, answer.score)
        self.setMeasurements(
            segmentId,
            block,
            measurements,
            mask=digest(block),
            clicks=len(state.prompts) if state.start is None and not state.isForeign else None,
        )
        return isUnmeasured

    def withoutOthers(self, block: MaskBlock, segmentId: str = "") -> MaskBlock:
        """Leaves voxels of other segments out of a block, where the user wants that; the same block if there are none.

        Raises SceneError as the writer. ``segmentId``: of the segment that it is for; "" for a new one.
        """
        if not self.options.doNotOverlap or self._writer is None or block.isEmpty:
            return block
        free = self._writer.withoutOthers(segmentId, block)
        return block if np.count_nonzero(free.mask) == np.count_nonzero(block.mask) else free

    def centerOf(self, segmentId: str) -> Point | None:
        """Returns the world RAS of a nodule's middle, or of its newest point; None for an empty nodule without points.

        Raises:
            SceneError: the nodule is not there any more.
        """
        state = self.nodule(segmentId)
        block = self.writer.read(segmentId)
        if not block.isEmpty:
            kji = np.argwhere(block.mask).mean(axis=0) + block.offset_kji
            r, a, s, _one = self.geometry.ijkToWorld @ [*kji[::-1], 1.0]
            return float(r), float(a), float(s)
        return self.toWorld(state.prompts[-1]) if state.prompts else None

    def intoSliceOfAxes(self, segmentId: str, points: ArrayLike) -> NDArray[np.float64]:
        """Moves world points (..., 3) straight into the slice where the axes of a nodule were measured; it has some."""
        end = self.geometry.localToWorld(self.record(segmentId).measurements[AXES][0][0])
        normal, points = slice_normal(self.geometry.ijkToWorld), np.asarray(points, dtype=np.float64)
        return points - ((points - end) @ normal)[..., None] * normal

    # -- accepted nodules --------------------------------------------------------------------------------------------

    def isLocked(self, segmentId: str) -> bool:
        """Whether the nodule is accepted: clicks and points leave it as it is."""
        return self.segmentation.status(segmentId) == REVIEWED

    def setStatus(self, segmentId: str, status: str) -> None:
        """Mark a nodule as "AI", "reviewed" (which locks it) or "flagged". Raises SceneError."""
        with self.changing():
            self.segmentation.setStatus(segmentId, status)
        self._lockPoints(segmentId)

    def _lockPoints(self, segmentId: str) -> None:
        if self.store is not None:
            self.store.lock(segmentId, self.isLocked(segmentId))

    def noduleAt(self, ras: Sequence[float]) -> str | None:
        """Finds the smallest visible nodule whose mask holds a world point, None without."""
        kji = np.floor(self.geometry.worldToIjk(ras) + 0.5).astype(int)[::-1]
        found = []
        for segmentId, state in self.nodules.items():
            if segmentId in self.concealed or not self.segmentation.isVisible(segmentId):
                continue
            block = self.writer.read(segmentId) if state.block is None else state.block
            place = kji - np.asarray(block.offset_kji)
            if np.all(place >= 0) and np.all(place < block.mask.shape) and block.mask[tuple(place)]:
                found.append((int(np.count_nonzero(block.mask)), segmentId))
        return min(found)[1] if found else None

    def noduleNear(self, ras: Sequence[float], reachMm: float) -> str | None:
        """The visible nodule whose voxels lie nearest to a world point; None where none is within reach."""
        geometry, best, found = self.geometry, reachMm, None
        point = np.asarray(ras, dtype=float)
        for segmentId in self.nodules:
            block = self.writer.read(segmentId)
            if block.isEmpty or segmentId in self.concealed or not self.segmentation.isVisible(segmentId):
                continue
            voxels = (np.argwhere(block.mask) + block.offset_kji)[:, ::-1]
            away = np.linalg.norm(transformPoints(geometry.ijkToWorld, voxels) - point, axis=1).min()
            if away <= best:
                best, found = float(away), segmentId
        return found

    # -- what is stored with a segment -------------------------------------------------------------------------------

    def record(self, segmentId: str) -> SegmentRecord:
        """Reads the record that is stored with a segment."""
        return SegmentRecord.fromDict(self.segmentation.record(segmentId))

    def setRecord(self, segmentId: str, **changes: Any) -> None:
        """Changes fields of the record that is stored with a segment."""
        before = self.record(segmentId)
        record = dataclasses.replace(before, **changes)
        if record != before:
            with self.changing():
                self.segmentation.setRecord(segmentId, record.toDict())

    def isMeasured(self, segmentId: str) -> bool:
        """Whether the stored measurements are those of the voxels as they are, in place and size."""
        return self.record(segmentId).isOf(self.writer.read(segmentId), self.geometry.scale())

    def setMeasurements(
        self, segmentId: str, block: MaskBlock, measurements: Mapping[str, Any], **changes: Any
    ) -> None:
        """Stores measurements of these voxels, with other changes of the record."""
        measured = digest(block) if measurements else ""
        self.setRecord(segmentId, measurements=dict(measurements), measured=measured, **changes)

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot(self, segmentId: str) -> NoduleSnapshot | None:
        """Takes a snapshot of a nodule, None where it does not exist. Raises SceneError where it cannot be read."""
        if segmentId not in self.nodules:
            return None
        state = self.nodules[segmentId]
        if state.block is None:
            self._recognize(state)
        return self._snapshot(state)

    def _snapshot(self, state: NoduleState, block: MaskBlock | None = None) -> NoduleSnapshot:
        segment = self.writer.snapshot(state.segmentId)
        if block is not None:
            segment = dataclasses.replace(segment, block=block)
        return _snapshotOf(state, segment, state.isSettled and state.awaited is None)

    def settled(self, snapshot: NoduleSnapshot) -> NoduleSnapshot:
        """Completes the snapshot of a nodule whose answer has come meanwhile and is what its segment shows now."""
        segment = self.writer.snapshot(snapshot.segment.segmentId)
        return dataclasses.replace(snapshot, segment=segment, isSettled=True)

    def lastKnown(self, state: NoduleState) -> NoduleSnapshot:
        """Makes a snapshot, as far as it is known here, of a nodule whose segment others have removed."""
        metadata = slicer.vtkSegment()
        metadata.DeepCopyMetadata(state.segment)
        segment = SegmentSnapshot(state.segmentId, state.block or EMPTY_BLOCK, metadata, None, True)
        return _snapshotOf(state, segment, state.isSettled)

    def restore(self, snapshot: NoduleSnapshot) -> NoduleState:
        """Restores a nodule as it was: segment with its ID, voxels, points. Raises SceneError."""
        segmentId = snapshot.segment.segmentId
        self.ensureSegmentation()
        with self.changing():
            self.writer.restore(snapshot.segment)
            state = NoduleState(segmentId, self.segmentation.segment(segmentId), block=snapshot.segment.block)
            state.isForeign, state.isSettled = snapshot.isForeign, snapshot.isSettled
            ids: list[str] = []
            if snapshot.prompts or self.store is not None:
                prompts = [dataclasses.replace(prompt, ras=self.toWorld(prompt)) for prompt in snapshot.prompts]
                ids = self.ensurePrompts().replaceAll(segmentId, prompts)
        state.prompts = [
            dataclasses.replace(prompt, id=new, segmentId=segmentId)
            for prompt, new in zip(snapshot.prompts, ids, strict=True)
        ]
        state.start = snapshot.start
        state.absorbed = {
            new for prompt, new in zip(snapshot.prompts, ids, strict=True) if prompt.id in snapshot.absorbed
        }
        self.nodules[segmentId] = state
        self._staleSurfaces[segmentId] = None
        self._lockPoints(segmentId)
        return state

    # -- requests ----------------------------------------------------------------------------------------------------

    def predictRequest(self, segmentId: str) -> Predict | None:
        """Makes the request for a nodule's mask; None where its prompts say nothing (yet)."""
        state, geometry = self.nodule(segmentId), self.geometry
        inside = [prompt for prompt in state.active if geometry.contains(self.toWorld(prompt))]
        if not state.hasEffect or not inside:
            return None
        return Predict(
            identity=geometry.identity(),
            nodule=(self.segmentationNode.GetID(), segmentId),
            points=[prompt.ras for prompt in inside],
            labels=[int(prompt.positive) for prompt in inside],
            start=state.start,
            ijk_to_world=geometry.ijkToWorld,
            moving=state.dragged is not None,
        )

    # -- surfaces ----------------------------------------------------------------------------------------------------

    @property
    def hasStaleSurfaces(self) -> bool:
        """Whether :meth:`updateSurface` has something to do."""
        isWanted = self._showsLater or (self.options.shows3d and bool(self._staleSurfaces))
        return isWanted and self._writer is not None

    def show3d(self, on: bool) -> None:
        """Shows closed surfaces, which :meth:`updateSurface` makes one at a time, or drops them."""
        self._showsLater = on
        if on:
            self._staleSurfaces = dict.fromkeys(self.nodules)
        elif self._writer is not None:
            with self.changing():
                self._writer.showSurfaces(False)

    def updateSurface(self) -> None:
        """Makes one segment's surface, or shows all of them once they are made."""
        with self.changing():
            if self._staleSurfaces:
                segmentId = next(iter(self._staleSurfaces))
                del self._staleSurfaces[segmentId]
                if segmentId in self.nodules:
                    self.writer.updateSurface(segmentId)
            else:
                self._showsLater = False
                self.writer.showSurfaces(True)


def _snapshotOf(state: NoduleState, segment: SegmentSnapshot, isSettled: bool) -> NoduleSnapshot:
    absorbed = frozenset(state.absorbed)
    return NoduleSnapshot(segment, tuple(state.prompts), state.start, absorbed, state.isForeign, isSettled)
