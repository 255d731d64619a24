"""What the readers of image files have in common: what they refuse, and how a file's length bounds its content."""

from __future__ import annotations

import stat
from pathlib import Path

from ..inference.errors import InputError

#: zlib packs no more than so many bytes into one.
_MOST_PACKED = 1032


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


def label_volume(path: Path, reason: str) -> InputError:
    """The refusal of a label map where a CT is needed."""
    return InputError(f"{path} is a label volume, not a CT ({reason}): give the CT that it belongs to")


def colors(path: Path) -> InputError:
    """The refusal of an image with several values per voxel."""
    return InputError(f"{path} has several values per voxel (RGB or vectors): give the CT itself, in Hounsfield units")
