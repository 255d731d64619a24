"""The segmentation beside its volume and what its segments carry."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from SAMMed3DLib.scene import nodule_segmentation as nodules
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.nodule_segmentation import Naming, NoduleSegmentation
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DLib.scene.volume_geometry import SceneError
from scene.masks import blob, full, labelmap

SHAPE = (12, 14, 16)


@pytest.fixture
def volume(slicer_scene):
    return slicer_scene.add_volume(np.zeros(SHAPE, np.int16), np.diag([-0.7, -0.7, 1.5, 1.0]), name="Chest")


def test_it_is_made_for_its_volume(slicer_scene, volume) -> None:
    transform = slicer_scene.add_transform(np.diag([1.0, -1.0, 1.0, 1.0]))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    assert nodules.findSegmentation(volume) is None
    node = nodules.createSegmentation(volume)
    assert nodules.findSegmentation(volume) is node
    assert node.GetName() == "Chest nodules" and node.GetTransformNodeID() == transform.GetID()
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is volume
    geometry = node.GetSegmentation().GetConversionParameter("Reference image geometry")
    assert geometry.endswith("0;15;0;13;0;11;"), "the volume's extent, not that of the transformed box"
    assert nodules.createSegmentation(volume).GetName() != node.GetName(), "names stay unique"


def test_segmentations_of_others_are_left_alone(slicer_scene, volume) -> None:
    theirs = slicer_scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "by hand")
    theirs.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    other = slicer_scene.add_volume(np.zeros(SHAPE, np.int16), name="Other")
    nodules.createSegmentation(other)
    assert nodules.findSegmentation(volume) is None
    assert nodules.findSegmentation(None) is None
    slicer_scene.scene.RemoveNode(other)
    assert nodules.findSegmentation(other) is None, "a volume that was deleted"


def test_a_warped_volume_is_refused_before_anything_is_made(slicer_scene, volume) -> None:
    volume.SetAndObserveTransformNodeID(slicer_scene.add_warp().GetID())
    with pytest.raises(SceneError, match="non-linear"):
        nodules.createSegmentation(volume)
    assert slicer_scene.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_it_sits_beside_its_volume(slicer_scene, volume) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer_scene.scene)
    study = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.CreateItem(study, volume)
    node = nodules.createSegmentation(volume)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_nodules_have_layers_names_colors_terminology_and_status(volume) -> None:
    node = nodules.createSegmentation(volume)
    ids = [NoduleSegmentation(node).addNodule() for _ in range(20)]
    segments = [node.GetSegmentation().GetSegment(segment_id) for segment_id in ids]
    assert [segment.GetName() for segment in segments] == [f"Nodule {n}" for n in range(1, 21)]
    assert len({labelmap(node, segment_id) for segment_id in ids}) == 20
    assert len({segment.GetColor() for segment in segments[: len(nodules.COLORS)]}) == len(nodules.COLORS)
    for segment, segment_id in zip(segments, ids, strict=True):
        assert "SCT^27925004^Nodule" in segment.GetTerminology() and "SCT^39607008^Lung" in segment.GetTerminology()
        assert NoduleSegmentation(node).status(segment_id) == "AI"
        assert node.GetSegmentation().GetSegment(segment_id).GetLabelValue() == 1


def test_names_and_colors_given_or_free(volume) -> None:
    node = nodules.createSegmentation(volume)
    first = NoduleSegmentation(node).addNodule("left upper lobe", (0.1, 0.2, 0.3))
    assert node.GetSegmentation().GetSegment(first).GetName() == "left upper lobe"
    assert node.GetSegmentation().GetSegment(first).GetColor() == (0.1, 0.2, 0.3)
    second, third = NoduleSegmentation(node).addNodule(), NoduleSegmentation(node).addNodule()
    color = node.GetSegmentation().GetSegment(second).GetColor()
    node.GetSegmentation().RemoveSegment(second)
    fourth = NoduleSegmentation(node).addNodule()
    assert node.GetSegmentation().GetSegment(third).GetName() == "Nodule 2"
    assert node.GetSegmentation().GetSegment(fourth).GetName() == "Nodule 3", "no number twice"
    assert node.GetSegmentation().GetSegment(fourth).GetColor() == color, "a free color comes again"


def test_status_score_and_record_are_kept_with_the_segment(volume) -> None:
    node = nodules.createSegmentation(volume)
    first, second = NoduleSegmentation(node).addNodule(), NoduleSegmentation(node).addNodule()
    assert NoduleSegmentation(node).record(first) is None and NoduleSegmentation(node).score(first) is None
    for value in ("reviewed", "flagged", "AI"):
        NoduleSegmentation(node).setStatus(first, value)
        assert NoduleSegmentation(node).status(first) == value and NoduleSegmentation(node).status(second) == "AI"
    record = {"volume_mm3": 123.4, "name": "größer; ~^|", "list": [1, 2]}
    NoduleSegmentation(node).setRecord(first, record)
    NoduleSegmentation(node).setScore(first, 0.8765)
    assert NoduleSegmentation(node).record(first) == record and NoduleSegmentation(node).score(first) == 0.8765
    assert NoduleSegmentation(node).record(second) is None and NoduleSegmentation(node).score(second) is None
    NoduleSegmentation(node).setRecord(first, None)
    NoduleSegmentation(node).setScore(first, None)
    assert NoduleSegmentation(node).record(first) is None and NoduleSegmentation(node).score(first) is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_damaged_tags_are_no_record(volume, text) -> None:
    node = nodules.createSegmentation(volume)
    segment_id = NoduleSegmentation(node).addNodule()
    segment = node.GetSegmentation().GetSegment(segment_id)
    segment.SetTag(nodules.RECORD_TAG, text)
    segment.SetTag(nodules.SCORE_TAG, "good")
    assert NoduleSegmentation(node).record(segment_id) is None and NoduleSegmentation(node).score(segment_id) is None


def test_removed_segments_are_named(volume) -> None:
    stored = NoduleSegmentation(nodules.createSegmentation(volume))
    for call in (stored.segment, stored.status, stored.record, stored.score):
        with pytest.raises(SceneError, match="not there any more"):
            call("gone")


def test_the_terminology_of_slicers_default_survives_a_hand_made_segment(volume) -> None:
    """Segments made in the Segment Editor carry no status: they count as not reviewed."""
    node = nodules.createSegmentation(volume)
    segment_id = node.GetSegmentation().AddEmptySegment("", "by hand")
    assert NoduleSegmentation(node).status(segment_id) == "AI"
    SegmentWriter(node, volume).write(segment_id, MaskBlock(blob((3, 4, 5)), (1, 2, 3)))
    assert full(SegmentWriter(node, volume).read(segment_id), SHAPE).sum() == blob((3, 4, 5)).sum()


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("Nodule {number}", ["Nodule 1", "Nodule 2", "Nodule 12"]),
        ("N{number:02}", ["N01", "N02", "N12"]),
        ("{scan}, {number}", ["CT (1) {a}, 1", "CT (1) {a}, 2", "CT (1) {a}, 12"]),
        ("{number}", ["1", "2", "12"]),
    ],
)
def test_names_are_made_by_a_template_and_understood_again(template, names):
    naming = Naming.checked(template, "CT (1) {a}")
    assert [naming.nameOf(number) for number in (1, 2, 12)] == names
    assert [naming.numberOf(name) for name in names] == [1, 2, 12]
    assert naming.numberOf("Nodule 7") == 7 and naming.numberOf("Hilar") is None, "the usual ones count too"


@pytest.mark.parametrize(
    "template",
    [
        "",
        "Nodule",
        "{scan}",
        "{number} {number}",
        "{lobe} {number}",
        "{number",
        "{}",
        "{0}",
        "{number!r}",
        "{number:999}",
        "{number.real}",
        "{number:{scan}}",
        "{scan:5} {number}",
        "a\n{number}",
        "{number}" + "x" * 100,
    ],
)
def test_a_bad_template_is_refused_with_what_it_may_hold(template):
    with pytest.raises(SceneError, match=r"\{scan\}, the CT's name"):
        Naming.checked(template)
