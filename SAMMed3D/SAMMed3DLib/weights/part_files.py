"""Unfinished downloads on the disk, and what a file is known by. Light: no networking is imported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from .download_errors import DownloadCancelled

#: progress(bytes done, bytes in all or None): False cancels. Called at least some ten times a second.
Progress = Callable[[int, "int | None"], bool]

_BLOCK_BYTES = 1 << 20


def part_path(path: Path) -> Path:
    """Where the beginning of an unfinished download to ``path`` lies."""
    return path.with_name(f"{path.name}.part")


def notes_path(path: Path) -> Path:
    """Where the server's mark of the version of that beginning lies."""
    return path.with_name(f"{path.name}.part.json")


def discard_part(path: Path) -> None:
    """Removes the beginning of an unfinished download to ``path``, if there is one. Raises OSError."""
    part_path(path).unlink(missing_ok=True)
    notes_path(path).unlink(missing_ok=True)


def file_sha256(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError, and DownloadCancelled when ``progress`` returns False."""
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            if progress is not None and not progress(done, total):
                raise DownloadCancelled("cancelled")
    return digest.hexdigest()
