"""Icons of this module for light and dark themes; those that both modules use come from SAMMed3D."""

from __future__ import annotations

from pathlib import Path

import qt

from SAMMed3DLib.gui.icons import Icons as SharedIcons
from SAMMed3DLib.gui.icons import isDark

#: Beside SAMMed3DTrainingLib in a checkout and in an installed extension alike.
FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Icons"


class Icons:
    """The icons that suit the theme of a widget."""

    def __init__(self, widget: qt.QWidget) -> None:
        self._folder = FOLDER / ("dark" if isDark(widget) else "light")
        self._shared = SharedIcons(widget)
        self._icons: dict[str, qt.QIcon] = {}

    def swatch(self, color: tuple[float, float, float]) -> qt.QIcon:
        """A small square of one color (red, green, blue in 0..1)."""
        return self._shared.swatch(color)

    def __call__(self, name: str) -> qt.QIcon:
        """The icon ``name``, such as ``"training_start"``. Raises FileNotFoundError for one that was never drawn."""
        if not name.startswith("training_"):
            return self._shared(name)
        if name not in self._icons:
            path = self._folder / f"{name}.png"
            if not path.is_file():
                raise FileNotFoundError(f"no icon {path}")
            self._icons[name] = qt.QIcon(str(path))
        return self._icons[name]
