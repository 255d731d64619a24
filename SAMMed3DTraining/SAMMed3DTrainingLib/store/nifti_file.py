"""Writes a case's arrays as NIfTI: in the smallest type that holds them, piece by piece, so that it can be stopped.

The matrix goes into sform and, where a quaternion can hold it, into qform too (both with code 1, scanner coordinates):
some programs read the one, some the other. https://nifti.nimh.nih.gov/nifti-1
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.inference.validation import hounsfield_doubt

from ..data.case_names import ExportCancelled, StoreError
from .export_case import ExportCase

#: Called with the share of the bytes written so far; False stops the writing.
Progress = Callable[[float], bool | None]
#: zlib's fastest level: files are a tenth larger than with level 6, and written in a third of the time.
_LEVEL = 1
_PIECE = 1 << 20
#: A ball of this diameter is larger than any nodule (and any mass that is trained on): a lung, a vessel tree.
LARGEST_NODULE_MM = 60.0
_SAMPLED_SLICES = 16
_SMALLEST_DETERMINANT = 1e-6


def write_nifti(
    path: Path, array_kji: NDArray, ijk_to_ras: NDArray, is_label: bool = False, progress: Progress | None = None
) -> None:
    """Writes one volume, gzipped. The same voxels give the same bytes.

    Args:
        path: any name; it is overwritten.
        array_kji: (K, J, I) of a type that NIfTI has.
        ijk_to_ras: (4, 4) voxel index (i, j, k) to RAS mm.
        is_label: says so in the header.
        progress: see ``Progress``.

    Raises:
        StoreError: nibabel is missing.
        ExportCancelled: progress said so.
        OSError: the disk is full, the folder has gone.
    """
    header = _header(array_kji, ijk_to_ras, is_label)
    voxels = np.ascontiguousarray(array_kji).reshape(-1).view(np.uint8)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as stream:
        stream.write(header)
        for start in range(0, len(voxels), _PIECE):
            stream.write(voxels[start : start + _PIECE].data)
            if progress is not None and progress(min(1.0, (start + _PIECE) / len(voxels))) is False:
                raise ExportCancelled


def is_sheared(ijk_to_ras: NDArray) -> bool:
    """Whether the axes are not at right angles, so that qform cannot hold the matrix and ITK refuses the file."""
    axes = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    return not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)


def _header(array_kji: NDArray, ijk_to_ras: NDArray, is_label: bool) -> bytes:
    try:
        import nibabel
    except ImportError as error:
        raise StoreError("the package nibabel is missing: install the training packages first") from error
    header = nibabel.Nifti1Header()
    header.set_data_dtype(array_kji.dtype)
    header.set_data_shape(array_kji.shape[::-1])
    header.set_qform(ijk_to_ras, code=1, strip_shears=True)
    if is_sheared(ijk_to_ras):
        header["qform_code"] = 0
    header.set_sform(ijk_to_ras, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0, 0.0)
    if is_label:
        header.set_intent("label", name="nodules")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + b"\0\0\0\0"


def value_problem(array_kji: NDArray) -> str:
    """Returns why some slices of an image cannot be those of a CT, else ""; quick."""
    sample = array_kji[:: max(1, len(array_kji) // _SAMPLED_SLICES)]
    if sample.dtype.kind == "f" and not np.isfinite(sample).all():
        return "the image holds NaN or infinite values: replace them (Simple Filters module)"
    doubt = hounsfield_doubt(sample)
    return f"no CT in Hounsfield units: {doubt.text}" if doubt else ""


def stored_image(array_kji: NDArray) -> NDArray:
    """Converts whole numbers to int16 where they fit, else int32; others to float32.

    Raises:
        StoreError: not a number, or an infinite one, is among them.
    """
    array = np.asarray(array_kji)
    if array.dtype.kind == "f":
        if not all(np.isfinite(plane).all() for plane in array):
            raise StoreError("the image holds NaN or infinite values: replace them (Simple Filters module)")
        if not all(np.array_equal(plane, np.rint(plane)) for plane in array):
            return np.ascontiguousarray(array, dtype=np.float32)
    lowest, highest = array.min(), array.max()
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= lowest and highest <= np.iinfo(kind).max:
            return np.ascontiguousarray(array, dtype=kind)
    return np.ascontiguousarray(array, dtype=np.float32)


def stored_labels(case: ExportCase) -> NDArray:
    """Returns the labels as uint8 up to 255 nodules, else uint16."""
    return np.ascontiguousarray(case.labels_kji, dtype=np.uint8 if len(case.nodules) < 256 else np.uint16)


def check_case(case: ExportCase) -> None:
    """Checks that a case can be read back as what it is. Raises StoreError."""
    shape = tuple(case.array_kji.shape)
    if len(shape) != 3 or 0 in shape or case.array_kji.dtype.kind not in "iuf":
        raise StoreError(f"case {case.name}: the image is no 3D volume of numbers")
    if tuple(case.labels_kji.shape) != shape:
        raise StoreError(f"case {case.name}: the labels have {case.labels_kji.shape} voxels, the image {shape}")
    matrix = np.asarray(case.ijk_to_ras)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(matrix).all() or lengths.min() <= 0:
        raise StoreError(f"case {case.name}: the volume has a spacing of 0; correct its spacing")
    if abs(np.linalg.det(matrix[:3, :3] / lengths)) < _SMALLEST_DETERMINANT:
        raise StoreError(f"case {case.name}: two axes of the volume coincide; correct its directions")
    if not case.nodules:
        raise StoreError(f"case {case.name}: it has no nodule")
    _check_values(case)


def _check_values(case: ExportCase) -> None:
    highest = len(case.nodules)
    if sorted(case.nodules) != list(range(1, highest + 1)) or highest > np.iinfo(np.uint16).max:
        raise StoreError(f"case {case.name}: nodules are numbered from 1 to {highest} without gaps")
    found = np.zeros(highest + 1, dtype=np.int64)
    for plane in case.labels_kji:
        top = int(plane.max(initial=0))
        if top > highest or plane.min(initial=0) < 0:
            raise StoreError(f"case {case.name}: a label value has no nodule")
        if top:
            found += np.bincount(plane.reshape(-1), minlength=highest + 1)
    empty = [name for value, name in case.nodules.items() if not found[value]]
    if empty:
        raise StoreError(f"case {case.name}: no voxel belongs to {', '.join(empty[:4])}")
