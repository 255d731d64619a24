"""A held-out nodule in the views: the image, the truth, and what old and new weights made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from SAMMed3DLib.scene.nodule_segmentation import useGeometryOf
from SAMMed3DLib.scene.segment_writer import MaskBlock, SegmentWriter
from SAMMed3DLib.scene.views import LUNG, SlicesBefore, showAgain, showNodulesOf, showPoint
from SAMMed3DLib.translation import tr as _

TRUTH, OLD, NEW = "truth", "old", "new"
COLORS = {TRUTH: (1.0, 0.85, 0.2), OLD: (0.95, 0.35, 0.3), NEW: (0.25, 0.7, 1.0)}
#: Around a nodule, in nodule diameters, the masks are looked for.
_REACH = 2.0
_LEAST_MM = 40.0


class ComparisonView:
    """One volume and one segmentation with three segments, made when first needed and not saved with the scene."""

    def __init__(self) -> None:
        self._scene = slicer.mrmlScene
        self._volumeId = self._segmentationId = ""
        self._second = ""
        self._data: dict[str, Any] | None = None
        self.isSideBySide = False
        self._before: tuple[str, Sequence[float]] | None = None
        self._slices: SlicesBefore | None = None
        self._hidden: list[Any] = []

    @property
    def volumeNode(self) -> Any | None:
        return self._scene.GetNodeByID(self._volumeId) if self._volumeId else None

    @property
    def segmentationNode(self) -> Any | None:
        return self._scene.GetNodeByID(self._segmentationId) if self._segmentationId else None

    @property
    def isOnScreen(self) -> bool:
        return self.volumeNode is not None

    def show(self, nodule: Any, data: dict[str, Any]) -> None:
        """Shows a nodule.

        Args:
            nodule: a session.compare_part.NoduleComparison.
            data: its case, as scene.training_source.readCase gives it.
        """
        if data is not self._data or not self.isOnScreen or self.segmentationNode is None:
            self._load(nodule.case, data)
        writer = SegmentWriter(self.segmentationNode, self.volumeNode)
        reach = max(_REACH * (nodule.diameterMm or 0.0), _LEAST_MM)
        box = _around(nodule.centerRas, reach, data["ijkToRas"], data["image"].shape)
        for name, value in ((TRUTH, nodule.labelValue), (OLD, nodule.value), (NEW, nodule.value)):
            writer.write(name, _block(data[name], value, box))
        showPoint(nodule.centerRas, self._scene)

    def setSideBySide(self, on: bool) -> None:
        """The old weights in the red view, the new ones in the yellow one, the truth in both; or all in every view.

        The layout that shows these two views side by side is the panel's to choose.
        """
        self.isSideBySide = on
        if on:
            self._alike()
        else:
            self._putBack()
        self._arrange()

    def close(self) -> None:
        """Removes the nodes; the views show again what they showed before, and the user's nodules."""
        if self._slices is not None and self.volumeNode is not None:
            self._slices.giveBack(self.volumeNode)
        showAgain(self._hidden)
        self._removeNodes()

    def _removeNodes(self) -> None:
        for node in (self.segmentationNode, self.volumeNode):
            if node is not None:
                self._scene.RemoveNode(node)
        self.sceneClosed()

    def sceneClosed(self) -> None:
        """Forgets the nodes after the scene was closed."""
        self._volumeId = self._segmentationId = self._second = ""
        self._data, self._slices, self._hidden = None, None, []

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _load(self, case: str, data: dict[str, Any]) -> None:
        before = self._slices if self.isOnScreen and self._slices is not None else SlicesBefore(self._scene)
        hidden = self._hidden
        self._removeNodes()
        name = _("Comparison: {case}").format(case=case)
        volume = slicer.util.addVolumeFromArray(data["image"], ijkToRAS=data["ijkToRas"], name=name)
        volume.SetSaveWithScene(False)
        volume.SetHideFromEditors(True)  # no case of the user's
        volume.CreateDefaultDisplayNodes()
        display = volume.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(*LUNG)
        self._volumeId = volume.GetID()
        segmentation = self._scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        segmentation.SetSaveWithScene(False)
        segmentation.SetHideFromEditors(True)
        segmentation.CreateDefaultDisplayNodes()
        useGeometryOf(segmentation, volume)
        self._segmentationId = segmentation.GetID()
        titles = {TRUTH: _("Truth"), OLD: _("Old weights"), NEW: _("New weights")}
        for segmentId, color in COLORS.items():
            segmentation.GetSegmentation().AddEmptySegment(segmentId, titles[segmentId])
            segmentation.GetSegmentation().SeparateSegmentLabelmap(segmentId)
            segmentation.GetSegmentation().GetSegment(segmentId).SetColor(*color)
        second = self._scene.AddNewNodeByClass("vtkMRMLSegmentationDisplayNode")
        second.SetSaveWithScene(False)
        segmentation.AddAndObserveDisplayNodeID(second.GetID())
        self._second = second.GetID()
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        self._data, self._slices = data, before
        self._hidden = [*hidden, *showNodulesOf(volume)]
        self._arrange()

    def _arrange(self) -> None:
        """Chooses which segments each view shows, as outlines only, so that they can be compared."""
        segmentation = self.segmentationNode
        if segmentation is None:
            return
        first, second = segmentation.GetDisplayNode(), self._scene.GetNodeByID(self._second)
        red, yellow = (self._sliceNode(name) for name in ("Red", "Yellow"))
        both = self.isSideBySide and red is not None and yellow is not None
        for display in (first, second):
            display.SetVisibility2DFill(False)
            display.SetVisibility2DOutline(True)
            display.SetSliceIntersectionThickness(2)
            display.RemoveAllViewNodeIDs()
        second.SetVisibility(both)
        first.SetSegmentVisibility(NEW, not both)
        if both:
            assert red is not None and yellow is not None
            first.AddViewNodeID(red.GetID())
            second.AddViewNodeID(yellow.GetID())
            second.SetSegmentVisibility(OLD, False)

    def _alike(self) -> None:
        """The right view shows the same slices as the left one."""
        red, yellow = self._sliceNode("Red"), self._sliceNode("Yellow")
        if red is not None and yellow is not None:
            self._before = (yellow.GetOrientation(), yellow.GetFieldOfView())
            yellow.SetOrientation(red.GetOrientation())
            yellow.SetFieldOfView(*red.GetFieldOfView())

    def _putBack(self) -> None:
        """The right view as the user had it."""
        yellow = self._sliceNode("Yellow")
        if yellow is not None and self._before is not None:
            yellow.SetOrientation(self._before[0])
            yellow.SetFieldOfView(*self._before[1])
        self._before = None

    def _sliceNode(self, name: str) -> Any | None:
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode", self._scene)
        return next((node for node in nodes if node.GetLayoutName() == name), None)


def _around(center: Sequence[float], reach: float, ijkToRas: NDArray, shape: Sequence[int]) -> tuple[slice, ...]:
    """The voxels within ``reach`` mm of a point, as slices [k, j, i] within the volume."""
    inverse = np.linalg.inv(ijkToRas)
    ijk = (inverse @ np.append(np.asarray(center, dtype=float), 1.0))[:3]
    half = reach * np.sqrt((inverse[:3, :3] ** 2).sum(axis=1))
    low = np.maximum(np.floor(ijk - half), 0).astype(int)[::-1]
    high = np.minimum(np.ceil(ijk + half) + 1, np.asarray(shape)[::-1]).astype(int)[::-1]
    return tuple(slice(a, max(a + 1, b)) for a, b in zip(low, high, strict=True))


def _block(labels: NDArray, value: int, box: tuple[slice, ...]) -> MaskBlock:
    part = np.ascontiguousarray(labels[box] == value).astype(np.uint8)
    k, j, i = (int(each.start) for each in box)
    return MaskBlock(part, (k, j, i))
