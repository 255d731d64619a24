"""Voxels into a NIfTI file: piece by piece, so that it can be watched and stopped.

The matrix goes into sform and, where a quaternion can hold it, into qform too (both with code 1, scanner coordinates):
some programs read the one, some the other. https://nifti.nimh.nih.gov/nifti-1
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import ExportCancelled, StoreError

#: Called with the share of the bytes written so far; False stops the writing.
Progress = Callable[[float], bool | None]
#: zlib's fastest: the files are a tenth larger than with 6, and written in a third of the time.
_LEVEL = 1
_PIECE = 1 << 20


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
    """Whether the axes are not at right angles: then qform cannot hold the matrix, and ITK refuses the file."""
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
