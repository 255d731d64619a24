"""Exceptions that Slicer would only print: those raised in slots, timers and VTK observers."""

from __future__ import annotations

import traceback

#: Formatted exceptions since the last :func:`take`.
_collected: list[str] = []


def record(error: BaseException, where: str = "slot") -> None:
    """Keeps an exception for the test's end."""
    _collected.append(f"in a {where}:\n" + "".join(traceback.format_exception(error)))


def take() -> list[str]:
    """What was collected, and forgets it."""
    taken = list(_collected)
    _collected.clear()
    return taken
