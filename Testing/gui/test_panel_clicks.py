"""From a click in a slice view to a nodule in the table: adding, correcting, dragging, undoing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from gui.slicer_user import User

CENTER, ASIDE = (5.0, -4.0, 3.0), (9.0, -4.0, 3.0)
ELSEWHERE = (-18.0, 12.0, 9.0)


@pytest.fixture
def ready(user: User) -> User:
    """A volume is loaded and the module is open."""
    user.load_volume()
    user.open()
    return user


def _center(user: User, segment_id: str) -> np.ndarray:
    matrix = np.diag([-1.2, -1.2, 1.5, 1.0])
    matrix[:3, 3] = 36.0, 36.0, -30.0
    kji = np.argwhere(user.mask(segment_id)).mean(0)
    return (matrix @ np.append(kji[::-1], 1.0))[:3]


def _click_twice(user: User) -> tuple[str, np.ndarray, np.ndarray]:
    """The segment of a nodule with two points, and its mask after each."""
    user.ui.addNoduleButton.click()
    user.click_at(CENTER)
    (segment,) = user.ids()
    one = user.mask(segment)
    user.click_at(ASIDE)
    return segment, one, user.mask(segment)


def test_a_click_makes_a_nodule_where_it_was(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    assert ready.widget.clicks.armed and ready.ui.addNoduleButton.checked
    ready.click_at(CENTER)
    (segment,) = ready.ids()
    assert np.allclose(_center(ready, segment), CENTER, atol=1.0)
    assert ready.ui.noduleTable.rowCount == 1
    volume = ready.mask(segment).sum() * 1.2 * 1.2 * 1.5
    assert ready.cell(0, 2).replace(",", "") == f"{volume:.1f}"
    assert ready.cell(0, 3) == "10.0 × 10.0" and ready.cell(0, 4) == "-50" and ready.cell(0, 5) == "high"
    assert ready.ui.undoButton.enabled and not ready.ui.redoButton.enabled


def test_the_key_n_arms_and_escape_ends_it(ready: User) -> None:
    ready.press("N")
    assert ready.widget.clicks.armed
    ready.click_at(CENTER, view="Green")
    ready.press("N")
    ready.click_at(ELSEWHERE, view="Yellow")
    assert len(ready.ids()) == 2
    ready.press("Esc")
    assert not ready.widget.clicks.armed and not ready.ui.addNoduleButton.checked
    ready.click_at(ASIDE)
    assert len(ready.ids()) == 2


def test_further_clicks_add_and_shift_clicks_subtract(ready: User) -> None:
    segment, one, two = _click_twice(ready)
    assert ready.ids() == [segment] and (two & one).sum() == one.sum() and two.sum() > one.sum()
    ready.click_at((5.0, -8.5, 3.0), shift=True)
    three = ready.mask(segment)
    assert three.sum() < two.sum()
    ready.ui.subtractModeButton.click()
    assert ready.ui.subtractModeButton.checked and not ready.ui.addModeButton.checked
    ready.click_at((12.5, -0.5, 3.0))
    assert ready.mask(segment).sum() < three.sum()
    ready.press("S")
    assert ready.ui.addModeButton.checked
    labels = [request.labels for request in ready.engine.asked("Predict")]
    assert list(labels[-1]) == [1, 1, 0, 0]


def test_next_nodule_and_every_click_is_new(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    ready.ui.nextNoduleButton.click()
    ready.click_at(ELSEWHERE)
    assert len(ready.ids()) == 2
    ready.ui.everyClickCheckBox.click()
    assert ready.session.options.everyClickIsNew
    ready.click_at((-18.0, -18.0, -9.0))
    ready.click_at((20.0, 18.0, -9.0))
    assert len(ready.ids()) == 4
    assert len({tuple(row.color) for row in ready.session.review.rows()}) == 4


def test_undo_and_redo_go_through_clicks_and_masks(ready: User) -> None:
    segment, one, two = _click_twice(ready)
    ready.ui.undoButton.click()
    ready.settle()
    np.testing.assert_array_equal(ready.mask(segment), one)
    assert len(ready.session.store.prompts(segment)) == 1
    ready.press("Ctrl+Z")
    assert ready.ids() == [] and ready.ui.noduleTable.rowCount == 0 and not ready.ui.undoButton.enabled
    ready.press("Ctrl+Y")
    ready.ui.redoButton.click()
    ready.settle()
    assert ready.ids() == [segment] and not ready.ui.redoButton.enabled
    np.testing.assert_array_equal(ready.mask(segment), two)
    ready.press("Ctrl+Z")
    ready.press("Ctrl+Shift+Z")
    np.testing.assert_array_equal(ready.mask(segment), two)


def test_dragging_a_point_segments_live_and_is_one_step_of_history(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    (segment,) = ready.ids()
    before, asked = ready.mask(segment), len(ready.engine.asked("Predict"))
    target = (15.0, 4.0, 3.0)
    ready.drag(CENTER, target)
    assert np.allclose(_center(ready, segment), target, atol=1.5)
    assert len(ready.engine.asked("Predict")) > asked
    assert len(ready.ids()) == 1, "the press on the point was no click"
    ready.ui.undoButton.click()
    ready.settle()
    np.testing.assert_array_equal(ready.mask(segment), before)


def _rates(user: User) -> dict[str, float]:
    """How often a second each view is drawn at most."""
    manager = user.host.app.layoutManager()
    views = {name: manager.sliceWidget(name).sliceView() for name in manager.sliceViewNames()}
    return {
        name: view.maximumUpdateRate for name, view in (views | {"3D": manager.threeDWidget(0).threeDView()}).items()
    }


@pytest.mark.parametrize(
    ("seconds", "own", "beside"), [(0.05, 10.0, 10.0 / 3), (0.008, 12.5, 12.5 / 3), (0.0005, 60.0, 100.0 / 3)]
)
def test_while_a_point_is_dragged_slow_views_are_drawn_less_often(
    ready: User, monkeypatch: pytest.MonkeyPatch, seconds: float, own: float, beside: float
) -> None:
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    manager, views = ready.host.app.layoutManager(), ready.widget.panel._views
    manager.sliceWidget("Yellow").sliceView().setMaximumUpdateRate(30.0)
    before, node = _rates(ready), ready.session.promptsNode
    times = itertools.count()
    monkeypatch.setattr(views, "_clock", lambda: next(times) * seconds)
    node.InvokeEvent(node.PointStartInteractionEvent)
    assert _rates(ready) == before, "the pointer is in no view: a script drags"
    node.InvokeEvent(node.PointEndInteractionEvent)
    red = type(manager.sliceWidget("Red").sliceView())
    monkeypatch.setattr(red, "underMouse", lambda view: view._view.slice_node.GetLayoutName() == "Red")
    for end in (lambda: node.InvokeEvent(node.PointEndInteractionEvent), ready.widget.cleanup):
        for _ in range(2):  # whatever is told twice, nothing of ours is taken for the user's
            node.InvokeEvent(node.PointStartInteractionEvent)
            wanted = {"Red": own, "Green": beside, "Yellow": min(30.0, beside), "3D": beside}
            assert _rates(ready) == pytest.approx(wanted)
        end()
        assert _rates(ready) == before


def test_deleting_a_point_segments_again(ready: User) -> None:
    segment, one, __ = _click_twice(ready)
    node = ready.session.promptsNode
    assert node.GetNumberOfControlPoints() == 2
    node.RemoveNthControlPoint(1)
    ready.settle()
    np.testing.assert_array_equal(ready.mask(segment), one)


def test_zooming_and_scrolling_stay_slicers_while_armed(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    view = ready.view()
    field, offset = view.slice_node.GetFieldOfView(), view.slice_node.GetSliceOffset()
    view.drag((200, 150), (200, 80), button="Right")
    assert view.slice_node.GetFieldOfView() != field
    view.wheel()
    assert view.slice_node.GetSliceOffset() != offset
    view.drag((150, 150), (200, 180))  # left drag: window/level or nothing, no click
    ready.settle()
    assert ready.ids() == [] and ready.widget.clicks.armed


def test_points_from_the_markups_toolbar_are_clicks_too(ready: User) -> None:
    from slicer_view import place_mode

    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    (segment,) = ready.ids()
    ready.press("Esc")
    place_mode(ready.host.scene, ready.session.promptsNode)
    ready.click_at(ASIDE)
    assert len(ready.session.store.prompts(segment)) == 2
    interaction = ready.host.app.applicationLogic().GetInteractionNode()
    interaction.SwitchToViewTransformMode()


def test_arming_ends_place_mode(ready: User) -> None:
    interaction = ready.host.app.applicationLogic().GetInteractionNode()
    interaction.SetCurrentInteractionMode(interaction.Place)
    ready.ui.addNoduleButton.click()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform


def test_the_pointer_at_rest_prepares_the_click(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    view = ready.view()
    view.jump(CENTER)
    view.move(*view.to_pixel(CENTER))
    ready.host.wait(lambda: any(np.allclose(r.point, CENTER, atol=1.0) for r in ready.engine.asked("Prefetch")))
    assert ready.ids() == []


def _rest(user: User, ras: Any, view: str = "Red") -> None:
    """Moves the pointer to a world point, and leaves it there until a preview is drawn."""
    seen = user.view(view)
    seen.jump(ras)
    seen.move(*seen.to_pixel(ras))
    user.host.wait(lambda: user.session.previewed is not None)


def test_a_rest_outlines_what_the_click_there_gives(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    assert "rest on it to see its outline" in ready.ui.statusLabel.text
    _rest(ready, CENTER)
    block = ready.session.previewed
    assert ready.ids() == [] and ready.ui.noduleTable.rowCount == 0 and not ready.ui.undoButton.enabled
    assert "rest on it to see its outline" in ready.ui.statusLabel.text, "nothing flickers"
    ready.click_at(CENTER)
    assert ready.session.previewed is None
    (segment,) = ready.ids()
    shown = np.zeros(ready.mask(segment).shape, bool)
    shown[tuple(slice(o, o + n) for o, n in zip(block.offset_kji, block.mask.shape, strict=True))] = block.mask != 0
    np.testing.assert_array_equal(ready.mask(segment), shown)
    ready.press("N")
    _rest(ready, ELSEWHERE, "Green")
    assert len(ready.ids()) == 1


@pytest.mark.parametrize("how", ["moves off", "leaves", "Esc", "S", "N", "Segment all", "module", "volume", "scene"])
def test_the_outline_goes_with_the_pointer_the_mode_and_the_module(ready: User, how: str) -> None:
    ready.ui.addNoduleButton.click()
    _rest(ready, CENTER)
    view = ready.view()
    {
        "moves off": lambda: view.move(5, 5),
        "leaves": view.leave,
        "Segment all": ready.ui.segmentAllButton.click,
        "module": lambda: ready.host.select(None),
        "volume": lambda: ready.ui.volumeSelector.setCurrentNode(None),
        "scene": lambda: ready.host.scene.scene.Clear(0),
    }.get(how, lambda: ready.press(how))()
    assert ready.session.previewed is None


def test_clicks_during_a_prediction_are_never_lost(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    ready.engine.gate.clear()
    for point in (CENTER, ASIDE, (1.0, -4.0, 3.0)):
        ready.click_at(point, settle=False)
        ready.host.process(0.02)
    assert ready.session.state.name in ("PREDICTING", "LOADING")
    ready.engine.gate.set()
    ready.settle()
    (segment,) = ready.ids()
    assert len(ready.engine.asked("Predict")[-1].points) == 3
    assert _extent(ready, segment) > 14.0


def _extent(user: User, segment_id: str) -> float:
    where: Any = np.argwhere(user.mask(segment_id))
    return float(np.ptp(where[:, 2]) * 1.2)


def test_a_click_outside_the_volume_is_refused_in_words(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    view = ready.view()
    view.jump(CENTER)
    view.click(2, 2)
    ready.settle()
    assert ready.ids() == []
    assert "outside" in (ready.ui.setupLabel.text + ready.ui.statusLabel.text).lower()


def test_windows_slab_close_up_and_chest_have_keys(ready: User) -> None:
    from SAMMed3DLib.scene import views

    display = ready.session.volumeNode.GetDisplayNode()
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    ready.press("L")
    assert (display.GetWindow(), display.GetLevel()) == views.LUNG and "Lung window" in ready.ui.statusLabel.text
    ready.ui.windowButton.click()
    assert (display.GetWindow(), display.GetLevel()) == views.MEDIASTINUM
    node = ready.view("Red").slice_node
    ready.press("M")
    assert ready.ui.slabButton.checked and node.GetSlabReconstructionEnabled()
    ready.ui.slabButton.click()
    assert not ready.ui.slabButton.checked and not node.GetSlabReconstructionEnabled()
    manager, before = ready.host.app.layoutManager(), node.GetFieldOfView()
    manager.setLayout(2)
    ready.press("C")
    assert manager.layout == 3 and ready.ui.closeUpButton.checked
    assert min(node.GetFieldOfView()[:2]) == pytest.approx(60.0)
    ready.ui.closeUpButton.click()
    assert manager.layout == 2 and not ready.ui.closeUpButton.checked
    assert node.GetFieldOfView() == pytest.approx(before)
    ready.press("C")
    manager.setLayout(4)  # the user's own choice ends it and stays
    assert manager.layout == 4 and not ready.ui.closeUpButton.checked
    node.SetFieldOfView(10.0, 8.0, 1.0)
    ready.press("H")
    assert min(node.GetFieldOfView()[:2]) > 50.0, "the whole volume"


def test_a_click_in_a_slab_means_what_is_seen(ready: User) -> None:
    import slicer.util

    ready.ui.slabButton.click()
    volume = ready.session.volumeNode
    array = slicer.util.arrayFromVolume(volume)
    inverse = np.linalg.inv(np.array([[-1.2, 0, 0, 36.0], [0, -1.2, 0, 36.0], [0, 0, 1.5, -30.0], [0, 0, 0, 1]]))
    i, j, k = np.round(inverse @ [*CENTER, 1.0]).astype(int)[:3]
    array[k, j, i] = 100
    ready.ui.addNoduleButton.click()
    ready.click_at((CENTER[0], CENTER[1], CENTER[2] - 3.0))
    (segment,) = ready.ids()
    assert np.allclose(_center(ready, segment), CENTER, atol=1.2)


def test_a_click_on_a_surface_in_3d_selects_while_the_module_is_open(ready: User) -> None:
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    (first,) = ready.ids()
    ready.session.select(None)
    surfaces = ready.widget.panel.tools._surfaces
    assert len(surfaces._watched) == 2, "press and release of the one 3D view"
    surfaces.clicked(tuple(CENTER))
    assert ready.session.selectedId == first
    ready.host.select(None)
    assert surfaces._watched == []


def test_the_list_of_keys(ready: User) -> None:
    from SAMMed3DLib.gui.shortcuts import KEYS, keysText

    assert all(f">{', '.join(keys)}<" in keysText() for keys in KEYS.values())
    every = [key for keys in KEYS.values() for key in keys]
    assert len(set(every)) == len(every) and not {"R", "F", "B", "V", "G", "T"} & set(every)
    ready.ui.keysButton.click()
    popup = ready.widget.panel._keys._popup
    assert popup.visible and popup.className() == "QFrame", "a QLabel would keep what closes a popup to itself"
    popup.hide()


def test_nothing_moves_when_the_first_nodule_comes(ready: User) -> None:
    import qt

    def tops() -> dict[str, int]:
        names = ("addNoduleButton", "segmentAllButton", "noduleTable")
        return {name: getattr(ready.ui, name).mapTo(ready.ui.SAMMed3D, qt.QPoint(0, 0)).y() for name in names}

    before = tops()
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    assert tops() == before and "Drag a point" in ready.ui.stepsLabel.text


def test_delete_is_far_from_accept(ready: User) -> None:
    accept, delete = ready.ui.acceptButton.geometry, ready.ui.rejectButton.geometry
    assert delete.left() - accept.right() > 100


def test_a_click_on_another_patient_is_refused_and_one_button_shows_the_ct(ready: User) -> None:
    ct = ready.session.volumeNode
    ready.load_volume("Other patient", seed=1)  # now on screen, while the panel stays with the CT
    assert ready.session.volumeNode is ct
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    assert ready.session.review.rows() == [] and ready.ui.setupFrame.visible
    assert "shows Other patient" in ready.ui.setupLabel.text and ready.ui.setupButton.text == "Show the CT"
    ready.ui.setupButton.click()
    assert not ready.ui.setupFrame.visible
    ready.click_at(CENTER)
    assert len(ready.ids()) == 1


def test_choosing_the_patient_on_screen_takes_the_error_away(ready: User) -> None:
    other = ready.load_volume("Other patient", seed=1)
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    assert ready.ui.setupFrame.visible
    ready.ui.volumeSelector.setCurrentNode(other)
    ready.settle()
    assert not ready.ui.setupFrame.visible and ready.session.volumeNode is other


def test_choosing_a_ct_shows_it_with_its_own_nodules_only(ready: User) -> None:
    ct = ready.session.volumeNode
    ready.ui.addNoduleButton.click()
    ready.click_at(CENTER)
    own = (ready.session.segmentationNode, ready.session.promptsNode)
    other = ready.load_volume("Other patient", seed=1)
    ready.ui.volumeSelector.setCurrentNode(other)
    ready.settle()
    assert [bool(node.GetDisplayVisibility()) for node in own] == [False, False]
    ready.ui.volumeSelector.setCurrentNode(ct)
    ready.settle()
    assert [bool(node.GetDisplayVisibility()) for node in own] == [True, True]
    layers = ready.view("Red").slice_logic.GetSliceCompositeNode()
    assert layers.GetBackgroundVolumeID() == ct.GetID()
