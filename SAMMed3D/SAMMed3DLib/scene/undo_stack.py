"""One history over prompts and masks: each command knows the nodules as they were before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..signal import Signal


@dataclass(eq=False)
class NoduleChange:
    """One step of the history.

    What a nodule looks like after a step is what it looks like before the next one, or now; so only the state before
    is kept, and the state after is taken at the moment of undoing. That way an answer of the engine that comes after
    the next click, or an edit by hand, is never missing from the history.

    Attributes:
        text: what was done, such as "Add point".
        before: segment ID -> snapshot of the nodule before the step, None where it did not exist.
        selection: the nodule selected before the step.
        nbytes: approximate memory it holds.
        context: its ``onRestored(change)`` is called when the step is undone or redone, with the step that leads back.
    """

    text: str
    before: dict[str, Any | None]
    selection: str | None = None
    nbytes: int = 0
    context: Any = field(default=None, repr=False)


Restore = Callable[[NoduleChange], NoduleChange]
"""Brings back the state before a change and returns the change that leads forward again."""


class UndoStack:
    """Steps that can be taken back and made again.

    Args:
        restore: brings back the state before a step.
        limit: the oldest steps are forgotten above this number.
        maxBytes: and above this sum of ``nbytes``, but never the newest.
    """

    def __init__(self, restore: Restore, limit: int = 200, maxBytes: int = 512 * 2**20) -> None:
        self.changed = Signal()
        self._restore = restore
        self._limit = limit
        self._maxBytes = maxBytes
        self._past: list[NoduleChange] = []
        self._future: list[NoduleChange] = []

    @property
    def canUndo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._past)

    @property
    def canRedo(self) -> bool:
        """Whether there is a step to make again."""
        return bool(self._future)

    @property
    def undoText(self) -> str:
        """Text of the step that Undo would take back, or ""."""
        return self._past[-1].text if self._past else ""

    @property
    def redoText(self) -> str:
        """Text of the step that Redo would make again, or ""."""
        return self._future[-1].text if self._future else ""

    @property
    def top(self) -> NoduleChange | None:
        """The step that Undo would take back."""
        return self._past[-1] if self._past else None

    @property
    def next(self) -> NoduleChange | None:
        """The step that Redo would make again."""
        return self._future[-1] if self._future else None

    def push(self, change: NoduleChange) -> NoduleChange:
        """Adds a new step; steps that were taken back are forgotten."""
        self._past.append(change)
        self._future.clear()
        total = sum(step.nbytes for step in self._past)
        while len(self._past) > 1 and (len(self._past) > self._limit or total > self._maxBytes):
            total -= self._past.pop(0).nbytes
        self.changed()
        return change

    def discard(self, change: NoduleChange) -> None:
        """Removes a step that came to nothing, wherever it is."""
        self._past = [step for step in self._past if step is not change]
        self._future = [step for step in self._future if step is not change]
        self.changed()

    def undo(self) -> bool:
        """Take back the latest step; returns whether there was one."""
        return self._move(self._past, self._future)

    def redo(self) -> bool:
        """Redoes the step that was taken back last; returns whether there was one."""
        return self._move(self._future, self._past)

    def clear(self) -> None:
        """Forget everything."""
        self._past.clear()
        self._future.clear()
        self.changed()

    def _move(self, source: list[NoduleChange], target: list[NoduleChange]) -> bool:
        if not source:
            return False
        reverse = self._restore(source[-1])  # where this fails the step stays
        source.pop()
        target.append(reverse)
        self.changed()
        return True
