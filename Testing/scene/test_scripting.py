"""The calls for scripts, alone and beside an open panel; once with the bundled model."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation, findSegmentation
from SAMMed3DLib.scene.prompt_store import findPrompts
from SAMMed3DLib.scene.scripting import segment, segmentAll
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DLib.scene.volume_geometry import SceneError
from SAMMed3DLib.worker.requests import LoadModel, Predict
from scene.masks import full
from scene.session_bench import SHAPE, Bench
from scene.session_fakes import CubeEngine, FakeModels, StepWorker, found, place


class Script:
    """Calls with a fake engine."""

    def __init__(self, scene) -> None:
        bench = Bench(scene)
        bench.session.close()
        self.bench, self.volume, self.ras, self.cubes = bench, bench.volume, bench.ras, bench.cubes
        self.engine = CubeEngine()
        self.fakes = {"models": FakeModels(), "worker": StepWorker(self.engine)}

    def segment(self, *args, **kwargs):
        return segment(self.volume, *args, **kwargs, **self.fakes)

    def segmentAll(self, *args, **kwargs):
        return segmentAll(self.volume, *args, **kwargs, **self.fakes)

    def full(self, segmentId, segmentation=None):
        volume = np.zeros(SHAPE, dtype=np.uint8)
        block = SegmentWriter(segmentation or findSegmentation(self.volume), self.volume).read(segmentId)
        volume[place(block)] = block.mask
        return volume


@pytest.fixture
def script(slicer_scene):
    return Script(slicer_scene)


def test_points_become_a_segment_and_stay_as_prompts(script):
    points = [script.ras(10, 12, 18), script.ras(10, 12, 14)]
    segmentId = script.segment(points, labels=[0, 1])
    # the point inside leads, then the one outside takes away
    expected = script.cubes([(10, 12, 14)])
    expected[:, :, 16:] = 0
    np.testing.assert_array_equal(script.full(segmentId), expected)
    assert findPrompts(script.volume).GetNumberOfControlPoints() == 2
    assert [len(one.labels) for one in script.engine.predictions] == [2]


def test_a_point_list_is_read_and_left_alone(script):
    node = script.bench.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "mine")
    for n, kji in enumerate([(10, 12, 14), (10, 12, 16)]):
        node.AddControlPointWorld(*script.ras(*kji))
        node.SetNthControlPointSelected(n, n == 0)
    before = [node.GetNthControlPointDescription(n) for n in range(2)]
    segmentId = script.segment(node)
    assert script.full(segmentId)[10, 12, 13] == 1 and script.full(segmentId)[10, 12, 15] == 0
    assert [node.GetNthControlPointDescription(n) for n in range(2)] == before
    assert script.segment(node, labels=[1, 1]) != segmentId


def test_further_points_on_a_segment(script):
    segmentId = script.segment([script.ras(10, 12, 14)])
    assert script.segment([script.ras(10, 12, 18)], segmentId=segmentId) == segmentId
    np.testing.assert_array_equal(script.full(segmentId), script.cubes([(10, 12, 14), (10, 12, 18)]))
    assert script.segment([script.ras(10, 12, 18)], labels=[0], segmentId=segmentId) == segmentId
    assert script.full(segmentId)[10, 12, 18] == 0
    assert sum(isinstance(one, LoadModel) for one in script.engine.asked) == 3  # one for each call's session


def test_another_segmentation(script):
    node = script.bench.scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "reader 2")
    segmentId = script.segment([script.ras(10, 12, 14)], segmentationNode=node)
    np.testing.assert_array_equal(script.full(segmentId, node), script.cubes([(10, 12, 14)]))
    assert findSegmentation(script.volume) is None


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        ([], {}, "At least one point"),
        ([(1.0, 2.0)], {}, "shape"),
        ("abc", {}, "shape"),
        ([(np.nan, 0.0, 0.0)], {}, "finite"),
        ([(900.0, 0.0, 0.0)], {}, "outside the volume"),
        ([(0.0, 0.0, 0.0)], {"labels": [1, 0]}, "as many labels"),
        ([(0.0, 0.0, 0.0)], {"labels": [0]}, "inside it"),
        ([(0.0, 0.0, 0.0)], {"segmentId": "gone"}, "no segment 'gone'"),
    ],
)
def test_what_cannot_be_used_is_an_error_and_changes_nothing(script, points, options, words):
    with pytest.raises(SceneError, match=words):
        script.segment(points, **options)
    assert findSegmentation(script.volume) is None and not script.engine.predictions


def test_errors_of_model_and_engine_are_raised(script):
    script.engine.errors[Predict] = "not enough memory"
    with pytest.raises(SceneError, match="not enough memory"):
        script.segment([script.ras(10, 12, 14)])
    assert findSegmentation(script.volume).GetSegmentation().GetNumberOfSegments() == 0
    script.engine.errors = {LoadModel: "the file is damaged"}
    with pytest.raises(SceneError, match="damaged"):
        script.segment([script.ras(10, 12, 14)])
    script.fakes["models"].torch = False
    with pytest.raises(SceneError, match="PyTorch"):
        script.segmentAll()
    with pytest.raises(SceneError, match="No volume"):
        segment(None, [(0, 0, 0)], **script.fakes)


def test_all_nodules(script):
    script.engine.found = [found((10, 8, 8), 0.9, 1), found((10, 20, 20), 0.6, 3), found((25, 8, 20), 0.2)]
    ids = script.segmentAll()
    assert [script.full(one).sum() for one in ids] == [3**3, 7**3], "the likeliest first"
    assert NoduleSegmentation(findSegmentation(script.volume)).status(ids[0]) == "AI"
    assert len(script.segmentAll(sensitivity=1.0)) == 3
    script.engine.found = []
    assert script.segmentAll() == []


def test_beside_an_open_panel_its_session_does_the_work(slicer_scene):
    bench = Bench(slicer_scene)
    bench.session.options.everyClickIsNew = True
    own = bench.click(25, 12, 14)
    segmentId = segment(bench.volume, [bench.ras(10, 12, 14), bench.ras(10, 12, 18)])
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18)]))
    assert bench.session.selectedId == own and bench.session.history.undoText == "Add point"
    assert [row.segmentId for row in bench.session.review.rows()] == [own, segmentId]
    bench.engine.found = [found((10, 25, 8), 0.9, 1)]
    (new,) = segmentAll(bench.volume)
    assert new in [row.segmentId for row in bench.session.review.rows()]
    bench.session.close()


def test_the_bundled_model_segments_a_ball(slicer_scene):
    pytest.importorskip("torch")
    from inference.volumes import world_of

    matrix = np.diag([-1.0, -1.0, 1.25, 1.0])
    shape = (48, 64, 64)
    distance = np.linalg.norm(world_of(shape, matrix) - world_of(shape, matrix)[24, 32, 32], axis=-1)
    rng = np.random.default_rng(0)
    array = np.where(distance < 7.0, 30, -850) + rng.normal(0, 20, shape)
    volume = slicer_scene.add_volume(array.astype(np.int16), matrix)
    segmentId = segment(volume, [(matrix @ [33, 31, 25, 1])[:3]])
    block = SegmentWriter(findSegmentation(volume), volume).read(segmentId)
    mask = full(block, shape) != 0
    truth = distance < 7.0
    assert 2 * np.count_nonzero(mask & truth) / (mask.sum() + truth.sum()) > 0.85
    segment(volume, [(matrix @ [33, 40, 25, 1])[:3]], labels=[0], segmentId=segmentId)
