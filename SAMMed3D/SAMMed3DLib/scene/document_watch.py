"""What others do to the nodes of a document, told as signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk

from ..signal import Signal
from .document import Document


class DocumentWatch:
    """Observes a document's volume and segmentation, and the scene for their removal.

    What happens while ``document.isChanging`` is not told.

    Attributes:
        volumeRemoved, segmentationRemoved, promptsRemoved: Signal(): the node has left the scene.
        segmentsRemoved: Signal(): segments are gone.
        segmentsChanged: Signal(): segments were added, renamed, recolored, reordered.
        voxelsChanged: Signal(segmentId): somebody else changed a segment's labelmap.
    """

    def __init__(self, document: Document) -> None:
        self.volumeRemoved, self.segmentationRemoved, self.promptsRemoved = Signal(), Signal(), Signal()
        self.segmentsRemoved, self.segmentsChanged = Signal(), Signal()
        self.voxelsChanged = Signal()
        self._document = document
        self._observers: list[tuple[Any, int]] = []
        self._segmentation: Any = None
        scene = document.volumeNode.GetScene()
        self._observe(scene, slicer.vtkMRMLScene.NodeRemovedEvent, self._nodeHandler())
        self.update()

    def update(self) -> None:
        """Observe the segmentation, which may have been made meanwhile."""
        node = self._document.segmentationNode
        if node is self._segmentation:
            return
        self._segmentation = node
        if node is None:
            return
        events = slicer.vtkSegmentation
        self._observe(node, events.SegmentRemoved, self._tell(self.segmentsRemoved))
        for event in (events.SegmentAdded, events.SegmentModified, events.SegmentsOrderModified):
            self._observe(node, event, self._tell(self.segmentsChanged))
        self._observe(node, events.SourceRepresentationModified, self._voxelsHandler())

    def close(self) -> None:
        """Stop observing."""
        for node, tag in self._observers:
            node.RemoveObserver(tag)
        self._observers = []

    def _observe(self, node: Any, event: int, handler: Callable[..., None]) -> None:
        self._observers.append((node, node.AddObserver(event, handler)))

    def _tell(self, signal: Signal) -> Callable[..., None]:
        def handler(_caller: Any, _event: str) -> None:
            if not self._document.isChanging:
                signal()

        return handler

    def _voxelsHandler(self) -> Callable[..., None]:
        @vtk.calldata_type(vtk.VTK_STRING)
        def handler(_caller: Any, _event: str, segmentId: str | None = None) -> None:
            if not self._document.isChanging and segmentId:
                self.voxelsChanged(segmentId)

        return handler

    def _nodeHandler(self) -> Callable[..., None]:
        @vtk.calldata_type(vtk.VTK_OBJECT)
        def handler(_caller: Any, _event: str, node: Any) -> None:
            document = self._document
            if node is document.volumeNode:
                self.volumeRemoved()
            elif node is document.segmentationNode:
                self.segmentationRemoved()
            elif node is document.promptsNode:
                self.promptsRemoved()

        return handler
