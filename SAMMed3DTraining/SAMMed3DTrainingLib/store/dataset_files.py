"""Which files of a folder belong to which case (nnU-Net's layout; read without opening an image)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .case_names import case_and_channel, case_of_label, numbered_names

PARTS = ("Tr", "Val", "Ts")
ENDING = ".nii.gz"
#: Characters of a path that the system opens; Windows' programs mostly keep to its old limit.
LONGEST_PATH = 259 if sys.platform == "win32" else 4095
_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case; ``images`` are its channels."""

    name: str
    part: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files; those that have gone in the meantime count nothing."""
        total = 0
        for path in (*self.images, *self.labels):
            try:
                total += path.stat().st_size
            except OSError:
                continue
        return total


def image_file(name: str) -> str:
    """Where a case's image is written, relative to the data set."""
    return f"imagesTr/{name}_0000{ENDING}"


def label_file(name: str) -> str:
    """Where a case's label map is written, relative to the data set."""
    return f"labelsTr/{name}{ENDING}"


def case_files(folder: Path) -> tuple[CaseFiles, ...]:
    """All cases of a data set by part and name. Raises OSError where a folder cannot be listed."""
    stems = [
        {_stem(path) for part in PARTS for path in _image_files(folder / f"{kind}{part}")}
        for kind in ("images", "labels")
    ]
    numbered = numbered_names(*stems)
    cases = []
    for part in PARTS:
        images = _by_name(folder / f"images{part}", lambda stem: case_and_channel(stem, numbered)[0])
        labels = _by_name(folder / f"labels{part}", lambda stem: case_of_label(stem, numbered))
        for name in sorted(images.keys() | labels.keys()):
            cases.append(CaseFiles(name, part, tuple(images.get(name, ())), tuple(labels.get(name, ()))))
    return tuple(cases)


def _by_name(folder: Path, name_of: Callable[[str], str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in _image_files(folder):
        found.setdefault(name_of(_stem(path)), []).append(path)
    return found


def _stem(path: Path) -> str:
    ending = next(ending for ending in _ENDINGS if path.name.lower().endswith(ending))
    return path.name[: -len(ending)]


def _image_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name.lower().endswith(_ENDINGS) and not path.name.startswith(".") and path.is_file():
                yield path
