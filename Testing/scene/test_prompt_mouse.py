"""Prompts placed and dragged with the mouse in a real slice view of Slicer's, in Place mode and without it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from inference.volumes import grid, rotation
from SAMMed3DLib.scene.prompt_store import PromptStore, createPrompts
from scene.events import log_of_store
from scene.transforms import rigid
from slicer_view import place_mode

SHAPE = (40, 60, 80)


@pytest.fixture
def setup(slicer_scene, slice_view):
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), grid(SHAPE, (1.0, 1.0, 2.0), rotation(15.0)))
    view = slice_view()
    view.show(volume)
    store = PromptStore(createPrompts(volume))
    yield view, store, log_of_store(store)
    store.close()


def view_mode(scene) -> None:
    interaction = scene.app.GetInteractionNode()
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)


def test_place_mode_places_at_the_pixel_and_hovering_places_nothing(slicer_scene, setup) -> None:
    view, store, log = setup
    place_mode(slicer_scene, store.node)
    for x in range(60, 150, 10):
        view.move(x, 100)
    assert store.node.GetNumberOfControlPoints() == 1 and log.take() == [], "only the preview"
    view.press()
    assert log.take() == []
    view.release()
    (entry,) = log.take()
    assert entry[0] == "placed"
    assert_allclose(store.prompt(entry[1]).ras, view.to_ras(140, 100), atol=1e-6)

    view.move(200, 150)
    view.leave()
    assert log.take() == [] and len(store.untagged()) == 1, "the next preview came and went"
    view.click(200, 150)
    view.click(220, 90)
    assert [entry[0] for entry in log.take()] == ["placed"] * 2
    assert [prompt.ras for prompt in store.untagged()][1:] == [
        pytest.approx(view.to_ras(200, 150)),
        pytest.approx(view.to_ras(220, 90)),
    ]


def test_a_transformed_list_is_placed_where_the_mouse_is(slicer_scene, setup) -> None:
    view, store, log = setup
    moved = slicer_scene.add_transform(rigid(40.0, shift=(5.0, -6.0, 7.0)))
    store.node.SetAndObserveTransformNodeID(moved.GetID())
    place_mode(slicer_scene, store.node)
    view.click(180, 140)
    (entry,) = log.take()
    assert_allclose(store.prompt(entry[1]).ras, view.to_ras(180, 140), atol=1e-6)


def test_dragging_is_live_and_final_at_the_end(slicer_scene, setup) -> None:
    view, store, log = setup
    view_mode(slicer_scene)
    point_id = store.add(view.to_ras(150, 120), True, "S_1")
    other = store.add(view.to_ras(300, 220), False, "S_1")
    view.render()
    view.drag((150, 120), (190, 150), steps=4)
    entries = log.take()
    assert entries[-1] == ("moved", point_id, True)
    assert len(entries) >= 4 and set(entries[:-1]) == {("moved", point_id, False)}
    assert_allclose(store.prompt(point_id).ras, view.to_ras(190, 150), atol=1e-6)
    assert_allclose(store.prompt(other).ras, view.to_ras(300, 220), atol=1e-6)
    view.click(190, 150)
    assert log.take() == [], "clicking a point moves nothing"


def test_dragging_in_place_mode(slicer_scene, setup) -> None:
    """A point under the pointer is dragged, even while placing."""
    view, store, log = setup
    point_id = store.add(view.to_ras(150, 120), True, "S_1")
    view.render()
    place_mode(slicer_scene, store.node)
    view.click(60, 60)
    assert [entry[0] for entry in log.take()] == ["placed"]
    view_mode(slicer_scene)
    view.drag((150, 120), (180, 120))
    assert log.take()[-1] == ("moved", point_id, True) and len(store.untagged()) == 1


def test_hidden_prompts_cannot_be_dragged(slicer_scene, setup) -> None:
    view, store, log = setup
    view_mode(slicer_scene)
    store.add(view.to_ras(150, 120), True, "S_1")
    store.showOnly("S_2")
    view.render()
    view.drag((150, 120), (190, 150))
    assert log.take() == []


def test_polarity_has_its_color_in_the_view(slicer_scene, setup) -> None:
    view, store, log = setup
    view.jump(view.to_ras(200, 150))
    store.add(view.to_ras(100, 150), True, "S_1")
    store.add(view.to_ras(300, 150), False, "S_1")
    pixels = view.pixels().astype(int)
    height = pixels.shape[0]
    positive, negative = pixels[height - 1 - 150, 100], pixels[height - 1 - 150, 300]
    assert positive[1] > 2 * positive[0] and positive[1] > 150, "green"
    assert negative[0] > 2 * negative[1] and negative[0] > 150, "red"
