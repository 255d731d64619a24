"""The findings of one scan, and what became of them since a prior scan, as one typed and versioned JSON.

All outputs (page, table, DICOM) are made from these objects. Lengths are mm, points RAS mm, dates ISO 8601
(2024-05-31). What is unknown is None, never a guess. The schema stands in Resources/Documentation/findings.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..files.output_files import write_text_whole
from ..inference.errors import InputError
from ..inference.nodule_table import half_up

SCHEMA = "sammed3d-findings"
VERSION = 1

Point = tuple[float, float, float]
NoduleType = Literal["solid", "part-solid", "ground-glass"]
Side = Literal["right", "left"]
PairStatus = Literal["matched", "new", "gone", "unmatched"]
Record = TypeVar("Record")


@dataclass(frozen=True)
class Interval:
    """The 95 % confidence interval of a figure."""

    low: float
    high: float


@dataclass(frozen=True)
class Diameter:
    """A straight line between two points of an outline.

    Attributes:
        length_mm: rounded to 0.1 mm, as it is reported.
        start_ras, end_ras: its ends, not rounded.
    """

    length_mm: float
    start_ras: Point
    end_ras: Point


@dataclass(frozen=True)
class SolidCore:
    """The solid part of a part-solid nodule: what lies above -300 HU in it, its largest connected part."""

    volume_mm3: float
    long_axis_mm: float
    short_axis_mm: float
    mean_diameter_mm: float


@dataclass(frozen=True)
class Place:
    """The place of a nodule in the lungs.

    Attributes:
        centroid_ras: center of the mask.
        slice_number: the slice of the diameters, counted from 1 along the volume's most axial axis as stored.
        side: None where no lungs were found.
        lobe: only where a lobe segmentation says it.
        distance_to_pleura_mm: from the nodule's surface to the lung's outer surface (chest wall, mediastinum or
            diaphragm; not fissures); 0 where it touches. None where no lungs were found.
    """

    centroid_ras: Point
    slice_number: int
    side: Side | None = None
    lobe: str | None = None
    distance_to_pleura_mm: float | None = None


@dataclass(frozen=True)
class Nodule:
    """One nodule of one scan.

    Attributes:
        tracking_uid: a DICOM UID that stays with the nodule over files and time points.
        label: its value in the segmentation.
        name: for people.
        type: and in ``type_reason`` what decided it.
        long_axis, short_axis: in the axial slice with the longest diameter.
        mean_diameter_mm: of the two rounded axes, rounded to 0.1 mm.
        volume_mm3: partial volumes of the border voxels included where the model's output is at hand.
        volume_interval_mm3: 95 %, of repeated scans and measurements.
        mean_hu, mass_mg: mass = volume x (mean HU + 1000) / 1000.
        solid: of part-solid nodules.
        status: "AI", "reviewed" or "flagged".
        diameters_by_hand: a person drew the two axes; they are the mask's otherwise.
        remarks: why the mask is not to be trusted, and what a person had added, such as the Brock model's answer.
    """

    tracking_uid: str
    label: int
    name: str
    type: NoduleType
    type_reason: str
    long_axis: Diameter
    short_axis: Diameter
    mean_diameter_mm: float
    volume_mm3: float
    volume_interval_mm3: Interval
    mean_hu: float
    mass_mg: float
    place: Place
    solid: SolidCore | None = None
    status: Literal["AI", "reviewed", "flagged"] = "AI"
    diameters_by_hand: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caveat:
    """Something about a scan that spoils figures: what it is, and which figures."""

    text: str
    spoils: tuple[str, ...]


@dataclass(frozen=True)
class Scan:
    """The scan that was measured.

    Attributes:
        name: of its file or folder.
        spacing_mm: (i, j, k), mm.
        shape_ijk: voxels along i, j, k.
        slice_thickness_mm: as the header says, else None.
        contrast: whether a contrast agent was given; None where the header does not say.
        caveats: from the check of the input.
    """

    name: str
    spacing_mm: Point
    shape_ijk: tuple[int, int, int]
    series_uid: str | None = None
    study_uid: str | None = None
    date: str | None = None
    modality: str | None = None
    patient_id: str | None = None
    patient_name: str | None = None
    slice_thickness_mm: float | None = None
    kernel: str | None = None
    contrast: bool | None = None
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True)
class Change:
    """The change of a figure from the prior to the current scan.

    Attributes:
        prior, current: the two values.
        percent: 100 x (current / prior - 1).
        percent_interval: 95 %, where the values have intervals.
    """

    prior: float
    current: float
    percent: float
    percent_interval: Interval | None = None


@dataclass(frozen=True)
class Pair:
    """One nodule at two dates.

    Attributes:
        status: "matched", "new" (in the current scan only) or "gone" (in the prior only); "unmatched" where that cannot
            be told, since the registration failed or the other scan does not show the place.
        current_uid, prior_uid: tracking UIDs in the two scans' findings, None on the side where it is missing.
        by_hand: whether a person made the pair.
        expected_ras: where a gone nodule should lie in the current scan, a new one in the prior; None without a
            registration, or where that place lies outside the scan.
        distance_mm: of a matched nodule from where the registration expects it.
        volume, mass, mean_diameter: changes of a matched nodule.
        is_measurable: whether the volume changed by more than its interval, and than repeated real scans differ.
        doubling_days: negative where the volume halves; None where there is no measurable change, or no dates.
        doubling_days_interval: 95 %; ``high`` is None in JSON where it is unbounded.
    """

    status: PairStatus
    current_uid: str | None
    prior_uid: str | None
    by_hand: bool = False
    expected_ras: Point | None = None
    distance_mm: float | None = None
    volume: Change | None = None
    mass: Change | None = None
    mean_diameter: Change | None = None
    is_measurable: bool | None = None
    doubling_days: float | None = None
    doubling_days_interval: Interval | None = None


@dataclass(frozen=True)
class FollowUp:
    """The prior scan and what became of its nodules.

    Attributes:
        prior, prior_nodules: as in the prior's own findings.
        days: from the prior to the current scan; None where a date is missing.
        pairs: matched nodules first, then the current scan's others, then the prior's.
        prior_to_current: 4x4, RAS mm of the prior to RAS mm of the current scan, row by row; None where the
            registration failed.
        registration: a sentence for users on how it went.
        caveats: differences between the scans that spoil figures.
    """

    prior: Scan
    prior_nodules: tuple[Nodule, ...]
    days: int | None
    pairs: tuple[Pair, ...]
    prior_to_current: tuple[float, ...] | None
    registration: str
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True)
class Findings:
    """The findings of one scan, with the follow-up where there is a prior.

    Attributes:
        created: ISO 8601 time in UTC.
        software: name and version of this program.
        model: name of the model that made the masks, "unknown" where they came from a file.
        status: "research" always: nothing here is made for patients.
    """

    scan: Scan
    nodules: tuple[Nodule, ...]
    created: str
    software: str
    model: str
    follow_up: FollowUp | None = None
    status: Literal["research"] = "research"

    def nodule(self, tracking_uid: str | None) -> Nodule | None:
        """The nodule of the current scan with a tracking UID, or None."""
        return next((each for each in self.nodules if each.tracking_uid == tracking_uid), None)

    def prior_nodule(self, tracking_uid: str | None) -> Nodule | None:
        """The nodule of the prior scan with a tracking UID, or None."""
        nodules = self.follow_up.prior_nodules if self.follow_up else ()
        return next((each for each in nodules if each.tracking_uid == tracking_uid), None)


def without_names(findings: Findings) -> Findings:
    """The findings without the patient's name and ID."""
    scan = dataclasses.replace(findings.scan, patient_name=None, patient_id=None)
    course = findings.follow_up
    if course is not None:
        prior = dataclasses.replace(course.prior, patient_name=None, patient_id=None)
        course = dataclasses.replace(course, prior=prior)
    return dataclasses.replace(findings, scan=scan, follow_up=course)


