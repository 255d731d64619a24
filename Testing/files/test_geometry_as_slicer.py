"""Odd geometry in NIfTI, NRRD and MetaImage: voxels lie where 3D Slicer's own reader puts them, or the file is refused.

slicer-core reads each file, too; the corners of the volume agree to 0.01 mm and so do the values there. Without
slicer-core, the places stated here are the right values.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from SAMMed3DLib.files.volume_io import read_volume
from SAMMed3DLib.inference import InputError

SHAPE = (6, 8, 10)
ARRAY = np.random.default_rng(0).integers(-1000, 300, SHAPE).astype(np.int16)
SPACING = (0.8, 0.9, 1.5)
TURN = Rotation.from_euler("xyz", [5.0, -8.0, 12.0], degrees=True).as_matrix()
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def placed(spacing: Sequence[float] = SPACING, origin: Sequence[float] = (10.0, -20.0, 30.0)) -> NDArray:
    matrix = np.eye(4)
    matrix[:3, :3] = TURN @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(spacing)
    matrix[:3, 3] = origin
    return matrix


MATRIX = placed()
MOVED = placed(origin=(22.0, -20.0, 35.0))
SHEARED = MATRIX + np.array([[0, 0, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
#: What ITK makes of a header without any orientation.
BARE = np.diag([-0.8, -0.9, 1.5, 1.0])


def nifti(
    sform: NDArray | None = MATRIX,
    sform_code: int = 1,
    qform: NDArray | None = MATRIX,
    qform_code: int = 1,
    units: int = 2,
    pixdim: Sequence[float] | None = SPACING,
    array: NDArray = ARRAY,
) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        header = nibabel.Nifti1Header()
        header.set_data_shape(array.shape[::-1])
        header.set_data_dtype(array.dtype)
        if qform is not None:
            header.set_qform(qform, qform_code, strip_shears=True)
        header["qform_code"] = qform_code
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            header[name] = 0.0 if sform is None else sform[row]
        header["sform_code"] = sform_code
        header["xyzt_units"] = units
        if pixdim is not None:
            header["pixdim"][1:4] = pixdim
        header["vox_offset"] = 352
        path = folder / "volume.nii"
        path.write_bytes(header.binaryblock + bytes(4) + array.tobytes())
        return path

    return write


def vectors(matrix: NDArray) -> tuple[str, str]:
    columns = [f"({','.join(f'{x:.9g}' for x in column)})" for column in matrix[:3].T]
    return " ".join(columns[:3]), columns[3]


def nrrd(*fields: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "volume.nrrd"
        lines = ("NRRD0005", "type: short", "dimension: 3", "sizes: 10 8 6", "endian: little", "encoding: raw", *fields)
        path.write_bytes("\n".join([*lines, "", ""]).encode() + ARRAY.tobytes())
        return path

    return write


def nrrd_in(space: str, matrix: NDArray, *fields: str) -> Callable[[Path], Path]:
    directions, origin = vectors(matrix)
    return nrrd(f"space: {space}", f"space directions: {directions}", f"space origin: {origin}", *fields)


def mha(*fields: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "volume.mha"
        lines = (
            "ObjectType = Image",
            "NDims = 3",
            "BinaryData = True",
            "BinaryDataByteOrderMSB = False",
            "DimSize = 10 8 6",
            *fields,
            "ElementType = MET_SHORT",
            "ElementDataFile = LOCAL",
            "",
        )
        path.write_bytes("\n".join(lines).encode() + ARRAY.tobytes())
        return path

    return write


def meta_place(matrix: NDArray, name: str = "TransformMatrix") -> tuple[str, str]:
    lps = LPS @ matrix
    axes = (lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)).T.ravel()
    return f"{name} = {' '.join(f'{x:.9g}' for x in axes)}", f"Offset = {' '.join(f'{x:.9g}' for x in lps[:3, 3])}"


@dataclass(frozen=True)
class Case:
    """A file, where its voxels lie (None: refused), and what has to be said."""

    write: Callable[[Path], Path]
    place: NDArray | None
    said: str = ""


SPACED = "ElementSpacing = 0.8 0.9 1.5"
METERS, MICRONS = np.diag([1e-3] * 3 + [1.0]) @ MATRIX, np.diag([1e3] * 3 + [1.0]) @ MATRIX
SMALL, LARGE = tuple(1e-3 * mm for mm in SPACING), tuple(1e3 * mm for mm in SPACING)
CASES = {
    "both agree": Case(nifti(), MATRIX),
    "sform of code 1 before a qform": Case(nifti(MOVED), MOVED, "two places up to 13.0 mm apart.*its qform says"),
    "sform of code 2 after a qform": Case(nifti(MOVED, 2), MATRIX, "two places up to 13.0 mm apart.*its sform says"),
    "sform of code 4 after a qform of code 2": Case(nifti(MOVED, 4, MATRIX, 2), MATRIX, "its sform says"),
    "sform alone, code 3": Case(nifti(MOVED, 3, None, 0), MOVED),
    "qform alone": Case(nifti(MOVED, 0, MATRIX, 3), MATRIX),
    "a hair apart": Case(nifti(placed(origin=(10.05, -20.0, 30.0)), 2), MATRIX),
    "no code": Case(nifti(None, 0, None, 0), BARE, "does not state its orientation"),
    "meters": Case(nifti(METERS, 1, METERS, 1, 1, SMALL), MATRIX),
    "meters, qform alone": Case(nifti(None, 0, METERS, 1, 1, SMALL), MATRIX),
    "microns": Case(nifti(MICRONS, 1, MICRONS, 1, 3, LARGE), MATRIX),
    "microns, no code": Case(nifti(None, 0, None, 0, 3, LARGE), BARE, "orientation"),
    "no unit": Case(nifti(units=0), MATRIX),
    "seconds, too": Case(nifti(units=2 | 8), MATRIX),
    "columns of unit length": Case(nifti(placed((1, 1, 1)), 1, None, 0), MATRIX, "its sform says .* 1 x 1 x 1 mm"),
    "pixdim of 1 mm": Case(nifti(MATRIX, 1, None, 0, pixdim=(1, 1, 1)), placed((1, 1, 1)), "0.8 x 0.9 x 1.5 mm"),
    "left-handed": Case(nifti(*(np.diag([0.8, -0.9, 1.5, 1.0]), 1) * 2), np.diag([0.8, -0.9, 1.5, 1.0])),
    "sheared sform, square qform": Case(nifti(SHEARED, 1), MATRIX, "two places up to 2.7. mm apart|2.8 mm apart"),
    "a single slice": Case(nifti(array=ARRAY[:1]), MATRIX),
    "pixdim of 0": Case(nifti(pixdim=(0.8, 0.0, 1.5)), None, "voxel size"),
    "negative pixdim": Case(nifti(pixdim=(0.8, 0.9, -1.5)), None, "voxel size"),
    "pixdim not a number": Case(nifti(pixdim=(np.nan, 0.9, 1.5)), None, "voxel size"),
    "voxels of 0.01 mm": Case(nifti(*(placed((0.01,) * 3), 1) * 2, pixdim=(0.01,) * 3), None, "no CT of a person"),
    "voxels of 100 mm": Case(nifti(*(placed((100.0,) * 3), 1) * 2, pixdim=(100.0,) * 3), None, "no CT of a person"),
    "LPS": Case(nrrd_in("left-posterior-superior", LPS @ MATRIX), MATRIX),
    "RAS": Case(nrrd_in("right-anterior-superior", MATRIX), MATRIX),
    "LAS": Case(nrrd_in("LAS", np.diag([-1.0, 1, 1, 1]) @ MATRIX), MATRIX),
    "sheared NRRD": Case(nrrd_in("right-anterior-superior", SHEARED), SHEARED),
    "millimeters by name": Case(nrrd_in("RAS", MATRIX, 'space units: "mm" "mm" "mm"'), MATRIX),
    "microns in NRRD": Case(nrrd_in("RAS", MICRONS, 'space units: "um" "um" "um"'), None, "units"),
    "centimeters in NRRD": Case(nrrd("spacings: 0.08 0.09 0.15", 'units: "cm" "cm" "cm"'), None, "units"),
    "spacings alone": Case(nrrd("spacings: 0.8 0.9 1.5"), BARE, "does not state its orientation"),
    "a space that is not the patient's": Case(
        nrrd_in("3D-right-handed", LPS @ MATRIX), MATRIX, "does not state its orientation"
    ),
    "no spacing": Case(nrrd(), None, "does not state its voxel size"),
    "a spacing that is no number": Case(nrrd("spacings: 0.8 0.9 nan"), None, "does not state its voxel size"),
    "thickness for spacing": Case(nrrd("spacings: 0.8 0.9 nan", "thicknesses: nan nan 1.5"), None, "voxel size"),
    "an axis without direction": Case(
        nrrd("space: RAS", "space directions: (0.8,0,0) (0,0.9,0) none", "space origin: (0,0,0)"), None, "voxel size"
    ),
    "MetaImage": Case(mha(*meta_place(MATRIX), SPACED), MATRIX),
    "Rotation": Case(mha(*meta_place(MATRIX, "Rotation"), SPACED), MATRIX),
    "MetaImage without axes": Case(mha(SPACED), np.diag([-0.8, -0.9, 1.5, 1.0]), "does not state its orientation"),
    "ElementSize alone": Case(mha(*meta_place(MATRIX), "ElementSize = 0.8 0.9 1.5"), MATRIX),
    "ElementSize and ElementSpacing": Case(mha(*meta_place(MATRIX), "ElementSize = 0.8 0.9 4", SPACED), MATRIX),
    "sheared MetaImage": Case(
        mha(*meta_place(SHEARED), f"ElementSpacing = 0.8 0.9 {np.linalg.norm(SHEARED[:3, 2])}"), SHEARED
    ),
    "no ElementSpacing": Case(mha(*meta_place(MATRIX)), None, "does not state its voxel size"),
    "ElementSpacing of 0": Case(mha(*meta_place(MATRIX), "ElementSpacing = 0.8 0 1.5"), None, "voxel size"),
    "centimeters in MetaImage": Case(
        mha(*meta_place(MATRIX), "ElementSpacing = 0.08 0.09 0.15", "DistanceUnits = cm"), None, "units"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_voxels_lie_where_they_are_stated_or_the_file_is_refused(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = case.write(tmp_path)
    if case.place is None:
        with pytest.raises(InputError, match=case.said):
            read_volume(path)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        volume = read_volume(path)
    np.testing.assert_allclose(volume.ijk_to_ras, case.place, atol=2e-5)
    np.testing.assert_array_equal(volume.array_kji, ARRAY[: len(volume.array_kji)])
    told = " ".join(str(each.message) for each in caught)
    if case.said:
        with pytest.warns(UserWarning, match=case.said):
            read_volume(path)
    else:
        assert told == ""


def corners(shape_kji: Sequence[int], ijk_to_ras: NDArray) -> NDArray:
    """(8, 3) RAS mm of the corner voxels' centers."""
    ends = [(0, n - 1) for n in shape_kji]
    ijk = np.array([[i, j, k, 1.0] for k in ends[0] for j in ends[1] for i in ends[2]])
    return (ijk @ ijk_to_ras.T)[:, :3]


