"""A case's arrays as they are stored: the smallest type that holds every value unchanged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.inference.validation import hounsfield_doubt

from .errors import StoreError
from .export_case import ExportCase

#: A ball of this diameter is larger than any nodule (and any mass that is trained on): a lung, a vessel tree.
LARGEST_NODULE_MM = 60.0
_SAMPLED_SLICES = 16
_SMALLEST_DETERMINANT = 1e-6


def value_problem(array_kji: NDArray) -> str:
    """Why some slices of an image cannot be those of a CT, else ""; quick."""
    sample = array_kji[:: max(1, len(array_kji) // _SAMPLED_SLICES)]
    if sample.dtype.kind == "f" and not np.isfinite(sample).all():
        return "the image holds NaN or infinite values: replace them (Simple Filters module)"
    doubt = hounsfield_doubt(sample)
    return f"no CT in Hounsfield units: {doubt.text}" if doubt else ""


def stored_image(array_kji: NDArray) -> NDArray:
    """Whole numbers as int16 where they fit, else int32; others as float32.

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
    """uint8 up to 255 nodules, else uint16."""
    return np.ascontiguousarray(case.labels_kji, dtype=np.uint8 if len(case.nodules) < 256 else np.uint16)


def check_case(case: ExportCase) -> None:
    """Makes sure that a case can be read back as what it is. Raises StoreError."""
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
