"""Finds the scans in a tree of folders or in a list, and says what it leaves out.

DICOM is grouped by series, wherever its files lie; every other image file is a scan of its own.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..inference.errors import InputError
from .dicom_io import find_series, is_dicom
from .image_file import FileError, given_path
from .itk_io import data_file
from .volume_io import IMAGE_ENDINGS, stem

_PATH_WORDS = ("path", "ct", "scan", "file", "image", "volume")
_UNSAFE = re.compile(r"[^\w.+-]+")
_LONGEST_NAME = 80
_TOLD_EVERY = 1000


@dataclass(frozen=True)
class FoundScan:
    """One scan.

    Attributes:
        name: unlike that of any other one, fit for a folder.
        path: the file, or a folder around the series' files.
        files: all that its voxels come from.
        is_series: whether these are a DICOM series.
    """

    name: str
    path: Path
    files: tuple[Path, ...]
    is_series: bool = False

    def absolute(self) -> FoundScan:
        """The scan by absolute paths, for workers that may have another current folder."""
        return replace(self, path=self.path.absolute(), files=tuple(file.absolute() for file in self.files))


def find_scans(
    source: str | Path, without: Path | None = None, progress: Callable[[int], object] = lambda files: None
) -> tuple[list[FoundScan], list[str]]:
    """All scans below a folder, or those that a list names.

    Args:
        source: a folder; or a .csv file whose first column (or the one headed path) names files and folders, relative
            ones beside the list, and whose column "name", where it has one, names the scans.
        without: a folder that is not looked into.
        progress: told now and then how many files were looked at.

    Returns:
        the scans in the order of their paths, and a line on each thing that is left out.

    Raises:
        InputError: the list cannot be read; two of its scans have one name; no scan at all.
    """
    source = given_path(source)
    left_out: list[str] = []
    if source.is_dir():
        scans = _named(_below(source, source, without, left_out, progress))
    else:
        scans = _listed(source, without, left_out, progress)
    if not scans:
        raise InputError(
            f"{source} holds no scan: NIfTI, NRRD and MetaImage files and DICOM series are looked for"
            + (f"; left out: {'; '.join(left_out[:3])}" if left_out else "")
        )
    return scans, left_out


def _below(
    folder: Path, root: Path, without: Path | None, left_out: list[str], progress: Callable[[int], object]
) -> list[tuple[str, str, FoundScan]]:
    """The scans of a folder, each with its preferred name and a key that distinguishes it from others of that name."""
    found: list[tuple[str, str, FoundScan]] = []
    slices: list[Path] = []
    others: list[tuple[Path, str]] = []
    data: set[Path] = set()
    looked = 0

    def unreadable(error: OSError) -> None:
        left_out.append(f"{error.filename}: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        if without is not None:
            folders[:] = [each for each in folders if not _same(Path(place) / each, without)]
        for name in sorted(each for each in names if not each.startswith(".")):
            file, lower = Path(place) / name, name.lower()
            looked += 1
            if looked % _TOLD_EVERY == 0:
                progress(looked)
            try:
                if lower.endswith((".seg.nrrd", ".seg.nhdr")):
                    others.append((file, "segmentations"))
                elif not file.is_file():
                    others.append((file, "pipes, devices or broken links"))
                elif lower.endswith(IMAGE_ENDINGS):
                    files = _files_of(file)
                    data.update(files[1:])
                    label = _relative(file.parent / stem(file), root)
                    found.append((label, _relative(file, root), FoundScan("", file, files)))
                elif is_dicom(file):
                    slices.append(file)
                else:
                    others.append((file, f"no image ({file.suffix or 'no ending'})"))
            except OSError as error:
                left_out.append(f"{file}: {error.strerror or error}")
    counts = Counter((file.parent, what) for file, what in others if file not in data)
    for (parent, what), count in sorted(counts.items()):
        left_out.append(f"{parent}: {count} file{'s' * (count != 1)} left out, {what}")
    damaged: list[str] = []
    for uid, series in find_series(slices, damaged).items():
        around = Path(os.path.commonpath([file.parent for file in series.files]))
        if series.doubt:
            words = f"series {series.description}".strip()
            left_out.append(f"{around}: {words}, {len(series.files)} files left out, {series.doubt}")
            continue
        label = _relative(around, root) if around != root else root.name
        found.append((label, uid, FoundScan("", around, tuple(series.files), True)))
    left_out += [f"{folder}: {each}" for each in damaged]
    return sorted(found, key=lambda each: (str(each[2].path), each[1]))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _files_of(file: Path) -> tuple[Path, ...]:
    """An image file, and what else its voxels come from: a data file, or the other slices of a DICOM file's series."""
    if file.is_file() and is_dicom(file):
        beside = sorted(each for each in file.parent.iterdir() if each.is_file() and is_dicom(each))
        return next(
            (tuple(series.files) for series in find_series(beside, []).values() if file in series.files), (file,)
        )
    if not file.name.lower().endswith((".nhdr", ".mhd")):
        return (file,)
    try:
        return file, data_file(file)
    except (InputError, FileError, OSError):
        return (file,)  # what is wrong with it is said when it is read


