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

    def borrow(self, layout: int) -> None:
        """Shows a layout; nothing happens without a main window."""
        manager = slicer.app.layoutManager()
        if manager is None:
            return
        if self._before is None or manager.layout != self.borrowed:  # the user has chosen another one meanwhile
            self._before = manager.layout
        self.borrowed = layout
        manager.setLayout(layout)
        self.changed.emit()

    def giveBack(self) -> None:
        """The layout from before, unless the user has chosen another one meanwhile."""
        manager, layout, before = slicer.app.layoutManager(), self.borrowed, self._before
        self.borrowed = self._before = None
        if manager is not None and layout is not None and before is not None and manager.layout == layout:
            manager.setLayout(before)
        if layout is not None:
            self.changed.emit()
