"""Signals of widgets and of the session, connected together and disconnected together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from SAMMed3DLib.signal import Signal


class Connections:
    """Remembers what was connected."""

    def __init__(self) -> None:
        self._widgets: list[tuple[Any, str, Callable[..., None]]] = []
        self._signals: list[tuple[Signal, Callable[..., None]]] = []

    def widget(self, widget: Any, signature: str, slot: Callable[..., None]) -> None:
        """A signal of a Qt object, such as ``"clicked(bool)"``."""
        widget.connect(signature, slot)
        self._widgets.append((widget, signature, slot))

    def buttons(self, slots: dict[Any, Callable[..., None]]) -> None:
        """Presses of buttons."""
        for button, slot in slots.items():
            self.widget(button, "clicked(bool)", slot)

    def signal(self, signal: Signal, slot: Callable[..., None]) -> None:
        """A signal of ours."""
        signal.connect(slot)
        self._signals.append((signal, slot))

    def close(self) -> None:
        """Disconnects everything."""
        for widget, signature, slot in self._widgets:
            widget.disconnect(signature, slot)
        for signal, slot in self._signals:
            signal.disconnect(slot)
        self._widgets, self._signals = [], []
