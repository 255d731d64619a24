"""What the slice views show of nodules and prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vtk
from numpy.testing import assert_allclose
from vtk.util.numpy_support import vtk_to_numpy

from inference.volumes import grid, rotation
from SAMMed3DLib.scene import nodule_segmentation as nodules
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
from SAMMed3DLib.scene.prompt_store import PromptStore, createPrompts
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

SHAPE = (40, 60, 60)
BOX = MaskBlock(np.ones((9, 15, 15), np.uint8), (16, 22, 22))
ORANGE = (1.0, 0.5, 0.0)


@pytest.fixture
def bench(slicer_scene):
    """A gray volume with an orange segment around its middle."""
    volume = slicer_scene.add_volume(np.full(SHAPE, -600, np.int16), grid(SHAPE, (1.0, 1.0, 1.5), rotation(12.0)))
    node = nodules.createSegmentation(volume)
    segment_id = NoduleSegmentation(node).addNodule(color=ORANGE)
    writer = SegmentWriter(node, volume)
    writer.write(segment_id, BOX)
    return volume, node, segment_id, writer


def is_orange(pixels: np.ndarray) -> np.ndarray:
    red, green, blue = (pixels[..., n].astype(int) for n in range(3))
    return (red > green + 20) & (green > blue + 20)


def test_fill_and_outline_lie_where_the_voxels_are(slicer_scene, slice_view, bench) -> None:
    volume, _node, _segment_id, _writer = bench
    view = slice_view()
    view.show(volume)
    center = VolumeGeometry(volume).ijkToWorld @ (29.0, 29.0, 20.0, 1.0)
    view.jump(center[:3])
    orange = is_orange(view.pixels())[::-1]
    y, x = np.mgrid[: orange.shape[0], : orange.shape[1]]
    xy_to_ras = view.slice_node.GetXYToRAS()
    matrix = np.array([[xy_to_ras.GetElement(r, c) for c in range(4)] for r in range(4)])
    ras = np.stack([x, y, np.zeros_like(x), np.ones_like(x)], axis=-1) @ matrix.T
    ijk = VolumeGeometry(volume).worldToIjk(ras[..., :3])
    low, high = np.array([22, 22, 16]) - 0.5, np.array([36, 36, 24]) + 0.5
    inside = np.all((ijk > low + 0.6) & (ijk < high - 0.6), axis=-1)
    outside = np.any((ijk < low - 0.6) | (ijk > high + 0.6), axis=-1)
    assert inside.sum() > 1000 and orange[inside].all() and not orange[outside].any()


def test_the_volume_shines_through(slice_view, bench) -> None:
    volume, _node, _segment_id, _writer = bench
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(1500.0, -500.0)
    view = slice_view()
    view.show(volume)
    pixels = view.pixels().astype(float)
    gray = 255.0 * (-600.0 - (-1250.0)) / 1500.0
    assert_allclose(pixels[150, 100], gray, atol=3)
    assert_allclose(pixels[150, 200], 0.75 * gray + 0.25 * 255.0 * np.array(ORANGE), atol=4)


def test_clearing_and_hiding_show_at_once(slice_view, bench) -> None:
    volume, node, segment_id, writer = bench
    view = slice_view()
    view.show(volume)
    assert is_orange(view.pixels()).any()
    writer.write(segment_id, MaskBlock(np.zeros((1, 1, 1), np.uint8), (0, 0, 0)))
    assert not is_orange(view.pixels()).any()
    writer.write(segment_id, BOX)
    assert is_orange(view.pixels()).any()
    node.GetDisplayNode().SetSegmentVisibility(segment_id, False)
    assert not is_orange(view.pixels()).any()


def test_a_picture_of_three_slices(slicer_scene, slice_view, bench, tmp_path: Path) -> None:
    from slicer_picture import draw_slices, save_png

    volume, _node, segment_id, _writer = bench
    slice_view().close()  # skips where nothing can be drawn
    store = PromptStore(createPrompts(volume))
    center = (VolumeGeometry(volume).ijkToWorld @ (29.0, 29.0, 20.0, 1.0))[:3]
    store.add(center, True, segment_id)
    views = slicer_scene.scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")
    pixels = draw_slices(slicer_scene, volume, center, field_mm=60.0, size=200)
    assert pixels.shape == (200, 608, 3)
    for tile in (pixels[:, :200], pixels[:, 204:404], pixels[:, 408:]):
        assert is_orange(tile).any()
        assert tile[100, 100, 1] > 200 > tile[100, 100, 0], "the prompt, green, in the middle of each"
    assert slicer_scene.scene.GetNumberOfNodesByClass("vtkMRMLSliceNode") == views, "no view is left behind"

    save_png(tmp_path / "picture.png", pixels)
    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(tmp_path / "picture.png"))
    reader.Update()
    stored = vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars()).reshape(200, 608, 3)[::-1]
    assert np.array_equal(stored, pixels)
    store.close()
