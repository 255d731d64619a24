"""Cases are added, updated and removed; those of others, and those that others have changed, are never touched."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from SAMMed3DTrainingLib.commands import check
from SAMMed3DTrainingLib.data.case_names import ExportCancelled, StoreError
from SAMMed3DTrainingLib.data.dataset_check import check_datasets
from SAMMed3DTrainingLib.data.datasets import find_datasets, load_case
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter, name_for

from .dataset_files import SHAPE_KJI, balls, matrix, write_case
from .export_cases import LABELS, export_case


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file that counts, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".sammed3d-export" not in path.parts
    }


def description(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def test_what_is_written_is_read_back(tmp_path, capsys):
    folder = tmp_path / "Dataset101_Lungenrundherde äöü 肺"
    case = export_case("Fäll-1")
    written = DatasetWriter(folder).put(case)
    assert written == "added"
    (dataset,) = find_datasets(folder)
    assert dataset.problems == ()
    loaded = load_case(dataset.cases[0], dataset.ignored_values)
    assert np.array_equal(loaded.array_kji, case.array_kji)
    np.testing.assert_allclose(loaded.ijk_to_ras, case.ijk_to_ras, atol=1e-5)
    assert loaded.case.patient == "patient of Fäll-1"
    assert [(n.value, n.component) for n in loaded.nodules] == [(1, 1), (2, 1)]
    for nodule in loaded.nodules:
        mask = np.zeros(SHAPE_KJI, bool)
        mask[nodule.slices_kji] = nodule.mask
        np.testing.assert_array_equal(mask, np.equal(LABELS, nodule.value))
    assert check([str(folder)]) == 0, capsys.readouterr().out
    files = {str(p.relative_to(folder)) for p in folder.rglob("*.nii.gz")}
    assert files == {str(Path("imagesTr/Fäll-1_0000.nii.gz")), str(Path("labelsTr/Fäll-1.nii.gz"))}


def test_what_nnunet_wants_to_read(tmp_path):
    """The rules of nnunetv2's verify_dataset_integrity, of which every one ends a run that breaks it."""
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a", seed=1))
    assert description(tmp_path)["labels"] == {"background": 0, "nodule": [1, 2]}
    writer.put(export_case("b", balls((8, 12, 12), (16, 28, 28), (4, 30, 8), values=(1, 2, 3)), seed=2))
    content = description(tmp_path)
    assert {"labels", "channel_names", "numTraining", "file_ending"} <= set(content)
    assert content["channel_names"] == {"0": "CT"} and content["file_ending"] == ".nii.gz"
    assert content["numTraining"] == 2 == len(list((tmp_path / "imagesTr").iterdir()))
    assert content["labels"] == {"background": 0, "nodule": [1, 2, 3]} and content["regions_class_order"] == [1]
    for image in (tmp_path / "imagesTr").iterdir():
        label = tmp_path / "labelsTr" / image.name.replace("_0000", "")
        assert set(np.unique(np.asarray(nibabel.load(label).dataobj))) <= {0, 1, 2, 3}
        np.testing.assert_array_equal(nibabel.load(label).affine, nibabel.load(image).affine)
    writer.remove("b")
    assert description(tmp_path)["labels"] == {"background": 0, "nodule": [1, 2]}
    writer.put(export_case("a", balls((8, 12, 12), values=(1,)), seed=1))
    content = description(tmp_path)
    assert content["labels"] == {"background": 0, "nodule": 1} and "regions_class_order" not in content


def test_many_nodules_need_two_bytes(tmp_path):
    labels = np.zeros(SHAPE_KJI, np.uint16)
    labels[::3, ::4, ::4].flat[:300] = np.arange(1, 301)
    DatasetWriter(tmp_path).put(export_case(labels=labels))
    (dataset,) = find_datasets(tmp_path)
    assert len(load_case(dataset.cases[0]).nodules) == 300


def test_incremental(tmp_path):
    writer = DatasetWriter(tmp_path)
    for name, seed in (("a", 1), ("b", 2)):
        assert writer.put(export_case(name, seed=seed)) == "added"
    before = snapshot(tmp_path)
    assert writer.put(export_case("a", seed=1)) == "unchanged"
    assert snapshot(tmp_path) == before
    moved = matrix((50.0, 60.0, 70.0))
    assert DatasetWriter(tmp_path).put(export_case("a", seed=1, ijk_to_ras=moved)) == "updated"
    after = snapshot(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {
        str(Path("imagesTr/a_0000.nii.gz")),
        str(Path("labelsTr/a.nii.gz")),
        "sammed3d_export.json",
    }
    (dataset,) = find_datasets(tmp_path)
    np.testing.assert_allclose(load_case(dataset.cases[0]).ijk_to_ras, moved, atol=1e-4)
    writer.remove("b")
    assert [case.name for case in writer.cases()] == ["a"]
    assert description(tmp_path)["patients"] == {"a": "patient of a"}
    assert check_datasets(tmp_path).is_clean


def test_without_a_patient_the_names_rule_counts(tmp_path):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("P1_scan2", patient="known"))
    writer.put(export_case("P1_scan2", patient=""))
    assert description(tmp_path)["patients"] == {}
    (dataset,) = find_datasets(tmp_path)
    assert dataset.cases[0].patient == "P1"


