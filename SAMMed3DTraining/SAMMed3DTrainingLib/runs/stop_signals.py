"""Ctrl+C and a polite kill, heard by whoever is at work."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
