"""Reads a CT into the engine's terms: an array [k, j, i] and its 4x4 IJK-to-RAS matrix.

NIfTI is read by :mod:`.nifti_io`, NRRD and MetaImage by :mod:`.itk_io`, DICOM by :mod:`.dicom_io`; all lie where 3D
Slicer shows them, or are refused.
"""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from ..inference.errors import InputError
from ..inference.geometry import as_affine, voxel_spacing
from ..inference.validation import hounsfield_doubt, looks_like_labels
from .dicom_io import is_dicom, read_series
from .image_file import FileError, check_kind, given_path, label_volume
from .itk_io import read_itk
from .nifti_io import read_nifti
from .output_files import whole_file

#: Endings of image files.
IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
READABLE = (*IMAGE_ENDINGS, "a DICOM series folder")

_LARGEST_FLOAT_LABEL = 255
#: What label maps are written with: 16 bit.
_LARGEST_LABEL = 65535
_SMALLEST_VOXEL_MM, _LARGEST_VOXEL_MM = 0.05, 20.0


@dataclass(frozen=True)
class Volume:
    """One 3D image.

    Attributes:
        array_kji: (K, J, I), C order, the rescaled values as stored (integers stay integers).
        ijk_to_ras: 4x4, voxel index (i, j, k) to RAS mm.
        name: the file's or folder's name without its ending.
        path: where it was read from.
        slice_file: of a DICOM series, one of its own files: others may lie below ``path``, too.
    """

    array_kji: NDArray
    ijk_to_ras: NDArray[np.float64]
    name: str
    path: Path
    slice_file: Path | None = None

    @property
    def header_file(self) -> Path:
        """The file whose header describes the volume."""
        return self.slice_file or self.path


def read_volume(path: str | Path, files: Sequence[Path] = ()) -> Volume:
    """Reads a CT from a NIfTI, NRRD or MetaImage file, a DICOM series folder, or one DICOM file of the series.

    A fourth axis of length 1 is dropped. Rescale slope and intercept are applied.

    Args:
        path: file or folder.
        files: of a DICOM series where they are known, in any folders; then ``path`` only names it.

    Raises:
        InputError: the file is missing, unreadable, damaged, 2D, 4D, RGB or a label volume, it is not in HU, its matrix
            is singular, it does not state its voxel size, or the folder holds no series or several (they are listed).
            The message names the cure. What is doubtful comes as a warning.
    """
    volume = _read(path, labels=False, files=files)
    _refuse_others(volume)
    return volume


def read_labels(path: str | Path) -> Volume:
    """Reads a label map or segmentation (the same files as :func:`read_volume`), as unsigned integers.

    Raises:
        InputError: as :func:`read_volume`, but for values that are not whole numbers from 0 to 65535, and for DICOM.
    """
    volume = _read(path, labels=True)
    array = volume.array_kji
    if array.size and (array.min() < 0 or (array.dtype.kind == "f" and not np.array_equal(array, np.round(array)))):
        raise InputError(f"{volume.path} is not a label volume: its values are not whole numbers from 0 upward")
    largest = array.max(initial=0)
    if largest > _LARGEST_LABEL:
        raise InputError(
            f"{volume.path} holds the label {largest:.10g}: number the labels anew, from 1 to {_LARGEST_LABEL} at most"
        )
    return Volume(array.astype(np.min_scalar_type(int(largest))), volume.ijk_to_ras, volume.name, volume.path)


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


def _read(named: str | Path, labels: bool, files: Sequence[Path] = ()) -> Volume:
    path, slice_file = given_path(named), None
    try:
        check_kind(path)
        if not (files or path.is_dir() or is_dicom(path)):
            array, matrix = _reader_of(path)(path, labels)
        elif labels:
            raise InputError(
                f"{path} is DICOM, which is not read as a segmentation: load it in 3D Slicer and save it as .seg.nrrd, "
                "or export a label map (.nii.gz, .nrrd)"
            )
        else:
            array, matrix, slice_file = read_series(path, files)
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path} may not be read: {error.strerror}; change its permissions") from error
    except (FileError, EOFError, RuntimeError, ValueError, zlib.error, gzip.BadGzipFile) as error:
        if "determinant is 0" in str(error):
            raise InputError(
                f"the matrix of {path.name} is singular: two axes of the volume coincide or a spacing is 0. "
                "Correct the volume's spacing and direction matrix"
            ) from error
        raise _unreadable(path, error) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the path and the disk") from error
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path} holds values of type {array.dtype}; export it as a volume of real numbers")
    if array.dtype.kind == "f" and array.dtype != np.float32:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    matrix = as_affine(matrix, f"the matrix of {path.name}")
    _check_spacing(path, matrix)
    return Volume(array, matrix, stem(path), path, slice_file)


def _reader_of(path: Path) -> Callable[[Path, bool], tuple[NDArray, NDArray[np.float64]]]:
    """Returns the reader of a file of this name. Raises FileError."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return read_nifti
    if name.endswith((".nrrd", ".nhdr", ".mha", ".mhd")):
        return read_itk
    raise FileError(f"files named {path.suffix or 'without an ending'} are not read")


def _check_spacing(path: Path, ijk_to_ras: NDArray[np.float64]) -> None:
    """Raises InputError for voxels that no CT of a person has: the units are others than mm, or the size is lost."""
    spacing = voxel_spacing(ijk_to_ras)
    if spacing.min() < _SMALLEST_VOXEL_MM or spacing.max() > _LARGEST_VOXEL_MM:
        size = " x ".join(f"{length:.4g}" for length in spacing)
        raise InputError(
            f"the voxels of {path.name} would be {size} mm large, as those of no CT of a person: correct the volume's "
            "spacing and its units (mm)"
        )


def _refuse_others(volume: Volume) -> None:
    """Raises InputError for label maps, those stored as floating-point numbers too, and for what is surely not in HU.

    Warns where the values are doubtful.
    """
    array = volume.array_kji
    counted = array
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= _LARGEST_FLOAT_LABEL:
        sample = array[:: max(1, array.shape[0] // 16)]
        counted = array.astype(np.int32) if np.array_equal(sample, np.round(sample)) else array
    if looks_like_labels(counted):
        raise label_volume(volume.path, f"whole numbers from {array.min():g} to {array.max():g} only")
    doubt = hounsfield_doubt(array)
    if doubt.is_certain:
        raise InputError(f"{volume.path} is not in Hounsfield units: {doubt.text}. Give the CT as the scanner wrote it")
    if doubt:
        warnings.warn(f"{volume.name}: {doubt}", stacklevel=3)


def _unreadable(path: Path, error: Exception) -> InputError:
    """The error for an unreadable file, in our own words; the library's error is its cause."""
    reason = f": {error}" if isinstance(error, FileError) else ""
    return InputError(
        f"{path} cannot be read: it is truncated, or not an image of a known kind{reason} "
        f"({', '.join(READABLE)}). Copy or export it again"
    )
