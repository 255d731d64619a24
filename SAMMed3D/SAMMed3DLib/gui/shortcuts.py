"""Keys that work while the module is open, and only then; and the list of them for the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import qt

from ..translation import tr as _

#: The letters of Slicer's slice views (r, f, b, v, g, t) and the arrow keys stay untouched; q, w, Ctrl+Z and Ctrl+Y do
#: here what they do in the Segment Editor: previous and next row, undo and redo.
KEYS = {
    "newNodule": ("N",),
    "disarm": ("Esc",),
    "togglePolarity": ("S",),
    "accept": ("A",),
    "reject": ("X",),
    "unlock": ("U",),
    "rename": ("F2",),
    "previous": ("Q",),
    "next": ("W",),
    "window": ("L",),
    "fit": ("H",),
    "slab": ("M",),
    "closeUp": ("C",),
    "undo": ("Ctrl+Z",),
    "redo": ("Ctrl+Y", "Ctrl+Shift+Z"),
    "keys": ("K",),
}


def keysText() -> str:
    """All keys and what they do, as rich text."""
    what = {
        "newNodule": _("click nodules; the next click begins a new one"),
        "disarm": _("stop clicking"),
        "togglePolarity": _("clicks add or take away; Shift-click does the opposite"),
        "accept": _("accept the selected nodules, which locks them, and go on to the next"),
        "reject": _("delete the selected nodules and go on to the next"),
        "unlock": _("unlock the selected nodules, to change them again"),
        "rename": _("rename the selected nodule; names used before are offered"),
        "previous": _("previous nodule"),
        "next": _("next nodule"),
        "window": _("lung window, mediastinal window, your own"),
        "fit": _("whole chest"),
        "slab": _("slab of maximum intensity, or single slices"),
        "closeUp": _("close-up of the nodule"),
        "undo": _("undo"),
        "redo": _("redo"),
        "keys": _("this list"),
    }
    row = "<tr><td><b>{keys}</b></td><td>&nbsp; {what}</td></tr>"
    rows = "".join(row.format(keys=", ".join(keys), what=what[name]) for name, keys in KEYS.items())
    return f"<table>{rows}</table>"


class KeysPopup:
    """The list of keys, below a button; Esc or a click beside it closes it."""

    def __init__(self, button: qt.QToolButton) -> None:
        self._button = button
        self._popup: qt.QFrame | None = None
        button.connect("clicked(bool)", self.show)

    def show(self, checked: bool = False) -> None:
        if self._popup is None:
            # A frame around the label: a QLabel alone keeps the press and the Esc that close a popup to itself.
            self._popup = qt.QFrame(self._button)
            self._popup.setWindowFlags(qt.Qt.Popup)
            self._popup.frameShape = qt.QFrame.StyledPanel
            qt.QVBoxLayout(self._popup).addWidget(qt.QLabel(keysText()))
        self._popup.adjustSize()
        corner = self._button.mapToGlobal(qt.QPoint(self._button.width, self._button.height))
        # The list may be wider than the panel, which often lies at the left edge of the screen.
        left = self._button.window().mapToGlobal(qt.QPoint(0, 0)).x()
        self._popup.move(max(corner.x() - self._popup.width, left), corner.y())
        self._popup.show()

    def close(self) -> None:
        self._button.disconnect("clicked(bool)", self.show)
        if self._popup is not None:
            self._popup.close()


class Shortcuts:
    """Makes the shortcuts in ``install`` and deletes them in ``remove``; both may be called twice."""

    def __init__(self, actions: Mapping[str, Callable[[], object]]) -> None:
        """``actions``: what each name of KEYS does. Raises KeyError for a name without a key."""
        self._actions = [(name, key, action) for name, action in actions.items() for key in KEYS[name]]
        self._shortcuts: list[tuple[str, qt.QShortcut, Callable[[], object]]] = []
        self._disabled: set[str] = set()

    @property
    def installed(self) -> bool:
        return bool(self._shortcuts)

    def install(self, parent: qt.QWidget) -> None:
        """The keys work in the whole window that ``parent`` belongs to."""
        if self._shortcuts:
            return
        for name, key, action in self._actions:
            shortcut = qt.QShortcut(qt.QKeySequence(key), parent)
            shortcut.enabled = name not in self._disabled
            shortcut.connect("activated()", action)
            # Slicer's own Edit menu knows Ctrl+Z too; here it means the nodules.
            shortcut.connect("activatedAmbiguously()", action)
            self._shortcuts.append((name, shortcut, action))

    def enable(self, name: str, on: bool) -> None:
        """Enables or disables a key; a disabled one is left to other widgets."""
        self._disabled = self._disabled - {name} if on else self._disabled | {name}
        for each, shortcut, __ in self._shortcuts:
            if each == name:
                shortcut.enabled = on

    def remove(self) -> None:
        for __, shortcut, action in self._shortcuts:
            shortcut.disconnect("activated()", action)
            shortcut.disconnect("activatedAmbiguously()", action)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
