"""Warnings of our own packages, for whoever shows them to people."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def our_warnings_told(tell: Callable[[str], object]) -> Iterator[None]:
    """Each warning of our packages is told; those of others are not shown."""
    def show(message, category, filename, lineno, file=None, line=None) -> None:  # noqa: ANN001
        tell(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"SAMMed3D(Training)?Lib\b")
        warnings.showwarning = show
        yield