def tenth(length_mm: float) -> float:
    """Rounds a length to 0.1 mm, halves up, as diameters are reported."""
    return half_up(length_mm, 1)


def signed(value: float, digits: int = 0) -> str:
    """Formats a rounded number with its sign; no sign for 0."""
    if math.isinf(value):
        return "+∞" if value > 0 else "-∞"
    text = f"{value:+.{digits}f}"
    return text if float(text) != 0.0 else text[1:]


def mean_of_tenths(long_mm: float, short_mm: float) -> float:
    """Computes the mean diameter of two axes, each rounded to 0.1 mm first; the mean too, halves up."""
    tenths = round(tenth(long_mm) * 10.0) + round(tenth(short_mm) * 10.0)
    return ((tenths + 1) // 2) / 10.0


def tracking_uid(*words: str) -> str:
    """Makes a DICOM UID from words, the same from the same words (a name-based UUID below 2.25)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(31).join(words)).int}"


def is_uid(text: str) -> bool:
    """Whether a text is a DICOM UID: numbers without leading zeros between dots, at most 64 characters."""
    parts = text.split(".")
    return (
        len(text) <= 64
        and len(parts) > 1
        and all(part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") for part in parts)
    )


def to_json(findings: Findings) -> str:
    """The findings as JSON with ``schema`` and ``version`` in front; infinite bounds become null."""
    content = {"schema": SCHEMA, "version": VERSION, **_plain(findings)}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str, name: str = "the findings") -> Findings:
    """Reads findings back and checks every field.

    Raises:
        InputError: no JSON, another schema, a newer version, a field that is missing, unknown or of the wrong kind.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{name} cannot be read: it is no JSON, or cut off ({error}); write it again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{name} holds no findings of SAMMed3D: give the findings.json of 'sammed3d report'")
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{name} was written by a newer SAMMed3D (version {version} of the format; this one reads up to "
            f"{VERSION}): update SAMMed3D"
        )
    if version != VERSION:
        raise InputError(f"{name} has version {version!r} of the format, which never existed; write it again")
    body = {key: value for key, value in content.items() if key not in ("schema", "version")}
    findings = _read(Findings, body, "findings", name)
    _check_sense(findings, name)
    return findings


def write_findings(path: Path, findings: Findings) -> None:
    """Writes the JSON, whole or not at all. Raises InputError where the place cannot be written."""
    write_text_whole(path, to_json(findings))


def read_findings(path: Path) -> Findings:
    """Reads a findings file. Raises InputError, naming what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return from_json(text, path.name)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(kind: Any, value: Any, place: str, name: str) -> Any:
    """Converts a JSON value to an object of the annotated kind; the error names the field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _read(next(each for each in arguments if each is not type(None)), value, place, name)
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{name}: {place} is {value!r}, not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _read_tuple(arguments, value, place, name)
    if dataclasses.is_dataclass(kind):
        return _read_record(typing.cast(type, kind), value, place, name)
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{name}: {place} is {value!r}, not a number")
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name}: {place} is {value!r}, not of the kind {kind.__name__}")
    return value


