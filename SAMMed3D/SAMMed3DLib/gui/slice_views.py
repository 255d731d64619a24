"""The slice views of the current layout, and a word when the layout changes."""

from __future__ import annotations

from typing import Any

import qt
import slicer

from ..signal import Signal


class SliceViews:
    """What is on screen now. Without a main window there are no views, and that is no error."""

    def __init__(self) -> None:
        self.changed = Signal()
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

    def close(self) -> None:
        if self._layoutManager is not None:
            self._layoutManager.disconnect("layoutChanged(int)", self._onLayoutChanged)
            self._layoutManager = None

    def _onLayoutChanged(self, layout: int) -> None:
        # The new layout's widgets are made while the signal runs: look once they are there.
        qt.QTimer.singleShot(0, self._emitChanged)

    def _emitChanged(self) -> None:
        if self._layoutManager is not None:
            self.changed.emit()
