"""Clicking in the slice views: the views on screen, their pointers, and the buttons that arm and disarm."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import qt
import slicer

from ..scene.slice_clicks import SurfaceClicks
from ..signal import Signal
from .icons import FOLDER

#: While a point is dragged, the view with the pointer is drawn for so much of the time, but so many times a second at
#: least where drawing is slow; the views beside it are drawn less often by this factor.
_DRAWING_SHARE, _LEAST_RATE, _BESIDE = 0.1, 10.0, 3.0


class SliceViews:
    """What is on screen now. Without a main window there are no views, and that is no error."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.changed = Signal()
        self._clock = clock
        self._slowed: list[tuple[Any, float]] = []
        self._layoutManager = slicer.app.layoutManager()
        if self._layoutManager is not None:
            self._layoutManager.connect("layoutChanged(int)", self._onLayoutChanged)

    def widgets(self) -> list[Any]:
        """The slice widgets of the layout, hidden ones of other layouts included."""
        if self._layoutManager is None:
            return []
        found = (self._layoutManager.sliceWidget(name) for name in self._layoutManager.sliceViewNames())
        return [widget for widget in found if widget is not None]

    def interactors(self) -> list[tuple[Any, Any]]:
        """(render window interactor, slice node) of each view."""
        return [(widget.sliceView().interactor(), widget.mrmlSliceNode()) for widget in self.widgets()]

    def spaces(self) -> list[Any]:
        """The interactors of the 3D views."""
        return [view.interactor() for view in self._threeDViews()]

    def _threeDViews(self) -> list[Any]:
        if self._layoutManager is None:
            return []
        count = self._layoutManager.threeDViewCount
        return [self._layoutManager.threeDWidget(number).threeDView() for number in range(count)]

    def pace(self, isDragging: bool) -> None:
        """Leaves time for the network while a point is dragged and drawing is slow; then views are drawn as before.

        Drawing without a graphics card takes the processors that compute the mask. The view with the pointer shows how
        slow it is; where the pointer is in no view, as when a script moves a point, nothing changes.
        """
        slowed, self._slowed = self._slowed, []
        for view, rate in slowed:
            view.setMaximumUpdateRate(rate)
        seen = [*(widget.sliceView() for widget in self.widgets()), *self._threeDViews()]
        own = next((view for view in seen if view.underMouse()), None)
        if not isDragging or own is None:
            return
        self._slowed = [(view, view.maximumUpdateRate) for view in seen]
        start = self._clock()
        own.forceRender()
        rate = max(_LEAST_RATE, _DRAWING_SHARE / max(self._clock() - start, 1e-3))
        for view, before in self._slowed:
            view.setMaximumUpdateRate(min(before, rate if view is own else rate / _BESIDE))

    def close(self) -> None:
        self.pace(False)
        if self._layoutManager is not None:
            self._layoutManager.disconnect("layoutChanged(int)", self._onLayoutChanged)
            self._layoutManager = None

    def _onLayoutChanged(self, layout: int) -> None:
        # The new layout's widgets are made while the signal runs: look once they are there.
        qt.QTimer.singleShot(0, self._emitChanged)

    def _emitChanged(self) -> None:
        if self._layoutManager is not None:
            self.changed.emit()


