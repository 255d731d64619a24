"""Reads NIfTI: the header is checked before anything is read by it, and ITK decides where the voxels lie.

ITK's rule is 3D Slicer's: the sform where its code is 1 or there is no qform, else the qform, with the lengths of
pixdim, in the units of xyzt_units. A sheared sform without a qform, which ITK refuses, is taken as it is.
"""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import BinaryIO, Literal, cast

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from ..inference.errors import InputError
from ..inference.geometry import box_corners, transform_points, voxel_spacing
from .image_file import FileError, as_3d_shape, check_length, colors, label_volume, read_voxels
from .itk_io import image_to_ras, quiet_itk

_LABEL_INTENT = 1002
_MM_OF_UNIT = {1: 1e3, 2: 1.0, 3: 1e-3}
#: Bytes of the headers of NIfTI-1 and NIfTI-2, which begin with this number; and where data begin where none is stated.
_HEADER_BYTES, _HEADER_2_BYTES, _DATA_BEGIN = 348, 540, 352
#: sform, qform and pixdim may disagree by this much before a note is due.
_SAME_PLACE_MM = 0.1


def read_nifti(path: Path, labels: bool) -> tuple[NDArray, NDArray[np.float64]]:
    """The array [k, j, i], rescaled, and the 4x4 IJK-to-RAS matrix of a .nii or .nii.gz file.

    Raises:
        InputError: not a 3D image of plain numbers, a label map where ``labels`` is False, damaged, or a header that
            contradicts itself. Warns where the places that the header states disagree, or it states none.
        FileError, EOFError, OSError, zlib.error: it cannot be read.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        if packed and not path.name.lower().endswith(".gz"):
            raise FileError("it is gzipped, name it .nii.gz")  # by its name, ITK and Slicer take it for plain
        file.seek(0)
        stream = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
        header = _header(path, stream)
        shape, dtype = _checked(path, header, labels)
        offset = int(header["vox_offset"]) or _DATA_BEGIN
        count = int(np.prod(shape, dtype=object))
        check_length(path, offset + count * dtype.itemsize, packed)
        stream.seek(offset)
        try:
            slope, intercept = header.get_slope_inter()
        except nibabel.spatialimages.HeaderDataError as error:
            raise FileError(f"its header states the rescale intercept {float(header['scl_inter']):g}") from error
        rescale = None
        if (slope, intercept) not in ((None, None), (1.0, 0.0)):
            rescale = lambda stored: np.asarray(apply_read_scaling(stored, slope, intercept))  # noqa: E731
        array = read_voxels(stream, shape[::-1], dtype, rescale)
    return array, _geometry(path, header, shape)


def _header(path: Path, stream: BinaryIO) -> nibabel.Nifti1Header:
    orders: tuple[tuple[Literal["little", "big"], str], ...] = (("little", "<"), ("big", ">"))
    start = stream.read(4)
    for order, code in orders:
        if start == _HEADER_2_BYTES.to_bytes(4, order):
            raise InputError(f"{path} is NIfTI-2, which ITK and 3D Slicer do not read: save the volume as NIfTI-1")
        if start == _HEADER_BYTES.to_bytes(4, order):
            block = start + stream.read(_HEADER_BYTES - 4)
            if len(block) < _HEADER_BYTES:
                raise FileError("its header ends early")
            return nibabel.Nifti1Header(block, code, check=False)  # without extensions, which nothing here reads
    raise FileError("it does not begin with a NIfTI header")


def _checked(path: Path, header: nibabel.Nifti1Header, labels: bool) -> tuple[tuple[int, ...], np.dtype]:
    """The three sizes (i, j, k) and the type of the voxels. Raises InputError for a header that makes no sense."""
    if not bytes(header["magic"].item()).startswith(b"n+"):
        raise InputError(f"{path} is the header of a .hdr and .img pair: save the volume as one .nii.gz file")
    dim = [int(length) for length in header["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise FileError(f"its header states the sizes {dim}")
    shape = as_3d_shape(path, tuple(dim[1 : dim[0] + 1]))
    try:
        dtype = header.get_data_dtype()
    except (nibabel.spatialimages.HeaderDataError, KeyError) as error:
        raise FileError(f"its header states the unknown data type {int(header['datatype'])}") from error
    if dtype.fields is not None:
        raise colors(path)
    if dtype.kind not in "iuf":
        raise InputError(f"{path} holds values of type {dtype}; export it as a volume of real numbers")
    bits, offset = int(header["bitpix"]), float(header["vox_offset"])
    if bits not in (0, 8 * dtype.itemsize):
        raise FileError(f"its header states {bits} bits for values of type {dtype}")
    if not (np.isfinite(offset) and offset == int(offset) and (offset == 0 or offset >= header.single_vox_offset)):
        raise FileError(f"its header states that the data begin at byte {offset:g}")
    if not labels and int(header["intent_code"]) == _LABEL_INTENT:
        raise label_volume(path, "its header says so")
    spacing = header["pixdim"][1:4]
    if not np.all(np.isfinite(spacing) & (spacing > 0)):
        numbers = " x ".join(f"{length:g}" for length in spacing)
        raise InputError(f"the voxel size of {path.name} is {numbers} mm: correct the volume's spacing")
    return shape, dtype


def _geometry(path: Path, header: nibabel.Nifti1Header, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """ITK's matrix; warns where the header states another place, too, or none."""
    to_mm = np.diag([_MM_OF_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)] * 3 + [1.0])
    stated = {}
    if header["sform_code"] > 0:
        stated["sform"] = to_mm @ header.get_sform()
    if header["qform_code"] > 0:
        try:
            stated["qform"] = to_mm @ header.get_qform()
        except (nibabel.spatialimages.HeaderDataError, ValueError, np.linalg.LinAlgError):
            raise InputError(f"the orientation in {path.name} (its qform) is no rotation: export it again") from None
    if not all(np.isfinite(matrix).all() for matrix in stated.values()):
        raise InputError(f"the matrix of {path.name} holds numbers that are not finite: export it again")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        if "sform" not in stated or "orthonormal" not in str(error):
            raise
        return stated["sform"]
    matrix = image_to_ras(reader)
    if not stated:
        warnings.warn(
            f"{path.name} does not state its orientation (sform and qform codes are 0): left and right may be swapped",
            stacklevel=2,
        )
    corners = box_corners([-0.5] * 3, np.array(shape) - 0.5)
    taken = transform_points(matrix, corners)
    for name, other in stated.items():
        apart = float(np.linalg.norm(transform_points(other, corners) - taken, axis=1).max())
        if apart > _SAME_PLACE_MM:
            warnings.warn(
                f"{path.name} states two places up to {apart:.1f} mm apart: {_described(matrix)} is taken, as in 3D "
                f"Slicer, its {name} says {_described(other)}",
                stacklevel=2,
            )
    return matrix


def _described(matrix: NDArray) -> str:
    size = " x ".join(f"{length:.4g}" for length in voxel_spacing(matrix))
    r, a, s = matrix[:3, 3]
    return f"origin R {r:.1f}, A {a:.1f}, S {s:.1f} with voxels of {size} mm"
