"""Keys that work while the module is open, and only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import qt

#: The letters of Slicer's slice views (r, f, b, v, g, t) and the arrow keys stay untouched; q, w, Ctrl+Z and Ctrl+Y do
#: here what they do in the Segment Editor: previous and next row, undo and redo.
KEYS = {
    "newNodule": ("N",),
    "disarm": ("Esc",),
    "togglePolarity": ("S",),
    "accept": ("A",),
    "reject": ("X",),
    "previous": ("Q",),
    "next": ("W",),
    "undo": ("Ctrl+Z",),
    "redo": ("Ctrl+Y", "Ctrl+Shift+Z"),
}


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
        """A key that has nothing to do is left to others."""
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
