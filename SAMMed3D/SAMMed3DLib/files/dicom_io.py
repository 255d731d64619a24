"""Reads one CT series from DICOM: classic slices or enhanced multi-frame files, in one folder or in several.

pydicom reads the headers, which say what lies where; GDCM, by way of SimpleITK, decodes the pixels. Slices are put
together by what they are (series, size, spacing, orientation; phase and acquisition where several scans lie in one
place) and ordered by their own positions, never by file names or numbers. What is left out is named.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..inference.errors import InputError
from .itk_io import quiet_itk

if TYPE_CHECKING:
    from pydicom import Dataset

#: Slice positions may differ from even steps by this part of a step, or this many mm.
_UNEVEN_STEPS, _UNEVEN_MM = 0.02, 0.05
#: Slices closer than this lie in the same place.
_SAME_PLACE_MM = 1e-3
#: Direction cosines and spacings (as a share) that differ by more belong to different images.
_SAME_AXES, _SAME_SPACING = 2e-3, 1e-3
#: Slices filled in between the given ones may be so many times as many as these.
_MOST_FILLED = 2.0
#: What tells scans of one place apart when they share a series, in this order.
_SEPARATORS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "StackID",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "ConvolutionKernel",
    "ImageType",
    "file",
)
_HEADER = (
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "Modality",
    "SeriesDescription",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "PixelSpacing",
    "RescaleType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *_SEPARATORS[:-1],
)
_CT_MODALITIES = ("CT", "OT", "")
#: Rescale types of maps that spectral CTs calculate: they are series of modality CT, too, but not in Hounsfield units.
_OTHER_UNITS = {
    "MGML": "mg/ml",
    "Z_EFF": "effective atomic numbers",
    "ED": "electron densities",
    "EDW": "electron densities",
    "PCT": "percentages",
    "OD": "optical densities",
}
#: CT, Enhanced CT and Legacy Converted Enhanced CT Image Storage.
_CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")


@dataclass(frozen=True, eq=False)
class _Slice:
    """One image plane.

    Attributes:
        frame: index in a multi-frame file, else None.
        position, axes, spacing: LPS mm of the first voxel's center, (2, 3) directions along i and j, mm along i and j;
            None where the file does not say.
        size: rows, columns.
        marks: values of ``_SEPARATORS``.
        rescale: slope and intercept of a frame.
        units: the header's rescale type, "HU" as a rule.
    """

    file: Path
    frame: int | None
    series: str
    modality: str
    description: str
    is_scout: bool
    size: tuple[int, int]
    position: NDArray[np.float64] | None
    axes: NDArray[np.float64] | None
    spacing: NDArray[np.float64] | None
    instance: str
    pixels_at: int
    marks: dict[str, str]
    rescale: tuple[float, float] = (1.0, 0.0)
    units: str = ""


@dataclass(eq=False)
class _Stack:
    """Slices of one image, along the normal of their planes once they are in order."""

    slices: list[_Slice]
    kind: str = ""
    distance: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def first(self) -> _Slice:
        return self.slices[0]

    @property
    def places(self) -> NDArray[np.float64]:
        """(n, 3) LPS mm of the slices, all of which have a position."""
        return np.array([each.position for each in self.slices], np.float64)

    def described(self) -> str:
        words = [self.first.modality, self.first.description, self.kind, f"{len(self.slices)} slices"]
        return f"  {', '.join(word for word in words if word)}: {self.first.file}"


@dataclass
class Series:
    """One series among many files.

    Attributes:
        planes: images that are no scouts.
    """

    files: list[Path]
    description: str
    modality: str
    planes: int = 0

    @property
    def doubt(self) -> str:
        """Reason why it is surely no CT volume; "" where it may be one."""
        if self.modality not in _CT_MODALITIES:
            return f"modality {self.modality}, not CT"
        if not self.planes:
            return "a scout"
        return "a single slice" if self.planes == 1 else ""


def find_series(files: Iterable[Path], left_out: list[str]) -> dict[str, Series]:
    """DICOM files by the series that they belong to, which may be spread over folders; by their headers only.

    Args:
        files: DICOM, see :func:`is_dicom`.
        left_out: gets a word on each damaged file, and on each that holds no image.

    Returns:
        series by UID, or by folder where files have none.
    """
    found: dict[str, Series] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            before = len(left_out)
            planes = _slices_of(file, left_out)
            if not planes:
                if len(left_out) == before:
                    left_out.append(f"{file.name} (no image: a report, a plan or a directory)")
                continue
            first = planes[0]
            series = found.setdefault(first.series or str(file.parent), Series([], first.description, first.modality))
            series.files.append(file)
            series.planes += 0 if first.is_scout else len(planes)
    return found


def read_series(path: Path, files: Sequence[Path] = ()) -> tuple[NDArray, NDArray[np.float64], Path]:
    """The CT in a folder (or below it), or the one to which a DICOM file belongs, or the one in ``files``.

    The matrix's slice axis follows the slices' positions, so that a tilted gantry gives the sheared matrix that is true
    to the scan. Where slices are missing or their distance changes, the voxels between them are interpolated at the
    smallest true step, with a warning that names the place.

    Returns:
        array [k, j, i] in the rescaled values (HU), the 4x4 IJK-to-RAS matrix, and the file of the first slice: other
        series may lie beside it.

    Raises:
        InputError: no series, or several (listed), an unreadable one, or one that does not say where its voxels lie.
    """
    left_out: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on values that break the standard
        slices = list(_unique(_slices_below(path, left_out, files), left_out))
    stack = _chosen(path, _stacks(slices), left_out)
    places, step, filled = _steps(path, stack)
    with quiet_itk():
        planes, kept = _planes(stack, left_out)
        if len(kept) < len(stack.slices):
            stack = _Stack([stack.slices[n] for n in kept], distance=stack.distance[kept])
            places, step, filled = _steps(path, stack)
    if left_out:
        # a file of many frames is one
        warnings.warn(f"left out of {path}: {_few(list(dict.fromkeys(left_out)))}", stacklevel=3)
    if filled:
        warnings.warn(filled, stacklevel=3)
    array = _interpolated(planes, places)
    first = stack.first
    assert first.position is not None and first.axes is not None and first.spacing is not None
    matrix = np.eye(4)
    matrix[:3, :2] = first.axes.T * first.spacing
    matrix[:3, 2], matrix[:3, 3] = step, first.position
    return array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix, first.file


# -- headers ----------------------------------------------------------------------------------------------------------


def _slices_below(path: Path, left_out: list[str], given: Sequence[Path]) -> Iterator[_Slice]:
    """Every plane of every image file; what is damaged goes to ``left_out``. Names come in order."""
    wanted = None
    files: Iterable[Path] = given or [Path(name) for name in sorted(map(str, path.rglob("*")))]
    if path.is_file():
        own = list(_slices_of(path, left_out))
        if not own:
            raise InputError(f"{path} is not a DICOM image that can be read; {_few(left_out) or 'give a CT series'}")
        wanted = own[0].series
        files = [each for each in sorted(path.parent.iterdir()) if each != path]
        yield from own
        if not wanted:
            return
    for file in files:
        if file.is_file() and is_dicom(file):
            yield from (each for each in _slices_of(file, left_out) if wanted in (None, each.series))


def is_dicom(file: Path) -> bool:
    """Tells whether a file begins as DICOM does, with or without the preamble. Raises OSError."""
    with file.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or start[:2] == b"\x08\x00"


def _slices_of(file: Path, left_out: list[str]) -> list[_Slice]:
    import pydicom

    try:
        with file.open("rb") as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(_HEADER))
            pixels_at = stream.tell()
        kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID", "")
        if "Rows" not in header and kind and str(kind) not in _CT_CLASSES:
            return []  # a report, a plan, a directory: no image
        found = list(_planes_of(header, file, pixels_at))
    except PermissionError:
        raise
    except Exception:  # pydicom raises errors of all kinds on damaged headers
        left_out.append(f"{file.name} (damaged: its header cannot be read)")
        return []
    missing = _missing_bytes(header, file, pixels_at)
    if missing:
        left_out.append(f"{file.name} (damaged: {missing} bytes of its pixels are missing)")
        return []
    return found


def _missing_bytes(header: Dataset, file: Path, pixels_at: int) -> int:
    """The number of bytes of uncompressed pixels that a truncated file lacks."""
    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if syntax is not None and (syntax.is_compressed or syntax.is_deflated):
        return 0
    per_voxel = int(header.get("BitsAllocated", 16)) // 8 * int(header.get("SamplesPerPixel", 1))
    wanted = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames", 1) or 1) * per_voxel
    return max(0, pixels_at + 8 + wanted - file.stat().st_size)


def _planes_of(header: Dataset, file: Path, pixels_at: int) -> Iterator[_Slice]:
    frames = header.get("PerFrameFunctionalGroupsSequence")
    count = int(header.get("NumberOfFrames", 1) or 1)
    if not frames:
        # A multi-frame file without functional groups says nothing of its frames' places.
        for frame in range(count):
            yield _plane(header, [header] if count == 1 else [], file, None if count == 1 else frame, pixels_at)
        return
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    if len(frames) != count:
        raise ValueError(f"{len(frames)} descriptions of {count} frames")
    for number, own in enumerate(frames):
        groups = [item[0] for source in (own, *shared) for item in _sequences(source)]
        yield _plane(header, groups, file, number, pixels_at)


def _sequences(source: Dataset) -> Iterator[Sequence[Dataset]]:
    return (element.value for element in source if element.VR == "SQ" and element.value)


def _plane(header: Dataset, groups: list[Dataset], file: Path, frame: int | None, pixels_at: int) -> _Slice:
    """One plane, described by the first of the groups (or the header) that has a value."""

    def value(name: str) -> Any:
        return next((group[name].value for group in groups if name in group and group[name].value is not None), None)

    def numbers(name: str, count: int) -> NDArray[np.float64] | None:
        found = value(name)
        if found is None or not hasattr(found, "__len__") or len(found) != count:
            return None
        array = np.array([float(part) for part in found])
        return array if np.isfinite(array).all() else None

    axes, spacing = numbers("ImageOrientationPatient", 6), numbers("PixelSpacing", 2)
    if axes is not None:
        lengths = np.linalg.norm(axes.reshape(2, 3), axis=1)
        upright = np.abs(lengths - 1.0).max() < 0.01 and abs(axes[:3] @ axes[3:]) < 0.01
        axes = axes.reshape(2, 3) / lengths[:, None] if upright else None
    if spacing is not None:
        spacing = spacing[::-1].copy() if spacing.min() > 0.0 else None
    image_type = "/".join(str(part) for part in header.get("ImageType") or [])
    marks = {name: str(header.get(name) if value(name) is None else value(name)) for name in _SEPARATORS[:-1]}
    slope, intercept = value("RescaleSlope"), value("RescaleIntercept")
    return _Slice(
        file,
        frame,
        str(header.get("SeriesInstanceUID") or ""),
        str(header.get("Modality") or ""),
        str(header.get("SeriesDescription") or ""),
        "LOCALIZER" in image_type.upper(),
        (int(header.Rows), int(header.Columns)),
        numbers("ImagePositionPatient", 3),
        axes,
        spacing,
        str(header.get("SOPInstanceUID") or ""),
        pixels_at,
        marks | {"file": str(file) if frame is not None else ""},
        (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
        str(value("RescaleType") or header.get("RescaleType") or "").strip().upper(),
    )


def _unique(slices: Iterable[_Slice], left_out: list[str]) -> Iterator[_Slice]:
    """Each slice once: a file that was copied is the same instance with the same pixels."""
    seen: dict[tuple[str, int | None], _Slice] = {}
    for each in slices:
        known = seen.setdefault((each.instance or str(each.file), each.frame), each)
        if known is each or _pixel_bytes(known) != _pixel_bytes(each):
            yield each
        else:
            left_out.append(f"{each.file.name} (a copy of {known.file.name})")


def _pixel_bytes(plane: _Slice) -> bytes:
    with plane.file.open("rb") as stream:
        stream.seek(plane.pixels_at)
        return stream.read()


# -- which slices belong together -------------------------------------------------------------------------------------


def _stacks(slices: Iterable[_Slice]) -> list[_Stack]:
    """One stack for each image that slices make up together."""
    stacks: list[_Stack] = []
    for each in slices:
        fitting = next((stack for stack in stacks if _same_image(stack.first, each)), None)
        if fitting is None:
            stacks.append(_Stack([each]))
        else:
            fitting.slices.append(each)
    return [part for stack in stacks for part in _ordered(stack)]


def _same_image(one: _Slice, other: _Slice) -> bool:
    def close(a: NDArray | None, b: NDArray | None, tolerance: float) -> bool:
        return a is b if a is None or b is None else bool(np.abs(a - b).max() <= tolerance)

    return (
        (one.series, one.size, one.is_scout, one.position is None)
        == (other.series, other.size, other.is_scout, other.position is None)
        and (one.series != "" or one.file.parent == other.file.parent)
        and close(one.axes, other.axes, _SAME_AXES)
        and close(one.spacing, other.spacing, 0.0 if one.spacing is None else _SAME_SPACING * float(one.spacing.min()))
    )


def _ordered(stack: _Stack) -> list[_Stack]:
    """The stack along its normal; several where the slices are of several scans of the same place."""
    if stack.first.position is None or stack.first.axes is None:
        return [stack]
    normal = np.cross(*stack.first.axes)
    distance = np.array([normal @ place for place in stack.places])
    order = np.argsort(distance, kind="stable")
    whole = _Stack([stack.slices[n] for n in order], distance=distance[order])
    if len(order) < 2 or _is_even(whole):
        return [whole]
    for name in _SEPARATORS:
        groups: dict[str, list[int]] = {}
        for number, each in enumerate(whole.slices):
            groups.setdefault(each.marks[name], []).append(number)
        parts = [
            _Stack([whole.slices[n] for n in group], _named(name, mark), whole.distance[group])
            for mark, group in groups.items()
        ]
        if len(parts) > 1 and not any(_coincident(part) for part in parts) and _overlap(parts):
            return parts
    return [whole]


def _named(separator: str, mark: str) -> str:
    return mark.rpartition(os.sep)[2] if separator == "file" else f"{separator} {mark}"


def _coincident(stack: _Stack) -> int:
    """Counts the slices that lie where another one lies."""
    places = stack.places
    return len(places) - len(np.unique(np.round(places / _SAME_PLACE_MM), axis=0))


def _overlap(parts: Sequence[_Stack]) -> bool:
    """Whether two of the parts cover the same place; parts one after another are one scan."""
    ends = sorted((part.distance[0], part.distance[-1]) for part in parts)
    return any(
        after[0] < before[1] or (after[0] - before[1] <= _SAME_PLACE_MM)
        for before, after in zip(ends, ends[1:], strict=False)
    )


def _chosen(path: Path, stacks: list[_Stack], left_out: list[str]) -> _Stack:
    """The one stack that is the CT; what else lies there goes to ``left_out``. Raises InputError."""
    if not stacks:
        raise InputError(
            f"{path} holds no DICOM series that can be read: {_few(left_out)}"
            if left_out
            else f"{path} holds no DICOM series: give a folder with the slices of a CT, or a NIfTI, NRRD or MHA file"
        )
    if path.is_file():
        candidates = [stack for stack in stacks if any(each.file == path for each in stack.slices)]
    else:
        largest = max((len(stack.slices) for stack in stacks if not stack.first.is_scout), default=0)
        candidates = [
            stack
            for stack in stacks
            if not stack.first.is_scout and not _is_page(stack) and len(stack.slices) > max(1, largest // 10)
        ]
        cts = [stack for stack in candidates if stack.first.modality == "CT"]
        candidates = cts if len(cts) == 1 else candidates
        candidates = candidates or [max(stacks, key=lambda stack: (not stack.first.is_scout, len(stack.slices)))]
    others = [stack for stack in stacks if stack not in candidates]
    if len(candidates) > 1:
        series = len({stack.first.series for stack in candidates})
        if series == len(candidates):
            what, cure = f"{series} DICOM series", "name one file of the series you want instead of the folder"
        else:
            what = f"{len(candidates)} images in one series"
            cure = (
                "they are phases, acquisitions, reconstructions or views; move the files of the one you want to a "
                "folder of its own"
            )
        listed = "\n".join(stack.described() for stack in candidates)
        raise InputError(f"{path} holds {what}: {cure}\n{listed}")
    chosen = candidates[0]
    if path.is_dir() or chosen.first.is_scout or len(chosen.slices) > 1:
        for stack in others:
            left_out += [f"{each.file.name} ({_reason(stack, chosen)})" for each in stack.slices]
    _check_stack(path, chosen)
    return chosen


def _is_page(stack: _Stack) -> bool:
    return stack.first.position is None and len(stack.slices) == 1


def _reason(stack: _Stack, chosen: _Stack) -> str:
    if stack.first.is_scout:
        return "a scout"
    if stack.first.position is None:
        return "no position: a page or a damaged slice"
    if stack.first.size != chosen.first.size:
        return f"{stack.first.size[1]} x {stack.first.size[0]} voxels"
    if stack.first.series != chosen.first.series:
        return f"series {stack.first.description or stack.first.modality}"
    return "of another orientation or spacing: a scout?"


def _check_stack(path: Path, stack: _Stack) -> None:
    """Raises InputError unless the slices are a CT and say where their voxels lie."""
    first, again = stack.first, "export the original CT series again, or give the volume as NIfTI, NRRD or MHA file"
    if first.modality not in _CT_MODALITIES:
        raise InputError(f"the DICOM series in {path} is of modality {first.modality}, not CT: give the CT series")
    if first.is_scout:
        raise InputError(f"the DICOM series in {path} is a scout (localizer): give the CT series itself")
    if first.units in _OTHER_UNITS:
        raise InputError(
            f"the DICOM series in {path} is not in Hounsfield units: its values are {_OTHER_UNITS[first.units]} "
            f"(Rescale Type {first.units}); give the CT series itself"
        )
    if first.position is None:
        raise InputError(f"slices in {path} do not say where they lie (no Image Position Patient): {again}")
    if first.axes is None:
        raise InputError(f"slices in {path} do not say how they lie (no valid Image Orientation Patient): {again}")
    if first.spacing is None:
        raise InputError(f"slices in {path} do not say how large their voxels are (no valid Pixel Spacing): {again}")
    if len(stack.slices) < 2:
        raise InputError(f"the DICOM series in {path} has a single slice: give the folder with the whole series")


# -- slices to voxels -------------------------------------------------------------------------------------------------


def _is_even(stack: _Stack) -> bool:
    """Whether the slices lie at even steps on a straight line."""
    if _coincident(stack):
        return False
    places = stack.places
    step = (places[-1] - places[0]) / (len(places) - 1)
    off = np.linalg.norm(places - (places[0] + np.arange(len(places))[:, None] * step), axis=1).max()
    return bool(off <= max(_UNEVEN_MM, _UNEVEN_STEPS * float(np.linalg.norm(step))))


def _steps(path: Path, stack: _Stack) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """The places of the slices in a volume of even steps.

    Returns:
        (n,) index of each slice along k, whole numbers where it lies on one; (3,) LPS mm from one k to the next; and
        what has to be said about slices that are missing or unevenly spaced, "" if nothing.

    Raises:
        InputError: the slices lie in the same place, or are no straight stack, or most of them are missing.
    """
    count = len(stack.slices)
    if count < 2:
        raise InputError(f"the DICOM series in {path} has a single slice that can be read: export it again")
    together = _coincident(stack)
    if together:
        raise InputError(
            f"the DICOM series in {path} has {together} slices that lie where another one lies: it was copied there "
            "twice, or has several phases. Leave one file per slice position"
        )
    places = stack.places
    whole = places[-1] - places[0]
    if _is_even(stack):
        return np.arange(count, dtype=np.float64), whole / (count - 1), ""
    share = (stack.distance - stack.distance[0]) / (stack.distance[-1] - stack.distance[0])
    sideways = np.linalg.norm(places - (places[0] + share[:, None] * whole), axis=1).max()
    if sideways > max(_UNEVEN_MM, _UNEVEN_STEPS * float(np.diff(stack.distance).max())):
        raise InputError(
            f"the slices in {path} are shifted sideways by up to {sideways:.1f} mm against each other: they are no "
            "single scan; export the original CT series again"
        )
    gaps = np.diff(stack.distance)
    unit, exact = _unit(gaps)
    total = round(float(gaps.sum() / unit))
    if total + 1 > (1.0 + _MOST_FILLED) * count:
        raise InputError(
            f"most slices in {path} are missing: {count} lie {gaps.min():.2f} to {gaps.max():.2f} mm apart; export "
            "the whole CT series again"
        )
    index = share * total
    if exact:
        index = np.round(index)
    wide = np.flatnonzero(gaps > 1.5 * unit)
    if exact and len(wide) <= count // 4:
        missing = total + 1 - count
        heights = ["S {:.1f} to {:.1f} mm".format(*sorted((places[n][2], places[n + 1][2]))) for n in wide]
        note = (
            f"{missing} slice{'s are' if missing > 1 else ' is'} missing in {path} ({_few(heights)}): the voxels "
            "between are interpolated; do not measure there"
        )
    else:
        note = (
            f"the slices in {path} are unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm): the volume is "
            f"interpolated to steps of {unit:.2f} mm"
        )
    return index, whole / total, note


def _unit(gaps: NDArray[np.float64]) -> tuple[float, bool]:
    """The step of a volume that holds all the slices, and whether each of them lies on one of its steps."""
    for guess in (float(np.median(gaps)), float(gaps.min())):
        counts = np.round(gaps / guess)
        if counts.min() < 1.0:
            continue
        unit = float(gaps.sum() / counts.sum())
        reached = np.concatenate([[0.0], np.cumsum(counts)]) * unit
        off = np.abs(reached - np.concatenate([[0.0], np.cumsum(gaps)])).max()
        if off <= max(_UNEVEN_MM, _UNEVEN_STEPS * unit):
            return unit, True
    return float(gaps.min()), False


def _interpolated(planes: NDArray, places: NDArray[np.float64]) -> NDArray:
    """(K, J, I) planes at whole steps; between the given ones (n, J, I), both neighbors count by their nearness."""
    if np.array_equal(places, np.arange(len(planes))):
        return planes
    array = np.empty((round(float(places[-1])) + 1, *planes.shape[1:]), planes.dtype)
    for k in range(len(array)):
        after = min(int(np.searchsorted(places, k - 1e-6)), len(places) - 1)
        before = after - 1 if places[after] > k + 1e-6 and after else after
        weight = 0.0 if after == before else (k - places[before]) / (places[after] - places[before])
        if weight == 0.0:
            array[k] = planes[before]
            continue
        mixed = (1.0 - weight) * planes[before] + weight * planes[after]
        array[k] = np.round(mixed) if array.dtype.kind in "iu" else mixed
    return array


def _planes(stack: _Stack, left_out: list[str]) -> tuple[NDArray, list[int]]:
    """The rescaled values (n, J, I) of the slices that can be decoded, and which these are.

    They are decoded into their place, so that nothing of their size is held besides them. Of the others ``left_out``
    gets a word.
    """
    files: dict[Path, Callable[[int], NDArray]] = {}
    planes = np.empty((len(stack.slices), *stack.first.size), np.int16)
    kept: list[int] = []
    for number, each in enumerate(stack.slices):
        try:
            if each.frame is None:
                image = _decoded(each.file)
            else:
                if each.file not in files:
                    files[each.file] = _frames(each.file)
                slope, intercept = each.rescale
                image = _narrowed(files[each.file](each.frame) * slope + intercept)
        except RuntimeError:
            left_out.append(f"{each.file.name} (damaged: its pixels cannot be decoded)")
            continue
        if image.ndim != 2:
            raise InputError(
                f"the DICOM series in {each.file.parent} is in color (a screen capture?): give the CT series itself"
            )
        common = np.result_type(planes, image)
        if common != planes.dtype:  # rare: values that do not fit into 16 bits, or are not whole
            planes = planes.astype(np.float32 if common == np.float64 else common)
        planes[len(kept)] = image
        kept.append(number)
    if not kept:
        raise InputError(
            f"the DICOM series in {stack.first.file.parent} cannot be read; export it again: {_few(left_out)}"
        )
    return planes[: len(kept)], kept


def _decoded(file: Path) -> NDArray:
    """(J, I), or (J, I, components) of a color image. Raises RuntimeError."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))
    return _narrowed(array.reshape(array.shape[-2:]) if array.shape[0] == 1 and array.ndim == 3 else array)


