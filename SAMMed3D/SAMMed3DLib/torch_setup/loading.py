"""Imports PyTorch on a worker thread without stopping the main thread, and sets how its threads wait for each other.

``import torch`` loads a library of some hundred megabytes while it holds Python's lock: the whole application stands
still for 0.15 s and more. Here the same library is loaded first by a foreign call, which lets go of the lock; the
import then finds it loaded. On Windows PyTorch does so by itself.

The import makes some 300 000 objects. Python's garbage collector walks through all that live, again and again while
they come and once more soon afterwards, 50 to 130 ms each time and with the lock held. So it is kept from such walks
while they come, and then told that they are here to stay.

By default PyTorch's threads spin while they wait. Where anything else runs on the same cores, a thread that is waited
for does not get its turn while the others spin, and everything takes five to thirty times as long. With a short spin an
idle machine is as fast as before, and a busy one as fast as with threads that sleep at once
(``OMP_WAIT_POLICY=PASSIVE``, which costs 5 to 15 % on an idle one).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Of GNU's OpenMP (PyTorch on Linux): rounds; of Intel's and LLVM's (Windows, macOS): milliseconds.
_SETTINGS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
#: Who has set one of these has decided already.
_DECIDED = ("OMP_WAIT_POLICY", *_SETTINGS)

#: In the order in which they need each other.
_LIBRARIES = ("libc10", "libtorch_cpu", "libtorch_python")
#: What of this package is built on PyTorch.
_NEEDS_IT = ("model.checkpoint", "inference.predictor", "finding.automatic_mask_generator")
_LIBRARY = __package__.rpartition(".")[0]
_NEVER = 2**30
_loading = threading.Lock()


def load_torch() -> None:
    """Import torch and what of this package needs it. Raises ModuleNotFoundError where it is not installed."""
    if f"{_LIBRARY}.{_NEEDS_IT[-1]}" in sys.modules:
        return
    with _loading:
        if "torch" in sys.modules:  # somebody else has imported it, or this package is reloaded
            _import()
            return
        with waiting_shortly(), _no_long_collections():
            if os.name == "posix":
                _load_libraries()
            _import()


def _import() -> None:
    import torch  # noqa: F401

    for name in _NEEDS_IT:
        importlib.import_module(f"{_LIBRARY}.{name}")


@contextmanager
def _no_long_collections() -> Iterator[None]:
    """Limits garbage collection to young objects within the block, and freezes what is left (``gc.freeze``)."""
    youngest, younger, oldest = gc.get_threshold()
    gc.set_threshold(youngest, younger, _NEVER)
    try:
        yield
        gc.freeze()
    finally:
        gc.set_threshold(youngest, younger, oldest)


def _load_libraries() -> None:
    """Loads PyTorch's libraries ahead of the import, which loads or reports those that fail here."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return
    folder = Path(found.origin).parent / "lib"
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    for name in _LIBRARIES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)


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
