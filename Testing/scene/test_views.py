"""Bringing a nodule into sight."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from inference.volumes import grid, rotation
from SAMMed3DLib.scene.views import showPoint, zoomIn

SHAPE = (40, 60, 80)


def test_all_slice_views_jump_and_keep_zoom_and_plane(slicer_scene, slice_view) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), grid(SHAPE, (1.0, 1.0, 2.0), rotation(15.0)))
    views = [slice_view(name, orientation) for name, orientation in (("Red", "Axial"), ("Green", "Coronal"))]
    for view in views:
        view.show(volume)
        view.drag((100, 100), (100, 130), button="Right")
    before = [(view.slice_node.GetFieldOfView(), view.slice_node.GetOrientation()) for view in views]
    ras = (7.0, -9.0, 11.0)
    showPoint(ras)
    for view, (field, orientation) in zip(views, before, strict=True):
        assert view.slice_node.GetOrientation() == orientation
        assert_allclose(view.slice_node.GetFieldOfView(), field)
        inverse = np.linalg.inv(
            np.array(
                [[view.slice_node.GetXYToRAS().GetElement(row, column) for column in range(4)] for row in range(4)]
            )
        )
        x, y, depth, _one = inverse @ np.append(ras, 1.0)
        assert abs(x - 200) <= 1 and abs(y - 150) <= 1 and abs(depth) < 1e-6, "in the middle, on the slice"


def test_only_views_that_show_far_more_come_near(slicer_scene) -> None:
    far, near = (slicer_scene.scene.AddNewNodeByClass("vtkMRMLSliceNode") for _number in range(2))
    far.SetFieldOfView(400.0, 300.0, 1.0)
    near.SetFieldOfView(140.0, 100.0, 1.0)
    zoomIn(60.0)
    assert_allclose(far.GetFieldOfView(), (80.0, 60.0, 1.0))
    assert_allclose(near.GetFieldOfView(), (140.0, 100.0, 1.0))


def test_cameras_are_shifted_not_turned(slicer_scene) -> None:
    camera = slicer_scene.scene.AddNewNodeByClass("vtkMRMLCameraNode")
    camera.SetPosition(100.0, 200.0, 50.0)
    camera.SetFocalPoint(1.0, 2.0, 3.0)
    before = np.array(camera.GetPosition()) - camera.GetFocalPoint()
    showPoint((30.0, 40.0, 50.0))
    assert_allclose(camera.GetFocalPoint(), (30.0, 40.0, 50.0))
    assert_allclose(np.array(camera.GetPosition()) - camera.GetFocalPoint(), before)


def test_without_any_view(slicer_scene) -> None:
    showPoint((1.0, 2.0, 3.0))
