"""Puts the look that state_view describes onto the widgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .state_view import Control


def applyView(ui: Any, controls: Mapping[str, Control]) -> None:
    """``ui``: an object with the widgets as attributes. Raises AttributeError for a name that the .ui file lacks."""
    for name, control in controls.items():
        widget = getattr(ui, name)
        if control.text is not None and widget.text != control.text:
            widget.text = control.text
        if control.toolTip is not None and widget.toolTip != control.toolTip:
            widget.toolTip = control.toolTip
        if control.visible is not None:
            widget.setVisible(control.visible)
        if control.checked is not None and widget.checked != control.checked:
            widget.checked = control.checked
        if widget.enabled != control.enabled:
            widget.enabled = control.enabled
