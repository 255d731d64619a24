"""Two rows of slice views: the current scan above, its prior below, and both at one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import slicer.util

#: ID of our layout; Slicer's own are below 100, and extensions choose a number of their own.
LAYOUT = 8718
_ORIENTATIONS = ("Axial", "Coronal", "Sagittal")
#: Layout names of the views: Slicer's three above, ours below, which no other layout shows.
CURRENT_VIEWS = ("Red", "Green", "Yellow")
PRIOR_VIEWS = ("PriorAxial", "PriorCoronal", "PriorSagittal")
_COLORS = ("#F34A33", "#6EB04B", "#EDD54C")
#: Marks display nodes that are seen in one row only.
_CONFINED = "SAMMed3D.OneRow"


def _description() -> str:
    """The layout in Slicer's XML."""
    rows = []
    for names, mark in ((CURRENT_VIEWS, ""), (PRIOR_VIEWS, "P")):
        views = "".join(
            f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
            f'<property name="orientation" action="default">{orientation}</property>'
            f'<property name="viewlabel" action="default">{name[0] if not mark else mark + orientation[0]}</property>'
            f'<property name="viewcolor" action="default">{color}</property></view></item>'
            for name, orientation, color in zip(names, _ORIENTATIONS, _COLORS, strict=True)
        )
        rows.append(f'<item><layout type="horizontal">{views}</layout></item>')
    return f'<layout type="vertical" split="true">{"".join(rows)}</layout>'


class TwoRows:
    """Shows two scans in two rows of slice views, and both at the place of one nodule.

    While they are shown, the nodules and points of each scan are seen in its own row only. A saved scene knows nothing
    of that: whoever opens it sees them everywhere.
    """

    def __init__(self, scene: Any = None) -> None:
        self._scene = slicer.mrmlScene if scene is None else scene
        self._before: int | None = None
        self._prior: Any = None
        self._rows: tuple[list[Any], list[Any]] = ([], [])
        self._tags = [
            self._scene.AddObserver(self._scene.StartSaveEvent, lambda *_event: self._release()),
            self._scene.AddObserver(self._scene.EndSaveEvent, lambda *_event: self._confine()),
        ]

    @property
    def isShown(self) -> bool:
        """Whether the layout is on screen."""
        node = self._layoutNode()
        return self._prior is not None and node is not None and node.GetViewArrangement() == LAYOUT

    def show(self, current: Sequence[Any], priorVolume: Any, prior: Sequence[Any]) -> bool:
        """Show both rows; False without a main window, where nothing can be shown.

        Args:
            current, prior: the segmentations and point lists that belong to the scans; None among them is skipped.
            priorVolume: fills the lower row; the upper one shows what it showed.
        """
        layout = self._layoutNode()
        if layout is None or priorVolume is None:
            return False
        if not layout.IsLayoutDescription(LAYOUT):
            layout.AddLayoutDescription(LAYOUT, _description())
        if layout.GetViewArrangement() != LAYOUT:
            self._before = layout.GetViewArrangement()
            layout.SetViewArrangement(LAYOUT)
        isNew, self._prior = self._prior is not priorVolume, priorVolume
        self._fill(isNew)
        self._release()
        self._rows = ([each for each in current if each is not None], [each for each in prior if each is not None])
        self._confine()
        return True

    def hide(self) -> None:
        """Returns to the earlier layout; the nodules are seen everywhere again."""
        shown, before = self.isShown, self._before
        self._release()
        self._prior, self._before, self._rows = None, None, ([], [])
        if shown and before is not None:
            self._layoutNode().SetViewArrangement(before)

    def close(self) -> None:
        """Hides both rows for good; see :meth:`hide`."""
        self.hide()
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []

    def jump(self, current: Sequence[float] | None, prior: Sequence[float] | None) -> None:
        """Center each row on a place (world RAS, mm), at one zoom; None leaves a row where it is."""
        self._fill(False)
        for names, place in ((CURRENT_VIEWS, current), (PRIOR_VIEWS, prior)):
            for node in self._sliceNodes(names) if place is not None else ():
                node.JumpSliceByCentering(*(float(x) for x in place or ()))

    @staticmethod
    def isPriorView(sliceNode: Any) -> bool:
        """Whether a view is of the lower row."""
        return sliceNode.GetLayoutName() in PRIOR_VIEWS

    def _fill(self, fit: bool) -> None:
        """Shows the prior in the lower row, upright and at the zoom of the upper one."""
        if self._prior is None:
            return
        for name, above, orientation in zip(PRIOR_VIEWS, CURRENT_VIEWS, _ORIENTATIONS, strict=True):
            layers = self._layers(name)
            if layers.GetBackgroundVolumeID() != self._prior.GetID():
                layers.SetBackgroundVolumeID(self._prior.GetID())
                layers.SetForegroundVolumeID(None)
                fit = True
            for node in self._sliceNodes((name,)):
                if fit:
                    node.SetOrientation(orientation)
                    logic = self._logic(node)
                    if logic is not None:
                        logic.FitSliceToBackground()
                for upper in self._sliceNodes((above,)):
                    self._zoomAs(node, upper)

    @staticmethod
    def _zoomAs(node: Any, upper: Any) -> None:
        """Gives a view the mm a pixel of the view above, whatever the sizes of the two."""
        width, height = node.GetDimensions()[:2]
        above = upper.GetDimensions()[0]
        if width > 1 and height > 1 and above > 1:
            step = upper.GetFieldOfView()[0] / above
            node.SetFieldOfView(width * step, height * step, node.GetFieldOfView()[2])

    def _confine(self) -> None:
        """Show each scan's nodules and points in its own row; those of the current one in the 3D views too."""
        spaces = slicer.util.getNodesByClass("vtkMRMLViewNode", self._scene)
        places = ([*self._sliceNodes(CURRENT_VIEWS), *spaces], self._sliceNodes(PRIOR_VIEWS))
        for nodes, views in zip(self._rows, places, strict=True):
            displays = (node.GetDisplayNode() for node in nodes if node.GetScene() is not None)
            for display in (each for each in displays if each is not None):
                for view in views:
                    display.AddViewNodeID(view.GetID())
                display.SetAttribute(_CONFINED, "1")
                display.SetVisibility(True)

    def _release(self) -> None:
        for kind in ("vtkMRMLSegmentationDisplayNode", "vtkMRMLMarkupsDisplayNode"):
            for display in slicer.util.getNodesByClass(kind, self._scene):
                if display.GetAttribute(_CONFINED):
                    display.RemoveAttribute(_CONFINED)
                    display.RemoveAllViewNodeIDs()

    def _layoutNode(self) -> Any:
        return self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")

    def _sliceNodes(self, names: Sequence[str]) -> list[Any]:
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode", self._scene)
        return [node for node in nodes if node.GetLayoutName() in names]

    def _layers(self, name: str) -> Any:
        """The composite node of a view; made where the view's widget has not made it yet."""
        nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", self._scene)
        found = next((node for node in nodes if node.GetLayoutName() == name), None)
        if found is None:
            found = slicer.vtkMRMLSliceCompositeNode()
            found.SetSingletonTag(name)
            found.SetLayoutName(name)
            found = self._scene.AddNode(found)
        found.SetLinkedControl(False)
        return found

    @staticmethod
    def _logic(sliceNode: Any) -> Any:
        logics = slicer.app.applicationLogic().GetSliceLogics()
        found = (logics.GetItemAsObject(number) for number in range(logics.GetNumberOfItems() if logics else 0))
        return next((logic for logic in found if logic.GetSliceNode() is sliceNode), None)
