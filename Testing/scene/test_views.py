"""Bringing a nodule into sight."""

from __future__ import annotations

import numpy as np
import slicer.util
from numpy.testing import assert_allclose

from inference.volumes import grid, rotation
from SAMMed3DLib.scene import views
from SAMMed3DLib.scene.views import showPoint, zoomIn
from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

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


def chest() -> np.ndarray:
    """A body of 40 x 20 voxels [j, i] with a lung in it and a thin table behind it."""
    array = np.full(SHAPE, -1000, np.int16)
    array[:, 15:55, 30:50] = 0
    array[:, 20:45, 34:46] = -850
    array[:, 5, 40:42] = 300
    return array


def test_a_chest_opens_as_readers_expect(slicer_scene, slice_view) -> None:
    volume = slicer_scene.add_volume(chest(), grid(SHAPE, (2.0, 2.0, 2.0), np.eye(3)))
    red, green = slice_view("Red", "Axial"), slice_view("Green", "Coronal")
    for view in (red, green):
        view.show(volume)
    lines = slicer.util.getNodesByClass("vtkMRMLSliceDisplayNode")
    for node in lines:
        node.SetIntersectingSlicesVisibility(True)
    display = volume.GetDisplayNode()
    views.openChest(volume)
    assert (display.GetWindow(), display.GetLevel()) == views.LUNG and not display.GetAutoWindowLevel()
    assert lines and not any(node.GetIntersectingSlicesVisibility() for node in lines)
    body = (volume_ras(volume, (30, 15, 20)), volume_ras(volume, (49, 54, 20)))
    for ras in body:
        x, y = red.to_pixel(ras)
        width, height = red.window.GetSize()
        assert 0 <= x <= width and 0 <= y <= height, "the body is inside the view"
    across = abs(red.to_pixel(body[0])[1] - red.to_pixel(body[1])[1])
    assert across > 0.8 * red.window.GetSize()[1], "and fills it"
    display.SetWindowLevel(80.0, 10.0)
    red.slice_node.SetFieldOfView(33.0, 22.0, 1.0)
    views.openChest(volume)
    assert display.GetWindow() == 80.0 and red.slice_node.GetFieldOfView()[0] == 33.0, "once a volume"


def volume_ras(volume, ijk) -> np.ndarray:
    return (VolumeGeometry(volume).ijkToWorld @ [*ijk, 1.0])[:3]


def test_a_window_set_by_hand_stays_and_what_is_no_chest_is_left_alone(slicer_scene) -> None:
    volume = slicer_scene.add_volume(chest(), np.eye(4))
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(80.0, 10.0)
    views.openChest(volume)
    assert (display.GetWindow(), display.GetLevel()) == (80.0, 10.0)
    abdomen = slicer_scene.add_volume(np.full(SHAPE, 40, np.int16), np.eye(4))
    auto = abdomen.GetDisplayNode().GetAutoWindowLevel()
    views.openChest(abdomen)
    assert auto and abdomen.GetDisplayNode().GetAutoWindowLevel()
    told = slicer_scene.add_volume(chest(), np.eye(4)).GetDisplayNode()
    told.AddWindowLevelPreset(300.0, 40.0)
    told.SetAutoWindowLevel(False)
    told.SetWindowLevel(300.0, 40.0)
    views.openChest(told.GetDisplayableNode())
    assert (told.GetWindow(), told.GetLevel()) == views.LUNG, "the file's window is not the user's"


def test_one_key_goes_through_the_windows_and_back_to_the_own(slicer_scene) -> None:
    volume = slicer_scene.add_volume(chest(), np.eye(4))
    views.openChest(volume)
    assert [views.nextWindow(volume) for _number in range(3)] == [views.MEDIASTINUM, views.LUNG, views.MEDIASTINUM]
    volume.GetDisplayNode().SetWindowLevel(900.0, -300.0)
    shown = [views.nextWindow(volume) for _number in range(4)]
    assert shown == [views.LUNG, views.MEDIASTINUM, (900.0, -300.0), views.LUNG]


def test_a_slab_shows_the_brightest_and_a_click_means_it(slicer_scene, slice_view) -> None:
    array = np.full(SHAPE, -800, np.int16)
    array[22, 30, 40] = 50
    volume = slicer_scene.add_volume(array, grid(SHAPE, (1.0, 1.0, 1.5), rotation(10.0)))
    red, green = slice_view("Red", "Axial"), slice_view("Green", "Coronal")
    middle, nodule = volume_ras(volume, (40, 30, 20)), volume_ras(volume, (40, 30, 22))
    clicked = np.array([*nodule[:2], middle[2]])  # seen from the slice through the middle
    assert views.seenPoint(volume, red.slice_node, clicked) == clicked.tolist(), "a single slice shows itself"
    views.setSlab(True)
    assert red.slice_node.GetSlabReconstructionEnabled() and not green.slice_node.GetSlabReconstructionEnabled()
    assert_allclose(views.seenPoint(volume, red.slice_node, clicked), nodule, atol=0.8)
    plain = volume_ras(volume, (20, 20, 20))
    assert views.seenPoint(volume, red.slice_node, plain) == plain.tolist(), "of equals the nearest"
    far = np.array([*nodule[:2], nodule[2] + 8.0])
    assert views.seenPoint(volume, red.slice_node, far) == far.tolist(), "farther than half a slab"
    views.setSlab(False)
    assert not red.slice_node.GetSlabReconstructionEnabled()


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
