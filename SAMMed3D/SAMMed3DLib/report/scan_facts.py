"""Facts from a scan's header, and caveats that spoil measurements: slice thickness, gaps, tilt, partial lungs."""

from __future__ import annotations

import contextlib
import datetime
import math
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..inference.errors import InputError
from ..inference.geometry import closest_ras_axes, transform_points, voxel_spacing
from .findings import Caveat, Scan

if TYPE_CHECKING:
    from pydicom import Dataset

    from ..finding.lungs import LungMask

#: Slices thicker than this are too thick for the volume of small nodules.
THICKEST_MM = 2.5
#: Slices further apart than they are thick by more than this part leave gaps.
_GAP = 0.1
#: A gantry tilt below this moves nothing by a voxel within a nodule.
_SMALLEST_TILT_DEGREES = 1.0
#: A lung is cut off where more than so much of it lies in the outermost slice or at a side of the volume.
_LEAST_CUT_MM2 = 400.0
#: Figures by their names in caveats.
VOLUME, DIAMETER, DENSITY, MASS, TYPE, COUNT, CHANGE = (
    "volume",
    "diameters",
    "mean HU",
    "mass",
    "type",
    "number of nodules",
    "change",
)

_NO_CONTRAST = ("no", "none", "nil", "without", "no contrast", "non contrast", "native")
_DATES = ("AcquisitionDate", "SeriesDate", "StudyDate")
_HEADER = (
    *_DATES,
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "PatientID",
    "PatientName",
    "ConvolutionKernel",
    "SliceThickness",
    "ContrastBolusAgent",
    "ContrastBolusRoute",
    "ImageType",
    "Rows",
    "Columns",
    "SpecificCharacterSet",
)


def scan_of(
    array_kji: NDArray,
    ijk_to_ras: NDArray,
    name: str,
    path: Path | None = None,
    lungs: LungMask | None = None,
    notes: Sequence[str] = (),
) -> Scan:
    """Describes a scan by its DICOM header, with the caveats that spoil its measurements.

    Args:
        array_kji: (K, J, I) HU.
        ijk_to_ras: (4, 4).
        name: for people.
        path: where it was read from; other files than DICOM say nothing more.
        lungs: to see whether they are whole; None where they were not looked for.
        notes: remarks of the file's reader; each becomes a caveat.
    """
    header = series_header(path, array_kji.shape) if path is not None else None
    shape = array_kji.shape
    spacing = voxel_spacing(ijk_to_ras)
    thickness = _positive(_said(header, "SliceThickness"))
    # an empty or absent field is often just not filled in, and some scanners write that there was none
    given = (_said(header, "ContrastBolusAgent") or _said(header, "ContrastBolusRoute") or "").casefold()
    contrast = given not in _NO_CONTRAST if given else None
    names = (_said(header, "PatientName") or "").replace("=", "^").split("^")
    return Scan(
        name=name,
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        shape_ijk=(int(shape[2]), int(shape[1]), int(shape[0])),
        series_uid=_said(header, "SeriesInstanceUID"),
        study_uid=_said(header, "StudyInstanceUID"),
        date=next((date for date in (_date(_said(header, field)) for field in _DATES) if date), None),
        modality=_said(header, "Modality"),
        patient_id=_said(header, "PatientID"),
        patient_name=" ".join(part for part in names if part) or None,
        slice_thickness_mm=thickness,
        kernel=_said(header, "ConvolutionKernel"),
        contrast=contrast,
        caveats=tuple(
            [
                *_caveats(array_kji, ijk_to_ras, thickness, contrast, lungs),
                *(Caveat(note, (VOLUME, DIAMETER)) for note in notes),
            ]
        ),
    )


