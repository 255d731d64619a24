"""Locks a file against other programs. The system releases the lock when the process ends, however it ends.

The package filelock is no part of Slicer, and cannot tell whether a lock is held without taking it for writing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PAUSE_SECONDS = 0.05


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
