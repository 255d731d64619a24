"""What can be exported and what stands in the way is told before anything is written."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
from SAMMed3DTrainingLib.scene import export_table
from SAMMed3DTrainingLib.scene.export_table import ExportTable
from SAMMed3DTrainingLib.scene.training_source import sceneExport
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter
from scene.masks import new_segmentation
from training.running_export import run_export

from .chests import OBLIQUE, SHAPE, add_chest, ct, exportRows, nodules


def write(rows, writer) -> None:
    results = run_export(sceneExport(rows, writer))
    assert {result.state for result in results} <= {"added", "updated"}, results


def only(rows):
    (row,) = rows
    return row


def foreign(scene, volume, masks, name="from a file", reference=True):
    """A segmentation of another program: no reference, shared layer."""
    node = new_segmentation(scene, volume, name=name)
    for number, mask in enumerate(masks, start=1):
        segment = node.GetSegmentation().AddEmptySegment("", f"Segment_{number}")
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, volume)
    if not reference:
        node.SetNodeReferenceID(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole(), None)
    return node


def test_counts(slicer_scene):
    volume, segmentation = add_chest(slicer_scene, "2: CT Chest", accepted=(2,))
    row = only(exportRows())
    assert row.volumeNode is volume and row.segmentationNode is segmentation
    assert (row.title, row.caseName, row.nodules, row.accepted) == ("2: CT Chest", "2_CT_Chest", 2, 1)
    assert (row.state, row.problem, row.included) == ("new", "", True)
    assert row.notes == ("not reviewed by anybody: 1",)
    assert only(exportRows(acceptedOnly=True)).notes == ("not accepted, background in the label map: 1",)


def test_nodules_that_the_model_doubts_are_named(slicer_scene):
    _volume, segmentation = add_chest(slicer_scene)
    stored = NoduleSegmentation(segmentation)
    first, second = stored.ids
    stored.setScore(first, 0.3)
    stored.setRecord(second, {"measurements": {"volume_mm3": 1.0, "note": ""}})
    stored.setScore(second, 0.9)
    names = [segmentation.GetSegmentation().GetSegment(each).GetName() for each in stored.ids]
    assert f"not to be trusted, look at them again: {names[0]}" in only(exportRows()).notes
    stored.setRecord(second, {"measurements": {"volume_mm3": 1.0, "note": "Clicks elsewhere change it."}})
    assert any(names[1] in note for note in only(exportRows()).notes if "trusted" in note)


def test_nothing_is_written_or_changed_by_looking(slicer_scene, tmp_path):
    _volume, segmentation = add_chest(slicer_scene)
    time = segmentation.GetMTime()
    exportRows(DatasetWriter(tmp_path / "new"))
    assert not (tmp_path / "new").exists() and segmentation.GetMTime() == time


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda scene, volume, segmentation: scene.scene.RemoveNode(segmentation), "no nodules: segment them"),
        (
            lambda scene, volume, segmentation: segmentation.GetSegmentation().RemoveAllSegments(),
            "its segments are empty",
        ),
        (
            lambda scene, volume, segmentation: volume.SetAndObserveTransformNodeID(scene.add_warp().GetID()),
            "non-linear",
        ),
        (
            lambda scene, volume, segmentation: segmentation.SetAndObserveTransformNodeID(scene.add_warp().GetID()),
            "non-linear",
        ),
        (
            lambda scene, volume, segmentation: slicer.util.updateVolumeFromArray(volume, ct([]) + np.int16(1500)),
            "Hounsfield",
        ),
        (lambda scene, volume, segmentation: slicer.util.updateVolumeFromArray(volume, np.full(SHAPE, np.nan)), "NaN"),
        (lambda scene, volume, segmentation: volume.SetSpacing(0.0, 1.0, 1.0), "spacing of 0"),
        (lambda scene, volume, segmentation: volume.SetAndObserveImageData(None), "no voxels"),
    ],
)
def test_problems(slicer_scene, spoil, words):
    volume, segmentation = add_chest(slicer_scene)
    spoil(slicer_scene, volume, segmentation)
    row = only(exportRows())
    assert words in row.problem and row.state == "problem" and not row.included


def test_nothing_accepted(slicer_scene):
    add_chest(slicer_scene)
    assert "no nodule is accepted" in only(exportRows(acceptedOnly=True)).problem
    assert only(exportRows()).problem == ""


def test_label_maps_and_colors_are_no_cts(slicer_scene):
    slicer_scene.add_volume(nodules()[0].astype(np.uint8), OBLIQUE, class_name="vtkMRMLLabelMapVolumeNode")
    assert "a label map, not a CT" in only(exportRows()).problem
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_SHORT, 3)
    slicer_scene.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "RGB").SetAndObserveImageData(image)
    assert "3 values in each voxel" in exportRows()[1].problem


def test_hidden_nodes_are_not_listed(slicer_scene):
    volume, segmentation = add_chest(slicer_scene)
    volume.SetHideFromEditors(True)
    segmentation.SetHideFromEditors(True)
    assert exportRows() == []


def test_a_segmentation_without_reference_belongs_to_the_only_volume_around_it(slicer_scene):
    volume = slicer_scene.add_volume(ct(nodules()), OBLIQUE)
    far = OBLIQUE.copy()
    far[:3, 3] += 500.0
    slicer_scene.add_volume(ct([], 1), far, name="far away")
    node = foreign(slicer_scene, volume, nodules(), reference=False)
    rows = exportRows()
    assert [(row.title, row.nodules) for row in rows] == [("CT", 2), ("far away", 0)]
    assert rows[0].segmentationNode is node and rows[0].included
    slicer_scene.add_volume(ct([], 2), OBLIQUE, name="same place")
    lonely = exportRows()[-1]
    assert lonely.volumeNode is None and lonely.title == "from a file" and "choose it as source" in lonely.problem


def test_of_two_segmentations_the_modules_own_is_chosen(slicer_scene, tmp_path):
    masks = nodules()
    volume = slicer_scene.add_volume(ct(masks), OBLIQUE)
    other = foreign(slicer_scene, volume, masks[:1], "reader 2")
    assert only(exportRows()).segmentationNode is other
    _volume, own = add_chest(slicer_scene, masks=masks, name="copy")
    own.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    slicer_scene.scene.RemoveNode(_volume)
    first, second = exportRows()
    assert first.segmentationNode is own and first.included
    assert second.segmentationNode is other and not second.included and first.caseName == second.caseName
    assert any(own.GetName() in note for note in second.notes)
    # Whoever chose the other one finds it chosen again.
    writer = DatasetWriter(tmp_path)
    rows = exportRows(writer)
    write([export_table.replace(rows[1], included=True)], writer)
    first, second = exportRows(writer)
    assert second.state == "unchanged" and not first.included and first.state == "changed"


def test_the_same_image_twice_is_one_case(slicer_scene):
    add_chest(slicer_scene, "a")
    add_chest(slicer_scene, "b")
    first, second = exportRows()
    assert first.included and not second.included
    assert second.caseName == first.caseName == "a" and second.notes[-1].startswith("the same image as 'a'")


def test_names_are_told_apart(slicer_scene):
    for seed, name in enumerate(("CT", "ct", "CT", "con", "a/b")):
        add_chest(slicer_scene, name, seed=seed)
    assert [row.caseName for row in exportRows()] == ["CT", "ct-2", "CT-3", "case_con", "a_b"]
    assert all(row.included for row in exportRows())


def test_names_that_the_user_has_chosen(slicer_scene, tmp_path):
    first, _segmentation = add_chest(slicer_scene, "CT", seed=1)
    second, _segmentation = add_chest(slicer_scene, "CT", seed=2)
    table, writer = ExportTable(), DatasetWriter(tmp_path)
    chosen = {second.GetID(): "patient 7: baseline"}
    assert [row.caseName for row in table.rows(names=chosen)] == ["CT", "patient_7_baseline"]
    one, two = table.rows(names={second.GetID(): "ct"})
    assert one.included and two.state == "problem" and "another row" in two.problem
    write(table.rows(writer, names=chosen), writer)
    assert [row.caseName for row in table.rows(writer)] == ["CT", "patient_7_baseline"], "as they are stored"
    third, _segmentation = add_chest(slicer_scene, "third", seed=3)
    row = table.rows(writer, names={third.GetID(): "Patient_7_baseline"})[2]
    assert row.state == "problem" and "another case of this name" in row.problem


def test_new_changed_unchanged(slicer_scene, tmp_path):
    volume, segmentation = add_chest(slicer_scene)
    table, writer = ExportTable(), DatasetWriter(tmp_path)
    state = lambda: only(table.rows(writer)).state  # noqa: E731
    assert state() == "new"
    write(table.rows(writer), writer)
    assert state() == "unchanged" and not only(table.rows(writer)).included
    segment = segmentation.GetSegmentation().GetNthSegment(0)
    segment.SetName("renamed")
    assert state() == "changed"
    write(table.rows(writer), writer)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        nodules()[1].astype(np.uint8), segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), volume
    )
    assert state() == "changed"
    write(table.rows(writer), writer)
    NoduleSegmentation(segmentation).setStatus(segmentation.GetSegmentation().GetNthSegmentID(0), "reviewed")
    assert state() == "unchanged", "what is written is the same"
    volume.SetName("another name")
    assert state() == "unchanged" and only(table.rows(writer)).caseName == "CT"
    shift = np.eye(4)
    shift[:3, 3] = (1, 2, 3)
    node = slicer_scene.add_transform(shift).GetID()
    for moved in (volume, segmentation):
        moved.SetAndObserveTransformNodeID(node)
    assert state() == "changed"
    write(table.rows(writer), writer)
    assert state() == "unchanged"
    (tmp_path / "labelsTr/CT.nii.gz").unlink()
    assert state() == "changed"
    writer.remove("CT")
    assert state() == "new"


def test_another_image_never_takes_a_stored_case(slicer_scene, tmp_path):
    add_chest(slicer_scene, "CT", seed=1)
    writer = DatasetWriter(tmp_path)
    write(exportRows(writer), writer)
    slicer_scene.scene.Clear(0)
    add_chest(slicer_scene, "CT", seed=2)
    row = only(exportRows(writer))
    assert (row.caseName, row.state) == ("CT-2", "new")
    label = tmp_path / "labelsTr" / "CT.nii.gz"
    nibabel.save(nibabel.Nifti1Image(nodules()[0].astype(np.uint8).T, OBLIQUE), label)
    slicer_scene.scene.Clear(0)
    add_chest(slicer_scene, "CT", seed=1)
    row = only(exportRows(writer))
    assert row.state == "problem" and "changed by another program" in row.problem
    row = only(ExportTable().rows(writer, names={row.volumeNode.GetID(): "CT corrected"}))
    assert (row.caseName, row.state) == ("CT_corrected", "new")


def test_asking_again_reads_only_what_has_changed(slicer_scene, monkeypatch):
    add_chest(slicer_scene, "a", seed=1)
    _volume, second = add_chest(slicer_scene, "b", seed=2)
    read: list[str] = []
    wanted = export_table.readNodules

    def counted(segmentation, volume):
        read.append(volume.GetName())
        return wanted(segmentation, volume)

    monkeypatch.setattr(export_table, "readNodules", counted)
    table = ExportTable()
    before = table.rows()
    assert read == ["a", "b"]
    assert table.rows() == before and table.rows(acceptedOnly=True) and read == ["a", "b"]
    second.GetSegmentation().RemoveSegment(second.GetSegmentation().GetNthSegmentID(0))
    assert [row.nodules for row in table.rows()] == [2, 1] and read == ["a", "b", "b"]


def test_patients(slicer_scene, monkeypatch):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer_scene.scene)
    volumes = [add_chest(slicer_scene, f"CT{seed}", seed=seed)[0] for seed in range(6)]
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Somebody (7)")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientID", "ID 7")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.CreateItem(study, volumes[0])
    anonymous = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "ANONYMOUS")
    hierarchy.CreateItem(anonymous, volumes[1])
    volumes[2].SetAttribute("DICOM.PatientID", "P-3")
    volumes[3].SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    volumes[4].SetAttribute("DICOM.instanceUIDs", "9.9.9")
    assert [row.patient for row in exportRows()] == ["ID 7", "", "P-3", "", "", ""]
    known = {("1.2.3", "0010,0020"): "from the database"}

    def value(uid: str, tag: str) -> str:
        if uid == "9.9.9":
            raise RuntimeError("the database is closed")
        return known.get((uid, tag), "")

    monkeypatch.setattr(slicer, "dicomDatabase", SimpleNamespace(instanceValue=value), raising=False)
    assert [row.patient for row in exportRows()] == ["ID 7", "", "P-3", "from the database", "", ""]


def test_geometry_notes(slicer_scene):
    add_chest(slicer_scene, "no geometry", matrix=np.eye(4))
    add_chest(slicer_scene, "thick", matrix=np.diag([-1.0, -1.0, 7.5, 1.0]), seed=1)
    first, second = exportRows()
    assert "geometry is missing" in first.notes[0] and "7.5 mm" in second.notes[0]
