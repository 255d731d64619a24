"""A fresh scene for every test of ``SAMMed3DTrainingLib/scene``; skipped where ``slicer-core`` is not installed."""

from __future__ import annotations

from scene.conftest import pytest_pycollect_makemodule, slicer_scene

__all__ = ["pytest_pycollect_makemodule", "slicer_scene"]
