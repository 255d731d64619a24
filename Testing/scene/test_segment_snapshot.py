"""Segments that come back as they were."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.scene import nodule_segmentation as nodules
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DLib.scene.volume_geometry import SceneError
from scene.masks import blob, full, labelmap

SHAPE = (20, 22, 24)


@pytest.fixture
def writer(slicer_scene):
    volume = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), np.diag([-0.7, -0.7, 1.5, 1.0]))
    node = nodules.createSegmentation(volume)
    writer = SegmentWriter(node, volume)
    for number in range(3):
        writer.write(NoduleSegmentation(node).addNodule(), MaskBlock(blob(seed=number), (2 + number, 3, 4)))
    return writer


def content(writer, segment_id):
    segment = writer.segmentationNode.GetSegmentation().GetSegment(segment_id)
    node = writer.segmentationNode
    return (
        segment.GetName(),
        segment.GetColor(),
        segment.GetTerminology(),
        NoduleSegmentation(node).status(segment_id),
        NoduleSegmentation(node).record(segment_id),
        NoduleSegmentation(node).score(segment_id),
        bool(node.GetDisplayNode().GetSegmentVisibility(segment_id)),
        full(writer.read(segment_id), SHAPE).tobytes(),
    )


def test_a_deleted_segment_comes_back_with_its_closed_surface(writer) -> None:
    segmentation = writer.segmentationNode.GetSegmentation()
    segment_id = segmentation.GetSegmentIDs()[1]
    writer.showSurfaces(True)

    def surface():
        return segmentation.GetSegment(segment_id).GetRepresentation("Closed surface")

    points = surface().GetNumberOfPoints()
    snapshot = writer.snapshot(segment_id)
    segmentation.RemoveSegment(segment_id)
    writer.restore(snapshot)
    assert surface().IsA("vtkPolyData") and surface().GetNumberOfPoints() == points > 0


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_deleted_segment_comes_back(writer, position) -> None:
    node, segmentation = writer.segmentationNode, writer.segmentationNode.GetSegmentation()
    ids = segmentation.GetSegmentIDs()
    segment_id = ids[position]
    NoduleSegmentation(node).setStatus(segment_id, "reviewed")
    NoduleSegmentation(node).setRecord(segment_id, {"volume_mm3": 5.0})
    NoduleSegmentation(node).setScore(segment_id, 0.9)
    segmentation.GetSegment(segment_id).SetName("renamed")
    node.GetDisplayNode().SetSegmentVisibility(segment_id, False)
    before = {each: content(writer, each) for each in ids}
    snapshot = writer.snapshot(segment_id)

    segmentation.RemoveSegment(segment_id)
    writer.restore(snapshot)

    assert segmentation.GetSegmentIDs() == ids, "same ID, same place in the list"
    assert {each: content(writer, each) for each in ids} == before
    assert len({labelmap(node, each) for each in ids}) == 3, "a layer of its own"
    assert segmentation.GetSegment(segment_id).GetLabelValue() == 1
    assert not writer.wasEdited(segment_id)


def test_a_changed_segment_becomes_what_it_was(writer) -> None:
    node = writer.segmentationNode
    segment_id = node.GetSegmentation().GetSegmentIDs()[1]
    before = content(writer, segment_id)
    snapshot = writer.snapshot(segment_id)
    writer.write(segment_id, MaskBlock(blob((3, 3, 3)), (0, 0, 0)))
    NoduleSegmentation(node).setStatus(segment_id, "flagged")
    NoduleSegmentation(node).setRecord(segment_id, {"a": 1})
    node.GetSegmentation().GetSegment(segment_id).SetColor(0.5, 0.5, 0.5)
    writer.restore(snapshot)
    assert content(writer, segment_id) == before
    writer.restore(snapshot)
    assert content(writer, segment_id) == before, "as often as wanted"


def test_layers_shared_in_between_do_not_matter(writer) -> None:
    node, segmentation = writer.segmentationNode, writer.segmentationNode.GetSegmentation()
    writer.write(segmentation.GetSegmentIDs()[2], MaskBlock(blob((3, 3, 3)), (15, 15, 15)))
    writer.write(segmentation.GetSegmentIDs()[0], MaskBlock(blob((3, 3, 3)), (0, 0, 0)))
    segmentation.CollapseBinaryLabelmaps(False)
    before = {each: content(writer, each) for each in segmentation.GetSegmentIDs()}
    for segment_id in segmentation.GetSegmentIDs():
        snapshot = writer.snapshot(segment_id)
        writer.restore(snapshot)
        segmentation.RemoveSegment(segment_id)
        writer.restore(snapshot)
        assert {each: content(writer, each) for each in segmentation.GetSegmentIDs()} == before
    assert len({labelmap(node, each) for each in segmentation.GetSegmentIDs()}) == 3


def test_the_place_in_the_list_when_the_neighbor_is_gone_too(writer) -> None:
    segmentation = writer.segmentationNode.GetSegmentation()
    first, second, third = segmentation.GetSegmentIDs()
    snapshot = writer.snapshot(first)
    segmentation.RemoveSegment(first)
    segmentation.RemoveSegment(second)
    writer.restore(snapshot)
    assert segmentation.GetSegmentIDs() == (third, first)


def test_an_empty_segment_comes_back_empty(writer) -> None:
    segment_id = NoduleSegmentation(writer.segmentationNode).addNodule()
    snapshot = writer.snapshot(segment_id)
    writer.segmentationNode.GetSegmentation().RemoveSegment(segment_id)
    writer.restore(snapshot)
    assert writer.read(segment_id).isEmpty


def test_a_segment_that_is_gone_has_no_snapshot(writer) -> None:
    with pytest.raises(SceneError, match="not there any more"):
        writer.snapshot("gone")