@pytest.mark.parametrize(
    "change",
    [
        {"patient": "somebody else"},
        {"nodules": {1: "Nodule 1", 2: "renamed"}},
        {"labels_kji": np.where(LABELS == 1, 2, np.where(LABELS == 2, 1, 0)).astype(np.uint16)},
        {"array_kji": export_case().array_kji + np.int16(1)},
    ],
)
def test_any_change_is_written(tmp_path, change):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case())
    assert writer.put(export_case(**change)) == "updated"
    assert writer.put(export_case(**change)) == "unchanged"


def test_the_same_numbers_in_another_type_are_no_change(tmp_path):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case())
    array = export_case().array_kji
    for kind in (np.float32, np.float64, np.int32):
        assert writer.put(export_case(array_kji=array.astype(kind))) == "unchanged"


def test_fractions_are_kept(tmp_path):
    array = export_case().array_kji.astype(np.float32) + np.float32(0.25)
    DatasetWriter(tmp_path).put(export_case(array_kji=array))
    (dataset,) = find_datasets(tmp_path)
    assert np.array_equal(load_case(dataset.cases[0]).array_kji, array)


def test_the_table_of_what_is_there(tmp_path):
    write_case(tmp_path, "theirs", LABELS, part="Ts")
    write_case(tmp_path, "unlabelled", None)
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {
                "labels": {"background": 0, "nodule": 1},
                "file_ending": ".nii.gz",
                "channel_names": {"0": "CT"},
                "numTraining": 1,
                "patients": {"theirs": "P7"},
            }
        ),
        encoding="utf-8",
    )
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("ours"))
    cases = {case.name: case for case in writer.cases()}
    ours, theirs, unlabelled = cases["ours"], cases["theirs"], cases["unlabelled"]
    assert (ours.is_own, ours.part, ours.patient, ours.problem) == (True, "Tr", "patient of ours", "")
    assert ours.nodules == {1: "Nodule 1", 2: "Nodule 2"} and ours.written.startswith("20")
    assert (theirs.is_own, theirs.part, theirs.patient, theirs.nodules) == (False, "Ts", "P7", None)
    assert "no label map" in unlabelled.problem and not unlabelled.is_own
    assert name_for(writer.cases(), "OURS", "another image") == "OURS-2"
    assert name_for(writer.cases(), "renamed since", ours.source) == "ours"
    assert name_for(writer.cases(), "fresh", "another image", ["Fresh"]) == "fresh-2"


def test_others_cases_are_never_overwritten_nor_removed(tmp_path):
    write_case(tmp_path, "theirs", LABELS)
    old = {
        "labels": {"background": 0, "lesion": 1},
        "file_ending": ".nii.gz",
        "channel_names": {"0": "CT"},
        "numTraining": 1,
        "reference": "somewhere",
        "licence": "CC BY",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(old), encoding="utf-8")
    before = snapshot(tmp_path)
    writer = DatasetWriter(tmp_path)
    assert writer.problem == ""
    with pytest.raises(StoreError, match="theirs"):
        writer.put(export_case("theirs"))
    with pytest.raises(StoreError, match="mistaken"):
        writer.put(export_case("Theirs"))
    with pytest.raises(StoreError, match="not written here"):
        writer.remove("theirs")
    assert snapshot(tmp_path) == before
    writer.put(export_case("ours", seed=4))
    after = snapshot(tmp_path)
    assert all(after[name] == before[name] for name in before if name.endswith(".nii.gz"))
    content = description(tmp_path)
    assert content["labels"] == {"background": 0, "lesion": [1, 2]} and content["numTraining"] == 2
    assert content["reference"] == "somewhere" and content["licence"] == "CC BY"
    writer.remove("ours")
    assert description(tmp_path)["labels"] == old["labels"] and description(tmp_path)["numTraining"] == 1


