"""The layout of Slicer's views is the user's: it is borrowed when asked for, and given back."""

from __future__ import annotations

import slicer

from SAMMed3DLib.signal import Signal

PLOT = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView
SIDE_BY_SIDE = slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView


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
