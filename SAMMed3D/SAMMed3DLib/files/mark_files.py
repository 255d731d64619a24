"""Reads marks of nodules from files: .mrk.json, .fcsv, .acsv, a CSV table of points, and LIDC-IDRI's XML."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.errors import InputError

READABLE = (".mrk.json", ".json", ".fcsv", ".acsv", ".xml", ".csv")
#: Headers of coordinates in tables, and whether they are LPS; LUNA16's files hold LPS.
_HEADERS: tuple[tuple[tuple[str, str, str], bool], ...] = (
    (("r", "a", "s"), False),
    (("click_r", "click_a", "click_s"), False),
    (("l", "p", "s"), True),
    (("coordx", "coordy", "coordz"), True),
)
_SERIES = "seriesuid"
#: Marks of two readers within this are of one nodule, however small they drew it.
_LEAST_REACH_MM = 3.0
#: The slices of a scan are known by their place to this part of their distance.
_SLICE_SHARE = 0.6

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Mark:
    """One marked place.

    Attributes:
        ras: RAS mm.
        positive: whether it lies in the nodule; otherwise it is to be kept out.
        description: what the file says beside it.
    """

    ras: Point
    positive: bool = True
    description: str = ""


def read_marks(path: Path, shape_kji: Sequence[int], ijk_to_ras: NDArray, series_uid: str = "") -> list[Mark]:
    """Reads the marks of a file, in its order.

    Args:
        path: the ending decides the format, one of ``READABLE``.
        shape_kji, ijk_to_ras: of the CT, whose voxels LIDC-IDRI's files count.
        series_uid: of the CT where it is known; files that name another series are refused.

    Raises:
        InputError: the file cannot be read, holds no marks, or those of another scan; the message names the cure.
    """
    name = path.name.lower()
    if not name.endswith(READABLE):
        raise InputError(f"{path.name} is none of the files that hold marks: {', '.join(READABLE)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read as text: {error}; choose another file") from error
    try:
        if name.endswith(".json"):
            marks = _json_marks(json.loads(text))
        elif name.endswith((".fcsv", ".acsv")):
            marks = _slicer_csv_marks(text)
        elif name.endswith(".xml"):
            marks = _lidc_marks(text, shape_kji, ijk_to_ras, series_uid)
        else:
            marks = _table_marks(text, series_uid)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, csv.Error, ElementTree.ParseError) as error:
        raise InputError(f"{path.name} is damaged, or of another format than its name says: {error}") from error
    if not marks:
        raise InputError(f"{path.name} holds no marks")
    return marks


def _point(values: Sequence[Any], lps: bool) -> Point:
    x, y, z = (float(value) for value in values)
    if not all(map(math.isfinite, (x, y, z))):
        raise ValueError(f"{values} is no place")
    return (-x, -y, z) if lps else (x, y, z)


def _json_marks(values: Mapping[str, Any]) -> list[Mark]:
    marks = []
    for markup in values["markups"]:
        if markup["type"] not in ("Fiducial", "PointSet"):
            raise InputError(f"a {markup['type']} is no list of points; export points")
        system = str(markup.get("coordinateSystem", "LPS")).upper()
        if system not in ("LPS", "RAS"):
            raise InputError(f"the coordinate system {system} is neither LPS nor RAS; export it again")
        units = markup.get("coordinateUnits", "mm")
        if any(unit != "mm" for unit in (units if isinstance(units, list) else [units])):
            raise InputError(f"its coordinates are in {units}; export it in mm")
        for one in markup["controlPoints"]:
            if one.get("positionStatus", "defined") == "defined":
                point = _point(one["position"], system == "LPS")
                marks.append(Mark(point, bool(one.get("selected", True)), str(one.get("description") or "")))
    return marks


def _slicer_csv_marks(text: str) -> list[Mark]:
    """Point lists (.fcsv) and single annotations (.acsv) of 3D Slicer."""
    lps, marks, annotated = False, [], 0
    selected_at, description_at = 9, 12
    for line in text.splitlines():
        head, _equals, value = line.partition("=")
        if line.startswith("#"):
            key = head.strip("# ").lower()
            if key == "coordinatesystem":
                if value.strip() not in ("0", "RAS", "1", "LPS"):
                    raise InputError(f"the coordinate system {value.strip()} is neither RAS nor LPS; export it again")
                lps = value.strip() in ("1", "LPS")
            elif key in ("columns", "pointcolumns"):  # the oldest lists are label,x,y,z,sel,vis
                columns = [name.strip().lower() for name in value.replace("|", ",").split(",")]
                if columns[1:4] != ["x", "y", "z"]:
                    raise InputError("its second to fourth columns are not x, y and z; export it again")
                selected_at = columns.index("sel") if "sel" in columns else selected_at
                description_at = columns.index("desc") if "desc" in columns else description_at
            continue
        if line.startswith("point|"):
            annotated += 1
            marks.append(Mark(_point(line.split("|")[1:4], lps)))
        elif line.strip() and "|" not in line:
            cells = next(csv.reader([line]))
            description = cells[description_at] if len(cells) > description_at else ""
            marks.append(Mark(_point(cells[1:4], lps), "0" not in cells[selected_at : selected_at + 1], description))
    if annotated > 1:
        raise InputError("it holds a ruler or a box; choose an annotation of a single point")
    return marks


def _table_marks(text: str, series_uid: str) -> list[Mark]:
    rows = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=text.partition("\n")[0].count))
    names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    found = next(((columns, lps) for columns, lps in _HEADERS if names.keys() >= set(columns)), None)
    if found is None:
        raise InputError("the first line must name the columns r,a,s (mm as in 3D Slicer) or l,p,s (mm as in DICOM)")
    columns, lps = found
    filled = [row for row in rows if any((row.get(names[column]) or "").strip() for column in columns)]
    if any(any(each.strip() for each in row.get(None) or ()) for row in filled):  # such as decimal commas
        raise InputError("a line has more cells than the first; write decimal points, and texts with commas in quotes")
    scans = {(row[names[_SERIES]] or "").strip() for row in filled} if _SERIES in names else set()
    if len(scans) > 1:
        raise InputError("it holds marks of several scans; keep the rows of this one")
    _check_series(next(iter(scans), ""), series_uid)
    return [Mark(_point([row[names[column]] for column in columns], lps)) for row in filled]


def _check_series(named: str, series_uid: str) -> None:
    """Raises InputError where a file names another series than the CT's; either may be unknown ("")."""
    if named and series_uid and named != series_uid:
        raise InputError(f"its marks are of another scan (series {named}); choose the file of this one")


