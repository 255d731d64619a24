"""The checkpoint files that a user chose somewhere: a short list in a JSON file. They are remembered, never copied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class ChosenFile:
    """One of them.

    Attributes:
        name: unique among all models of the store.
        path: absolute.
        architecture: the network, found when it was chosen.
        sha256: of the file, when it was chosen.
    """

    name: str
    path: str
    architecture: str
    sha256: str


class ChosenFiles:
    """The list in one JSON file, read anew each time: two programs may use it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> list[ChosenFile]:
        """In the order in which they were chosen. A list that is missing or damaged counts as empty."""
        try:
            found = [ChosenFile(**each) for each in json.loads(self._file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []
        return [each for each in found if all(isinstance(value, str) for value in asdict(each).values())]

    def write(self, files: Sequence[ChosenFile]) -> None:
        """Replaces the list, at once. Raises OSError."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_name(f".{self._file.name}.tmp")
        temporary.write_text(json.dumps([asdict(each) for each in files], indent=2), encoding="utf-8")
        temporary.replace(self._file)
