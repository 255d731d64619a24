"""Finds the material beside the checkout that is too large, or under other terms, for the repository."""

from __future__ import annotations

import os
from pathlib import Path


def shared_dir() -> Path | None:
    """The folder with data/ and parity/: ``$SAMMED3D_SHARED``, else ``shared`` beside the checkout; None without one.

    Tests that need it skip cleanly when it is absent:
    ``pytestmark = pytest.mark.skipif(shared_dir() is None, reason="no shared data")``.
    """
    named = os.environ.get("SAMMED3D_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if folder.is_dir() else None
