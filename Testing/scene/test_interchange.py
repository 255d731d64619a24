"""Marks from other nodes and files become nodules where they lie; nodules become nodes for other modules."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PLACES = [(10, 12, 14), (25, 12, 14)]


@pytest.fixture(params=("here", "moved"))
def scan(bench, request):
    """The CT where it was scanned, or under a transform."""
    if request.param == "moved":
        matrix = np.array([[0.0, -1.0, 0.0, 20.0], [1.0, 0.0, 0.0, -7.0], [0.0, 0.0, 1.0, 33.0], [0.0, 0.0, 0.0, 1.0]])
        bench.volume.SetAndObserveTransformNodeID(bench.scene.add_transform(matrix).GetID())
    return bench


def masks(bench):
    bench.settle()
    return [bench.full(row.segmentId) for row in bench.session.review.rows()]


def assertNodulesAt(bench, places):
    found = masks(bench)
    assert len(found) == len(places)
    for mask, place in zip(found, places, strict=True):
        np.testing.assert_array_equal(mask, bench.cubes([place]))


def test_a_point_list_of_the_scene(scan):
    node = scan.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "theirs")
    for kji in PLACES:
        node.AddControlPointWorld(*scan.ras(*kji))
    node.AddControlPointWorld(900, 0, 0)
    scan.session.importMarks(node)
    assertNodulesAt(scan, PLACES)
    assert scan.session.promptsNode is not node and node.GetNumberOfControlPoints() == 3, "the list stays as it was"
    assert "2 new nodules from 3 marks; 0 lie in nodules that are there, 1 outside" in scan.heard["message"][-1][0]
    scan.session.importMarks(node)
    assert len(masks(scan)) == 2, "what is there already is not made twice"


def test_a_label_map_of_the_scene(scan):
    labels = np.zeros((36, 30, 32), np.uint8)
    for label, (k, j, i) in enumerate(PLACES, start=3):
        labels[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3] = label
    node = scan.scene.add_volume(labels, class_name="vtkMRMLLabelMapVolumeNode", name="labels")
    node.CopyOrientation(scan.volume)
    node.SetAndObserveTransformNodeID(scan.volume.GetTransformNodeID())
    scan.session.importMarks(node)
    assertNodulesAt(scan, PLACES)
    scan.session.importMarks(node)
    assert len(scan.session.review.rows()) == len(PLACES)
    said, is_error = scan.heard["message"][-1]
    assert said.startswith("0 new nodules") and not is_error, "all of them are there already"


def test_a_segmentation_of_the_scene(scan):
    for kji in PLACES:
        scan.session.select(None)
        scan.click(*kji)
    theirs = scan.session.segmentationNode
    scan.session.setSegmentation(scan.scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine"))
    assert not scan.session.review.rows()
    scan.session.importMarks(theirs)
    assertNodulesAt(scan, PLACES)
    assert scan.session.segmentationNode is not theirs


def test_a_file_counts_millimeters_of_the_scan_as_it_was_stored(scan, tmp_path):
    from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

    geometry = VolumeGeometry(scan.volume)
    places = [(geometry.ijkToRas @ [*kji[::-1], 1.0])[:3] for kji in PLACES]
    path = tmp_path / "marks.csv"
    path.write_text("r,a,s\n" + "".join(",".join(map(repr, place.tolist())) + "\n" for place in places))
    scan.session.importMarks(path)
    assertNodulesAt(scan, PLACES)


def test_marks_of_another_series_than_the_volumes_are_refused(scan, tmp_path, monkeypatch):
    """LUNA16's table names the series of each mark; the volume's own is known from Slicer's DICOM database."""
    from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

    shape = VolumeGeometry(scan.volume).shapeKji
    file = tmp_path / "slice.dcm"
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID, header.Modality = CTImageStorage, generate_uid(), "CT"
    header.SeriesInstanceUID, header.Rows, header.Columns = "1.2.3", *shape[1:]
    header.save_as(file, enforce_file_format=True)
    monkeypatch.setattr(slicer, "dicomDatabase", SimpleNamespace(fileForInstance=lambda uid: str(file)), raising=False)
    scan.volume.SetAttribute("DICOM.instanceUIDs", "1.2.3.4")
    place = (VolumeGeometry(scan.volume).ijkToRas @ [*PLACES[0][::-1], 1.0])[:3]
    path = tmp_path / "marks.csv"
    row = f"{-place[0]},{-place[1]},{place[2]}"
    path.write_text(f"seriesuid,coordX,coordY,coordZ\n1.2.4,{row}\n")
    scan.session.importMarks(path)
    assert "of another scan (series 1.2.4)" in scan.errors[-1] and not scan.session.review.rows()
    path.write_text(f"seriesuid,coordX,coordY,coordZ\n1.2.3,{row}\n")
    scan.session.importMarks(path)
    assertNodulesAt(scan, PLACES[:1])


def test_what_cannot_be_imported_is_said(bench, tmp_path):
    for source, cure in ((None, "Choose a point list"), (tmp_path / "no.csv", "choose another file")):
        bench.session.importMarks(source)
        assert cure in bench.errors[-1]
    empty = bench.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "nothing")
    bench.session.importMarks(empty)
    assert "nothing holds no marks" in bench.errors[-1] and not bench.session.review.rows()


