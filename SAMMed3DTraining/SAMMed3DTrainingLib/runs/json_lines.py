"""Follows files that grow: only what is new is read, a line that is still being written waits for its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Bytes read at most at a time, so that a long file does not hold up a user interface.
MOST_BYTES = 128 * 1024


class GrowingFile:
    """The complete lines of a file, as they come.

    Args:
        path: need not be there yet.
        start: byte to begin at.
        most_bytes: read in one call at most.

    Attributes:
        restarts: how often the file was found replaced or shortened, and was begun anew.
        caught_up: whether the last call reached the end of the file.
    """

    def __init__(self, path: Path, start: int = 0, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self.restarts = 0
        self.caught_up = False
        self._next = start
        self._rest = b""
        self._most = most_bytes
        self._identity: int | None = None

    def lines(self) -> list[tuple[int, bytes]]:
        """The new complete lines without their ends, each with the offset of its first byte."""
        try:
            state = self.path.stat()
        except OSError:
            self.caught_up = True
            return []
        replaced = self._identity is not None and state.st_ino != self._identity
        self._identity = state.st_ino
        if replaced or state.st_size < self._next:
            self._next, self._rest = 0, b""
            self.restarts += 1
        if state.st_size == self._next:
            self.caught_up = True
            return []
        try:
            with self.path.open("rb") as file:
                file.seek(self._next)
                data = file.read(self._most)
        except OSError:  # it will be there again
            return []
        begin = self._next - len(self._rest)
        self._next += len(data)
        self.caught_up = self._next >= state.st_size
        *whole, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in whole:
            found.append((begin, line.rstrip(b"\r")))
            begin += len(line) + 1
        return found


class JsonLines(GrowingFile):
    """The JSON objects of a growing file, one a line; other lines are given as text."""

    def read(self) -> list[tuple[int, dict[str, Any] | str]]:
        """Reads the new objects and lines, each with the offset of its line."""
        found: list[tuple[int, dict[str, Any] | str]] = []
        for offset, line in self.lines():
            text = line.decode("utf-8", errors="replace")
            try:
                value = json.loads(text)
            except ValueError:
                value = text
            found.append((offset, value if isinstance(value, dict) else text))
        return found
