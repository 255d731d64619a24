"""Detects clicks in slice views without changing the mouse mode.

Slicer's Place mode ends with the right button, so that nobody can zoom while placing. Here the views' interactors are
watched instead, and Slicer still gets every event: wheel, right and middle button, dragging points and windowing
work as before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import slicer
import slicer.util
import vtk

from ..signal import Signal
from .measure_view import MEASURE_MARK

#: Between the Segment Editor's effects (1.0: what they take is no click) and the views' own interactor style (0.0: it
#: may stop an event from going further).
_PRIORITY = 0.5
#: Farther from where the button went down, in pixels, it is a drag; a pointer that rests trembles so far.
_CLICK_REACH = 4
#: Slicer takes hold of a point from twice as far, in pixels, as its mark reaches. Whoever means the point aims at it.
_MARK_REACH = 6
#: The pointer rests when it has not moved for this long.
REST_MS = 150

Pixel = tuple[int, int]
RasPoint = tuple[float, float, float]


class RestTimer(Protocol):
    """A single-shot timer on the main thread."""

    timeout: Signal

    def start(self, ms: int) -> None:
        """Emit ``timeout`` once in ``ms`` from now; a running one starts anew."""

    def stop(self) -> None:
        """Do not emit."""


@dataclass(frozen=True)
class _View:
    interactor: Any
    sliceNode: Any
    tags: tuple[int, ...]
    sliceTag: int

    def toWorld(self, pixel: Pixel) -> RasPoint:
        """World RAS under a pixel."""
        xyz = [0.0, 0.0, 0.0]
        slicer.vtkMRMLAbstractSliceViewDisplayableManager.ConvertDeviceToXYZ(
            self.interactor, self.sliceNode, *pixel, xyz
        )
        x, y, z, _one = self.sliceNode.GetXYToRAS().MultiplyPoint((*xyz, 1.0))
        return x, y, z

    def seen(self, pixel: Pixel) -> tuple[RasPoint, bool]:
        """What decides on the voxel that is seen under a pixel: the point, and whether it stands for a slab."""
        return self.toWorld(pixel), bool(self.sliceNode.GetSlabReconstructionEnabled())

    def pixelsBetween(self, one: Sequence[float], other: Sequence[float]) -> float:
        """Returns the distance in pixels at which two world points are seen."""
        toView = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.sliceNode.GetXYToRAS(), toView)
        a, b = (toView.MultiplyPoint((*point, 1.0)) for point in (one, other))
        return math.hypot(a[0] - b[0], a[1] - b[1])


@dataclass(frozen=True)
class _Press:
    interactor: Any
    sliceNode: Any
    pixel: Pixel
    ras: RasPoint
    shift: bool
    reach: int

    def reaches(self, pixel: Pixel) -> bool:
        """Whether the pointer is still near the place where it was pressed."""
        return _pixelsApart(pixel, self.pixel) <= self.reach


class SliceClicks:
    """Signals clicks in slice views, between :meth:`start` and :meth:`stop`.

    A click is the left button pressed and released within 4 pixels, without Ctrl or Alt, not in Place mode, and not on
    a markups control point or handle (that one is being dragged; with Shift Slicer drags none). Close to a point of a
    list, but not on its mark, it is a click when the pointer does not move at all.

    Attributes:
        clicked: Signal(ras, shift, sliceNode): world RAS (3,) of the click, whether Shift was held, and the view.
        rested: Signal(ras, sliceNode): the pointer has been resting over a view, where a click would be one, and
            nothing is pressed. Again where it has moved by a few pixels.
        stirred: Signal(): it has moved off since, or something else is under it now, or a button was pressed.
    """

    def __init__(self, timer: RestTimer | None = None, restMs: int = REST_MS) -> None:
        self.clicked, self.rested, self.stirred = Signal(), Signal(), Signal()
        self._timer = timer
        self._restMs = restMs
        self._views: list[_View] = []
        self._press: _Press | None = None
        self._isHeld = False
        self._pointer: tuple[_View, Pixel] | None = None
        self._rest: tuple[_View, Pixel, Any] | None = None
        if timer is not None:
            timer.timeout.connect(self._onTimeout)

    @property
    def armed(self) -> bool:
        """Whether views are being watched."""
        return bool(self._views)

    def start(self, sliceViews: Sequence[tuple[Any, Any]]) -> None:
        """Watch these views: (interactor, vtkMRMLSliceNode) of each. Others are no longer watched."""
        self.stop()
        for interactor, sliceNode in sliceViews:
            tags = tuple(
                interactor.AddObserver(event, handler, _PRIORITY)
                for event, handler in (
                    ("LeftButtonPressEvent", self._onPress),
                    ("LeftButtonReleaseEvent", self._onRelease),
                    ("MouseMoveEvent", self._onMove),
                    ("LeaveEvent", self._onLeave),
                    ("RightButtonPressEvent", self._onOtherButton),
                    ("RightButtonReleaseEvent", self._onOtherRelease),
                    ("MiddleButtonPressEvent", self._onOtherButton),
                    ("MiddleButtonReleaseEvent", self._onOtherRelease),
                    ("MouseWheelForwardEvent", self._onWheel),
                    ("MouseWheelBackwardEvent", self._onWheel),
                )
            )
            ownTag = sliceNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onSliceModified)
            self._views.append(_View(interactor, sliceNode, tags, ownTag))

    def stop(self) -> None:
        """Watch nothing."""
        for view in self._views:
            for tag in view.tags:
                view.interactor.RemoveObserver(tag)
            view.sliceNode.RemoveObserver(view.sliceTag)
        self._views = []
        self._press, self._isHeld = None, False
        self._forgetPointer()

    def _onPress(self, interactor: Any, _event: str) -> None:
        self._forgetPointer()
        self._press, self._isHeld = None, True
        view = self._viewOf(interactor)
        if view is None or interactor.GetControlKey() or interactor.GetAltKey():
            return
        shift = bool(interactor.GetShiftKey())
        pixel = tuple(interactor.GetEventPosition())
        ras = view.toWorld(pixel)
        reach = _reachOf(view, ras, shift)
        if reach is not None:
            self._press = _Press(interactor, view.sliceNode, pixel, ras, shift, reach)

    def _onMove(self, interactor: Any, _event: str) -> None:
        if self._press is not None:
            if not self._press.reaches(interactor.GetEventPosition()):
                self._press = None
        elif not self._isHeld:
            self._waitForRest(interactor)

    def _onRelease(self, interactor: Any, _event: str) -> None:
        self._isHeld = False
        press, self._press = self._press, None
        if press is not None and press.interactor is interactor and press.reaches(interactor.GetEventPosition()):
            self.clicked(press.ras, press.shift, press.sliceNode)

    def _onOtherButton(self, _interactor: Any, _event: str) -> None:
        self._press, self._isHeld = None, True
        self._forgetPointer()

    def _onOtherRelease(self, _interactor: Any, _event: str) -> None:
        self._isHeld = False

    def _onWheel(self, interactor: Any, _event: str) -> None:
        self._press = None
        self._forgetPointer()
        self._waitForRest(interactor)

    def _onLeave(self, _interactor: Any, _event: str) -> None:
        self._forgetPointer()

    def _waitForRest(self, interactor: Any) -> None:
        view = self._viewOf(interactor)
        if view is not None:
            self._waitAt(view, tuple(interactor.GetEventPosition()))

    def _waitAt(self, view: _View, pixel: Pixel) -> None:
        if self._timer is None:
            return
        rest = self._rest
        if rest is not None and (rest[0] is not view or _pixelsApart(pixel, rest[1]) > _CLICK_REACH):
            self._forgetPointer()
        self._pointer = (view, pixel)
        self._timer.start(self._restMs)

    def _forgetPointer(self) -> None:
        self._pointer = None
        if self._timer is not None:
            self._timer.stop()
        if self._rest is not None:
            self._rest = None
            self.stirred()

    def _onTimeout(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            view, pixel = pointer
            ras = view.toWorld(pixel)
            if _reachOf(view, ras) is None:
                self._forgetPointer()
                return
            self._rest = (view, pixel, view.seen(pixel))
            self.rested(ras, view.sliceNode)

    def _onSliceModified(self, sliceNode: Any, _event: str) -> None:
        """A key, a button or another view has moved what lies under the resting pointer."""
        if self._rest is not None:
            view, pixel, seen = self._rest
            if view.sliceNode is sliceNode and view.seen(pixel) != seen:
                self._forgetPointer()
                self._waitAt(view, pixel)

    def _viewOf(self, interactor: Any) -> _View | None:
        return next((view for view in self._views if view.interactor is interactor), None)


class SurfaceClicks:
    """Says where surfaces in 3D views are clicked, between :meth:`start` and :meth:`stop`; turning stays a drag.

    Attributes:
        clicked: Signal(ras): world RAS (3,) of the surface nearest to the viewer under the pointer.
    """

    def __init__(self) -> None:
        self.clicked = Signal()
        self._watched: list[tuple[Any, int]] = []
        self._pressed: tuple[Any, Pixel] | None = None

    def start(self, interactors: Sequence[Any]) -> None:
        """Watch the views of these interactors. Others are no longer watched."""
        self.stop()
        handlers = (("LeftButtonPressEvent", self._onPress), ("LeftButtonReleaseEvent", self._onRelease))
        self._watched = [
            (each, each.AddObserver(event, handler, _PRIORITY)) for each in interactors for event, handler in handlers
        ]

    def stop(self) -> None:
        """Watch nothing."""
        for interactor, tag in self._watched:
            interactor.RemoveObserver(tag)
        self._watched, self._pressed = [], None

    def _onPress(self, interactor: Any, _event: str) -> None:
        isPlain = not (interactor.GetControlKey() or interactor.GetAltKey() or interactor.GetShiftKey())
        self._pressed = (interactor, tuple(interactor.GetEventPosition())) if isPlain else None

    def _onRelease(self, interactor: Any, _event: str) -> None:
        pressed, self._pressed = self._pressed, None
        x, y = interactor.GetEventPosition()
        if pressed is None or pressed[0] is not interactor:
            return
        if max(abs(x - pressed[1][0]), abs(y - pressed[1][1])) <= _CLICK_REACH:
            picker = vtk.vtkCellPicker()
            if picker.Pick(x, y, 0.0, interactor.FindPokedRenderer(x, y)):
                self.clicked(tuple(picker.GetPickPosition()))


def _pixelsApart(one: Pixel, other: Pixel) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _reachOf(view: _View, ras: RasPoint, shift: bool = False) -> int | None:
    """How far the pointer may move during a click here, in pixels; None where Slicer takes the button for itself."""
    if _isPlacing(view.sliceNode):
        return None
    # With Shift, Slicer pans instead of dragging a point, and does so with the slightest move: the place is where the
    # button went down.
    held = [] if shift else _heldMarkups(view.sliceNode)
    if not all(_isBesideMark(display, view, ras) for display in held):
        return None
    return 0 if held else _CLICK_REACH


def _isPlacing(sliceNode: Any) -> bool:
    """Whether the left button places a markup in this view."""
    interaction = sliceNode.GetInteractionNode()
    return interaction is not None and interaction.GetCurrentInteractionMode() == interaction.Place


def _heldMarkups(sliceNode: Any) -> list[Any]:
    """Display nodes of markups with a control point or handle under the pointer, which the left button would drag."""
    scene = sliceNode.GetScene()
    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsDisplayNode", scene) if scene is not None else []
    return [node for node in nodes if node.HasActiveComponent() and not _isAxis(node)]


def _isAxis(display: Any) -> bool:
    """Whether the pointer is on an axis of the measure, which goes through the nodule, and not at one of its ends."""
    isPoint = display.GetActiveComponentType() == display.ComponentControlPoint
    return not isPoint and bool(display.GetDisplayableNode().GetAttribute(MEASURE_MARK))


def _isBesideMark(display: Any, view: _View, ras: RasPoint) -> bool:
    """Whether a place is close to a point of a list, or to the end of an axis, and not on its mark."""
    markup = display.GetDisplayableNode()
    isPoint = display.GetActiveComponentType() == display.ComponentControlPoint
    if not isPoint or not (markup.IsA("vtkMRMLMarkupsFiducialNode") or markup.GetAttribute(MEASURE_MARK)):
        return False
    point = markup.GetNthControlPointPositionWorld(display.GetActiveComponentIndex())
    return view.pixelsBetween(point, ras) > _MARK_REACH
