"""Clicks and rests in slice views without Place mode, and everything of Slicer's that must go on working meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from numpy.testing import assert_allclose

from inference.volumes import grid, rotation
from SAMMed3DLib.scene.measure_view import MeasureView
from SAMMed3DLib.scene.slice_clicks import SliceClicks, SurfaceClicks
from SAMMed3DLib.signal import Signal
from SAMMed3DLib.worker.requests import AXES
from scene.events import Log
from scene.transforms import rigid
from slicer_view import can_draw, place_mode, set_slice_to_ras

SHAPE = (40, 60, 80)


class ManualTimer:
    """A single-shot timer that runs out when a test says so."""

    def __init__(self) -> None:
        self.timeout = Signal()
        self.interval: int | None = None

    def start(self, ms: int) -> None:
        self.interval = ms

    def stop(self) -> None:
        self.interval = None

    def run_out(self) -> None:
        if self.interval is not None:
            self.interval = None
            self.timeout()


@pytest.fixture
def volume(slicer_scene):
    noise = np.random.default_rng(0).normal(-700, 200, SHAPE).astype(np.int16)
    return slicer_scene.add_volume(noise, grid(SHAPE, (1.0, 1.0, 2.0), rotation(15.0)))


@pytest.fixture
def view(slice_view, volume):
    view = slice_view()
    view.show(volume)
    return view


@pytest.fixture
def timer():
    return ManualTimer()


@pytest.fixture
def clicks(view, timer):
    clicks = SliceClicks(timer)
    clicks.start([(view.interactor, view.slice_node)])
    yield clicks
    clicks.stop()


@pytest.fixture
def log(clicks):
    return Log(clicks, "clicked", "rested", "stirred")


def points(entries, name="clicked"):
    return [np.array(entry[1]) for entry in entries if entry[0] == name]


def test_a_click_tells_the_place_and_shift(view, log) -> None:
    view.click(100, 80)
    view.click(200, 150, shift=True)
    first, second = log.take()
    assert_allclose(first[1], view.to_ras(100, 80), atol=1e-9)
    assert_allclose(second[1], view.to_ras(200, 150), atol=1e-9)
    assert (first[2], second[2]) == (False, True)


def test_clicks_in_any_view_and_plane(slicer_scene, slice_view, volume) -> None:
    views = [
        slice_view(name, orientation)
        for name, orientation in (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal"))
    ]
    for view in views:
        view.show(volume)
    oblique = rigid(33.0, (1.0, 0.5, 0.2), (4.0, 5.0, 6.0))
    set_slice_to_ras(views[2], oblique)
    clicks = SliceClicks()
    log = Log(clicks, "clicked")
    clicks.start([(view.interactor, view.slice_node) for view in views])
    for view in views:
        view.click(123, 77)
        (ras,) = points(log.take())
        assert_allclose(ras, view.to_ras(123, 77), atol=1e-9)
    plane = np.linalg.inv(oblique) @ np.append(ras, 1.0)
    assert abs(plane[2]) < 1e-6, "on the oblique slice"
    clicks.stop()


def test_a_trembling_hand_clicks_where_it_pressed(view, log) -> None:
    view.move(100, 100)
    view.press()
    view.move(103, 98)
    view.release()
    (ras,) = points(log.take())
    assert_allclose(ras, view.to_ras(100, 100), atol=1e-9)


def test_with_shift_slicer_pans_by_the_tremble_and_the_place_is_still_that_of_the_press(view, log) -> None:
    expected = view.to_ras(100, 100)
    view.move(100, 100, shift=True)
    view.press(shift=True)
    view.move(103, 103, shift=True)
    view.release(shift=True)
    ((_name, ras, shift, _view),) = log.take()
    assert shift and np.abs(np.array(ras) - expected).max() < 1e-9
    assert np.abs(view.to_ras(100, 100) - expected).max() > 0.1, "it did pan"


@pytest.mark.parametrize("end", [(105, 100), (100, 95), (180, 160)])
def test_a_drag_is_no_click(view, log, end) -> None:
    view.drag((100, 100), end)
    assert log.take() == []
    view.drag((100, 100), end, shift=True)
    assert log.take() == []


def test_there_and_back_is_no_click(view, log) -> None:
    view.move(100, 100)
    view.press()
    view.move(150, 100)
    view.move(100, 100)
    view.release()
    assert log.take() == []


@pytest.mark.parametrize("button", ["Right", "Middle"])
def test_other_buttons_are_no_clicks(view, log, button) -> None:
    view.click(100, 100, button=button)
    assert points(log.take()) == []


def test_modifiers_of_slicers_are_no_clicks(view, log) -> None:
    view.click(100, 100, control=True)
    view.interactor.SetAltKey(1)
    view.move(100, 100)
    view.press()
    view.release()
    view.interactor.SetAltKey(0)
    assert log.take() == []


def test_a_double_click_is_slicers(view, log) -> None:
    view.click(100, 100)
    view.interactor.InvokeEvent(vtk.vtkCommand.LeftButtonDoubleClickEvent)
    view.release()
    assert len(points(log.take())) == 1, "the second half of it adds nothing"


def test_right_drag_still_zooms(view, log) -> None:
    before = np.array(view.slice_node.GetFieldOfView())
    view.drag((100, 100), (100, 150), button="Right")
    assert np.abs(np.array(view.slice_node.GetFieldOfView())[:2] / before[:2] - 1.0).min() > 0.05
    assert points(log.take()) == []


def test_middle_drag_still_pans(view, log) -> None:
    before = view.to_ras(100, 100)
    view.drag((100, 100), (140, 130), button="Middle")
    assert np.linalg.norm(view.to_ras(140, 130) - before) < 1e-6
    assert points(log.take()) == []


def test_the_wheel_still_scrolls(view, log) -> None:
    view.move(100, 100)
    before = view.slice_node.GetSliceOffset()
    view.wheel()
    view.wheel()
    assert abs(view.slice_node.GetSliceOffset() - before) > 2.0
    view.wheel(forward=False)
    view.wheel(forward=False)
    assert view.slice_node.GetSliceOffset() == pytest.approx(before) and points(log.take()) == []


def test_windowing_by_dragging_still_works(slicer_scene, volume, view, log) -> None:
    interaction = slicer_scene.app.GetInteractionNode()
    interaction.SetCurrentInteractionMode(interaction.AdjustWindowLevel)
    before = volume.GetDisplayNode().GetWindow(), volume.GetDisplayNode().GetLevel()
    view.drag((100, 100), (180, 160))
    assert (volume.GetDisplayNode().GetWindow(), volume.GetDisplayNode().GetLevel()) != before
    assert points(log.take()) == []
    assert interaction.GetCurrentInteractionMode() == interaction.AdjustWindowLevel, "the mouse mode stays"
    view.click(100, 100)
    assert len(points(log.take())) == 1


def test_the_crosshair_still_follows_the_pointer(slicer_scene, view, log) -> None:
    crosshair = slicer_scene.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    view.move(120, 90)
    ras = [0.0, 0.0, 0.0]
    crosshair.GetCursorPositionRAS(ras)
    assert_allclose(ras, view.to_ras(120, 90), atol=1e-6)


def test_place_mode_places_and_nothing_else(slicer_scene, view, log) -> None:
    node = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.CreateDefaultDisplayNodes()
    place_mode(slicer_scene, node)
    view.click(100, 100)
    assert node.GetNumberOfDefinedControlPoints() == 1 and points(log.take()) == []


def test_dragging_or_clicking_a_point_is_no_click(slicer_scene, view, log) -> None:
    node = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.CreateDefaultDisplayNodes()
    node.AddControlPointWorld(*view.to_ras(150, 120))
    view.render()
    view.click(150, 120)
    view.drag((150, 120), (190, 160))
    assert points(log.take()) == []
    assert_allclose(node.GetNthControlPointPositionWorld(0), view.to_ras(190, 160), atol=1e-6)
    view.click(150, 120)
    assert len(points(log.take())) == 1, "where no point is any more"


def test_close_to_a_point_it_is_a_click_when_nothing_moves(slicer_scene, view, log) -> None:
    node = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.CreateDefaultDisplayNodes()
    node.AddControlPointWorld(*view.to_ras(150, 120))
    before = list(node.GetNthControlPointPositionWorld(0))
    view.render()
    view.move(158, 120)
    assert node.GetDisplayNode().HasActiveComponent(), "Slicer would drag it from here"
    view.press()
    view.release()
    (ras,) = points(log.take())
    assert_allclose(ras, view.to_ras(158, 120), atol=1e-6)
    assert list(node.GetNthControlPointPositionWorld(0)) == before
    view.click(154, 120)
    assert points(log.take()) == [], "on its mark the point is meant"
    view.drag((158, 120), (188, 140))
    assert points(log.take()) == []
    assert_allclose(node.GetNthControlPointPositionWorld(0), view.to_ras(180, 140), atol=1e-6)


def test_shift_on_a_point_is_a_click(slicer_scene, view, log) -> None:
    """Slicer drags no points while Shift is held: a place beside a point can be taken off."""
    node = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.CreateDefaultDisplayNodes()
    node.AddControlPointWorld(*view.to_ras(150, 120))
    before = list(node.GetNthControlPointPositionWorld(0))
    view.render()
    view.move(150, 120)
    view.press(shift=True)
    view.release(shift=True)
    assert [entry[2] for entry in log.take() if entry[0] == "clicked"] == [True]
    view.move(150, 120)
    view.drag((150, 120), (190, 160), shift=True)
    assert list(node.GetNthControlPointPositionWorld(0)) == before


def test_handles_of_other_markups_are_no_clicks_either(slicer_scene, view, log) -> None:
    line = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode")
    line.CreateDefaultDisplayNodes()
    line.AddControlPointWorld(*view.to_ras(60, 60))
    line.AddControlPointWorld(*view.to_ras(160, 60))
    view.render()
    view.click(160, 60)
    assert points(log.take()) == []


def test_the_axes_of_the_measure_take_no_click_but_their_ends_are_dragged(slicer_scene, view, log) -> None:
    measure, told = MeasureView(slicer_scene.scene), []
    measure.dragged.connect(lambda ends, final: told.append((ends, final)))
    ends = [[view.to_ras(60, 60), view.to_ras(200, 60)], [view.to_ras(130, 30), view.to_ras(130, 90)]]
    measure.show({AXES: np.array(ends).tolist()}, np.eye(4), (1.0, 0.0, 0.0), False)
    view.render()
    view.move(150, 60)
    view.click(150, 60)
    assert_allclose(points(log.take()), [view.to_ras(150, 60)], atol=1e-6)
    view.drag((200, 60), (220, 70), steps=3)
    assert points(log.take()) == [] and [final for _ends, final in told][-2:] == [False, True]
    assert_allclose(told[-1][0][0, 1], view.to_ras(220, 70), atol=1e-6)
    told.clear()
    measure.show({AXES: np.array(ends).tolist()}, np.eye(4), (1.0, 0.0, 0.0), False)
    assert_allclose(measure.lines[0].GetNthControlPointPositionWorld(1), ends[0][1], atol=1e-6)
    times = [line.GetMTime() for line in measure.lines]
    measure.show({AXES: np.array(ends).tolist()}, np.eye(4), (1.0, 0.0, 0.0), False)
    assert [line.GetMTime() for line in measure.lines] == times, "what is drawn already is not drawn again"
    measure.show({AXES: np.array(ends).tolist()}, np.eye(4), (1.0, 0.0, 0.0), True)
    view.render()
    view.drag((200, 60), (220, 70), steps=3)
    assert told == []
    measure.close()


@pytest.mark.skipif(not can_draw(), reason="nothing to draw with")
def test_a_click_on_a_surface_and_no_turn_of_the_view_picks_the_point_in_front() -> None:
    window, renderer, interactor = vtk.vtkRenderWindow(), vtk.vtkRenderer(), vtk.vtkGenericRenderWindowInteractor()
    window.SetOffScreenRendering(1)
    window.SetSize(200, 200)
    window.AddRenderer(renderer)
    for depth in (0.0, -40.0):
        ball = vtk.vtkSphereSource()
        ball.SetRadius(10.0)
        ball.SetCenter(0.0, 0.0, depth)
        actor, mapper = vtk.vtkActor(), vtk.vtkPolyDataMapper()
        mapper.SetInputConnection(ball.GetOutputPort())
        actor.SetMapper(mapper)
        renderer.AddActor(actor)
    interactor.SetRenderWindow(window)
    interactor.SetInteractorStyle(None)
    interactor.Initialize()
    renderer.ResetCamera()
    window.Render()
    picked: list[tuple[float, float, float]] = []
    surfaces = SurfaceClicks()
    surfaces.clicked.connect(picked.append)

    def click(start: tuple[int, int], end: tuple[int, int]) -> None:
        interactor.SetEventInformation(*start, 0, 0, "\0", 0, None)
        interactor.LeftButtonPressEvent()
        interactor.SetEventInformation(*end, 0, 0, "\0", 0, None)
        interactor.LeftButtonReleaseEvent()

    click((100, 100), (100, 100))
    assert picked == [], "nobody watches yet"
    surfaces.start([interactor])
    click((100, 100), (101, 100))
    assert_allclose(picked, [(0.0, 0.0, 10.0)], atol=1.0)
    click((100, 100), (130, 100))
    click((3, 3), (3, 3))
    assert len(picked) == 1, "a turn, and a click beside everything"
    surfaces.stop()
    click((100, 100), (100, 100))
    assert len(picked) == 1
    window.Finalize()


def test_what_a_segment_editor_effect_takes_is_no_click(view, log) -> None:
    """Effects observe the interactor with priority 1 and stop what they use."""
    taken: list[str] = []

    def effect(interactor, event) -> None:
        taken.append(event)
        command = interactor.GetCommand(tags[0] if event.startswith("LeftButtonP") else tags[1])
        command.SetAbortFlag(1)

    tags = [view.interactor.AddObserver(f"LeftButton{action}Event", effect, 1.0) for action in ("Press", "Release")]
    view.click(100, 100)
    assert len(taken) == 2 and points(log.take()) == []
    for tag in tags:
        view.interactor.RemoveObserver(tag)
    view.click(100, 100)
    assert len(points(log.take())) == 1


def test_only_between_start_and_stop(slice_view, volume, view, clicks, log) -> None:
    assert clicks.armed
    clicks.stop()
    assert not clicks.armed
    view.click(100, 100)
    assert log.take() == []
    other = slice_view("Green", "Coronal")
    other.show(volume)
    clicks.start([(other.interactor, other.slice_node)])
    clicks.start([(other.interactor, other.slice_node)])
    view.click(100, 100)
    other.click(90, 90)
    assert len(points(log.take())) == 1, "started twice is started once"


def test_stopping_between_press_and_release(view, clicks, log) -> None:
    view.move(100, 100)
    view.press()
    clicks.stop()
    clicks.start([(view.interactor, view.slice_node)])
    view.release()
    assert points(log.take()) == []


def test_whoever_is_called_may_stop(view, clicks) -> None:
    seen = []
    clicks.clicked.connect(lambda ras, shift, sliceNode: (seen.append(ras), clicks.stop()))
    view.click(100, 100)
    view.click(120, 100)
    assert len(seen) == 1 and not clicks.armed


def test_the_pointer_rests(view, timer, log) -> None:
    view.move(100, 100)
    view.move(110, 100)
    assert log.take() == [] and timer.interval == 150
    timer.run_out()
    ((_name, ras, slice_node),) = log.take()
    assert_allclose(ras, view.to_ras(110, 100), atol=1e-9)
    assert slice_node is view.slice_node
    timer.run_out()
    assert log.take() == [], "once"


def test_scrolling_under_a_resting_pointer(view, timer, log) -> None:
    view.move(100, 100)
    timer.run_out()
    log.take()
    view.wheel()
    assert log.take() == [("stirred",)]
    timer.run_out()
    ((_name, ras, _view),) = log.take()
    assert_allclose(ras, view.to_ras(100, 100), atol=1e-9)


def test_a_trembling_pointer_rests_on_and_rests_again(view, timer, log) -> None:
    view.move(100, 100)
    timer.run_out()
    log.take()
    view.move(103, 98)
    assert log.take() == []
    timer.run_out()
    ((name, ras, _view),) = log.take()
    assert name == "rested" and np.abs(np.array(ras) - view.to_ras(103, 98)).max() < 1e-9


STIRS = {
    "moves off": lambda view, _clicks: view.move(105, 100),
    "leaves": lambda view, _clicks: view.leave(),
    "wheel": lambda view, _clicks: view.wheel(),
    "press": lambda view, _clicks: view.press(),
    "right": lambda view, _clicks: view.press("Right"),
    "middle": lambda view, _clicks: view.press("Middle"),
    "stop": lambda _view, clicks: clicks.stop(),
    "scrolled by a key": lambda view, _clicks: view.slice_node.SetSliceOffset(view.slice_node.GetSliceOffset() + 2.0),
    "zoomed by a key": lambda view, _clicks: view.slice_node.SetFieldOfView(30.0, 22.5, 1.0),
    "slab": lambda view, _clicks: view.slice_node.SetSlabReconstructionEnabled(True),
}


@pytest.mark.parametrize("what", STIRS)
def test_what_ends_a_rest(view, clicks, timer, log, what) -> None:
    view.move(100, 100)
    timer.run_out()
    log.take()
    view.slice_node.Modified()
    view.slice_node.SetLayoutColor(0.5, 0.5, 0.5)
    assert log.take() == [], "what is seen under the pointer is the same"
    STIRS[what](view, clicks)
    assert log.take() == [("stirred",)]
    view.move(200, 200)
    assert log.take() == [], "once"


def test_what_keys_bring_under_a_resting_pointer_is_rested_on(view, timer, log) -> None:
    view.move(100, 100)
    timer.run_out()
    log.take()
    view.slice_node.SetSliceOffset(view.slice_node.GetSliceOffset() + 2.0)
    timer.run_out()
    (_stirred, (_name, ras, _view)) = log.take()
    assert_allclose(ras, view.to_ras(100, 100), atol=1e-9)


def test_a_pointer_in_another_view_rests_no_more_in_the_first(slice_view, volume, timer) -> None:
    views = [slice_view(name) for name in ("Red", "Green")]
    for view in views:
        view.show(volume)
    clicks = SliceClicks(timer)
    log = Log(clicks, "rested", "stirred")
    clicks.start([(view.interactor, view.slice_node) for view in views])
    views[0].move(100, 100)
    timer.run_out()
    log.take()
    views[1].move(100, 100)
    assert log.take() == [("stirred",)]
    clicks.stop()


@pytest.mark.parametrize("button", ["Left", "Right", "Middle"])
def test_a_pointer_that_pauses_with_a_button_down_does_not_rest(view, timer, log, button) -> None:
    view.move(100, 100)
    view.press(button)
    view.move(130, 120)
    view.move(131, 120)
    timer.run_out()
    assert log.take() == []
    view.release(button)
    view.move(132, 120)
    timer.run_out()
    assert [entry[0] for entry in log.take()] == ["rested"]


def test_no_rest_where_the_button_would_drag_or_place_a_point(slicer_scene, view, timer, log) -> None:
    node = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.CreateDefaultDisplayNodes()
    node.AddControlPointWorld(*view.to_ras(150, 120))
    view.render()
    view.move(150, 120)
    timer.run_out()
    assert log.take() == []
    place_mode(slicer_scene, node)
    view.move(60, 60)
    timer.run_out()
    assert log.take() == []


@pytest.mark.parametrize("what", ["press", "right", "leave", "stop"])
def test_no_rest_while_something_goes_on(view, clicks, timer, log, what) -> None:
    view.move(100, 100)
    if what == "press":
        view.press()
        view.move(101, 100)
    elif what == "right":
        view.press("Right")
    elif what == "leave":
        view.leave()
    else:
        clicks.stop()
    timer.run_out()
    assert log.take() == []


def test_clicks_come_without_a_timer(view) -> None:
    clicks = SliceClicks()
    log = Log(clicks, "clicked", "rested")
    clicks.start([(view.interactor, view.slice_node)])
    view.move(90, 90)
    view.click(100, 100)
    assert len(log.take()) == 1
    clicks.stop()


def test_the_mouse_mode_is_never_changed(slicer_scene, view, clicks, log) -> None:
    interaction = slicer_scene.app.GetInteractionNode()
    changes: list[str] = []
    interaction.AddObserver(slicer.vtkMRMLInteractionNode.InteractionModeChangedEvent, lambda *_: changes.append("x"))
    view.click(100, 100)
    view.drag((100, 100), (100, 140), button="Right")
    clicks.stop()
    assert changes == [] and interaction.GetCurrentInteractionMode() == interaction.ViewTransform


def test_a_click_names_its_view(view, log) -> None:
    view.click(100, 80)
    ((_name, _ras, _shift, slice_node),) = log.take()
    assert slice_node is view.slice_node