@pytest.mark.parametrize("part", ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"])
def test_a_case_that_somebody_has_corrected_since_is_left_alone(tmp_path, part):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a"))
    image = nibabel.load(tmp_path / part)
    changed = np.asarray(image.dataobj).copy()
    changed[0, 0, 0] += 1
    nibabel.save(nibabel.Nifti1Image(changed, image.affine), tmp_path / part)
    before = snapshot(tmp_path)
    (case,) = writer.cases()
    assert not case.is_own and "changed by another program" in case.problem
    for call in (lambda: writer.put(export_case("a", seed=9)), lambda: writer.remove("a")):
        with pytest.raises(StoreError, match="changed by another program"):
            call()
    assert snapshot(tmp_path) == before


def test_another_image_never_takes_the_place_of_a_case(tmp_path):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a"))
    before = snapshot(tmp_path)
    with pytest.raises(StoreError, match="another image"):
        writer.put(export_case("a", seed=3, source="another"))
    assert snapshot(tmp_path) == before


def test_a_copied_data_set_is_still_ours(tmp_path):
    DatasetWriter(tmp_path / "a").put(export_case("a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    for path in (tmp_path / "b").rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    writer = DatasetWriter(tmp_path / "b")
    assert writer.cases()[0].is_own
    assert writer.put(export_case("a")) == "unchanged"
    assert writer.put(export_case("a", seed=3)) == "updated"


def test_files_that_were_deleted_by_hand_come_back(tmp_path):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a"))
    (tmp_path / "labelsTr/a.nii.gz").unlink()
    assert "no label map" in writer.cases()[0].problem
    assert writer.put(export_case("a")) == "updated"
    assert check_datasets(tmp_path).is_clean
    for path in tmp_path.rglob("*.nii.gz"):
        path.unlink()
    assert writer.cases() == ()
    assert writer.put(export_case("a")) == "added"


@pytest.mark.parametrize(
    "content, words",
    [
        ({"labels": {"background": 0, "benign": 1, "malignant": 2}}, "several classes .benign, malignant."),
        ({"labels": {"background": 0, "nodule": 1}, "file_ending": ".nrrd"}, "end in .nrrd"),
        ({"labels": {"background": 0, "nodule": 1}, "channel_names": {"0": "CT", "1": "PET"}}, "2 channels"),
        ({"labels": {"0": "background", "1": "nodule"}, "training": []}, "one by one"),
        ({"labels": {"background": "zero"}}, None),
        (None, "no dataset.json"),
    ],
)
def test_data_sets_that_numbered_nodules_would_spoil(tmp_path, content, words):
    write_case(tmp_path, "theirs", LABELS)
    if content is not None:
        (tmp_path / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    before = snapshot(tmp_path)
    writer = DatasetWriter(tmp_path)
    assert writer.problem and (words is None or re.search(words, writer.problem))
    with pytest.raises(StoreError, match=words):
        writer.put(export_case())
    assert snapshot(tmp_path) == before
    assert [case.name for case in writer.cases()] == ["theirs"], "it can still be looked at"


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 2, "cases": {}}'])
def test_a_manifest_that_cannot_be_read_stops_everything(tmp_path, text):
    DatasetWriter(tmp_path).put(export_case())
    (tmp_path / "sammed3d_export.json").write_text(text, encoding="utf-8")
    writer = DatasetWriter(tmp_path)
    assert "sammed3d_export.json" in writer.problem
    for call in (writer.cases, lambda: writer.put(export_case(seed=8)), lambda: writer.remove("a")):
        with pytest.raises(StoreError, match=r"sammed3d_export\.json"):
            call()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"name": "a/b"}, "no name for files"),
        ({"name": "con"}, "no name for files"),
        ({"nodules": {}}, "no nodule"),
        ({"nodules": {1: "x", 3: "y"}}, "without gaps"),
        ({"nodules": {1: "x"}}, "a label value has no nodule"),
        ({"nodules": {1: "x", 2: "y", 3: "empty one"}}, "empty one"),
        ({"labels_kji": LABELS[1:]}, "voxels"),
        ({"array_kji": np.full(SHAPE_KJI, np.nan, np.float32)}, "NaN"),
        ({"array_kji": np.zeros((1, 0, 3), np.int16), "labels_kji": np.zeros((1, 0, 3), np.uint16)}, "no 3D volume"),
        ({"ijk_to_ras": np.diag([0.0, 1.0, 1.0, 1.0])}, "spacing of 0"),
        ({"ijk_to_ras": np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])}, "coincide"),
    ],
)
def test_cases_that_could_not_be_read_back(tmp_path, change, words):
    writer = DatasetWriter(tmp_path / "new")
    with pytest.raises(StoreError, match=words):
        writer.put(export_case(**change))
    assert not list((tmp_path).rglob("*.nii.gz"))


def test_cancel_leaves_everything_as_it_was(tmp_path):
    writer = DatasetWriter(tmp_path)
    writer.put(export_case("a"))
    before = snapshot(tmp_path)
    for name in ("a", "b"):
        with pytest.raises(ExportCancelled):
            writer.put(export_case(name, seed=2), progress=lambda share: share < 0.1)
        assert snapshot(tmp_path) == before
    assert not list((tmp_path / ".sammed3d-export").glob("*.part"))