def _read_tuple(kinds: tuple[Any, ...], value: Any, place: str, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise InputError(f"{name}: {place} is not a list")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise InputError(f"{name}: {place} has {len(value)} entries, not {len(kinds)}")
    return tuple(
        _read(kind, each, f"{place}[{number}]", name)
        for number, (kind, each) in enumerate(zip(kinds, value, strict=True))
    )


def _read_record(kind: type[Record], value: Any, place: str, name: str) -> Record:
    if not isinstance(value, dict):
        raise InputError(f"{name}: {place} is not an object with fields")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise InputError(f"{name}: {place} has a field that is not known: {unknown[0]}")
    hints = typing.get_type_hints(kind)
    read = {}
    for key, field in fields.items():
        if key in value:
            if kind is Interval and value[key] is None:  # an unbounded end
                read[key] = -math.inf if key == "low" else math.inf
            else:
                read[key] = _read(hints[key], value[key], f"{place}.{key}", name)
        elif field.default is dataclasses.MISSING:
            raise InputError(f"{name}: {place}.{key} is missing")
    return kind(**read)


def _check_sense(findings: Findings, name: str) -> None:
    """Raises InputError where fields contradict each other."""
    lists = {"nodules": findings.nodules}
    if findings.follow_up is not None:
        lists["prior nodules"] = findings.follow_up.prior_nodules
        matrix = findings.follow_up.prior_to_current
        if matrix is not None and len(matrix) != 16:
            raise InputError(f"{name}: prior_to_current has {len(matrix)} numbers, not 16")
    for what, nodules in lists.items():
        uids = [nodule.tracking_uid for nodule in nodules]
        wrong = next((uid for uid in uids if not is_uid(uid)), None)
        if wrong is not None:
            raise InputError(f"{name}: {wrong!r} is no DICOM UID")
        if len(set(uids)) != len(uids):
            raise InputError(f"{name}: two of the {what} have one tracking UID")
        for nodule in nodules:
            if nodule.volume_mm3 <= 0 or nodule.mean_diameter_mm < 0:
                raise InputError(f"{name}: {nodule.name} has no size")
            interval = nodule.volume_interval_mm3
            if not 0.0 <= interval.low <= nodule.volume_mm3 <= interval.high < math.inf:
                raise InputError(f"{name}: the volume of {nodule.name} lies outside its interval")
    if findings.follow_up is not None:
        for pair in findings.follow_up.pairs:
            there = findings.nodule(pair.current_uid) is not None, findings.prior_nodule(pair.prior_uid) is not None
            fitting = {
                "matched": [(True, True)],
                "new": [(True, False)],
                "gone": [(False, True)],
                "unmatched": [(True, False), (False, True)],
            }
            if there not in fitting[pair.status]:
                raise InputError(f"{name}: a {pair.status} nodule names tracking UIDs that are not there")