def series_header(path: Path, shape_kji: Sequence[int]) -> Dataset | None:
    """Reads the header of one slice of the series at ``path``; None for other kinds of files."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    other = None
    for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
        with contextlib.suppress(InvalidDicomError, OSError, ValueError):
            header = dcmread(file, stop_before_pixels=True, specific_tags=list(_HEADER))
            same = (header.get("Rows"), header.get("Columns")) == tuple(shape_kji[1:])
            if not same or "LOCALIZER" in (header.get("ImageType") or ()) or header.get("Modality") == "SEG":
                continue
            if header.get("Modality") == "CT":
                return header
            other = other or header
    return other


def check_modality(scan: Scan) -> None:
    """Raises InputError where the scan says that it is no CT."""
    if scan.modality not in (None, "CT"):
        raise InputError(f"{scan.name} is of modality {scan.modality}: give a CT")


def check_copy(now: NDArray, then: NDArray) -> None:
    """Raises InputError where the voxels of two scans are the same: a copy would show that nothing changes."""
    if np.array_equal(now, then):
        raise InputError("both scans hold the same voxels: give the prior of another date")


def check_scans(now: Scan, then: Scan, cure: str = "swap them, or give --swap") -> list[str]:
    """Lists what a person must confirm before two scans are compared; empty where nothing is odd.

    Args:
        now, then: the current and the prior scan.
        cure: to be said where the prior is the newer one.

    Raises:
        InputError: they are the same series, or the prior is the newer one.
    """
    questions = []
    if now.series_uid is not None and now.series_uid == then.series_uid:
        raise InputError("both scans are the same series: give the prior of another date")
    for what, a, b in (
        ("patient's name", now.patient_name, then.patient_name),
        ("patient's ID", now.patient_id, then.patient_id),
    ):
        if a and b and unicodedata.normalize("NFKC", a).casefold() != unicodedata.normalize("NFKC", b).casefold():
            questions.append(f"the {what} differs: {b} in the prior, {a} in the current scan")
    days = days_between(then.date, now.date)
    if days is not None and days < 0:
        raise InputError(f"the prior ({then.date}) is newer than the current scan ({now.date}): {cure}")
    return questions


def days_between(earlier: str | None, later: str | None) -> int | None:
    """Days from one ISO date to another, None where one is missing."""
    if not earlier or not later:
        return None
    return (datetime.date.fromisoformat(later) - datetime.date.fromisoformat(earlier)).days


def _caveats(
    array_kji: NDArray, ijk_to_ras: NDArray, thickness: float | None, contrast: bool | None, lungs: LungMask | None
) -> Iterator[Caveat]:
    axis = closest_ras_axes(ijk_to_ras)[0][2]
    columns = np.asarray(ijk_to_ras)[:3, :3]
    step = float(np.linalg.norm(columns[:, axis]))
    plane = [columns[:, each] for each in range(3) if each != axis]
    normal = np.cross(plane[0], plane[1])
    between = abs(float(columns[:, axis] @ normal)) / float(np.linalg.norm(normal))
    thick = max(thickness or 0.0, between)
    if thick > THICKEST_MM + 1e-3:
        yield Caveat(f"slices of {thick:.1f} mm: too thick to measure small nodules", (VOLUME, DIAMETER, TYPE, CHANGE))
    if thickness is not None and between > thickness * (1.0 + _GAP):
        yield Caveat(f"gaps: slices of {thickness:.3g} mm every {between:.3g} mm", (VOLUME, CHANGE))
    tilt = math.degrees(math.acos(min(1.0, between / step)))
    if tilt > _SMALLEST_TILT_DEGREES:
        yield Caveat(f"slices tilted by {tilt:.0f} degrees (gantry tilt): not the patient's axial plane", (DIAMETER,))
    if contrast is None:
        yield Caveat(
            "contrast phase unknown: the scan does not say whether a contrast agent was given", (DENSITY, MASS, TYPE)
        )
    if lungs is not None:
        if not lungs.found:
            yield Caveat("no lungs were found: side and distance to the pleura are not known", (COUNT,))
        else:
            cut = cut_sides(lungs, array_kji.shape, ijk_to_ras)
            if cut:
                yield Caveat(f"partial lung: cut off at the {', '.join(cut)}", (COUNT,))


def cut_sides(lungs: LungMask, shape_kji: Sequence[int], ijk_to_ras: NDArray) -> list[str]:
    """Lists the sides of the volume at which lung goes on beyond it: top, bottom, right, left, front, back."""
    cell = voxel_spacing(lungs.grid_to_ras)
    inverse = np.linalg.inv(ijk_to_ras)
    found = []
    index = np.argwhere(lungs.mask)[:, ::-1].astype(np.float64)
    ijk = transform_points(inverse @ lungs.grid_to_ras, index)
    spacing = voxel_spacing(ijk_to_ras)
    axes, signs = closest_ras_axes(ijk_to_ras)
    for world, (low_name, high_name) in enumerate((("left", "right"), ("back", "front"), ("bottom", "top"))):
        axis, last = axes[world], shape_kji[2 - axes[world]] - 1
        depth = max(1.0, float(cell.max()) / float(spacing[axis]))
        at_start = np.count_nonzero(ijk[:, axis] < depth - 0.5)
        at_end = np.count_nonzero(ijk[:, axis] > last + 0.5 - depth)
        if signs[world] < 0:
            at_start, at_end = at_end, at_start
        # a layer one cell deep: cells times their face
        for name, cells in ((low_name, at_start), (high_name, at_end)):
            if cells * float(cell[0]) ** 2 > _LEAST_CUT_MM2:
                found.append(name)
    return found


def _said(header: Dataset | None, field: str) -> str | None:
    """Reads a field of the header as one line of text; None where it is missing or empty."""
    value = None if header is None else header.get(field)
    if value is None:
        return None
    words = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return " ".join(" ".join(str(word) for word in words).replace("\0", " ").split()) or None


def _positive(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if number > 0 and math.isfinite(number) else None


def _date(value: str | None) -> str | None:
    """Converts a DICOM date to ISO 8601; None without one, for an impossible one or a placeholder (1900 and before)."""
    digits = (value or "").strip().replace(".", "")[:8]
    try:
        date = datetime.datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        return None
    return date.isoformat() if date.year > 1900 else None
