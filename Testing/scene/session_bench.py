"""What the tests of the session share: a volume, a session on it, and its nodules as full arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from SAMMed3DLib.scene.mask_block import tightBlock
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DLib.scene.session import Session
from SAMMed3DLib.scene.volume_geometry import VolumeGeometry
from scene.session_fakes import CubeEngine, FakeModels, StepWorker, cube, place
from slicer_scene import SlicerScene

SHAPE = (36, 30, 32)
IJK_TO_RAS = np.array([[-0.7, 0.0, 0.0, 11.0], [0.0, -0.7, 0.1, 9.0], [0.0, 0.1, 1.2, -20.0], [0.0, 0.0, 0.0, 1.0]])
SIGNALS = (
    "stateChanged",
    "nodulesChanged",
    "noduleChanged",
    "selectionChanged",
    "historyChanged",
    "progressed",
    "message",
    "busyChanged",
    "documentChanged",
    "dragging",
)


class Bench:
    """A session on a small oblique volume.

    Attributes:
        heard: the arguments of every emission, by signal.
    """

    def __init__(self, scene: SlicerScene, volume: bool = True, **models: Any) -> None:
        self.scene = scene
        self.engine = CubeEngine()
        self.worker = StepWorker(self.engine)
        self.models = FakeModels(**models)
        self.session = Session(self.worker, self.models)
        self.heard: dict[str, list[tuple[Any, ...]]] = {name: [] for name in SIGNALS}
        for name in SIGNALS:
            getattr(self.session, name).connect(lambda *args, name=name: self.heard[name].append(args))
        self.volume = self.addVolume() if volume else None
        if volume:
            self.session.setVolume(self.volume)

    def addVolume(self, name: str = "CT", shape: tuple[int, int, int] = SHAPE) -> Any:
        return self.scene.add_volume(np.full(shape, -800, dtype=np.int16), IJK_TO_RAS, name=name)

    @property
    def errors(self) -> list[str]:
        return [text for text, isError in self.heard["message"] if isError]

    def settle(self) -> None:
        assert self.session.waitUntilIdle(10)

    def ras(self, k: int, j: int, i: int) -> tuple[float, float, float]:
        point = VolumeGeometry(self.session.volumeNode or self.volume).ijkToWorld @ [i, j, k, 1.0]
        return float(point[0]), float(point[1]), float(point[2])

    def click(self, k: int, j: int, i: int, positive: bool = True) -> str | None:
        segmentId = self.session.click(self.ras(k, j, i), positive)
        self.settle()
        return segmentId

    # -- nodules -----------------------------------------------------------------------------------------------------

    def full(self, segmentId: str) -> np.ndarray:
        volume = np.zeros(SHAPE, dtype=np.uint8)
        block = self.session.volume.writer.read(segmentId)
        volume[place(block)] = block.mask
        return volume

    def cubes(self, centers: list[tuple[int, int, int]]) -> np.ndarray:
        volume = np.zeros(SHAPE, dtype=np.uint8)
        for center in centers:
            volume[cube(center)] = 1
        return volume

    def row(self, segmentId: str) -> Any:
        return next(row for row in self.session.review.rows() if row.segmentId == segmentId)

    def assertMeasured(self) -> None:
        """Every volume in the list is that of the voxels that are drawn."""
        self.settle()
        shown = {row.segmentId: row.volumeMm3 or 0 for row in self.session.review.rows()}
        assert shown == {segmentId: int(self.full(segmentId).sum()) for segmentId in shown}

    def edit(self, segmentId: str, full: np.ndarray) -> None:
        """What the Segment Editor does: other voxels, not through our writer."""
        writer = SegmentWriter(self.session.segmentationNode, self.session.volumeNode)
        writer.write(segmentId, tightBlock(full, (0, 0, 0)))

    # -- points ------------------------------------------------------------------------------------------------------

    def points(self) -> list[str]:
        node = self.session.promptsNode
        return [] if node is None else [node.GetNthControlPointID(n) for n in range(node.GetNumberOfControlPoints())]

    def place(self, number: int) -> np.ndarray:
        return np.array(self.session.promptsNode.GetNthControlPointPositionWorld(number))

    def visible(self) -> list[bool]:
        node = self.session.promptsNode
        return [bool(node.GetNthControlPointVisibility(n)) for n in range(node.GetNumberOfControlPoints())]

    def drag(self, pointId: str, ras: tuple[float, float, float]) -> None:
        """One move of the mouse with the button down."""
        node = self.session.promptsNode
        if not self.session.store._dragging:
            node.InvokeEvent(node.PointStartInteractionEvent)
        node.SetNthControlPointPositionWorld(node.GetNthControlPointIndexByID(pointId), *ras)

    def drop(self, _pointId: str) -> None:
        node = self.session.promptsNode
        node.InvokeEvent(node.PointEndInteractionEvent)
