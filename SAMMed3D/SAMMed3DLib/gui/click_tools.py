"""Add nodule, Next nodule, Add and Subtract: what turns clicks in slice views into prompts."""

from __future__ import annotations

from typing import Any

import slicer

from ..signal import Signal
from .cursors import PolarityCursors
from .slice_views import SliceViews


class ClickTools:
    """While armed, clicks in the slice views go to the session; zooming, scrolling and dragging stay Slicer's."""

    def __init__(self, ui: Any, session: Any, clicks: Any, views: SliceViews) -> None:
        """``clicks``: a SliceClicks."""
        self.armedChanged = Signal()
        self._ui, self._session, self._clicks, self._views = ui, session, clicks, views
        self._cursors = PolarityCursors(views)
        self._armed = False
        clicks.clicked.connect(self._onClicked)
        clicks.rested.connect(session.prefetch)
        views.changed.connect(self._onViewsChanged)
        ui.addNoduleButton.connect("clicked(bool)", self._onAddNodule)
        ui.nextNoduleButton.connect("clicked(bool)", self._onNextNodule)
        ui.addModeButton.connect("clicked(bool)", self._onAddMode)
        ui.subtractModeButton.connect("clicked(bool)", self._onSubtractMode)

    @property
    def armed(self) -> bool:
        return self._armed

    def close(self) -> None:
        self.disarm()
        self._clicks.clicked.disconnect(self._onClicked)
        self._clicks.rested.disconnect(self._session.prefetch)
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
        if self._armed:
            self._session.nextNodule()
        else:
            self._session.addNodule()
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
        self._setPolarity(not self._session.polarity)

    def _setPolarity(self, positive: bool) -> None:
        self._session.polarity = positive
        if self._armed:
            self._cursors.show(positive)
        self.armedChanged.emit()

    def _watch(self) -> None:
        self._clicks.start(self._views.interactors())
        self._cursors.show(self._session.polarity)

    def _onViewsChanged(self) -> None:
        if self._armed:
            self._clicks.stop()
            self._cursors.restore()
            self._watch()

    def _onClicked(self, ras: Any, shift: bool) -> None:
        self._session.click(ras, self._session.polarity != shift)

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
        """The button means: now I correct the selected nodule. So clicks count from here on."""
        self._setPolarity(positive)
        self.arm()