def test_points_of_one_nodule_stay_together_and_negative_ones_take_away(bench):
    node = bench.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "theirs")
    for kji, text in zip([*PLACES, (10, 12, 18)], ("segment=a;label=1", "", "segment=a;label=1"), strict=True):
        index = node.AddControlPointWorld(*bench.ras(*kji))
        node.SetNthControlPointDescription(index, text)
    node.SetNthControlPointSelected(node.AddControlPointWorld(*bench.ras(25, 12, 17)), False)
    bench.session.importMarks(node)
    first, second = masks(bench)
    np.testing.assert_array_equal(first, bench.cubes([(10, 12, 14), (10, 12, 18)]))
    assert second.sum() and not second[25, 12, 17]


def test_nodules_become_a_point_list_and_a_label_map_that_give_them_back(scan):
    assert scan.session.exportPoints() is None and "no nodules" in scan.errors[-1]
    for kji in PLACES:
        scan.session.select(None)
        scan.click(*kji)
    points, labels = scan.session.exportPoints(), scan.session.exportLabelMap()
    assert [points.GetNthControlPointLabel(n) for n in range(2)] == ["Nodule 1", "Nodule 2"]
    for n, kji in enumerate(PLACES):
        np.testing.assert_allclose(points.GetNthControlPointPositionWorld(n), scan.ras(*kji), atol=1e-6)
    import slicer.util

    array = slicer.util.arrayFromVolume(labels)
    for label, kji in enumerate(PLACES, start=1):
        np.testing.assert_array_equal(array == label, scan.cubes([kji]) != 0)
    assert labels.GetTransformNodeID() == scan.volume.GetTransformNodeID()
    for node in (points, labels):
        scan.session.review.delete(*(row.segmentId for row in scan.session.review.rows()))
        scan.session.importMarks(node)
        assertNodulesAt(scan, PLACES)


def clicked(bench, *names):
    """A nodule at each place, renamed."""
    ids = []
    for kji, name in zip(PLACES, names, strict=False):
        bench.session.select(None)
        ids.append(bench.click(*kji))
        bench.session.review.rename(ids[-1], name)
    return ids


def test_crops_show_each_nodule_with_its_surroundings_where_the_file_has_it(scan, tmp_path):
    from SAMMed3DLib.files.volume_io import read_labels, read_volume
    from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

    array = np.arange(36 * 30 * 32, dtype=np.int16).reshape(36, 30, 32) - 1000
    import slicer.util

    slicer.util.updateVolumeFromArray(scan.volume, array)
    first, second = clicked(scan, "Right: apex/1*", "CON")
    scan.session.exportCrops(tmp_path)
    scan.settle()
    (folder,) = tmp_path.iterdir()
    assert folder.name == "CT_nodules" and str(folder) in scan.heard["message"][-1][0] and not scan.errors
    names = ["01_Right_apex_1", "02_CON"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}_{kind}.nii.gz" for name in names for kind in ("image", "mask")
    )
    geometry = VolumeGeometry(scan.volume)
    for name, kji in zip(names, PLACES, strict=True):
        image, mask = read_volume(folder / f"{name}_image.nii.gz"), read_labels(folder / f"{name}_mask.nii.gz")
        np.testing.assert_allclose(image.ijk_to_ras, mask.ijk_to_ras, atol=1e-4)
        assert np.count_nonzero(mask.array_kji) == 125
        inside = np.argwhere(mask.array_kji)[:, ::-1]
        ras = inside @ mask.ijk_to_ras[:3, :3].T + mask.ijk_to_ras[:3, 3]
        whole = (np.c_[ras, np.ones(len(ras))] @ np.linalg.inv(geometry.ijkToRas).T)[:, :3].round().astype(int)
        np.testing.assert_array_equal(
            np.sort(whole, axis=0)[[0, -1]], [np.array(kji)[::-1] - 2, np.array(kji)[::-1] + 2]
        )
        i, j, k = whole.T
        np.testing.assert_array_equal(image.array_kji[mask.array_kji != 0], array[k, j, i])
        spare = np.array(mask.array_kji.shape) * [1.2, 0.7, 0.7]
        assert (spare > 15.0).all() and image.array_kji.shape == mask.array_kji.shape
    scan.session.exportCrops(tmp_path, [second, "gone"])
    scan.settle()
    assert sorted(path.name for path in (tmp_path / "CT_nodules-2").iterdir()) == [
        "01_CON_image.nii.gz",
        "01_CON_mask.nii.gz",
    ]