class PolarityCursors:
    """Shows and takes away the pointers; every view that got one gets its own back."""

    def __init__(self, views: SliceViews) -> None:
        self._views = views
        self._cursors: dict[bool, qt.QCursor] = {}
        self._dressed: list[Any] = []

    def show(self, positive: bool) -> None:
        """All slice views of the layout show the pointer for adding or for subtracting."""
        cursor = self._cursor(positive)
        self._dressed = [widget.sliceView() for widget in self._views.widgets()]
        for view in self._dressed:
            view.setViewCursor(cursor)
            view.setDefaultViewCursor(cursor)

    def restore(self) -> None:
        plain = qt.QCursor()
        for view in self._dressed:
            view.setViewCursor(plain)
            view.setDefaultViewCursor(plain)
        self._dressed = []

    def _cursor(self, positive: bool) -> qt.QCursor:
        if positive not in self._cursors:
            pixmap = qt.QPixmap(str(FOLDER / ("cursor_add.png" if positive else "cursor_subtract.png")))
            self._cursors[positive] = qt.QCursor(pixmap, pixmap.width() // 2, pixmap.height() // 2)
        return self._cursors[positive]


class ClickTools:
    """While armed, clicks in the slice views go to the session; zooming, scrolling and dragging stay Slicer's."""

    def __init__(self, ui: Any, session: Any, clicks: Any, views: SliceViews) -> None:
        """``clicks``: a SliceClicks."""
        self.armedChanged = Signal()
        self._ui, self._session, self._clicks, self._views = ui, session, clicks, views
        self._cursors = PolarityCursors(views)
        self._armed = self._isOpen = False
        self._surfaces = SurfaceClicks()
        self._surfaces.clicked.connect(self._onSurface)
        clicks.clicked.connect(self._onClicked)
        clicks.rested.connect(session.prefetch)
        clicks.stirred.connect(session.hidePreview)
        views.changed.connect(self._onViewsChanged)
        ui.addNoduleButton.connect("clicked(bool)", self._onAddNodule)
        ui.nextNoduleButton.connect("clicked(bool)", self._onNextNodule)
        ui.addModeButton.connect("clicked(bool)", self._onAddMode)
        ui.subtractModeButton.connect("clicked(bool)", self._onSubtractMode)

    @property
    def armed(self) -> bool:
        return self._armed

    def enter(self) -> None:
        """The module is open: clicks on nodules in the 3D views select them."""
        self._isOpen = True
        self._surfaces.start(self._views.spaces())

    def exit(self) -> None:
        """Another module is opened: no pointer and no click of ours is left behind."""
        self._isOpen = False
        self._surfaces.stop()
        self.disarm()

    def close(self) -> None:
        self.exit()
        self._surfaces.clicked.disconnect(self._onSurface)
        self._clicks.clicked.disconnect(self._onClicked)
        self._clicks.rested.disconnect(self._session.prefetch)
        self._clicks.stirred.disconnect(self._session.hidePreview)
        self._views.changed.disconnect(self._onViewsChanged)
        self._ui.addNoduleButton.disconnect("clicked(bool)", self._onAddNodule)
        self._ui.nextNoduleButton.disconnect("clicked(bool)", self._onNextNodule)
        self._ui.addModeButton.disconnect("clicked(bool)", self._onAddMode)
        self._ui.subtractModeButton.disconnect("clicked(bool)", self._onSubtractMode)

    def newNodule(self) -> None:
        """The next click starts a nodule; nothing where no click could lead anywhere."""
        if not self._session.state.takesClicks:
            return
        self._setPolarity(True)
        self._session.select(None)
        self.arm()

    def arm(self) -> None:
        if not self._armed:
            interaction = slicer.app.applicationLogic().GetInteractionNode()
            if interaction.GetCurrentInteractionMode() == interaction.Place:  # a click would place a point as well
                interaction.SwitchToViewTransformMode()
            self._armed = True
            self._watch()
            self.armedChanged.emit()

    def disarm(self) -> None:
        if self._armed:
            self._armed = False
            self._clicks.stop()
            self._cursors.restore()
            self.armedChanged.emit()

    def togglePolarity(self) -> None:
        self._setPolarity(not self._session.options.polarity)

    def _setPolarity(self, positive: bool) -> None:
        self._session.options.polarity = positive
        self._session.hidePreview()
        if self._armed:
            self._cursors.show(positive)
        self.armedChanged.emit()

    def _watch(self) -> None:
        self._clicks.start(self._views.interactors())
        self._cursors.show(self._session.options.polarity)

    def _onSurface(self, ras: Any) -> None:
        self._session.review.pick(ras)

    def _onViewsChanged(self) -> None:
        if self._isOpen:
            self._surfaces.start(self._views.spaces())
        if self._armed:
            self._clicks.stop()
            self._cursors.restore()
            self._watch()

    def _onClicked(self, ras: Any, shift: bool, sliceNode: Any) -> None:
        self._session.click(ras, self._session.options.polarity != shift, sliceNode=sliceNode)

    def _onAddNodule(self, checked: bool) -> None:
        if checked:
            self.newNodule()
        else:
            self.disarm()

    def _onNextNodule(self, checked: bool = False) -> None:
        self.newNodule()

    def _onAddMode(self, checked: bool = False) -> None:
        self._chooseMode(True)

    def _onSubtractMode(self, checked: bool = False) -> None:
        self._chooseMode(False)

    def _chooseMode(self, positive: bool) -> None:
        """Switches between adding and subtracting, and arms the clicks, since the user wants to correct the nodule."""
        self._setPolarity(positive)
        self.arm()
