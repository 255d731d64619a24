"""Icons of our own for light and dark themes, looked up by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import qt

#: Beside SAMMed3DLib in a checkout and in an installed extension alike.
FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Icons"
_DISABLED_OPACITY = 0.35


def isDark(widget: qt.QWidget) -> bool:
    """True where the widget's theme draws light text on a dark background."""
    return widget.palette.color(qt.QPalette.Window).lightness() < 128


class Icons:
    """The icons that suit the theme of a widget; each file is read once.

    Args:
        widget: has the theme.
        folders: with "light" and "dark" icons; the first that has a name counts.
    """

    def __init__(self, widget: qt.QWidget, folders: Sequence[Path] = (FOLDER,)) -> None:
        theme = "dark" if isDark(widget) else "light"
        self._folders = [folder / theme for folder in folders]
        self._icons: dict[str, qt.QIcon] = {}

    def __call__(self, name: str) -> qt.QIcon:
        """The icon ``name``, such as ``"undo"``. Raises FileNotFoundError for a name that was never drawn."""
        if name not in self._icons:
            paths = [folder / f"{name}.png" for folder in self._folders]
            path = next((path for path in paths if path.is_file()), None)
            if path is None:
                raise FileNotFoundError(f"no icon {' or '.join(map(str, paths))}")
            self._icons[name] = _untinted(qt.QPixmap(str(path)))
        return self._icons[name]

    def swatch(self, color: tuple[float, float, float]) -> qt.QIcon:
        """A small square of one color (red, green, blue in 0..1)."""
        pixmap = qt.QPixmap(14, 14)
        pixmap.fill(qt.QColor(*(round(255 * part) for part in color)))
        return _untinted(pixmap)


def _untinted(pixmap: qt.QPixmap) -> qt.QIcon:
    """An icon that keeps its colors in a selected row, and is faint on a control that cannot be used.

    Qt makes such an icon gray by itself; what is white, as icons for a dark theme are, then looks as before.
    """
    icon = qt.QIcon(pixmap)
    icon.addPixmap(pixmap, qt.QIcon.Selected)
    icon.addPixmap(_faint(pixmap), qt.QIcon.Disabled)
    return icon


def _faint(pixmap: qt.QPixmap) -> qt.QPixmap:
    faint = qt.QPixmap(pixmap.size())
    faint.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(faint)
    painter.setOpacity(_DISABLED_OPACITY)
    painter.drawPixmap(0, 0, pixmap)
    painter.end()
    return faint
