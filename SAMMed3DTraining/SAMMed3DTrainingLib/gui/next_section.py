"""Section 4: which volume to segment next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from SAMMed3DLib.translation import tr as _

from .texts import DASH
from .widgets import Connections, Table

VOLUME, UNSURE, EXPECTED = range(3)
SCENE, FILES = range(2)


class NextSection:
    """Shows the session's next part and hands what the user does back to it.

    Args:
        open: opens a RankedVolume in the SAMMed3D module.
        model: (checkpoint, device) to rank with.
    """

    def __init__(
        self,
        ui: Any,
        widget: qt.QWidget,
        session: Any,
        open: Callable[[Any], None],
        model: Callable[[], tuple[Path | None, str]],
    ) -> None:
        self._ui, self._widget, self._session, self._open = ui, widget, session, open
        self._next = session.next
        for text in (_("Volumes of the scene without nodules"), _("Files of a folder")):
            ui.nextSourceCombo.addItem(text)
        self._table = Table(
            ui.nextTable,
            (
                (_("Volume"), _("Double-click to open it in the SAMMed3D module."), True, False),
                (_("Unsure"), _("How unsure the model is: the higher, the more is learned from it."), False, True),
                (_("Nodules"), _("How many nodules the model expects."), False, True),
            ),
            rows=(2, 6),
        )
        self._connections = Connections()
        self._connections.signal(self._next.changed, self.refresh)
        self._connections.widget(ui.nextSourceCombo, "currentIndexChanged(int)", self._onSource)
        self._connections.widget(ui.nextTable, "itemSelectionChanged()", self._onSelected)
        self._connections.widget(ui.nextTable, "cellDoubleClicked(int,int)", lambda row, column: self._onOpen())
        self._connections.buttons(
            {
                ui.nextFolderButton: self._onFolder,
                ui.rankButton: lambda: self._next.rank(*model()),
                ui.openNextButton: self._onOpen,
            }
        )
        self.refresh()

    def close(self) -> None:
        self._connections.close()

    @property
    def selected(self) -> Any | None:
        """The chosen volume."""
        row = self._table.selectedRow
        return self._next.ranked[row] if 0 <= row < len(self._next.ranked) else None

    def refresh(self, *__: Any) -> None:
        """Show the list as it is now."""
        ranked = self._next.ranked
        with self._table.fill(len(ranked)):
            for index, each in enumerate(ranked):
                tip = _("{path}, {count} places looked at").format(path=each.path, count=each.candidates)
                self._table.cell(index, VOLUME, each.name, tip)
                self._table.cell(index, UNSURE, f"{each.uncertainty:.2f}", tip)
                count = DASH if each.expectedNodules is None else f"{each.expectedNodules:.1f}"
                self._table.cell(index, EXPECTED, count, tip)
        folder = self._next.folder
        text = _("Files of a folder") if folder is None else _("Files of {folder}").format(folder=folder.name)
        self._ui.nextSourceCombo.setItemText(FILES, text)

    # -- what the user does ------------------------------------------------------------------------------------------

    def _onSource(self, index: int) -> None:
        if index == SCENE:
            self._next.setFolder(None)
        elif self._next.folder is None:
            self._onFolder()

    def _onFolder(self) -> None:
        path = qt.QFileDialog.getExistingDirectory(self._widget, _("Choose a folder with CT files"), "")
        if path:
            self._next.setFolder(Path(path))
        self._ui.nextSourceCombo.setCurrentIndex(FILES if self._next.folder is not None else SCENE)

    def _onSelected(self) -> None:
        if not self._table.filling:
            self._next.changed.emit()

    def _onOpen(self) -> None:
        if self.selected is not None:
            self._open(self.selected)
