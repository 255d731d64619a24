"""Buttons for how the views show the CT, and the layout that they borrow from the user."""

from __future__ import annotations

from typing import Any

import slicer

from ..scene import views
from ..signal import Signal
from ..translation import tr as _

CLOSE_UP = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView


class ViewTools:
    """Lung and mediastinal window, the whole chest, a slab, and a close-up of the selected nodule.

    Attributes (signals):
        changed: () what is switched on.
    """

    def __init__(self, ui: Any, session: Any) -> None:
        self.changed = Signal()
        self.isSlab = False
        self._session = session
        self._layout = LayoutKeeper()
        self._fields: dict[str, tuple[float, float, float]] = {}
        self._layout.changed.connect(self._onLayout)
        self._connections = [
            (ui.windowButton, self.nextWindow),
            (ui.fitButton, self.fit),
            (ui.slabButton, self.toggleSlab),
            (ui.closeUpButton, self.toggleCloseUp),
        ]
        for button, slot in self._connections:
            button.connect("clicked(bool)", slot)

    @property
    def isCloseUp(self) -> bool:
        """Whether the selected nodule is seen near."""
        return bool(self._session.options.closeUp)

    def close(self) -> None:
        """Restores single slices and the user's layout."""
        if self.isSlab:
            views.setSlab(False)
        self._layout.close()
        self._layout.changed.disconnect(self._onLayout)
        for button, slot in self._connections:
            button.disconnect("clicked(bool)", slot)

    def nextWindow(self, checked: bool = False) -> None:
        """Lung, mediastinal, and the user's own window one after the other."""
        volume = self._session.volumeNode
        shown = None if volume is None else views.nextWindow(volume)
        if shown is not None:
            name = {views.LUNG: _("Lung window"), views.MEDIASTINUM: _("Mediastinal window")}.get(
                shown, _("Your window")
            )
            text = _("{name}: width {width}, level {level} HU.").format(
                name=name, width=f"{shown[0]:.0f}", level=f"{shown[1]:.0f}"
            )
            self._session.message.emit(text, False)

    def fit(self, checked: bool = False) -> None:
        """The whole chest in all slice views."""
        if self._session.volumeNode is not None:
            views.fitChest(self._session.volumeNode)

    def toggleSlab(self, checked: bool = False) -> None:
        """A slab of maximum intensity in the axial view, or single slices."""
        self.isSlab = not self.isSlab
        views.setSlab(self.isSlab)
        self.changed.emit()

    def toggleCloseUp(self, checked: bool = False) -> None:
        """Three planes and the 3D view close to the selected nodule, or what was seen before."""
        if self.isCloseUp:
            self._end()
            return
        self._fields = views.fieldsOfView()
        self._session.options.closeUp = True
        self._layout.borrow(CLOSE_UP)
        selected = self._session.selectedId
        if selected is not None:
            self._session.review.jumpTo(selected)
        self.changed.emit()

    def _end(self) -> None:
        self._session.options.closeUp = False
        views.setFieldsOfView(self._fields)
        self._fields = {}
        self._layout.giveBack()
        self.changed.emit()

    def _onLayout(self) -> None:
        if self.isCloseUp and self._layout.borrowed is None:  # the user has chosen another layout
            self._end()


class LayoutKeeper:
    """Remembers the layout from before.

    Attributes:
        borrowed: the layout that was asked for; None: the user's own is on screen.
        changed: signal, when that changes.
    """

    def __init__(self) -> None:
        self.changed = Signal()
        self.borrowed: int | None = None
        self._before: int | None = None
        self._manager = slicer.app.layoutManager()
        if self._manager is not None:
            self._manager.connect("layoutChanged(int)", self._onLayout)

    def close(self) -> None:
        """Gives back what is borrowed, and stops watching."""
        self.giveBack()
        if self._manager is not None:
            self._manager.disconnect("layoutChanged(int)", self._onLayout)
            self._manager = None

    def borrow(self, layout: int) -> None:
        """Shows a layout; nothing happens without a main window."""
        if self._manager is None or layout == self.borrowed:
            return
        if self.borrowed is None:
            self._before = self._manager.layout
        self.borrowed = layout
        self._manager.setLayout(layout)
        self.changed.emit()

    def giveBack(self) -> None:
        """The layout from before."""
        if self._manager is None or self.borrowed is None:
            return
        self.borrowed = None
        self._manager.setLayout(self._before)
        self.changed.emit()

    def _onLayout(self, layout: int) -> None:
        if self.borrowed is not None and layout != self.borrowed:  # the user has chosen another one: it is theirs
            self.borrowed = None
            self.changed.emit()
