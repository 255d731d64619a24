"""Files come into being whole or not at all, and a place that cannot be written is found before the work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..inference.errors import InputError


def check_writable(path: Path, endings: tuple[str, ...]) -> None:
    """Makes sure that a file of one of the given endings can be written at ``path``.

    Raises:
        InputError: it cannot; the message names the cure.
    """
    if not path.name.lower().endswith(endings):
        raise InputError(f"{path} cannot be written: the name must end in {' or '.join(endings)}")
    try:
        is_folder, place = path.is_dir(), path.resolve().parent if path.is_symlink() else path.parent
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another name or folder") from error
    if is_folder:
        raise InputError(f"{path} cannot be written: it is a folder; give a file name in it")
    check_folder(place)


def check_apart(source: Path, *results: Path | None) -> None:
    """Makes sure that no result takes the place of the CT. Raises InputError."""
    for path in results:
        if path is not None and path.exists() and path.samefile(source):
            raise InputError(f"{path} is the CT itself: give the result another name")


def check_folder(folder: Path) -> None:
    """Makes sure that files can be made in a folder. Raises InputError."""
    try:
        if not folder.is_dir():
            reason = "is not a folder" if folder.exists() else "does not exist; make it first"
            raise InputError(f"nothing can be written in {folder}: it {reason}")
        with tempfile.TemporaryDirectory(prefix=".sammed3d-", dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"nothing can be written in {folder}: {error.strerror or error}; choose another folder"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path of the same name to write to; what was written there takes the place of ``path`` at the end, at once.

    It lies in a temporary folder beside ``path`` (beside the file it points to, when it is a link), so that the last
    step is a rename within one file system. After an error inside the block, ``path`` is as it was before and nothing
    is left behind.

    Raises:
        InputError: the system refuses to write (disk full, folder gone or read-only).
    """
    try:
        target = path.resolve() if path.is_symlink() else path
        with tempfile.TemporaryDirectory(prefix=".sammed3d-", dir=target.parent) as folder:
            part = Path(folder) / path.name
            yield part
            part.replace(target)
    except OSError as error:
        raise InputError(f"{path} could not be written: {error.strerror or error}; nothing was changed") from error


def write_text_whole(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Writes a text file whole or not at all, its line ends as they are. Raises InputError."""
    with whole_file(path) as part:
        part.write_bytes(text.encode(encoding))
