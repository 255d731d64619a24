"""Reads NRRD and MetaImage by ITK, after checks that ITK does not make.

ITK takes 1 mm where no voxel size is stated, ignores units, goes on with zeros where packed data are damaged, and
trusts the sizes in a header. So the text header and the voxels are read here, slice by slice, and ITK says where they
lie; it reads the voxels in encodings that are rare. Formats: https://teem.sourceforge.net/nrrd/format.html,
https://itk.org/Wiki/ITK/MetaIO/Documentation. What turns ITK's geometry (origin, spacing, direction; LPS mm) into a
4x4 IJK-to-RAS matrix and back stands here too.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..inference.errors import InputError
from .image_file import FileError, as_3d_shape, check_kind, check_length, colors, label_volume, layers, read_voxels

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_NRRD_TYPES = {
    name: kind
    for kind, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
_META_TYPES = {
    "CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    "LONG": "i4",
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}
_MILLIMETERS = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "?", "???", "unknown")
#: NRRD's spaces whose axes are the patient's.
_NRRD_SPACES = (
    *("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las"),
    *("left-posterior-superior-time", "right-anterior-superior-time", "left-anterior-superior-time"),
    *("lpst", "rast", "last"),
)
_LONGEST_HEADER = 1 << 20
_RAW, _GZIP, _OTHER = "raw", "gzip", "other"


@dataclass(frozen=True)
class _Content:
    """Place and format of the voxels in a file.

    Attributes:
        file: the header's own file or another one.
        offset: their first byte; -1 where they end with the file.
        count: numbers.
        dtype: of each, with its byte order.
        encoding: ``_RAW``, ``_GZIP`` (zlib's own format too) or ``_OTHER``, which ITK has to judge.
        is_oriented: whether the header says how the axes lie in the patient.
    """

    file: Path
    offset: int
    count: int
    dtype: np.dtype
    encoding: str
    is_oriented: bool

    @property
    def length(self) -> int:
        """Bytes, unpacked."""
        return self.count * self.dtype.itemsize


def read_itk(path: Path, labels: bool) -> tuple[NDArray, NDArray[np.float64]]:
    """The array [k, j, i] and the 4x4 IJK-to-RAS matrix of a .nrrd, .nhdr, .mha or .mhd file.

    Raises:
        InputError: not a 3D image of plain numbers, a segmentation where ``labels`` is False, no voxel size, units
            other than mm. Warns where the header does not state how the axes lie.
        FileError, OSError, zlib.error: damaged, or of another kind.
        RuntimeError: ITK refuses it.
    """
    nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    content = _content(path)
    _check_length(content)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    with quiet_itk():
        reader.ReadImageInformation()
        if not labels and any(key.startswith("Segment0_") for key in reader.GetMetaDataKeys()):
            raise label_volume(path, "it is a segmentation")
        as_3d_shape(path, reader.GetSize())
        if reader.GetNumberOfComponents() != 1:
            raise layers(path) if labels else colors(path)
        if not content.is_oriented:
            field = "a space such as left-posterior-superior" if nrrd else "TransformMatrix"
            warnings.warn(
                f"{path.name} does not state its orientation ({field}): left and right may be swapped", stacklevel=2
            )
        size = reader.GetSize()[:3]
        if content.encoding != _OTHER:
            if math.prod(size) != content.count:
                raise FileError(f"its header states the sizes {size} and {content.count} numbers")
            return _voxels(content, size[::-1]), image_to_ras(reader)
        image = reader.Execute()
    while image.GetDimension() > 3:
        image = image[..., 0]
    return sitk.GetArrayFromImage(image), image_to_ras(image)


def data_file(path: Path) -> Path:
    """The file with the voxels of a .nrrd, .nhdr, .mha or .mhd file. Raises InputError, FileError, OSError."""
    return _content(path).file


# -- headers ----------------------------------------------------------------------------------------------------------


def _content(path: Path) -> _Content:
    return _nrrd_content(path) if path.name.lower().endswith((".nrrd", ".nhdr")) else _meta_content(path)


def _nrrd_content(path: Path) -> _Content:
    with path.open("rb") as stream:
        if not stream.readline(100).startswith(b"NRRD000"):
            raise FileError("it does not begin as NRRD")
        fields: dict[str, str] = {}
        while (line := stream.readline(_LONGEST_HEADER)).strip():
            key, colon, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
            if colon and not key.startswith("#") and not value.startswith("="):
                fields[key.strip().lower()] = value.strip()
            if stream.tell() > _LONGEST_HEADER:
                raise FileError("its header does not end")
        offset = stream.tell()
    count = _whole(fields, "dimension", 1, 16)
    sizes = _sizes(fields.get("sizes", ""), count)
    kind = fields.get("type", "").lower()
    if kind not in _NRRD_TYPES:
        raise FileError(f"its header states the voxel type {kind[:40]!r}")
    _check_nrrd_spacing(path, fields)
    encoding = fields.get("encoding", "").lower()
    if encoding in ("bz2", "bzip2"):
        raise FileError("its voxels are packed by bzip2, which is not read: save it packed by gzip, or not packed")
    encoding = _RAW if encoding == "raw" else _GZIP if encoding in ("gz", "gzip") else _OTHER
    skipped = _whole(fields, "byte skip", -1, 1 << 40) if "byte skip" in fields else 0
    if "line skip" in fields and fields["line skip"] != "0":
        encoding = _OTHER
    data = fields.get("data file", fields.get("datafile", ""))
    if data:
        file, offset = _beside(path, data), 0
    elif path.name.lower().endswith(".nhdr"):
        raise FileError("its header names no data file")
    else:
        file = path
    if skipped and encoding != _RAW:
        encoding = _OTHER  # bytes of the unpacked data
    elif skipped:
        offset = -1 if skipped < 0 else offset + skipped
    dtype = np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + _NRRD_TYPES[kind])
    return _Content(file, offset, math.prod(sizes), dtype, encoding, fields.get("space", "").lower() in _NRRD_SPACES)


def _check_nrrd_spacing(path: Path, fields: dict[str, str]) -> None:
    units = fields.get("space units", fields.get("units", "")).replace('"', " ").split()
    _check_units(path, units)
    if "space directions" in fields:
        text = fields["space directions"].replace(" ", "").lower().replace(")(", ");(").replace("none", ";none;")
        vectors = [
            [_number(part) for part in each.strip("()").split(",")]
            for each in text.split(";")
            if each and each != "none"
        ]
        stated = len(vectors) >= 3 and all(all(map(math.isfinite, vector)) for vector in vectors)
    else:
        lengths = [_number(part) for part in fields.get("spacings", "").split()]
        stated = sum(math.isfinite(length) and length > 0 for length in lengths) >= 3
    if not stated:
        raise _no_spacing(path, "space directions or spacings")


def _meta_content(path: Path) -> _Content:
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while "elementdatafile" not in fields:
            line = stream.readline(_LONGEST_HEADER)
            key, equals, value = line.decode("utf-8", "replace").partition("=")
            if not equals or stream.tell() > _LONGEST_HEADER:
                raise FileError("its MetaImage header is damaged")
            fields[key.strip().lower()] = value.strip()
        offset = stream.tell()
    count = _whole(fields, "ndims", 1, 10)
    sizes = _sizes(fields.get("dimsize", ""), count)
    channels = _whole(fields, "elementnumberofchannels", 1, 1 << 16) if "elementnumberofchannels" in fields else 1
    kind = fields.get("elementtype", "").upper().removeprefix("MET_")
    if kind not in _META_TYPES:
        raise FileError(f"its header states the voxel type {kind[:40]!r}")
    _check_units(path, fields.get("distanceunits", "").split())
    for name in ("elementspacing", "elementsize"):
        lengths = [_number(part) for part in fields.get(name, "").split()]
        if name in fields and (len(lengths) < min(3, count) or not all(0 < each < math.inf for each in lengths)):
            raise InputError(f"the voxel size of {path.name} is {fields[name][:60]} mm: correct the volume's spacing")
    if count >= 3 and "elementspacing" not in fields and "elementsize" not in fields:
        raise _no_spacing(path, "ElementSpacing")
    for name, numbers in (
        ("transformmatrix", count**2),
        ("rotation", count**2),
        ("orientation", count**2),
        ("offset", count),
        ("origin", count),
        ("position", count),
    ):
        values = [_number(part) for part in fields.get(name, "").split()]
        if name in fields and (len(values) != numbers or not all(map(math.isfinite, values))):
            raise FileError(f"its header holds {len(values)} numbers where {name} needs {numbers}, or some not finite")
    packed, binary = _is_true(fields, "compresseddata"), "binarydata" not in fields or _is_true(fields, "binarydata")
    skipped = _whole(fields, "headersize", -1, 1 << 40) if "headersize" in fields else 0
    data = fields["elementdatafile"]
    if data.upper() == "LOCAL":
        file = path
    else:
        file, offset = _beside(path, data), 0
    encoding = _GZIP if packed else _RAW if binary else _OTHER
    if skipped < 0 and encoding == _GZIP:
        encoding = _OTHER
    big = _is_true(fields, "binarydatabyteordermsb") or _is_true(fields, "elementbyteordermsb")
    dtype = np.dtype((">" if big else "<") + _META_TYPES[kind])
    offset = -1 if skipped < 0 else offset + skipped
    is_oriented = any(name in fields for name in ("transformmatrix", "rotation", "orientation"))
    return _Content(file, offset, math.prod(sizes) * channels, dtype, encoding, is_oriented)


def _is_true(fields: dict[str, str], name: str) -> bool:
    """MetaIO's rule, the library that ITK reads with: the first letter decides."""
    return fields.get(name, "")[:1] in ("T", "t", "1")


def _check_units(path: Path, units: list[str]) -> None:
    wrong = [unit for unit in units if unit.lower() not in _MILLIMETERS]
    if wrong:
        raise InputError(
            f"the units of {path.name} are {wrong[0][:20]}, which 3D Slicer and ITK take for mm: save it "
            "with its voxel size and origin in mm"
        )


def _no_spacing(path: Path, field: str) -> InputError:
    return InputError(
        f"{path.name} does not state its voxel size ({field}): save it again with its voxel size, or "
        "copy the header of the image that it was made from"
    )


def _beside(path: Path, name: str) -> Path:
    """The one data file that a header names. Raises InputError, FileError."""
    if name.split()[0].upper() == "LIST" or "%" in name:
        raise InputError(f"{path} is spread over several files: save the volume as one file")
    file = path.parent / name
    check_kind(file)
    if file.is_dir():
        raise FileError(f"its data file {name} is a folder")
    return file


def _whole(fields: dict[str, str], name: str, least: int, most: int) -> int:
    text = fields.get(name, "")
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise FileError(f"its header states {text[:40]!r} for {name}")
    return value


def _sizes(text: str, count: int) -> list[int]:
    try:
        sizes = [int(part) for part in text.split()]
    except ValueError:
        sizes = []
    if len(sizes) != count or min(sizes) < 1:
        raise FileError(f"its header states the sizes {text[:60]!r}")
    return sizes


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


# -- data -------------------------------------------------------------------------------------------------------------


def _check_length(content: _Content) -> None:
    """Raises FileError where a file cannot hold its voxels, before memory is asked for."""
    if content.encoding == _RAW:
        check_length(content.file, max(0, content.offset) + content.length, packed=False)
    else:
        check_length(content.file, content.length if content.encoding == _GZIP else content.length // 8, packed=True)


def _voxels(content: _Content, shape_kji: tuple[int, ...]) -> NDArray:
    """Reads the voxels and verifies the checksum of compressed ones. Raises FileError, zlib.error."""
    with content.file.open("rb") as file:
        file.seek(content.offset if content.offset >= 0 else -content.length, 0 if content.offset >= 0 else 2)
        if content.encoding == _GZIP:
            return read_voxels(_Unpacked(file), shape_kji, content.dtype)
        return read_voxels(file, shape_kji, content.dtype)


class _Unpacked:
    """A zlib stream, or one of gzip in one or several members, which end with their checksum.

    ``read`` raises FileError, zlib.error.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = zlib.decompressobj(wbits=47)
        self._start = b""

    def read(self, size: int, /) -> bytes:
        while not self._stream.eof or self._has_more():
            packed = self._start or self._stream.unconsumed_tail or self._file.read(1 << 16)
            self._start = b""
            block = self._stream.decompress(packed, size)
            if block:
                return block
            if not packed and not self._stream.eof:
                raise FileError("its packed data end early")
        return b""

    def _has_more(self) -> bool:
        """Begins with the next member of gzip, where the data have one."""
        rest = self._stream.unused_data + self._file.read(2)
        if not rest.startswith(b"\x1f\x8b"):
            return False
        self._stream = zlib.decompressobj(wbits=47)
        self._start = rest
        return True


def flip_lps_ras(matrix: NDArray) -> NDArray[np.float64]:
    """A 4x4 matrix into LPS made one into RAS, and the other way round."""
    return _LPS_RAS @ matrix


def image_to_ras(image: sitk.Image | sitk.ImageFileReader) -> NDArray[np.float64]:
    """The 4x4 IJK-to-RAS matrix of an image, of more than three axes the first three."""
    axes = image.GetDimension()
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * np.array(image.GetSpacing()[:3])
    matrix[:3, 3] = image.GetOrigin()[:3]
    return flip_lps_ras(matrix)


def place_image(image: sitk.Image, ijk_to_ras: NDArray) -> None:
    """Gives a 3D image the spacing, direction and origin of an IJK-to-RAS matrix (sheared ones too)."""
    matrix = flip_lps_ras(ijk_to_ras)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keeps ITK and GDCM from writing remarks to standard error within the block."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
