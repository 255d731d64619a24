"""Values for a case to be written, and for a stored case."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Voxels looked at to recognize an image; all of them are compared before a file is left as it is.
_SAMPLED_SLICES = 16


@dataclass(frozen=True, eq=False)
class ExportCase:
    """One CT with its nodules, ready to be written on any thread.

    Attributes:
        name: the case's name, safe (:func:`..data.case_names.safe_case_name`).
        patient: a split keeps all cases of one patient together.
        array_kji: (K, J, I) HU; nobody else changes it.
        ijk_to_ras: (4, 4) voxel index (i, j, k) to world RAS mm, parent transforms applied.
        labels_kji: (K, J, I) uint16, nodule n has the value n, 0 outside.
        nodules: the nodules' names by value, 1 to n without gaps.
        source: identifies the image (:func:`image_source`).
        fingerprint: changes with anything that is written; cheap, so that a table can tell what is up to date.
    """

    name: str
    patient: str
    array_kji: NDArray
    ijk_to_ras: NDArray[np.float64]
    labels_kji: NDArray[np.uint16]
    nodules: Mapping[int, str]
    source: str
    fingerprint: str = ""


@dataclass(frozen=True)
class StoredCase:
    """One case of a data set on disk.

    Attributes:
        part: "Tr", "Val" or "Ts".
        is_own: written here, and not changed by anybody else since; only such a case is updated or removed.
        problem: why a case that was written here is not touched any more, or a label map is missing; else "".
        patient: "" where nobody says.
        nodules: names by value; None for a case that was not written here.
        written: date and time (ISO 8601, UTC), "" for a case that was not written here.
        source, fingerprint: as in :class:`ExportCase`, "" for a case that was not written here.
    """

    name: str
    part: str = "Tr"
    is_own: bool = False
    problem: str = ""
    patient: str = ""
    nodules: Mapping[int, str] | None = None
    written: str = ""
    source: str = ""
    fingerprint: str = ""


#: What became of a case that was to be written; nothing was written of an unchanged one.
WriteOutcome = Literal["added", "updated", "unchanged"]


def image_source(array_kji: NDArray) -> str:
    """Makes a key of an image from its size and some of its slices, whatever its place and name."""
    slices: Iterable[int] = ()
    if len(array_kji):
        slices = np.unique(np.linspace(0, len(array_kji) - 1, _SAMPLED_SLICES).astype(int))
    digest = hashlib.sha256(f"{array_kji.shape}".encode())
    for number in slices:
        digest.update(_plain_bytes(array_kji[number]).data)
    return digest.hexdigest()[:32]


def content_digest(case: ExportCase) -> str:
    """Makes a hash of everything that is written of a case: voxels, place, names and patient."""
    digest = hashlib.sha256(f"{case.array_kji.shape} {case.patient} {sorted(case.nodules.items())}".encode())
    digest.update(np.round(case.ijk_to_ras, 6).tobytes())
    for number in range(len(case.array_kji)):
        digest.update(_plain_bytes(case.array_kji[number]).data)
        digest.update(np.ascontiguousarray(case.labels_kji[number], dtype=np.uint16).data)
    return digest.hexdigest()


def _plain_bytes(plane: NDArray) -> NDArray:
    """Returns the same bytes for the same numbers, whether stored as integers or not."""
    if plane.dtype.kind in "iu" and plane.dtype.itemsize <= 2:
        return np.ascontiguousarray(plane, dtype=np.int32)
    if plane.dtype.kind == "f" or plane.dtype.itemsize > 4 or plane.dtype == np.uint32:
        whole = plane.astype(np.int32) if np.isfinite(plane).all() and np.abs(plane).max(initial=0) < 2**31 else None
        if whole is None or not np.array_equal(whole, plane):
            return np.ascontiguousarray(plane, dtype=np.float32)
        return whole
    return np.ascontiguousarray(plane, dtype=np.int32)
