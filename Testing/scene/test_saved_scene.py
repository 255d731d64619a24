"""A scene that the version of commit 3bc430b saved opens, with everything in it, and the next click goes on.

``data/scene_3bc430b.mrb``: a CT of 36 x 30 x 32 voxels with three balls; "Upper left" has three clicks, a name and is
accepted, "Nodule 1" has one click, a flag and one voxel that the Segment Editor painted, "Nodule 2" was found by
*Segment all*. It was saved by that version's own session, driven by ``session_bench``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from SAMMed3DLib.worker.requests import Generate
from scene.session_bench import Bench
from slicer_scene import SlicerScene

SCENE = Path(__file__).parents[1] / "data" / "scene_3bc430b.mrb"
CLICKED, EDITED, FOUND = "S_B8CksTuufsINtDri", "S_m92R7SXdM3bs5xXj", "S_bO3CYpxBQfw2h7fF"


@pytest.fixture
def reopened(slicer_scene: SlicerScene) -> Iterator[Bench]:
    bench = Bench(slicer_scene, volume=False)
    slicer_scene.load(SCENE)
    bench.volume = slicer_scene.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    bench.session.setVolume(bench.volume)
    bench.settle()
    yield bench
    bench.session.close()


def painted(bench: Bench) -> np.ndarray:
    mask = bench.cubes([(24, 20, 8)])
    mask[24, 20, 12] = 1
    return mask


def clicked(bench: Bench) -> np.ndarray:
    mask = bench.cubes([(10, 12, 14), (10, 12, 18)])
    mask[bench.cubes([(10, 14, 20)]) != 0] = 0
    return mask


def test_names_review_measurements_and_voxels_come_back(reopened: Bench) -> None:
    rows = {row.segmentId: row for row in reopened.session.review.rows()}
    assert list(rows) == [CLICKED, EDITED, FOUND]
    assert [row.name for row in rows.values()] == ["Upper left", "Nodule 1", "Nodule 2"]
    assert [row.status for row in rows.values()] == ["reviewed", "flagged", "AI"]
    assert [row.volumeMm3 for row in rows.values()] == [180.0, 126.0, 100.0]
    assert [row.predictedIou for row in rows.values()] == pytest.approx([0.9, 0.9, 0.7])
    assert [row.score for row in rows.values()] == [None, None, 0.83]
    assert not any(row.isPending for row in rows.values())
    np.testing.assert_array_equal(reopened.full(CLICKED), clicked(reopened))
    np.testing.assert_array_equal(reopened.full(EDITED), painted(reopened))
    assert reopened.full(FOUND).sum() == 125


def test_points_come_back_with_their_nodules(reopened: Bench) -> None:
    store = reopened.session.store
    places = [(10, 12, 14), (10, 12, 18), (10, 14, 20)]
    prompts = store.prompts(CLICKED)
    assert [prompt.positive for prompt in prompts] == [True, True, False]
    np.testing.assert_allclose([prompt.ras for prompt in prompts], [reopened.ras(*kji) for kji in places], atol=1e-4)
    (prompt,) = store.prompts(EDITED)
    assert prompt.positive and store.prompts(FOUND) == [] and store.untagged() == []


def test_the_next_click_adds_to_the_earlier_ones(reopened: Bench) -> None:
    reopened.session.select(CLICKED)
    assert reopened.click(14, 12, 14) is None, "it was accepted"
    reopened.session.review.unreview(CLICKED)
    assert reopened.click(14, 12, 14) == CLICKED
    (request,) = reopened.engine.predictions
    assert request.start is None and list(request.labels) == [1, 1, 0, 1]
    expected = clicked(reopened)
    expected[reopened.cubes([(14, 12, 14)]) != 0] = 1
    np.testing.assert_array_equal(reopened.full(CLICKED), expected)
    reopened.session.undo()
    np.testing.assert_array_equal(reopened.full(CLICKED), clicked(reopened))
    reopened.session.undo()
    assert reopened.row(CLICKED).status == "reviewed"


def test_the_next_click_on_an_edited_nodule_goes_on_from_the_edit(reopened: Bench) -> None:
    reopened.session.select(EDITED)
    reopened.click(28, 20, 8)
    (request,) = reopened.engine.predictions
    assert list(request.labels) == [1] and request.start.mask.sum() == 126
    expected = painted(reopened)
    expected[reopened.cubes([(28, 20, 8)]) != 0] = 1
    np.testing.assert_array_equal(reopened.full(EDITED), expected)


def test_looking_again_keeps_what_was_clicked_and_replaces_what_was_found(reopened: Bench) -> None:
    reopened.session.segmentAll()
    reopened.settle()
    (request,) = [one for one in reopened.engine.asked if isinstance(one, Generate)]
    assert len(request.keep) == 2
    assert [row.segmentId for row in reopened.session.review.rows()] == [CLICKED, EDITED]
