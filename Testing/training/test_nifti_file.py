"""The files read the same in nibabel, ITK and this package's reader."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from inference.volumes import ORIENTATIONS, grid
from SAMMed3DLib.files.itk_io import image_to_ras
from SAMMed3DLib.files.volume_io import read_labels, read_volume
from SAMMed3DTrainingLib.data.case_names import ExportCancelled
from SAMMed3DTrainingLib.store.nifti_file import is_sheared, write_nifti

SHAPE = (7, 9, 11)


def numbers(kind: type = np.int16) -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 2000, SHAPE).astype(kind)


@pytest.mark.parametrize("name", [name for name in ORIENTATIONS if name != "gantry tilt"])
def test_every_reader_sees_the_same_voxels_in_the_same_place(tmp_path, name):
    _shape, spacing, directions = ORIENTATIONS[name]
    matrix = grid(SHAPE, spacing, directions, (12.0, -34.0, 56.0))
    array = numbers()
    path = tmp_path / "x.nii.gz"
    write_nifti(path, array, matrix)
    volume = read_volume(path)
    assert np.array_equal(volume.array_kji, array) and volume.array_kji.dtype == np.int16
    np.testing.assert_allclose(volume.ijk_to_ras, matrix, atol=1e-4)
    image = nibabel.load(path)
    # Programs that know only one of the two matrices.
    np.testing.assert_allclose(image.get_qform(coded=True)[0], matrix, atol=1e-3)
    np.testing.assert_allclose(image.get_sform(coded=True)[0], matrix, atol=1e-4)
    assert image.header["qform_code"] == 1 and image.header["sform_code"] == 1
    itk = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(itk), array)
    np.testing.assert_allclose(image_to_ras(itk), matrix, atol=1e-3)


def test_sheared_matrices_are_kept_where_nifti_can_keep_them(tmp_path):
    matrix = grid(SHAPE, (1.0, 1.2, 2.0))
    matrix[0, 1] = 0.3
    assert is_sheared(matrix) and not is_sheared(grid(SHAPE, (1.0, 1.2, 2.0)))
    write_nifti(tmp_path / "x.nii.gz", numbers(), matrix)
    np.testing.assert_allclose(read_volume(tmp_path / "x.nii.gz").ijk_to_ras, matrix, atol=1e-5)
    assert nibabel.load(tmp_path / "x.nii.gz").header["qform_code"] == 0, "a quaternion cannot hold it"


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32])
def test_types(tmp_path, kind):
    write_nifti(tmp_path / "x.nii.gz", numbers(kind), grid(SHAPE, (1, 1, 1)))
    assert np.array_equal(read_volume(tmp_path / "x.nii.gz").array_kji, numbers(kind))


def test_label_maps_say_so(tmp_path):
    labels = (numbers() > 1500).astype(np.uint16) * 300
    write_nifti(tmp_path / "x.nii.gz", labels, grid(SHAPE, (1, 1, 1)), is_label=True)
    assert np.array_equal(read_labels(tmp_path / "x.nii.gz").array_kji, labels)
    with pytest.raises(ValueError, match="label volume"):
        read_volume(tmp_path / "x.nii.gz")


def test_the_same_voxels_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_nifti(tmp_path / f"{name}.gz", numbers(), grid(SHAPE, (1, 1, 1)))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_progress_and_cancel(tmp_path):
    array = np.zeros((40, 300, 300), np.int16)
    shares: list[float] = []
    write_nifti(tmp_path / "x.gz", array, np.eye(4), progress=shares.append)
    assert len(shares) == 7 and shares == sorted(shares) and shares[-1] == 1.0
    with pytest.raises(ExportCancelled):
        write_nifti(tmp_path / "y.gz", array, np.eye(4), progress=lambda share: share < 0.5)
