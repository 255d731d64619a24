"""What a scan says about itself, and what about it spoils measurements: slice thickness, gaps, tilt, partial lungs."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..inference.geometry import closest_ras_axes, transform_points, voxel_spacing
from .findings import Caveat, Scan

if TYPE_CHECKING:
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
    "volume", "diameters", "mean HU", "mass", "type", "number of nodules", "change"
)

_TAGS = {
    "series_uid": "0020|000e", "study_uid": "0020|000d", "modality": "0008|0060", "patient_id": "0010|0020",
    "patient_name": "0010|0010", "kernel": "0018|1210",
}
_DATES = ("0008|0022", "0008|0021", "0008|0020")  # acquisition, series, study
_THICKNESS, _CONTRAST, _CONTRAST_ROUTE = "0018|0050", "0018|0010", "0018|1040"
_IMAGE_TYPE, _ROWS, _COLUMNS = "0008|0008", "0028|0010", "0028|0011"


def scan_of(
    array_kji: NDArray, ijk_to_ras: NDArray, name: str, path: Path | None = None, lungs: LungMask | None = None,
    notes: Sequence[str] = (),
) -> Scan:
    """The scan with what its DICOM header says and with what spoils its measurements.

    Args:
        array_kji: (K, J, I) HU.
        ijk_to_ras: (4, 4).
        name: for people.
        path: where it was read from; other files than DICOM say nothing more.
        lungs: to see whether they are whole; None where they were not looked for.
        notes: what the reader of the file remarked; each becomes a caveat.
    """
    tags = dicom_tags(path, array_kji.shape) if path is not None else {}
    shape = array_kji.shape
    spacing = voxel_spacing(ijk_to_ras)
    thickness = _positive(tags.get(_THICKNESS))
    contrast = None
    if tags:
        agent = f"{tags.get(_CONTRAST, '')}{tags.get(_CONTRAST_ROUTE, '')}".strip()
        contrast = True if agent else None  # an empty or absent tag is often just not filled in
    said = {field: _text(tags.get(tag)) for field, tag in _TAGS.items()}
    name_parts = (said["patient_name"] or "").replace("=", "^").split("^")
    said["patient_name"] = " ".join(part for part in name_parts if part) or None
    return Scan(
        name=name,
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        shape_ijk=(int(shape[2]), int(shape[1]), int(shape[0])),
        date=next((date for date in (_date(tags.get(tag)) for tag in _DATES) if date), None),
        slice_thickness_mm=thickness,
        contrast=contrast,
        caveats=tuple([*_caveats(array_kji, ijk_to_ras, thickness, contrast, lungs),
                       *(Caveat(note, (VOLUME, DIAMETER)) for note in notes)]),
        **said,
    )


def dicom_tags(path: Path, shape_kji: Sequence[int]) -> dict[str, str]:
    """The header of one slice of the series that was read from ``path``; empty for other kinds of files."""
    with _without_complaints():
        for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
            with contextlib.suppress(RuntimeError, OSError):
                with file.open("rb") as stream:
                    if stream.read(132)[128:] != b"DICM":
                        continue
                reader = sitk.ImageFileReader()
                reader.SetFileName(str(file))
                reader.ReadImageInformation()
                tags = {key: _decoded(reader.GetMetaData(key)) for key in reader.GetMetaDataKeys()}
                same = (tags.get(_ROWS, "").strip(), tags.get(_COLUMNS, "").strip()) == (
                    str(shape_kji[1]), str(shape_kji[2]))
                if same and "LOCALIZER" not in tags.get(_IMAGE_TYPE, ""):
                    return tags
    return {}


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
    normal = np.cross(*plane)
    between = abs(float(columns[:, axis] @ normal)) / float(np.linalg.norm(normal))
    thick = max(thickness or 0.0, between)
    if thick > THICKEST_MM + 1e-3:
        yield Caveat(f"slices of {thick:.1f} mm: too thick to measure small nodules", (VOLUME, DIAMETER, TYPE, CHANGE))
    if thickness is not None and between > thickness * (1.0 + _GAP):
        yield Caveat(f"gaps: slices of {thickness:.2g} mm every {between:.2g} mm", (VOLUME, CHANGE))
    tilt = math.degrees(math.acos(min(1.0, between / step)))
    if tilt > _SMALLEST_TILT_DEGREES:
        yield Caveat(f"slices tilted by {tilt:.0f} degrees (gantry tilt): not the patient's axial plane", (DIAMETER,))
    if contrast is None:
        yield Caveat("contrast phase unknown: the scan does not say whether a contrast agent was given",
                     (DENSITY, MASS, TYPE))
    if lungs is not None:
        if not lungs.found:
            yield Caveat("no lungs were found: side and distance to the pleura are not known", (COUNT,))
        else:
            cut = cut_sides(lungs, array_kji.shape, ijk_to_ras)
            if cut:
                yield Caveat(f"partial lung: cut off at the {', '.join(cut)}", (COUNT,))


def cut_sides(lungs: LungMask, shape_kji: Sequence[int], ijk_to_ras: NDArray) -> list[str]:
    """The sides of the volume at which lung goes on beyond it: top, bottom, right, left, front, back."""
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


def _decoded(text: str) -> str:
    """A header's text; SimpleITK hands over bytes that are not UTF-8 as surrogates, mostly Latin-1."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "ignore") if _is_utf8(text) else (
        text.encode("utf-8", "surrogateescape").decode("latin-1"))


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _text(value: str | None) -> str | None:
    return " ".join((value or "").replace("\0", " ").split()) or None


def _positive(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if number > 0 and math.isfinite(number) else None


def _date(value: str | None) -> str | None:
    """A DICOM date as ISO 8601; None for none, impossible ones, and anonymizers' placeholders (1900 and before)."""
    digits = (value or "").strip().replace(".", "")[:8]
    try:
        date = datetime.datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        return None
    return date.isoformat() if date.year > 1900 else None


@contextlib.contextmanager
def _without_complaints() -> Iterator[None]:
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
