"""Icons of this module, and those that it shares with SAMMed3D."""

from __future__ import annotations

from pathlib import Path

import qt

from SAMMed3DLib.gui.icons import FOLDER as SHARED_FOLDER
from SAMMed3DLib.gui.icons import Icons

#: Beside SAMMed3DTrainingLib in a checkout and in an installed extension alike.
FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Icons"


def trainingIcons(widget: qt.QWidget) -> Icons:
    """The icons that suit the theme of a widget."""
    return Icons(widget, (FOLDER, SHARED_FOLDER))
