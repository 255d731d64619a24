"""Shared parts of the readers of image files: what they refuse, and how a file's length bounds its content."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..inference.errors import InputError

#: Tag of a segment in a segmentation file or node: the same nodule has the same value at every date.
TRACKING_TAG = "SAMMed3D.TrackingUID"
#: zlib packs no more than so many bytes into one.
_MOST_PACKED = 1032


class LabelVolume(InputError):
    """A label map where a CT is needed."""


class FileError(Exception):
    """A file is damaged or of another kind; the message is a reason, for whoever names file and cure."""


def given_path(path: str | Path) -> Path:
    """The path that a user named, ``~`` made their home. Raises InputError where there is no such place."""
    text = str(path)
    if not text.strip() or "\0" in text:
        raise InputError("no file was named: the path is empty" if "\0" not in text else "a path holds a NUL character")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text} cannot be found: there is no such user; give the whole path") from error


def check_kind(path: Path) -> None:
    """Raises InputError unless a path leads to a file or a folder: reading a FIFO or a device might never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is neither a file nor a folder (a pipe or a device): save the volume to a file first")


def as_3d_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of length 1 after the third. Raises InputError unless three axes are left."""
    shape = tuple(shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    size = " x ".join(str(length) for length in shape)
    if len(shape) > 3:
        raise InputError(f"{path} is 4D ({size}): save one time point or channel as a 3D volume and give that")
    if len(shape) < 3:
        raise InputError(f"{path} is a {len(shape)}D image ({size}): give the whole 3D volume, not one slice")
    return shape


def check_length(path: Path, wanted: int, packed: bool) -> None:
    """Raises FileError where a file cannot hold so many bytes, before memory is asked for."""
    most = path.stat().st_size * (_MOST_PACKED if packed else 1)
    if wanted > most:
        raise FileError(f"its header promises {wanted} bytes, more than the file can hold")


class Readable(Protocol):
    """A file, packed or not."""

    def read(self, size: int, /) -> bytes: ...


def read_voxels(
    stream: Readable, shape_kji: tuple[int, ...], dtype: np.dtype, rescale: Callable[[NDArray], NDArray] | None = None
) -> NDArray:
    """The voxels that follow in a stream, slice by slice, so that nothing of their size is held besides them.

    The stream is read to its end, where packed ones have a checksum.

    Args:
        stream: at the first voxel.
        shape_kji: the slices (J, I) lie one after the other.
        dtype: as stored, of any byte order.
        rescale: from stored to real values, of any shape.

    Returns:
        (K, J, I) in the machine's byte order; float32 of all that is not whole, and where values are rescaled.

    Raises:
        FileError: the stream ends early.
    """
    final = np.dtype(np.float32) if dtype.kind == "f" or rescale is not None else dtype.newbyteorder("=")
    array = np.empty(shape_kji, final)
    size = int(np.prod(shape_kji[1:], dtype=object)) * dtype.itemsize
    with np.errstate(over="ignore"):
        for plane in array:
            values = np.frombuffer(_exactly(stream, size), dtype).reshape(plane.shape)
            plane[...] = values if rescale is None else rescale(values)
    while stream.read(1 << 16):
        pass
    return array


def _exactly(stream: Readable, size: int) -> bytes | bytearray:
    block = stream.read(size)
    if len(block) == size:
        return block
    whole = bytearray(block)
    while len(whole) < size:
        block = stream.read(size - len(whole))
        if not block:
            raise FileError("the image data end early")
        whole += block
    return whole


def label_volume(path: Path, reason: str) -> LabelVolume:
    """The error that refuses a label map where a CT is needed."""
    return LabelVolume(f"{path} is a label volume, not a CT ({reason}): give the CT that it belongs to")


def colors(path: Path) -> InputError:
    """The error that refuses an image with several values per voxel."""
    return InputError(f"{path} has several values per voxel (RGB or vectors): give the CT itself, in Hounsfield units")


def layers(path: Path) -> InputError:
    """The error that refuses a segmentation with several values per voxel."""
    return InputError(
        f"{path} has several values per voxel, as where segments overlap: let none overlap in 3D Slicer's Segment "
        "Editor and save it again, or export a label map"
    )