def _narrowed(array: NDArray) -> NDArray:
    """The same values as int16 where they are whole and fit."""
    if array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        return array.astype(np.float32, copy=False)
    fits = array.size and array.min() >= -32768 and array.max() <= 32767
    return array.astype(np.int16, copy=False) if fits else array


def _frames(file: Path) -> Callable[[int], NDArray]:
    """What gives each frame (J, I) as stored, not rescaled; plain ones are read one at a time. Raises RuntimeError."""
    import pydicom

    with file.open("rb") as stream:
        header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
        begin = stream.tell()
    syntax = header.file_meta.TransferSyntaxUID
    shape = int(header.Rows), int(header.Columns)
    if (int(header.BitsAllocated), int(header.get("SamplesPerPixel", 1))) == (16, 1) and not (
        syntax.is_compressed or syntax.is_deflated
    ):
        order, kind = "<" if syntax.is_little_endian else ">", "i" if header.PixelRepresentation else "u"
        begin += 8 if syntax.is_implicit_VR else 12
        size = 2 * shape[0] * shape[1]

        def stored(frame: int) -> NDArray:
            return np.fromfile(file, f"{order}{kind}2", size // 2, offset=begin + frame * size).reshape(shape)

        return stored
    data = pydicom.dcmread(file)
    if not data.file_meta.TransferSyntaxUID.is_compressed:
        try:
            return np.asarray(data.pixel_array).reshape(-1, *shape).__getitem__
        except ValueError as error:
            raise RuntimeError(str(error)) from error
    # GDCM applies the first frame's rescale to all of them: it is given the pixels without any.
    for groups in (*data.get("SharedFunctionalGroupsSequence", []), *data.PerFrameFunctionalGroupsSequence):
        if "PixelValueTransformationSequence" in groups:
            del groups.PixelValueTransformationSequence
    with tempfile.TemporaryDirectory(prefix="sammed3d-") as folder:
        copy = Path(folder) / "frames.dcm"
        data.save_as(copy)
        return sitk.GetArrayFromImage(sitk.ReadImage(str(copy), imageIO="GDCMImageIO")).__getitem__


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
