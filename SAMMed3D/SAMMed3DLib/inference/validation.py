"""Checks images, points and boxes that users pass in; every message names the cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .geometry import extent_ras, inside_volume

#: An 8-bit volume with at most this many values is taken for labels.
_MOST_LABELS_8_BIT = 64
#: A wider integer volume with values from 0 to this only is taken for labels: no CT is that flat and has no air.
_LARGEST_LABEL = 31
#: HU of CTs, of metal too, stay within this; exports of 16 bit reach it.
_LARGEST_HU = 70_000.0
#: What stands for values that are no numbers.
_AIR_HU = -1024.0
#: In a CT the values range over more than this.
_SMALLEST_RANGE_HU = 100.0
#: Every CT of the lungs has something darker.
_NO_LUNG_HU = -200.0
#: Half of a CT is not darker than this, unless an offset was taken off twice.
_DARKEST_MEDIAN_HU = -1100.0


@dataclass(frozen=True)
class HounsfieldDoubt:
    """A reason to doubt that a volume is in Hounsfield units; false where there is none.

    Attributes:
        text: the reason, for users; "" where there is none.
        is_certain: whether it cannot be, so that files of that kind are refused.
    """

    text: str = ""
    is_certain: bool = False

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        return f"{self.text}: is this a CT in Hounsfield units (air -1000, water 0)? Otherwise results are wrong"


def hounsfield_doubt(array: NDArray) -> HounsfieldDoubt:
    """Judges whether the values of a volume can be Hounsfield units of a chest.

    A sample decides, unless it is suspicious. Values that are not finite are not judged.

    Args:
        array: (K, J, I) real numbers.
    """
    sample = array[tuple(slice(None, None, max(1, length // 64)) for length in array.shape)]
    doubt = _doubt(sample)
    return _doubt(array) if doubt and sample.size < array.size else doubt


def _doubt(array: NDArray) -> HounsfieldDoubt:
    if not array.size:
        return HounsfieldDoubt()
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return HounsfieldDoubt()
    span = f"its values run from {low:.6g} to {high:.6g}"
    if low == high:
        return HounsfieldDoubt(f"it is {low:.6g} everywhere", True)
    if low < -_LARGEST_HU or high > _LARGEST_HU:
        return HounsfieldDoubt(f"{span}, far beyond any tissue", True)
    if high - low < _SMALLEST_RANGE_HU:
        return HounsfieldDoubt(f"{span}, as after a normalization", True)
    if array.dtype.itemsize == 1 or (low >= 0.0 and high <= 255.0):
        return HounsfieldDoubt(f"{span}, as gray values of 8 bit", True)
    if low >= 0.0:
        return HounsfieldDoubt(f"it has no negative values ({span}), as after an offset such as 1024")
    if low > _NO_LUNG_HU:
        return HounsfieldDoubt(f"nothing in it is as dark as lung ({span})")
    if low < _DARKEST_MEDIAN_HU:
        inside = array[array > low]  # without what pads a round field of view
        if np.median(inside) < _DARKEST_MEDIAN_HU:
            return HounsfieldDoubt(f"most of it is darker than air ({span}), as with an offset taken off twice")
    return HounsfieldDoubt()


def check_image(array: Any) -> NDArray:
    """Returns the volume as an array (never copied). Raises InputError unless it is one 3D image of finite numbers."""
    array = np.asarray(array)
    if array.dtype.names is not None or array.dtype.kind not in "iufb":
        raise InputError(f"the volume must hold plain numbers, not {array.dtype}: convert color to a scalar volume")
    if array.ndim == 4 and (array.shape[-1] in (3, 4) and array.dtype == np.uint8):
        raise InputError(f"this is an RGB volume of shape {array.shape}: pick the CT itself (one number per voxel)")
    if array.ndim == 4:
        raise InputError(f"the volume is 4D, of shape {array.shape}: pick one of its 3D volumes (one phase or channel)")
    if array.ndim != 3:
        raise InputError(f"the volume must be 3D [k, j, i], not of shape {array.shape}; one slice has shape (1, j, i)")
    if array.size == 0:
        raise InputError(f"the volume is empty: its shape is {array.shape}")
    if array.shape[-1] in (3, 4) and array.dtype == np.uint8 and min(array.shape[:2]) > 8:
        raise InputError(f"this looks like an RGB picture of shape {array.shape}: pick the CT itself")
    if looks_like_labels(array):
        raise InputError(
            "this looks like a segmentation (label map), not an image: pick the CT itself. "
            "If it really is an image, convert it to float32"
        )
    if array.dtype.kind == "f":
        _check_finite(array)
    return array


def looks_like_labels(array: NDArray) -> bool:
    """Whether an integer or boolean volume holds labels rather than intensities: few, small, never negative values.

    Constant volumes and floating-point volumes never count as labels.
    """
    if array.dtype.kind == "b":
        return True
    if array.dtype.kind == "f":
        return False
    limit = 255 if array.dtype.itemsize == 1 else _LARGEST_LABEL
    sparse = array[:: max(1, array.shape[0] // 16), :: max(1, array.shape[1] // 64), :: max(1, array.shape[2] // 64)]
    if not _few_small_values(sparse, limit):
        return False
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > limit or low == high:
        return False
    counts = sum(np.bincount(plane.ravel(), minlength=limit + 1) for plane in array)  # of all at once: 8 bytes a voxel
    return bool(np.count_nonzero(counts) <= _MOST_LABELS_8_BIT)


def _few_small_values(sparse: NDArray, limit: int) -> bool:
    low, high = int(sparse.min()), int(sparse.max())
    return low >= 0 and high <= limit and len(np.unique(sparse)) <= _MOST_LABELS_8_BIT


def _check_finite(array: NDArray) -> None:
    """Checks for NaN and infinity by the sums of slices, in one pass and without a copy of the volume."""
    with np.errstate(over="ignore", invalid="ignore"):
        for index, plane in enumerate(array):
            if not np.isfinite(plane.sum(dtype=np.float64)):
                count = int(np.count_nonzero(~np.isfinite(plane)))
                raise InputError(
                    f"the volume holds NaN or infinite values ({count} in slice {index}, the first that has any): "
                    "replace them, for example by -1024 HU"
                )


def air_for_nonsense(array: NDArray) -> str:
    """Replaces NaN and infinity by air, in place; returns a note for users, "" where there was none."""
    count = 0
    for plane in array if array.dtype.kind == "f" else ():
        nonsense = ~np.isfinite(plane)
        if nonsense.any():
            plane[nonsense] = _AIR_HU
            count += int(np.count_nonzero(nonsense))
    if count == 1:
        return "1 voxel is no number (NaN, infinite): it counts as air"
    return f"{count} voxels are no numbers (NaN, infinite): they count as air" if count else ""


def check_points(
    points_ras: ArrayLike | None, labels: ArrayLike | None, shape_kji: tuple[int, ...], ijk_to_ras: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Checks points; returns them (n, 3) and whether each is positive (n,). Labels None = all positive.

    Raises:
        InputError: shapes, values that are not finite, labels other than 0 and 1, a point outside the volume.
    """
    if points_ras is None:
        if labels is not None and np.size(labels):
            raise InputError("labels were given without points")
        return np.zeros((0, 3)), np.zeros(0, dtype=bool)
    try:
        points = np.asarray(points_ras, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"points_ras must be numbers of shape (n, 3): {error}") from error
    if points.size == 0:
        points = points.reshape(0, 3)
    if points.ndim == 1:
        points = points[None]
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"points_ras must have the shape (n, 3): R, A, S in mm; it is {points.shape}")
    if not np.isfinite(points).all():
        raise InputError(f"a point is NaN or infinite: {points[~np.isfinite(points).all(axis=1)][0].tolist()}")
    given = np.ones(len(points)) if labels is None else np.ravel(labels)
    if given.shape != (len(points),):
        raise InputError(f"{len(points)} points need as many labels, not {given.size}")
    if not np.isin(given, (0, 1)).all():
        raise InputError(f"labels must be 1 (inside) or 0 (outside), not {sorted(set(np.ravel(given).tolist()))}")
    check_inside(points, shape_kji, ijk_to_ras)
    return points, given.astype(bool)


