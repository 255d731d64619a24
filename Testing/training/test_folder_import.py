"""Files in other layouts and formats become cases: same voxels, same place, a value for each nodule."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from inference.volumes import grid, rotation
from SAMMed3DLib.files.itk_io import place_image
from SAMMed3DTrainingLib.data.case_names import StoreError
from SAMMed3DTrainingLib.data.dataset_check import check_datasets
from SAMMed3DTrainingLib.data.datasets import find_datasets, load_case
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter
from SAMMed3DTrainingLib.store.folder_import import FilePair, find_pairs, folder_import, on_grid, read_pair

from .dataset_files import SHAPE_KJI, balls, ct, matrix, write
from .export_cases import LABELS
from .running_export import run_export


def run(export) -> dict[str, str]:
    return {result.name: result.state for result in run_export(export)}


def test_a_folder_becomes_a_data_set(tmp_path):
    source = tmp_path / "meine Fälle"
    oblique = grid(SHAPE_KJI, (0.8, 0.8, 1.5), rotation(20.0, (1, 2, 3)), (5.0, 6.0, 7.0))
    one_value = (LABELS > 0).astype(np.uint8)
    write(source / "P1_ct.nii.gz", ct(LABELS, 1))
    write(source / "P1_nodules.nii.gz", one_value)
    for name, array in (("scan.nrrd", ct(LABELS, 2)), ("scan.seg.nrrd", LABELS)):
        image = sitk.GetImageFromArray(array)
        place_image(image, oblique)
        (source / "P 2").mkdir(exist_ok=True)
        sitk.WriteImage(image, str(source / "P 2" / name))
    write(source / "alone.nii.gz", ct(LABELS, 3))
    writer = DatasetWriter(tmp_path / "data set")
    pairs = find_pairs(source)
    assert run(folder_import(pairs, writer)) == {"P1": "added", "P_2": "added"}
    assert run(folder_import(pairs, writer)) == {"P1": "unchanged", "P_2": "unchanged"}
    assert check_datasets(writer.folder).is_clean
    (dataset,) = find_datasets(writer.folder)
    for case, place, seed in zip(dataset.cases, (matrix(), oblique), (1, 2), strict=True):
        loaded = load_case(case)
        assert np.array_equal(loaded.array_kji, ct(LABELS, seed))
        np.testing.assert_allclose(loaded.ijk_to_ras, place, atol=1e-4)
        assert [nodule.name for nodule in loaded.nodules] == ["1.1", "2.1"], "each nodule has a value of its own"
        assert sum(nodule.voxels for nodule in loaded.nodules) == np.count_nonzero(LABELS)


def test_a_label_map_on_another_grid_is_put_onto_the_images(tmp_path):
    write(tmp_path / "a.nii.gz", ct(LABELS))
    shifted = matrix()
    shifted[:3, 3] += shifted[:3, :3] @ (5, 4, 3)
    cropped = LABELS[3:20, 4:36, 5:38]
    assert np.count_nonzero(cropped) == np.count_nonzero(LABELS)
    write(tmp_path / "a_seg.nii.gz", cropped, shifted)
    (pair,) = find_pairs(tmp_path)
    assert np.array_equal(read_pair(pair).labels_kji > 0, LABELS > 0)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE_KJI[2] - 1
    write(tmp_path / "a_seg.nii.gz", LABELS[:, :, ::-1], matrix() @ flip)
    assert np.array_equal(read_pair(pair).labels_kji > 0, LABELS > 0)


def test_nodules_that_the_images_grid_would_lose_are_told(tmp_path):
    write(tmp_path / "a_seg.nii.gz", balls((8, 12, 12), (16, 28, 28)))
    write(tmp_path / "a.nii.gz", ct(LABELS)[:, :20, :20])
    (pair,) = find_pairs(tmp_path)
    with pytest.raises(StoreError, match=r"1 of 2 nodules \(1\.\d\) lie outside of a\.nii\.gz"):
        read_pair(pair)
    write(tmp_path / "a_seg.nii.gz", balls((8, 12, 12), (8, 12, 20)))
    with pytest.raises(StoreError, match=r"1 of 2 nodules \(1\.\d\) reach beyond a\.nii\.gz"):
        read_pair(pair)
    write(tmp_path / "a_seg.nii.gz", balls((8, 12, 12)))
    assert np.array_equal(read_pair(pair).labels_kji, balls((8, 12, 12))[:, :20, :20])


def test_on_grid_keeps_the_outer_half_of_the_voxels_at_the_edge():
    labels = np.arange(1, 28).reshape(3, 3, 3)
    fine = np.diag([0.25, 0.25, 0.25, 1.0])
    fine[:3, 3] = -0.375
    assert np.array_equal(on_grid(labels, np.eye(4), (12, 12, 12), fine), np.kron(labels, np.ones((4, 4, 4), int)))


def test_an_image_that_is_there_under_another_name_is_not_taken_twice(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.nii.gz", ct(LABELS))
        write(tmp_path / f"{name}_seg.nii.gz", LABELS)
    first, second = run_export(folder_import(find_pairs(tmp_path), DatasetWriter(tmp_path / "out")))
    assert (first.name, first.state, second.name, second.state) == ("a", "added", "b", "failed")
    assert second.message == "the data set holds this image already, as case a"


@pytest.mark.filterwarnings("ignore:mr_ct has no negative values")
def test_what_cannot_be_used_is_told(tmp_path):
    write(tmp_path / "empty_ct.nii.gz", ct(LABELS, 1))
    write(tmp_path / "empty_seg.nii.gz", np.zeros_like(LABELS))
    write(tmp_path / "mr_ct.nii.gz", ct(LABELS, 2) + np.int16(1500))
    write(tmp_path / "mr_seg.nii.gz", LABELS)
    write(tmp_path / "elsewhere_ct.nii.gz", ct(LABELS, 3))
    write(tmp_path / "elsewhere_seg.nii.gz", LABELS, matrix((5000.0, 0.0, 0.0)))
    write(tmp_path / "lung_ct.nii.gz", ct(LABELS, 4), np.diag([5.0, 5, 5, 1]))
    write(tmp_path / "lung_seg.nii.gz", np.ones_like(LABELS), np.diag([5.0, 5, 5, 1]))
    (tmp_path / "cut_ct.nii.gz").write_bytes((tmp_path / "mr_ct.nii.gz").read_bytes()[:500])
    write(tmp_path / "cut_seg.nii.gz", LABELS)
    nibabel.save(nibabel.Nifti1Image(LABELS.T - 0.5, matrix()), tmp_path / "half_seg.nii.gz")
    write(tmp_path / "half_ct.nii.gz", ct(LABELS, 5))
    write(tmp_path / "good_ct.nii.gz", ct(LABELS, 6))
    write(tmp_path / "good_seg.nii.gz", balls((8, 12, 12)))
    results = run_export(folder_import(find_pairs(tmp_path), DatasetWriter(tmp_path / "out")))
    states = {result.name: result.state for result in results}
    assert states.pop("good") == "added" and set(states.values()) == {"failed"}
    words = {
        "empty": "no nodule",
        "mr": "Hounsfield",
        "elsewhere": "another image",
        "lung": "no nodule",
        "cut": "truncated",
        "half": "whole numbers",
    }
    for result in results:
        assert words.get(result.name, "") in result.message
    with pytest.raises(StoreError, match="keep one"):
        read_pair(FilePair("x", None, None, "keep one"))
