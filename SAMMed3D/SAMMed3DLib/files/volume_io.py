"""Reads a CT into the engine's terms: an array [k, j, i] and its 4x4 IJK-to-RAS matrix.

NIfTI is read by nibabel (sheared matrices included, which SimpleITK refuses), NRRD and MetaImage by SimpleITK, DICOM by
:mod:`.dicom_io`.
"""

from __future__ import annotations

import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..inference.errors import InputError
from ..inference.geometry import as_affine
from ..inference.validation import looks_like_labels
from .dicom_io import read_series
from .itk_geometry import image_to_ras
from .output_files import whole_file

READABLE = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", "a DICOM series folder")

_LARGEST_FLOAT_LABEL = 255
_NIFTI_INTENT_LABEL = 1002


@dataclass(frozen=True)
class Volume:
    """One 3D image.

    Attributes:
        array_kji: (K, J, I), C order, the rescaled values as stored (integers stay integers).
        ijk_to_ras: 4x4, voxel index (i, j, k) to RAS mm.
        name: the file's or folder's name without its ending.
        path: where it was read from.
    """

    array_kji: NDArray
    ijk_to_ras: NDArray[np.float64]
    name: str
    path: Path


def read_volume(path: str | Path) -> Volume:
    """Reads a CT from a NIfTI, NRRD or MetaImage file, a DICOM series folder, or one DICOM file of the series.

    A fourth axis of length 1 is dropped. Rescale slope and intercept are applied.

    Raises:
        InputError: the file is missing, unreadable, truncated, 2D, 4D, RGB or a label volume, its matrix is singular,
            or the folder holds no series or several (they are listed). The message names the cure.
    """
    volume = _read(Path(path).expanduser(), labels=False)
    _refuse_labels(volume)
    return volume


def read_labels(path: str | Path) -> Volume:
    """Reads a label map or segmentation (the same files as :func:`read_volume`), as unsigned integers.

    Raises:
        InputError: as :func:`read_volume`, but for values that are not whole numbers >= 0.
    """
    volume = _read(Path(path).expanduser(), labels=True)
    array = volume.array_kji
    if array.size and (array.min() < 0 or (array.dtype.kind == "f" and not np.array_equal(array, np.round(array)))):
        raise InputError(f"{volume.path} is not a label volume: its values are not whole numbers from 0 upward")
    smallest = np.min_scalar_type(int(array.max(initial=0)))
    return Volume(array.astype(smallest), volume.ijk_to_ras, volume.name, volume.path)


def write_volume(path: Path, volume: Volume) -> None:
    """Writes a volume as NIfTI (.nii.gz or .nii), whole or not at all. Raises InputError when it cannot be written."""
    image = nibabel.Nifti1Image(volume.array_kji.T, volume.ijk_to_ras)
    image.set_sform(volume.ijk_to_ras, code=1)
    image.header.set_xyzt_units("mm")
    with whole_file(path) as part:
        image.to_filename(part)


def stem(path: Path) -> str:
    """File name without its ending, ``.nii.gz`` and ``.seg.nrrd`` taken whole."""
    return re.sub(r"(\.nii\.gz|\.seg\.nrrd|\.[^.]*)$", "", path.name, flags=re.IGNORECASE) or path.name


