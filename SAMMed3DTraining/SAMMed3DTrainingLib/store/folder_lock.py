"""One writer in a folder at a time, over all programs; the system lifts the lock when a process ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import StoreError


@contextmanager
def folder_lock(path: Path) -> Iterator[None]:
    """Holds a lock on the file ``path``, made if need be. Raises StoreError while another program holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StoreError(
            f"nothing can be written in {path.parent.parent}: {error.strerror or error}; choose another folder"
        ) from error
    try:
        if not _locked(descriptor):
            raise StoreError(f"another program is writing into {path.parent.parent}: wait until it is done")
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Tries to lock; file systems without locks (some network drives) count as locked by us."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
