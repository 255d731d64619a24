"""A signal in plain Python, since signals made in PythonQt crash and the scene layer does not use Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Slot = Callable[..., Any]


class Signal:
    """Calls every connected function, in the order of connection.

    Slots are held strongly: whoever connects must disconnect. A slot may connect and disconnect while the signal is
    being emitted; a slot disconnected meanwhile is not called any more.
    """

    def __init__(self) -> None:
        self._slots: list[Slot] = []

    def connect(self, slot: Slot) -> None:
        """Call ``slot`` with every emission. Connecting twice changes nothing."""
        if slot not in self._slots:
            self._slots.append(slot)

    def disconnect(self, slot: Slot) -> None:
        """Stop calling ``slot``; unknown slots are ignored."""
        if slot in self._slots:
            self._slots.remove(slot)

    def emit(self, *args: Any) -> None:
        """Call the slots with these arguments."""
        for slot in tuple(self._slots):
            if slot in self._slots:
                slot(*args)

    __call__ = emit
