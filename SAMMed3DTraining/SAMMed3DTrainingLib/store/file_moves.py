"""Changes several files of a folder together or not at all, also when the process is killed in the middle.

New files are first written, whole, into a staging folder. Then a journal is put beside them that says which file goes
where and which files go away. From that moment the change counts: what is left to be done are renames, and whoever
opens the folder next completes them. Before that moment nothing of the folder has changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from SAMMed3DLib.files.output_files import LockHeld, file_lock

from ..data.case_names import StoreError

STAGING = ".sammed3d-export"
_JOURNAL, _LOCK = "journal.json", "lock"


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Holds a folder's lock against all other programs; its staging folder must exist.

    Raises StoreError while another program writes, or where nothing can be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / STAGING / _LOCK))
        except LockHeld as error:
            raise StoreError(f"another program is writing into {folder}: wait until it is done") from error
        except OSError as error:
            raise StoreError(
                f"nothing can be written in {folder}: {error.strerror or error}; choose another folder"
            ) from error
        yield


class FileMoves:
    """One change of several files of a folder; the folder's lock must be held meanwhile.

    Args:
        folder: whose files change; the staging folder lies in it, so that a rename is enough.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / STAGING
        self._moves: list[tuple[str, str]] = []
        self._gone: list[str] = []

    def add(self, target: str) -> Path:
        """Returns where to write the new content of ``target`` (relative to the folder). Raises OSError."""
        self.staging.mkdir(exist_ok=True)
        staged = f"{len(self._moves)}.part"
        self._moves.append((staged, target))
        return self.staging / staged

    def add_text(self, target: str, text: str) -> None:
        """Adds a small file's new content. Raises OSError."""
        _write_through(self.add(target), text)

    def remove(self, targets: Sequence[str]) -> None:
        """Adds files to be removed."""
        self._gone += targets

    def commit(self) -> None:
        """Makes all changes, in the order in which they were given; removals come first.

        Raises:
            OSError: before anything has changed.
            StoreError: a file could not be replaced (Windows: another program has it open); the rest is done the next
                time the folder is opened.
        """
        self.staging.mkdir(exist_ok=True)
        for staged, _target in self._moves:
            _flush(self.staging / staged)
        part = self.staging / f"{_JOURNAL}.part"
        _write_through(part, json.dumps({"moves": self._moves, "gone": self._gone}, ensure_ascii=False))
        part.replace(self.staging / _JOURNAL)
        _flush(self.staging)
        complete(self.folder)

    def discard(self) -> None:
        """Drops the change and its staged files."""
        discard_staged(self.folder)


def is_pending(folder: Path) -> bool:
    """Whether a change was cut off after it began to count."""
    return (folder / STAGING / _JOURNAL).is_file()


def complete(folder: Path) -> None:
    """Completes a change by its journal; does nothing without a journal.

    Raises:
        StoreError: a file cannot be replaced; it can be tried again.
    """
    staging = folder / STAGING
    try:
        journal = json.loads((staging / _JOURNAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise StoreError(f"{staging / _JOURNAL} cannot be read: {error}; remove the folder {staging}") from error
    path = folder
    try:
        for target in journal["gone"]:
            path = folder / target
            path.unlink(missing_ok=True)
        for staged, target in journal["moves"]:
            path = folder / target
            path.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # done before it was cut off
                (staging / staged).replace(path)
        path = staging / _JOURNAL
        path.unlink()
    except OSError as error:
        raise StoreError(
            f"{path} could not be changed: {error.strerror or error}. Close the program that uses it; the change is "
            "completed when the data set is opened here again"
        ) from error
    discard_staged(folder)


def discard_staged(folder: Path) -> None:
    """Removes the staged files of a killed process, unless their change counts already."""
    staging = folder / STAGING
    if is_pending(folder) or not staging.is_dir():
        return
    for path in staging.glob("*.part"):
        with suppress(OSError):
            path.unlink()


def _write_through(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    """Flushes a file or folder to the disk before the journal names it. Not every system can do that for a folder."""
    try:
        # Windows flushes only what may be written.
        descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)