def _named(found: Iterable[tuple[str, str, FoundScan]]) -> list[FoundScan]:
    """The scans under their preferred names; scans that share one get a suffix of their own."""
    wished = [(_UNSAFE.sub("_", label).strip("._")[-_LONGEST_NAME:] or "scan", own, scan) for label, own, scan in found]
    often = Counter(name.lower() for name, _, _ in wished)  # some file systems do not tell A from a
    return [
        replace(
            scan, name=name if often[name.lower()] == 1 else f"{name}-{hashlib.sha256(own.encode()).hexdigest()[:8]}"
        )
        for name, own, scan in wished
    ]


def _delimiter(lines: Sequence[str]) -> str:
    """Finds the separator of a list's columns by its head: a comma, or what spreadsheets of other languages write."""
    for delimiter in (";", "\t"):
        heads = [cell.strip(' "').lower() for cell in (lines[0] if lines else "").split(delimiter)]
        if len(heads) > 1 and set(heads) & set(_PATH_WORDS):
            return delimiter
    return ","


def _listed(
    source: Path, without: Path | None, left_out: list[str], progress: Callable[[int], object]
) -> list[FoundScan]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
        rows = [row for row in csv.reader(lines, delimiter=_delimiter(lines)) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"the list {source} cannot be read: {reason}; give a CSV file in UTF-8") from error
    heads = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((heads.index(word) for word in _PATH_WORDS if word in heads), None)
    names = heads.index("name") if column is not None and "name" in heads else None
    found: list[tuple[str, str, FoundScan]] = []
    for row in rows[0 if column is None else 1 :]:
        text = row[column or 0].strip() if len(row) > (column or 0) else ""
        if not text:
            left_out.append(f"{source.name}: a line without a path: {','.join(row)[:60]}")
            continue
        path = source.parent / given_path(text)
        if os.sep == "/" and "\\" in text and not path.exists():  # written on Windows
            path = source.parent / given_path(text.replace("\\", "/"))
        own = row[names].strip() if names is not None and len(row) > names else ""
        if path.is_dir():
            inside = _below(path, path, without, left_out, progress)
            if not inside:
                left_out.append(f"{path}: no scan in it")
            several = len(inside) > 1
            for label, word, scan in inside:
                place = path.name if scan.path == path else f"{path.name}_{label}"
                name = f"{own}_{label}" if own and several else own or place
                found.append((name, f"{text}/{word}", scan))
        else:  # a file that is not there is a scan that fails
            found.append((own or stem(path), text, FoundScan("", path, _files_of(path))))
    kept: dict[tuple[Path, tuple[Path, ...]], tuple[str, str, FoundScan]] = {}
    for each in found:
        if kept.setdefault((each[2].path, each[2].files), each) is not each:
            left_out.append(f"{each[2].path}: named twice in {source.name}")
    return _named(kept.values())