@pytest.mark.skipif(importlib.util.find_spec("slicer") is None, reason="slicer-core is not installed")
@pytest.mark.parametrize("name", CASES)
def test_slicer_s_reader_agrees(name: str, tmp_path: Path) -> None:
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    path = CASES[name].write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            volume = read_volume(path)
        except InputError:
            assert CASES[name].place is None
            return
    node, storage = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    shown = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.GlobalWarningDisplayOff()
    try:
        assert storage.ReadData(node)
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(shown)
    found = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(found)
    matrix = np.array([[found.GetElement(row, column) for column in range(4)] for row in range(4)])
    image = node.GetImageData()
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    # Slicer turns left-handed volumes over: the same voxels in the same places, in another order.
    ours, theirs = corners(volume.array_kji.shape, volume.ijk_to_ras), corners(array.shape, matrix)
    pairs = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)
    assert pairs.min(axis=1).max() < 0.01
    ends = np.ix_(*[(0, n - 1) for n in volume.array_kji.shape])
    np.testing.assert_array_equal(volume.array_kji[ends].ravel(), array[ends].ravel()[pairs.argmin(axis=1)])


def test_a_sheared_sform_alone_which_slicer_cannot_read_is_true_to_the_scan(tmp_path: Path) -> None:
    in_meters = np.diag([1e-3] * 3 + [1.0]) @ SHEARED
    path = nifti(in_meters, 1, None, 0, 1, tuple(1e-3 * np.linalg.norm(SHEARED[:3, :3], axis=0)))(tmp_path)
    np.testing.assert_allclose(read_volume(path).ijk_to_ras, SHEARED, atol=1e-5)