@dataclass(frozen=True)
class _Drawn:
    """A nodule as one reader marked it: middle of its largest outline, RAS mm, and half its size in mm."""

    reader: int
    ras: NDArray[np.float64]
    reach: float


def _lidc_marks(text: str, shape_kji: Sequence[int], ijk_to_ras: NDArray, series_uid: str) -> list[Mark]:
    """The nodules of all readers, one mark for those that several have marked; the largest ones first."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError("it is no file of LIDC-IDRI")
    root = ElementTree.fromstring(text)
    # files of different versions write Uid and UID
    named = (one.text or "" for one in root.iter() if one.tag.rpartition("}")[2].lower() == "seriesinstanceuid")
    _check_series(next(named, "").strip(), series_uid)
    drawn = sorted(_drawn(root, shape_kji, ijk_to_ras), key=lambda one: -one.reach)
    nodules: list[list[_Drawn]] = []
    for one in drawn:
        for nodule in nodules:
            near = float(np.linalg.norm(nodule[0].ras - one.ras)) <= max(nodule[0].reach, _LEAST_REACH_MM)
            if near and all(other.reader != one.reader for other in nodule):
                nodule.append(one)
                break
        else:
            nodules.append([one])
    return [Mark(_point(nodule[0].ras.tolist(), lps=False)) for nodule in nodules]


def _drawn(root: ElementTree.Element, shape_kji: Sequence[int], ijk_to_ras: NDArray) -> Iterator[_Drawn]:
    matrix = np.asarray(ijk_to_ras, dtype=np.float64)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.allclose(np.abs(matrix[:3, :3]), np.diag(spacing), atol=1e-3 * spacing.min()):
        raise InputError("LIDC-IDRI counts the voxels of axial slices, which this CT does not have: load the original")
    counts = np.array(shape_kji[::-1])
    # LIDC-IDRI's slices begin at the patient's right and front; files of other origin may count from elsewhere.
    flipped = matrix[[0, 1], [0, 1]] > 0
    for reader, session in enumerate(_all(root, "readingSession")):
        for nodule in _all(session, "unblindedReadNodule"):
            outlines = []
            for roi in _all(nodule, "roi"):
                if _text(roi, "inclusion", "TRUE").upper() != "TRUE":
                    continue
                edge = np.array([[float(_text(e, "xCoord")), float(_text(e, "yCoord"))] for e in _all(roi, "edgeMap")])
                z = float(_text(roi, "imageZposition"))
                outlines.append((float(np.ptp(edge, axis=0).max()), edge.mean(axis=0), z))
            if not outlines:
                continue
            extent, middle, z = max(outlines, key=lambda one: one[0])
            ij = np.where(flipped, counts[:2] - 1 - middle, middle)
            k = (z - matrix[2, 3]) / matrix[2, 2]
            if not (-_SLICE_SHARE <= k <= counts[2] - 1 + _SLICE_SHARE) or np.any(ij < 0) or np.any(ij >= counts[:2]):
                raise InputError("its marks do not lie in this CT; choose the file of this scan, and load it uncropped")
            ras = matrix[:3, :3] @ [*ij, k] + matrix[:3, 3]
            yield _Drawn(reader, ras, extent * float(spacing[0]) / 2)


def _all(parent: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """All elements of a name below, whatever namespace they are in."""
    return (one for one in parent.iter() if one.tag.rpartition("}")[2] == name)


def _text(parent: ElementTree.Element, name: str, default: str | None = None) -> str:
    found = next(_all(parent, name), None)
    if found is None or not (found.text or "").strip():
        if default is None:
            raise ValueError(f"{name} is missing")
        return default
    return (found.text or "").strip()