def _read(path: Path, labels: bool) -> Volume:
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path")
        if path.is_dir() or _is_dicom(path):
            array, matrix = read_series(path)
        elif path.name.lower().endswith((".nii", ".nii.gz")):
            array, matrix = _read_nifti(path, labels)
        else:
            array, matrix = _read_itk(path, labels)
    except PermissionError as error:
        raise InputError(f"{path} may not be read: {error.strerror}; change its permissions") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the path and the disk") from error
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path} holds values of type {array.dtype}; export it as a volume of real numbers")
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return Volume(array, as_affine(matrix, f"the matrix of {path.name}"), stem(path), path)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_nifti(path: Path, labels: bool) -> tuple[NDArray, NDArray]:
    try:
        image = nibabel.load(path)
        shape, kind = _space_shape(image.shape), image.get_data_dtype()
        if kind.fields is not None:
            raise _colors(path)
        _check_axes(path, shape)
        if not labels and int(image.header["intent_code"]) == _NIFTI_INTENT_LABEL:
            raise _labels(path, "its header says so")
        _check_nifti_spacing(path, image)
        array = np.asanyarray(image.dataobj).reshape(shape, order="F")
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise _unreadable(path, error) from error
    if not (image.header["sform_code"] or image.header["qform_code"]):
        warnings.warn(
            f"{path.name} does not state its orientation (sform and qform codes are 0): left and right may be swapped",
            stacklevel=2,
        )
    return array.T, image.affine


def _check_nifti_spacing(path: Path, image: nibabel.Nifti1Image) -> None:
    """Raises InputError where the header's voxel size counts and is 0: nibabel makes 1 mm of it."""
    if image.header["sform_code"] > 0:
        return
    with nibabel.openers.ImageOpener(path) as file:
        spacing = image.header_class.from_fileobj(file, check=False)["pixdim"][1:4]
    if not np.all(np.isfinite(spacing) & (spacing != 0)):
        numbers = " x ".join(f"{length:g}" for length in spacing)
        raise InputError(f"the voxel size of {path.name} is {numbers} mm: correct the volume's spacing")


def _read_itk(path: Path, labels: bool) -> tuple[NDArray, NDArray]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        if not labels and any(key.startswith("Segment0_") for key in reader.GetMetaDataKeys()):
            raise _labels(path, "it is a segmentation")
        _check_axes(path, _space_shape(reader.GetSize()))
        if reader.GetNumberOfComponents() != 1:
            raise _colors(path)
        image = reader.Execute()
    except RuntimeError as error:
        if "determinant is 0" in str(error):
            raise InputError(
                f"the matrix of {path.name} is singular: two axes of the volume coincide or a spacing is 0. "
                "Correct the volume's spacing and direction matrix"
            ) from error
        raise _unreadable(path, error) from error
    while image.GetDimension() > 3:
        image = image[..., 0]
    return sitk.GetArrayFromImage(image), image_to_ras(image)


def _space_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without trailing axes of length 1 after the third."""
    shape = tuple(shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _check_axes(path: Path, shape: tuple[int, ...]) -> None:
    size = " x ".join(str(length) for length in shape)
    if len(shape) > 3:
        raise InputError(f"{path} is 4D ({size}): save one time point or channel as a 3D volume and give that")
    if len(shape) < 3:
        raise InputError(f"{path} is a {len(shape)}D image ({size}): give the whole 3D volume, not one slice")


def _refuse_labels(volume: Volume) -> None:
    """Refuses label maps, those stored as floating-point numbers too; warns where a CT has no values below 0."""
    array = volume.array_kji
    if array.size == 0 or not array.min() >= 0:
        return
    if array.dtype.kind == "f":
        sample = array[:: max(1, array.shape[0] // 16)]
        if not np.array_equal(sample, np.round(sample)) or array.max() > _LARGEST_FLOAT_LABEL:
            return
        array = array.astype(np.int32)
    if looks_like_labels(array):
        raise _labels(volume.path, f"whole numbers from {array.min()} to {array.max()} only")
    warnings.warn(f"{volume.name} has no negative values: is it a CT in Hounsfield units?", stacklevel=3)


def _labels(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is a label volume, not a CT ({reason}): give the CT that it belongs to")


def _colors(path: Path) -> InputError:
    return InputError(f"{path} has several values per voxel (RGB or vectors): give the CT itself, in Hounsfield units")


def _unreadable(path: Path, error: Exception) -> InputError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = lines[-1] if lines else type(error).__name__
    return InputError(
        f"{path} cannot be read: it is truncated, or not an image of a known kind ({', '.join(READABLE)}). "
        f"Copy or export it again. [{detail}]"
    )