def check_inside(points_ras: NDArray, shape_kji: tuple[int, ...], ijk_to_ras: NDArray) -> None:
    """Raises InputError for the first point (n, 3) outside the volume's box (outer voxel faces included)."""
    outside = ~inside_volume(points_ras, shape_kji, ijk_to_ras)
    if outside.any():
        low, high = extent_ras(shape_kji, ijk_to_ras)
        r, a, s = points_ras[outside][0]
        ranges = ", ".join(f"{n} {a:.1f} to {b:.1f}" for n, a, b in zip("RAS", low, high, strict=True))
        raise InputError(
            f"the point R {r:.1f}, A {a:.1f}, S {s:.1f} mm lies outside the volume, which reaches from {ranges} mm. "
            "Check whether the point is in RAS, LPS or voxel coordinates"
        )


def check_box(box_ras: ArrayLike, shape_kji: tuple[int, ...], ijk_to_ras: NDArray) -> NDArray[np.float64]:
    """Checks a box given by any two opposite corners; returns its lowest and highest corner (2, 3) in R, A, S.

    Raises:
        InputError: not six finite numbers, no extent, center outside the volume.
    """
    try:
        corners = np.asarray(box_ras, dtype=np.float64).reshape(2, 3)
    except (TypeError, ValueError) as error:
        raise InputError(f"box_ras must be six numbers R0, A0, S0, R1, A1, S1 in mm: {error}") from error
    if not np.isfinite(corners).all():
        raise InputError(f"the box holds NaN or infinite numbers: {corners.ravel().tolist()}")
    low, high = corners.min(axis=0), corners.max(axis=0)
    if np.any(high - low <= 0):
        raise InputError(f"the box has no extent along one axis: {corners.ravel().tolist()}")
    check_inside((low + high)[None] / 2.0, shape_kji, ijk_to_ras)
    return np.stack([low, high])
