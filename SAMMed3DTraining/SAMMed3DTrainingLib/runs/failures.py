"""Tells a process that something wants it to end: signals it obeys, and what kind of failure an error is."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Kind = Literal["out_of_memory", "disk_full", "bad_data", "other"]

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
#: Words of PyTorch, whose errors are mostly plain RuntimeErrors.
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
_DISK_WORDS = ("PytorchStreamWriter failed", "file write failed", "No space left on device")


def kind_of(error: BaseException) -> Kind:
    """The kind of an error, by itself and by what caused it."""
    chain = list(_chain(error))
    if any(isinstance(each, OSError) and each.errno in _FULL for each in chain) or _says(chain, _DISK_WORDS):
        return "disk_full"
    # PyTorch is not imported for its OutOfMemoryError: this is asked where it may be missing.
    memory = any(isinstance(each, MemoryError) or type(each).__name__ == "OutOfMemoryError" for each in chain)
    if memory or _says([each for each in chain if isinstance(each, RuntimeError)], _MEMORY_WORDS):
        return "out_of_memory"
    if any(type(each).__name__ == "DatasetError" for each in chain):
        return "bad_data"
    return "other"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _says(chain: list[BaseException], words: tuple[str, ...]) -> bool:
    return any(word in str(each) for each in chain for word in words)


@contextmanager
def obeying_signals(hear: Callable[[], None]) -> Iterator[None]:
    """Calls ``hear`` at SIGINT, SIGTERM and SIGHUP; afterwards they mean what they meant.

    Only the main thread hears them; a hang-up that is ignored (``nohup``) stays ignored.
    """
    names = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        names.append(signal.SIGHUP)
    try:
        old = [(name, signal.signal(name, lambda *unused: hear())) for name in names]
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for name, handler in old:
            signal.signal(name, handler)
