"""A fresh scene for every test of ``SAMMed3DLib/scene``; skipped where ``slicer-core`` is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from scene.session_bench import Bench
    from slicer_scene import SlicerScene
    from slicer_view import SliceView

_HAS_SLICER = importlib.util.find_spec("slicer") is not None


class _WithoutSlicer(pytest.Module):
    """A test file that says why it cannot run here."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip("slicer-core is not installed (pip install slicer-core; Python 3.10 to 3.13)")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Test files here import Slicer at file scope."""
    return None if _HAS_SLICER else _WithoutSlicer.from_parent(parent, path=module_path)


@pytest.fixture
def slicer_scene() -> Iterator[SlicerScene]:
    """A fresh scene; ``slicer.mrmlScene`` is this one. What VTK complains about fails the test."""
    from slicer_scene import SlicerScene
    from vtk_complaints import no_vtk_complaints

    with no_vtk_complaints():
        scene = SlicerScene()
        yield scene
        scene.close()


@pytest.fixture
def bench(slicer_scene: SlicerScene) -> Iterator[Bench]:
    """A session on a small oblique volume."""
    from scene.session_bench import Bench

    bench = Bench(slicer_scene)
    yield bench
    bench.session.close()


@pytest.fixture
def slice_view(slicer_scene: SlicerScene) -> Iterator[Callable[..., SliceView]]:
    """Makes offscreen slice views of the scene: ``slice_view(name, orientation)``."""
    from slicer_view import SliceView, can_draw

    if not can_draw():
        pytest.skip("no way to draw without a screen (Debian, Ubuntu: apt-get install libegl1 libgl1)")
    views: list[SliceView] = []

    def make(*arguments: Any, **options: Any) -> SliceView:
        views.append(SliceView(slicer_scene, *arguments, **options))
        return views[-1]

    yield make
    for view in views:
        view.close()
