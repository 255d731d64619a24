"""Writes files whole or not at all, and finds out before the work whether a place can be written.

A lock on a file holds against all programs, and the system lifts it when the process ends, however it ends. (The
package filelock is no part of Slicer, and cannot tell whether a lock is held without taking it for writing.)
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..inference.errors import InputError

_PAUSE_SECONDS = 0.05

#: Temporary folders carry the computer and the process, so that the next run knows whose were left behind.
_PREFIX = ".sammed3d-"
_HOST = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:20] or "here"
_OWN = f"{_PREFIX}{_HOST}-{os.getpid()}-"
_RESERVED = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]|\s')
_DEVICES = re.compile(r"(?i)^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])(?=\.|$)")
#: Bytes: file systems take 255, and a path's other parts want room below Windows' 260.
_LONGEST_NAME = 100
#: No run writes a file for so long.
_OLD_SECONDS = 24 * 3600.0


def check_writable(path: Path, endings: tuple[str, ...]) -> None:
    """Makes sure that a file of one of the given endings can be written at ``path``.

    Raises:
        InputError: it cannot; the message names the cure.
    """
    if not path.name.lower().endswith(endings):
        shown = path if path.name else "a file without a name"
        raise InputError(f"{shown} cannot be written: the name must end in {' or '.join(endings)}")
    try:
        target = _target(path)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another name or folder") from error
    check_folder(target.parent)


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
        _remove_left_behind(folder)
        with tempfile.TemporaryDirectory(prefix=_OWN, dir=folder):
            pass
    except OSError as error:
        raise InputError(f"nothing can be written in {folder}: {error.strerror or error}; {_cure(error)}") from error


def _target(path: Path) -> Path:
    """The file that a path leads to, through links, if there is one.

    Raises:
        InputError: it is a folder, a pipe or a device, which a file must not take the place of, or links lead in a
            circle.
        OSError: the system does not say.
    """
    try:
        target = path.resolve(strict=False) if path.is_symlink() else path
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except RuntimeError as error:  # what Python before 3.13 makes of links in a circle
        raise InputError(f"{path} cannot be written: it is a link that leads to itself; remove it") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} cannot be written: it is a link that leads to itself; remove it") from error
        raise
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} cannot be written: it is a folder; give a file name in it")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} cannot be written: it is a pipe or a device; give the name of a file")
    return target


def _remove_left_behind(folder: Path) -> None:
    """Removes the temporary folders of runs that were killed; those of running ones stay."""
    for path in folder.glob(f"{_PREFIX}*"):
        try:
            owner = re.fullmatch(rf"{re.escape(_PREFIX)}{_HOST}-(\d+)-\w+", path.name)
            ended = owner is not None and not _is_running(int(owner.group(1)))
            if path.is_dir() and not path.is_symlink() and (ended or time.time() - path.stat().st_mtime > _OLD_SECONDS):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:  # another run was faster
            continue


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there a signal of 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _cure(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "free some space, or choose a folder on another disk"
    return "choose another folder"


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """A folder inside of ``beside`` that is gone at the end; what killed runs left there is removed. Raises OSError."""
    _remove_left_behind(beside)
    with tempfile.TemporaryDirectory(prefix=_OWN, dir=beside) as folder:
        yield Path(folder)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path of the same name to write to; what was written there takes the place of ``path`` at the end, at once.

    It lies in a temporary folder beside ``path`` (beside the file it points to, when it is a link), so that the last
    step is a rename within one file system, once the content is on the disk. After an error inside the block, ``path``
    is as it was before and nothing is left behind; what a killed run left there is removed.

    Raises:
        InputError: the system refuses to write (disk full, folder gone or read-only), or ``path`` is no regular file.
    """
    with _refusals(path):
        target = _target(path)
        with temporary_folder(target.parent) as folder:
            part = folder / path.name
            yield part
            _to_disk(part)
            part.replace(target)
        _to_disk(target.parent)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the system refuses inside the block is told as an InputError: ``path`` was not written, and what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} could not be written: {error.strerror or error}; nothing was changed; {_cure(error)}"
        ) from error


def _to_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems do not know it
            raise
    finally:
        os.close(handle)


def write_text_whole(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Writes a text file whole or not at all, its line ends as they are. Raises InputError."""
    with whole_file(path) as part:
        part.write_bytes(text.encode(encoding))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into; at the end it is at ``path``, where nothing may be yet, whole or not at all.

    Raises:
        InputError: the system refuses to write, or ``path`` is taken.
    """
    check_folder(path.parent)
    with _refusals(path):
        with temporary_folder(path.parent) as folder:
            part = folder / path.name
            part.mkdir()
            yield part
            if path.exists():
                raise InputError(f"{path} could not be written: it exists; choose another folder")
            part.rename(path)
        _to_disk(path.parent)


def safe_name(text: str, fallback: str) -> str:
    """``text`` as a file's name that every system takes: letters of all languages stay, the rest becomes ``_``.

    Windows' rules: https://learn.microsoft.com/windows/win32/fileio/naming-a-file (reserved characters, devices, no dot
    or space at the end). The same text gives the same name; never empty; a safe name is returned as it is.
    """
    name = unicodedata.normalize("NFC", text).strip()
    name = "".join("_" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") else c for c in name)
    name = re.sub(r"_{2,}", "_", _RESERVED.sub("_", name))
    # Hidden files are not read; an option may not be taken for a name.
    name = name.strip(" ._").lstrip("-~")
    if len(name.encode()) > _LONGEST_NAME:
        name = name.encode()[:_LONGEST_NAME].decode(errors="ignore").rstrip(" ._")
    return (f"{fallback}_{name}" if _DEVICES.match(name) else name) or fallback


class LockHeld(Exception):
    """Another program holds the lock."""


@contextmanager
def file_lock(path: Path, seconds: float = 0.0) -> Iterator[None]:
    """Holds a lock on a file, which is made if need be and stays.

    Args:
        path: of the file; nobody may write anything else into it.
        seconds: how long to wait for another program to let go.

    Raises:
        LockHeld: another program holds it.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        until = time.monotonic() + seconds
        while not _lock(descriptor):
            if time.monotonic() >= until:
                raise LockHeld(f"another program holds {path}")
            time.sleep(_PAUSE_SECONDS)
        try:
            yield
        finally:
            _unlock(descriptor)  # now, also where a child process has inherited the descriptor
    finally:
        with suppress(OSError):
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a program holds the lock on a file now; for an instant the question itself holds it."""
    try:
        # Windows locks files that may be written, other systems any, be it another user's.
        descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except OSError:
        return False
    try:
        if not _lock(descriptor, shared=True):
            return True
        _unlock(descriptor)
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, shared: bool = False) -> bool:
    """Tries to lock; where the file system has no locks (some network drives) everybody gets it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _unlock(descriptor: int) -> None:
    with suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_UN)
