"""Puts the look that state_view describes onto the widgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .state_view import Control


class ViewWriter:
    """Writes what has changed since the last time, so that nothing flickers while a point is being dragged.

    Slicer rewrites tool tips (it lets long ones wrap), so what a widget says is not compared with what was written.
    """

    def __init__(self, ui: Any) -> None:
        """``ui``: an object with the widgets as attributes."""
        self._ui = ui
        self._written: dict[str, Control] = {}

    def apply(self, controls: Mapping[str, Control]) -> None:
        """Raises AttributeError for a name that the .ui file lacks."""
        for name, control in controls.items():
            widget = getattr(self._ui, name)
            before = self._written.get(name, Control(enabled=not control.enabled))
            self._written[name] = control
            if control.text is not None and control.text != before.text:
                widget.text = control.text
            if control.toolTip is not None and control.toolTip != before.toolTip:
                widget.toolTip = control.toolTip
            if control.visible is not None and control.visible != before.visible:
                widget.setVisible(control.visible)
            if control.checked is not None and widget.checked != control.checked:  # the user's click has changed it
                widget.checked = control.checked
            if control.enabled != before.enabled:
                widget.enabled = control.enabled