def test_crops_of_nothing_or_that_cannot_be_written_are_refused_and_leave_nothing(bench, tmp_path):
    bench.session.exportCrops(tmp_path)
    assert "no nodules" in bench.errors[-1]
    (segmentId,) = clicked(bench, "dot")
    dot = np.zeros_like(bench.full(segmentId))
    dot[10, 12, 14:16] = 1
    bench.edit(segmentId, dot)
    bench.session.exportCrops(tmp_path)
    bench.settle()
    assert "large enough" in bench.errors[-1] and not list(tmp_path.iterdir())
    bench.edit(segmentId, bench.cubes([PLACES[0]]))
    bench.session.exportCrops(tmp_path / "absent")
    bench.settle()
    assert "does not exist" in bench.errors[-1] and not list(tmp_path.iterdir())
    bench.session.exportCrops(tmp_path)
    assert bench.session.state.name == "GENERATING" and "crops" in bench.session.stateText
    bench.session.segmentAll()
    assert "Wait" in bench.errors[-1]
    bench.session.cancel()
    bench.settle()
    assert not list(tmp_path.iterdir()) and "canceled" in bench.heard["message"][-1][0]
    assert bench.session.state.name == "READY"


def test_only_the_chosen_nodules_are_exported(bench):
    import slicer.util

    _first, second = clicked(bench, "one", "two")
    points, labels = bench.session.exportPoints([second]), bench.session.exportLabelMap([second])
    assert [points.GetNthControlPointLabel(n) for n in range(points.GetNumberOfControlPoints())] == ["two"]
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(labels), bench.cubes([PLACES[1]]))


@pytest.fixture
def lungs(bench):
    """A session with one nodule, and the volume's lungs."""
    clicked(bench, "Nodule 1")
    bench.session.showLungs()
    bench.settle()
    return findLungs(bench)


def findLungs(bench):
    import slicer.util

    from SAMMed3DLib.scene.nodule_segmentation import LUNGS_ATTRIBUTE

    (node,) = (n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetAttribute(LUNGS_ATTRIBUTE))
    return node


def test_the_lungs_become_a_segmentation_of_their_own(bench, lungs):
    import slicer.util

    (segmentId,) = lungs.GetSegmentation().GetSegmentIDs()
    array = slicer.util.arrayFromSegmentBinaryLabelmap(lungs, segmentId, bench.volume)
    expected = np.zeros_like(array)
    expected[5:25, 4:24, 3:23] = 1
    np.testing.assert_array_equal(array, expected)
    assert "5 liters" in bench.heard["message"][-1][0] and bench.session.segmentationNode is not lungs
    assert any(text == "Looking for the lungs" for *_rest, text in bench.heard["progressed"]) or not bench.errors
    bench.session.showLungs()
    bench.settle()
    assert findLungs(bench) is lungs and lungs.GetSegmentation().GetNumberOfSegments() == 1


def test_the_lungs_are_never_a_nodule_wherever_their_segment_is(bench, lungs):
    from SAMMed3DLib.scene.comparison import _taken

    own = bench.session.segmentationNode
    (segmentId,) = lungs.GetSegmentation().GetSegmentIDs()
    assert own.GetSegmentation().CopySegmentFromSegmentation(lungs.GetSegmentation(), segmentId)
    bench.session.options.doNotOverlap = True
    bench.session.select(None)
    bench.click(*PLACES[1])
    rows = bench.session.review.rows()
    assert [row.volumeMm3 for row in rows] == [125.0, 125.0], "nothing is cut off by the lungs"
    points, labels = bench.session.exportPoints(), bench.session.exportLabelMap()
    import slicer.util

    assert points.GetNumberOfControlPoints() == 2 and slicer.util.arrayFromVolume(labels).max() == 2
    assert [name for _label, name, *_rest in _taken(bench.volume, own).segments] == [row.name for row in rows]
    assert _taken(bench.volume, lungs).segments == ()
    bench.session.importMarks(lungs)
    assert "holds no marks" in bench.errors[-1]
    bench.session.setSegmentation(lungs)
    assert bench.session.review.rows() == []


def test_the_lungs_are_hidden_with_their_ct(bench, lungs):
    from SAMMed3DLib.scene import views

    other = bench.addVolume("other")
    views.showNodulesOf(other)
    assert not lungs.GetDisplayVisibility()
    views.showNodulesOf(bench.volume)
    assert lungs.GetDisplayVisibility()


def test_looking_for_the_lungs_can_be_canceled_and_ends_with_the_volume(bench):
    bench.session.preload()
    bench.settle()
    for end in (bench.session.cancel, lambda: bench.session.setVolume(bench.addVolume("other"))):
        bench.session.showLungs()
        assert bench.session.state.name == "GENERATING" and "lungs" in bench.session.stateText
        end()
        bench.settle()
        assert bench.session.state.name == "READY" and not bench.errors
    import slicer.util

    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_each_volume_has_its_own_nodules_and_gets_them_back(bench):
    bench.click(*PLACES[0])
    first = bench.session.segmentationNode, bench.session.promptsNode
    other = bench.addVolume("other")
    bench.session.setVolume(other)
    assert not bench.session.review.rows() and bench.session.promptsNode is None
    bench.click(*PLACES[1])
    assert bench.session.segmentationNode not in first and bench.session.promptsNode not in first
    bench.session.setVolume(bench.volume)
    assert (bench.session.segmentationNode, bench.session.promptsNode) == first
    assertNodulesAt(bench, PLACES[:1])
    bench.session.setVolume(other)
    assertNodulesAt(bench, PLACES[1:])
