"""What a PromptStore or SliceClicks signaled, in order."""

from __future__ import annotations

from typing import Any


class Log:
    """Collects (name, *arguments) of an object's signals."""

    def __init__(self, source: Any, *names: str) -> None:
        self.entries: list[tuple[Any, ...]] = []
        for name in names:
            getattr(source, name).connect(lambda *values, name=name: self.entries.append((name, *values)))

    def take(self) -> list[tuple[Any, ...]]:
        """What came since the last call."""
        entries, self.entries = self.entries, []
        return entries


def log_of_store(store: Any) -> Log:
    """All signals of a PromptStore."""
    return Log(store, "placed", "moved", "removed", "relabelled")
