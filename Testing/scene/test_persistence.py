"""Nodules and prompts through MRB bundles and .mrk.json files, by Slicer's own writers and readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
from numpy.testing import assert_allclose

from inference.volumes import grid, rotation
from SAMMed3DLib.scene import nodule_segmentation as nodules
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
from SAMMed3DLib.scene.prompt_store import PromptStore, createPrompts, findPrompts
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from scene.events import log_of_store
from scene.masks import blob, full
from scene.transforms import rigid

SHAPE = (30, 32, 34)


def described(volume):
    """Everything about a volume's nodules that must survive."""
    node = nodules.findSegmentation(volume)
    writer, store, stored = SegmentWriter(node, volume), PromptStore(findPrompts(volume)), NoduleSegmentation(node)
    ids = node.GetSegmentation().GetSegmentIDs()
    result = {
        segment_id: (
            node.GetSegmentation().GetSegment(segment_id).GetName(),
            [round(x, 4) for x in node.GetSegmentation().GetSegment(segment_id).GetColor()],
            node.GetSegmentation().GetSegment(segment_id).GetTerminology(),
            stored.status(segment_id),
            stored.record(segment_id),
            stored.score(segment_id),
            [(tuple(np.round(p.ras, 6)), p.positive) for p in store.prompts(segment_id)],
            full(writer.read(segment_id), SHAPE).tobytes(),
        )
        for segment_id in ids
    }
    store.close()
    return result


@pytest.mark.parametrize("transformed", [False, True])
def test_a_bundle_brings_everything_back(slicer_scene, tmp_path, transformed) -> None:
    matrix = grid(SHAPE, (0.7, 0.8, 1.5), rotation(10.0))
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), matrix, name="Größe")
    if transformed:
        volume.SetAndObserveTransformNodeID(slicer_scene.add_transform(rigid()).GetID())
    node = nodules.createSegmentation(volume)
    store = PromptStore(createPrompts(volume))
    writer = SegmentWriter(node, volume)
    ids = [NoduleSegmentation(node).addNodule() for _ in range(4)]
    for number, segment_id in enumerate(ids):
        # The second and third overlap; the last one is empty.
        offset = [(2, 2, 2), (12, 10, 10), (14, 12, 12)][number] if number < 3 else (0, 0, 0)
        writer.write(segment_id, MaskBlock(blob(seed=number) if number < 3 else np.zeros((1, 1, 1), np.uint8), offset))
        store.add((1.5 * number, 2.25, -3.0), True, segment_id)
        store.add((1.5 * number, 4.25, -3.0), False, segment_id)
    NoduleSegmentation(node).setStatus(ids[0], "reviewed")
    NoduleSegmentation(node).setStatus(ids[1], "flagged")
    NoduleSegmentation(node).setRecord(ids[1], {"volume_mm3": 12.5, "note": 'µm; ~ | ^ "quoted"'})
    NoduleSegmentation(node).setScore(ids[1], 0.91)
    store.showOnly(ids[2])
    store.close()
    before = described(volume)
    assert len(before) == 4 and all(len(entry[6]) == 2 for entry in before.values())

    slicer_scene.save(tmp_path / "szene ü.mrb")
    slicer_scene.load(tmp_path / "szene ü.mrb")

    volume = slicer_scene.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert described(volume) == before
    assert (volume.GetTransformNodeID() is not None) == transformed
    node = nodules.findSegmentation(volume)
    assert node.GetTransformNodeID() == findPrompts(volume).GetTransformNodeID() == volume.GetTransformNodeID()


def test_the_next_write_after_reopening_erases_no_neighbor(slicer_scene, tmp_path) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16))
    node = nodules.createSegmentation(volume)
    writer = SegmentWriter(node, volume)
    ids = [NoduleSegmentation(node).addNodule() for _ in range(3)]
    for number, segment_id in enumerate(ids):
        writer.write(segment_id, MaskBlock(np.ones((5, 5, 5), np.uint8), (3 + 5 * number, 4, 4)))
    slicer_scene.save(tmp_path / "scene.mrb")
    slicer_scene.load(tmp_path / "scene.mrb")
    volume = slicer_scene.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    node = nodules.findSegmentation(volume)
    assert node.GetSegmentation().GetNumberOfLayers() < 3, "files share layers"
    writer = SegmentWriter(node, volume)
    assert all(writer.wasEdited(segment_id) for segment_id in ids), "what is there is where clicks go on"
    writer.write(ids[1], MaskBlock(np.ones((9, 5, 5), np.uint8), (6, 4, 4)))
    counts = [int(full(writer.read(segment_id), SHAPE).sum()) for segment_id in ids]
    assert counts == [125, 225, 125]
    fresh = NoduleSegmentation(node).addNodule()
    writer.write(fresh, MaskBlock(np.ones((9, 9, 9), np.uint8), (2, 2, 2)))
    assert [int(full(writer.read(segment_id), SHAPE).sum()) for segment_id in ids] == counts


def test_a_file_of_points_keeps_nodule_and_polarity(slicer_scene, tmp_path: Path) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16))
    store = PromptStore(createPrompts(volume))
    store.add((1, 2, 3), True, "S_1")
    store.add((4, 5, 6), False, "S_1")
    store.add((7, 8, 9), True, "S_2")
    store.add((10, 11, 12), True, None)
    path = tmp_path / "points.mrk.json"
    writer = slicer.vtkMRMLMarkupsJsonStorageNode()
    writer.SetScene(slicer_scene.scene)
    writer.SetFileName(str(path))
    assert writer.WriteData(store.node)
    before = store.prompts("S_1"), store.prompts("S_2"), store.untagged()
    store.close()

    node = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "loaded")
    reader = slicer.vtkMRMLMarkupsJsonStorageNode()
    reader.SetScene(slicer_scene.scene)
    reader.SetFileName(str(path))
    assert reader.ReadData(node)
    loaded = PromptStore(node)
    for old, new in zip(before, (loaded.prompts("S_1"), loaded.prompts("S_2"), loaded.untagged()), strict=True):
        assert [(p.positive, p.segmentId) for p in old] == [(p.positive, p.segmentId) for p in new]
        assert_allclose([p.ras for p in old], [p.ras for p in new], atol=1e-6)
    loaded.close()


def test_points_read_into_a_watched_list_are_signaled(slicer_scene, tmp_path: Path) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16))
    store = PromptStore(createPrompts(volume))
    other = slicer_scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "other")
    other.AddControlPointWorld(1, 2, 3)
    path = tmp_path / "one.mrk.json"
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetScene(slicer_scene.scene)
    storage.SetFileName(str(path))
    assert storage.WriteData(other)
    store.add((9, 9, 9), True, "S_1")
    log = log_of_store(store)
    assert storage.ReadData(store.node)
    names = [entry[0] for entry in log.take()]
    assert "placed" in names or "moved" in names
    assert [prompt.ras for prompt in store.untagged()] == [(1.0, 2.0, 3.0)] and store.prompts("S_1") == []
    store.close()


def test_closing_the_scene_under_open_stores(slicer_scene) -> None:
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16))
    node = nodules.createSegmentation(volume)
    store = PromptStore(createPrompts(volume))
    store.add((1, 2, 3), True, "S_1")
    writer = SegmentWriter(node, volume)
    segment_id = NoduleSegmentation(node).addNodule()
    slicer_scene.scene.Clear(0)
    assert findPrompts(volume) is None and nodules.findSegmentation(volume) is None
    writer.write(segment_id, MaskBlock(blob(), (1, 1, 1)))
    store.close()
