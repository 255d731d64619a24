"""One line of the list of models: a plain value, for panels, scripts and the command line."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path


class WeightsError(ValueError):
    """A checkpoint that is not there or cannot be used or changed; the message names the cure."""


class ModelKind(enum.Enum):
    """Where a model comes from, in the order of the list."""

    BUNDLED = "bundled"
    CATALOG = "download"
    FINETUNED = "fine-tuned"
    FILE = "file"


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models.

    Attributes:
        name: unique and stable; what scripts, settings and ``sammed3d weights`` call it.
        title: what people call it.
        kind: where it comes from.
        path: the checkpoint, also of a file that is gone; None for a download that is not there.
        size_bytes: on the disk, or of the download to come.
        license: of the weights, or who to ask.
        source: a web page, or the place of the file.
        removable: whether :meth:`WeightsStore.remove` does something.
        installed: whether ``path`` can be loaded.
        sha256: what the file was verified against or is known by; None where none is known.
        note: what else to know, such as how it is verified and what came of an unfinished download.
    """

    name: str
    title: str
    kind: ModelKind
    path: Path | None
    size_bytes: int
    license: str
    source: str
    removable: bool
    installed: bool
    sha256: str | None
    note: str
