"""Sets how PyTorch's threads wait for each other: spinning for a moment, then asleep.

By default they spin. Where anything else runs on the same cores, a thread that is waited for does not get its turn
while the others spin, and everything takes five to thirty times as long. With a short spin an idle machine is as fast
as before, and a busy one as fast as with threads that sleep at once (``OMP_WAIT_POLICY=PASSIVE``, which costs 5 to 15 %
on an idle one).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Of GNU's OpenMP (PyTorch on Linux): rounds; of Intel's and LLVM's (Windows, macOS): milliseconds.
_SETTINGS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
#: Who has set one of these has decided already.
_DECIDED = ("OMP_WAIT_POLICY", *_SETTINGS)


def wait_shortly() -> None:
    """Sets short waiting for a program, before torch is imported; child processes inherit it, present settings stay."""
    if not any(name in os.environ for name in _DECIDED):
        os.environ.update(_SETTINGS)


@contextmanager
def waiting_shortly() -> Iterator[None]:
    """Sets short waiting while an application imports torch, when OpenMP reads it; child processes inherit nothing."""
    if any(name in os.environ for name in _DECIDED):
        yield
        return
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name in _SETTINGS:
            del os.environ[name]
