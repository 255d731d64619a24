"""One volume with its segmentation and its point list: the nodules as the session sees them.

Segments and points belong to the user, who may change or remove any of them at any time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import slicer.util

from ..worker.requests import Predict, Segmented, Start
from . import nodule_segmentation
from .errors import SceneError
from .mask_block import EMPTY_BLOCK, MaskBlock
from .nodule_state import NoduleRecord, NoduleSnapshot, NoduleState, digest
from .options import Options
from .prompt_list import createPrompts, findPrompts
from .prompt_store import Prompt, PromptStore
from .segment_snapshot import SegmentSnapshot, restoreSegment, takeSnapshot
from .segment_writer import SegmentWriter
from .shared_transform import SharedTransform
from .volume_geometry import VolumeGeometry

#: From the point list to the segmentation whose nodules its points belong to.
SEGMENTATION_ROLE = "SAMMed3D.Segmentation"


class Document:
    """Nodules of one volume.

    Args:
        volumeNode: the CT.
        options: the session's.
        segmentationNode: where nodules are; default the one that this module made for the volume, if there is one.
        promptsNode: the point list; default the segmentation's.

    Attributes:
        volumeNode, segmentationNode, promptsNode: the last two are None until they are needed.
        writer, store: of the last two.
        nodules: by segment ID.
        staleSurfaces: segments whose closed surface, where one is shown, is older than their voxels.
        isChanging: the scene is being changed from here, so that observers are not news.

    Raises:
        SceneError: a node that cannot be used.
    """

    def __init__(
        self, volumeNode: Any, options: Options, segmentationNode: Any = None, promptsNode: Any = None
    ) -> None:
        VolumeGeometry(volumeNode)
        self.options = options
        self.volumeNode = volumeNode
        self.segmentationNode: Any = None
        self.promptsNode: Any = None
        self.writer: SegmentWriter | None = None
        self.store: PromptStore | None = None
        self.nodules: dict[str, NoduleState] = {}
        self.staleSurfaces: dict[str, None] = {}
        self.isChanging = False
        self._shared: SharedTransform | None = None
        segmentationNode = segmentationNode or nodule_segmentation.findSegmentation(volumeNode)
        if segmentationNode is not None:
            self._useSegmentation(segmentationNode)
        promptsNode = promptsNode or self._findPrompts()
        if promptsNode is not None:
            self._usePrompts(promptsNode)
        self.sync()

    def close(self) -> None:
        """Stop watching the point list; everything stays in the scene."""
        if self.store is not None:
            self.store.close()
        if self._shared is not None:
            self._shared.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """What happens to the scene meanwhile is our own doing."""
        before, self.isChanging = self.isChanging, True
        try:
            yield
        finally:
            self.isChanging = before

    # -- nodes -------------------------------------------------------------------------------------------------------

    @property
    def geometry(self) -> VolumeGeometry:
        """Of the volume as it is now. Raises SceneError."""
        return VolumeGeometry(self.volumeNode)

    def ensureSegmentation(self) -> None:
        """Make the segmentation where there is none."""
        if self.segmentationNode is None:
            with self.changing():
                self._useSegmentation(nodule_segmentation.createSegmentation(self.volumeNode))
                if self.promptsNode is not None and self.promptsNode.GetNodeReference(SEGMENTATION_ROLE) is None:
                    self.promptsNode.SetNodeReferenceID(SEGMENTATION_ROLE, self.segmentationNode.GetID())

    def ensurePrompts(self) -> PromptStore:
        """The point list, made where there is none."""
        if self.store is None:
            with self.changing():
                self._usePrompts(createPrompts(self.volumeNode))
        return self.store

    def _useSegmentation(self, node: Any) -> None:
        role = node.GetReferenceImageGeometryReferenceRole()
        if not node.GetSegmentation().GetNumberOfSegments() and node.GetNodeReference(role) is None:
            with self.changing():  # somebody made an empty one for this purpose
                nodule_segmentation.useGeometryOf(node, self.volumeNode)
                node.CreateDefaultDisplayNodes()
        self.writer = SegmentWriter(node, self.volumeNode)
        self.segmentationNode = node
        self._shareTransform()

    def _usePrompts(self, node: Any) -> None:
        self.store = PromptStore(node)
        self.promptsNode = node
        if self.segmentationNode is not None and node.GetNodeReference(SEGMENTATION_ROLE) is None:
            node.SetNodeReferenceID(SEGMENTATION_ROLE, self.segmentationNode.GetID())
        self._shareTransform()

    def forgetPrompts(self) -> None:
        """The point list has left the scene."""
        if self.store is not None:
            self.store.close()
        self.store = self.promptsNode = None

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

    # -- nodules -----------------------------------------------------------------------------------------------------

    def sync(self) -> list[NoduleState]:
        """Take in segments that others added; returns the nodules whose segments are gone, forgotten from here on."""
        ids = [] if self.segmentationNode is None else self.segmentationNode.GetSegmentation().GetSegmentIDs()
        gone = [state for segmentId, state in self.nodules.items() if segmentId not in ids]
        for state in gone:
            del self.nodules[state.segmentId]
        for segmentId in ids:
            if segmentId not in self.nodules:
                self.nodules[segmentId] = self._stateOf(segmentId)
        return gone

    def _stateOf(self, segmentId: str) -> NoduleState:
        prompts = [] if self.store is None else [self._local(one) for one in self.store.prompts(segmentId)]
        segment = self.segmentationNode.GetSegmentation().GetSegment(segmentId)
        return NoduleState(segmentId, segment, prompts, isSettled=not self.record(segmentId).isPending)

    def _local(self, prompt: Prompt) -> Prompt:
        """A prompt with its place in the volume, which stays when the volume is moved."""
        r, a, s = self.geometry.worldToLocal(prompt.ras).tolist()
        return dataclasses.replace(prompt, ras=(r, a, s))

    def prompt(self, pointId: str) -> Prompt:
        """A point of the list, in the volume's local RAS. Raises SceneError."""
        return self._local(self.store.prompt(pointId))

    def toWorld(self, prompt: Prompt) -> tuple[float, float, float]:
        """Where a nodule's prompt lies in the world."""
        r, a, s = self.geometry.localToWorld(prompt.ras).tolist()
        return r, a, s

    def nodule(self, segmentId: str) -> NoduleState:
        """Raises SceneError for a segment that is not there."""
        if segmentId not in self.nodules:
            self.sync()
        if segmentId not in self.nodules:
            raise SceneError("This nodule is not there any more.")
        return self.nodules[segmentId]

    def noduleOf(self, pointId: str) -> NoduleState | None:
        """The nodule that a point belongs to."""
        return next((state for state in self.nodules.values() if state.index(pointId) >= 0), None)

    def addNodule(self) -> NoduleState:
        """A new empty nodule; the segmentation is made where there is none. Raises SceneError."""
        self.ensureSegmentation()
        with self.changing():
            segmentId = nodule_segmentation.addNodule(self.segmentationNode)
            self.sync()
            state = self.nodules[segmentId]
            self.writer.write(segmentId, EMPTY_BLOCK)
            state.block = EMPTY_BLOCK
        self.setRecord(segmentId, clicks=0)
        return state

    def remove(self, segmentId: str) -> None:
        """Remove a nodule's segment and its points; unknown ones are ignored."""
        state = self.nodules.pop(segmentId, None)
        with self.changing():
            self.dropPrompts([] if state is None else state.prompts)
            node = self.segmentationNode
            if node is not None and node.GetSegmentation().GetSegment(segmentId) is not None:
                node.GetSegmentation().RemoveSegment(segmentId)

    def moveBefore(self, segmentId: str, following: str) -> None:
        """Put a segment in front of another one in the list."""
        segmentation = self.segmentationNode.GetSegmentation()
        with self.changing():
            segmentation.SetSegmentIndex(segmentId, segmentation.GetSegmentIndex(following))

    def dropPrompts(self, prompts: Sequence[Prompt]) -> None:
        """Remove points from the list."""
        if self.store is not None:
            for prompt in prompts:
                self.store.remove(prompt.id)

    # -- masks -------------------------------------------------------------------------------------------------------

    def adopt(self, segmentId: str) -> NoduleSnapshot | None:
        """Take in what others did to the voxels since the last look: they become the start of the next click.

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
        """First look at a segment of a reopened scene, or of somebody else."""
        self._takeVoxels(state)
        record = self.record(state.segmentId)
        isOurs = record.clicks is not None and record.mask == digest(state.block)
        state.isForeign = not isOurs or (record.clicks != len(state.prompts) and not record.isPending)

    def _takeVoxels(self, state: NoduleState) -> None:
        block = self.writer.read(state.segmentId)
        with self.changing():
            self.writer.write(state.segmentId, block)  # from here on the writer notices changes
        state.block = block

    def begin(self, segmentId: str, unanswered: Container[str] = ()) -> NoduleSnapshot | None:
        """To be called before a nodule's prompts change: :meth:`adopt`, then foreign voxels become the start mask.

        Args:
            segmentId: the nodule.
            unanswered: IDs of prompts whose effect these voxels do not show.
        """
        edit = self.adopt(segmentId)
        state = self.nodule(segmentId)
        if state.isForeign:
            state.isForeign = False
            state.start = None if state.block.isEmpty else Start(state.block.mask, state.block.offset_kji)
            state.absorbed = {prompt.id for prompt in state.prompts if prompt.id not in unanswered}
            state.isSettled = True
        return edit

    def write(self, segmentId: str, answer: Segmented) -> bool:
        """Put an answer into the segment; returns whether other segments' voxels were left out of it."""
        state, block = self.nodule(segmentId), MaskBlock(answer.mask, answer.offset_kji)
        isCut = False
        if self.options.doNotOverlap and not block.isEmpty:
            free = self.writer.withoutOthers(segmentId, block)
            isCut = np.count_nonzero(free.mask) != np.count_nonzero(block.mask)
            block = free if isCut else block
        with self.changing():
            self.writer.write(segmentId, block, surface=False)
            self.staleSurfaces[segmentId] = None
            state.block = block
            nodule_segmentation.setScore(self.segmentationNode, segmentId, answer.score)
        self.setMeasurements(segmentId, answer.measurements)
        return isCut

    def setMeasurements(self, segmentId: str, measurements: Any) -> None:
        """Store measurements, and that these voxels are ours."""
        state = self.nodule(segmentId)
        self.setRecord(
            segmentId,
            measurements=dict(measurements),
            mask="" if state.block is None else digest(state.block),
            clicks=len(state.prompts) if state.start is None and not state.isForeign else None,
        )

    # -- what is stored with a segment -------------------------------------------------------------------------------

    def record(self, segmentId: str) -> NoduleRecord:
        """What is stored with a segment."""
        return NoduleRecord.fromDict(nodule_segmentation.record(self.segmentationNode, segmentId))

    def setRecord(self, segmentId: str, **changes: Any) -> None:
        """Change some of what is stored with a segment."""
        before = self.record(segmentId)
        record = dataclasses.replace(before, **changes)
        if record != before:
            with self.changing():
                nodule_segmentation.setRecord(self.segmentationNode, segmentId, record.toDict())

    def status(self, segmentId: str) -> str:
        """"AI", "reviewed" or "flagged"."""
        return nodule_segmentation.status(self.segmentationNode, segmentId)

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def snapshot(self, segmentId: str) -> NoduleSnapshot | None:
        """A nodule as it is now, None where it does not exist. Raises SceneError where it cannot be read."""
        if segmentId not in self.nodules:
            return None
        state = self.nodules[segmentId]
        if state.block is None:
            self._recognize(state)
        return self._snapshot(state)

    def _snapshot(self, state: NoduleState, block: MaskBlock | None = None) -> NoduleSnapshot:
        segment = takeSnapshot(self.writer, state.segmentId)
        if block is not None:
            segment = dataclasses.replace(segment, block=block)
        settled = state.isSettled and state.awaited is None
        return _snapshotOf(state, segment, settled)

    def settled(self, snapshot: NoduleSnapshot) -> NoduleSnapshot:
        """The snapshot of a nodule whose answer has come meanwhile and is what its segment shows now."""
        segment = takeSnapshot(self.writer, snapshot.segment.segmentId)
        return dataclasses.replace(snapshot, segment=segment, isSettled=True)

    def lastKnown(self, state: NoduleState) -> NoduleSnapshot:
        """A nodule whose segment others have removed, as far as it was known here."""
        metadata = slicer.vtkSegment()
        metadata.DeepCopyMetadata(state.segment)
        segment = SegmentSnapshot(state.segmentId, state.block or EMPTY_BLOCK, metadata, None, True)
        return _snapshotOf(state, segment, state.isSettled)

    def restore(self, snapshot: NoduleSnapshot) -> NoduleState:
        """Bring a nodule back as it was: segment with its ID, voxels, points. Raises SceneError."""
        segmentId = snapshot.segment.segmentId
        self.ensureSegmentation()
        with self.changing():
            restoreSegment(self.writer, snapshot.segment)
            segment = self.segmentationNode.GetSegmentation().GetSegment(segmentId)
            state = NoduleState(segmentId, segment, block=snapshot.segment.block)
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
        self.staleSurfaces[segmentId] = None
        return state

    # -- requests ----------------------------------------------------------------------------------------------------

    def predictRequest(self, segmentId: str) -> Predict | None:
        """What to ask the engine about a nodule; None where its prompts say nothing (yet)."""
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
        )


def _snapshotOf(state: NoduleState, segment: SegmentSnapshot, isSettled: bool) -> NoduleSnapshot:
    absorbed = frozenset(state.absorbed)
    return NoduleSnapshot(segment, tuple(state.prompts), state.start, absorbed, state.isForeign, isSettled)
