"""Helpers of the sections: tables that are filled without signals going round in circles, and connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import qt

from SAMMed3DLib.signal import Signal

_FRAME = 6
ID_ROLE, CHECK_ROLE = 256, 10  # Qt::UserRole, Qt::CheckStateRole


class Table:
    """A table that is filled from values; ``filling`` is true while that goes on.

    Args:
        captions: (header, its tool tip, stretched, right-aligned) of each column.
        rows: fewest and most that are seen without scrolling; the table is as high as it needs to be.
    """

    def __init__(
        self, table: qt.QTableWidget, captions: Sequence[tuple[str, str, bool, bool]], rows: tuple[int, int]
    ) -> None:
        self.widget, self.filling = table, False
        self._seen, self._height = rows, 0
        self._right = [right for __unused, __too, __also, right in captions]
        table.setHorizontalHeaderLabels([caption for caption, *__unused in captions])
        header = table.horizontalHeader()
        header.minimumSectionSize = 22
        for column, (__, tip, stretched, right) in enumerate(captions):
            item = table.horizontalHeaderItem(column)
            item.setToolTip(tip)
            item.setTextAlignment((qt.Qt.AlignRight if right else qt.Qt.AlignLeft) | qt.Qt.AlignVCenter)
            header.setSectionResizeMode(
                column, qt.QHeaderView.Stretch if stretched else qt.QHeaderView.ResizeToContents
            )

    @contextmanager
    def fill(self, rows: int):
        """Marks changes within the block as not the user's."""
        self.filling = True
        try:
            if self.widget.rowCount != rows:
                self.widget.setRowCount(rows)
            self._fit(rows)
            yield
        finally:
            self.filling = False

    def _fit(self, rows: int) -> None:
        least, most = self._seen
        height = (min(max(rows, least), most) + 1) * self.widget.verticalHeader().defaultSectionSize + _FRAME
        if height != self._height:
            self._height = self.widget.minimumHeight = self.widget.maximumHeight = height

    def cell(
        self,
        row: int,
        column: int,
        text: str,
        tip: str = "",
        *,
        key: Any = None,
        editable: bool = False,
        checked: bool | None = None,
        icon: qt.QIcon | None = None,
    ) -> qt.QTableWidgetItem:
        """One cell as it is to be; ``checked`` None: it has no check box."""
        item = self.widget.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem("")
            side = qt.Qt.AlignRight if self._right[column] else qt.Qt.AlignLeft
            item.setTextAlignment(side | qt.Qt.AlignVCenter)
            self.widget.setItem(row, column, item)
        flags = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled
        if editable:
            flags = flags | qt.Qt.ItemIsEditable
        if checked is not None:
            flags = flags | qt.Qt.ItemIsUserCheckable
            item.setCheckState(qt.Qt.Checked if checked else qt.Qt.Unchecked)
        elif item.data(CHECK_ROLE) is not None:
            item.setData(CHECK_ROLE, None)
        item.setFlags(flags)
        item.setText(text)
        item.setToolTip(tip or text)
        if icon is not None:
            item.setIcon(icon)
        if key is not None:
            item.setData(ID_ROLE, key)
        return item

    @property
    def selectedRow(self) -> int:
        """-1 where no row is selected."""
        return self.widget.currentRow() if self.widget.selectedItems() else -1

    def select(self, row: int) -> None:
        """Selects a row, which does not count as the user's choice; -1 selects nothing."""
        if row == self.selectedRow:
            return
        self.filling = True
        try:
            if row < 0:
                self.widget.clearSelection()
            else:
                self.widget.setCurrentCell(row, self.widget.columnCount - 1)
        finally:
            self.filling = False


class Connections:
    """Connects signals of widgets and of the session, and disconnects them together."""

    def __init__(self) -> None:
        self._widgets: list[tuple[Any, str, Callable[..., None]]] = []
        self._signals: list[tuple[Signal, Callable[..., None]]] = []

    def widget(self, widget: Any, signature: str, slot: Callable[..., None]) -> None:
        """Connects a signal of a Qt object, such as ``"clicked(bool)"``."""
        widget.connect(signature, slot)
        self._widgets.append((widget, signature, slot))

    def buttons(self, actions: dict[Any, Callable[[], Any]]) -> None:
        """Connects presses of buttons."""
        for button, action in actions.items():
            self.widget(button, "clicked(bool)", lambda checked=False, action=action: action())

    def signal(self, signal: Signal, slot: Callable[..., None]) -> None:
        """Connects a signal of ours."""
        signal.connect(slot)
        self._signals.append((signal, slot))

    def close(self) -> None:
        """Disconnects everything."""
        for widget, signature, slot in self._widgets:
            widget.disconnect(signature, slot)
        for signal, slot in self._signals:
            signal.disconnect(slot)
        self._widgets, self._signals = [], []
