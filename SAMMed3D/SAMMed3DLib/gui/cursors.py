"""The mouse pointer over the slice views says what a click does: cross hairs with a plus or a minus."""

from __future__ import annotations

from typing import Any

import qt

from .icons import FOLDER
from .slice_views import SliceViews


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
