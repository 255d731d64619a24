"""The engine of the SAMMed3D extension: promptable 3-D segmentation of lung nodules, without any Slicer import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def lazy_names(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Makes the ``__getattr__`` of a package whose names are imported when they are first used (PEP 562).

    Args:
        package: its ``__name__``.
        modules: relative module -> the names that it gives to the package.
    """
    places = {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(places[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
