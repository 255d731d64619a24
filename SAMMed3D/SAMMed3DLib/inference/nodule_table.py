"""The table of nodules: the columns that files, clipboard, terminal and panel share, with their units and digits.

A row is a mapping with some of the columns' keys: the measurements of :class:`.measurements.NoduleRecord` under their
own names, and what else is known of a nodule. The keys are the headers of files, in every language the same.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: of the rows; the header in files.
        title: for people, with the unit.
        digits: decimals in files; None for text and whole numbers.
        shown: decimals for people.
    """

    key: str
    title: str
    digits: int | None = None
    shown: int | None = None


#: All columns in their order. A table has those that its rows can know.
COLUMNS = (
    # of many scans
    Column("scan", "scan"),
    Column("path", "path"),
    Column("outcome", "outcome"),
    Column("reason", "reason"),
    Column("label", "label"),
    Column("name", "nodule"),
    Column("status", "status"),
    Column("score", "score", 4, 2),
    Column("predicted_iou", "pred. IoU", 3, 2),
    Column("stability_score", "stability", 3, 2),
    Column("click_r", "R mm", 2, 0),
    Column("click_a", "A mm", 2, 0),
    Column("click_s", "S mm", 2, 0),
    Column("volume_mm3", "volume mm³", 2, 1),
    Column("volume_low_mm3", "from mm³", 2, 1),
    Column("volume_high_mm3", "to mm³", 2, 1),
    Column("long_axis_mm", "long mm", 2, 1),
    Column("short_axis_mm", "short mm", 2, 1),
    Column("mean_diameter_mm", "mean mm", 2, 1),
    Column("equivalent_diameter_mm", "sphere mm", 2, 1),
    Column("mean_hu", "mean HU", 1, 0),
    Column("p10_hu", "10 % HU", 1, 0),
    Column("p90_hu", "90 % HU", 1, 0),
    Column("mass_mg", "mass mg", 2, 1),
    Column("solid_fraction", "solid share", 3, 2),
    Column("slice_index", "slice"),
    Column("note", "note"),
    Column("dice", "Dice", 4, 3),
    Column("reference_mm3", "reference mm³", 2, 1),
    Column("first_click_s", "first click s", 3, 2),
    # "by hand" where a person drew the axes
    Column("diameters", "diameters"),
    # what a report adds
    Column("course", "course"),
    Column("type", "type"),
    Column("side", "side"),
    Column("lobe", "lobe"),
    Column("slice_number", "slice"),
    Column("center_r", "center R mm", 2, 0),
    Column("center_a", "center A mm", 2, 0),
    Column("center_s", "center S mm", 2, 0),
    Column("distance_to_pleura_mm", "to pleura mm", 1, 0),
    Column("solid_volume_mm3", "solid mm³", 2, 0),
    Column("solid_mean_diameter_mm", "solid mm", 1, 1),
    Column("lung_rads_2022", "Lung-RADS 2022"),
    Column("fleischner_2017", "Fleischner 2017"),
    Column("bts_2015", "BTS 2015"),
    Column("prior_volume_mm3", "prior mm³", 2, 0),
    Column("prior_mean_diameter_mm", "prior mm", 1, 1),
    Column("days", "days"),
    Column("volume_change_percent", "volume %", 1, 0),
    Column("volume_change_low_percent", "from %", 1, 0),
    Column("volume_change_high_percent", "to %", 1, 0),
    Column("mass_change_percent", "mass %", 1, 0),
    Column("diameter_change_mm", "diameter mm", 1, 1),
    Column("doubling_days", "doubling days", 0, 0),
    Column("doubling_low_days", "from days", 0, 0),
    Column("doubling_high_days", "to days", 0, 0),
    Column("expected_r", "expected R mm", 2, 0),
    Column("expected_a", "expected A mm", 2, 0),
    Column("expected_s", "expected S mm", 2, 0),
    Column("tracking_uid", "tracking UID"),
)
_BY_KEY = {column.key: column for column in COLUMNS}
CLICKED = ("click_r", "click_a", "click_s")


def _keys(first: str, beyond: str) -> tuple[str, ...]:
    keys = list(_BY_KEY)
    return tuple(keys[keys.index(first) : keys.index(beyond)])


#: The measurements that are one number each, and the note on them.
MEASURED = _keys("volume_mm3", "dice")
#: What a report adds, and what it knows from a prior scan.
REPORTED, FOLLOWED = _keys("course", "prior_volume_mm3"), _keys("prior_volume_mm3", "tracking_uid")

#: What :data:`COLUMNS` say under "diameters" where a person drew the axes; they are the mask's otherwise.
BY_HAND = "by hand"


def half_up(value: float, digits: int) -> float:
    """Rounds as guidelines want it, halves up: the same in every table and document; 0 has no sign."""
    if not math.isfinite(value):
        return value
    scale = 10.0**digits
    return math.floor(value * scale + 0.5 + 1e-9) / scale


def number(value: float | None, digits: int, unknown: str = "-") -> str:
    """Formats a rounded number for people; ``unknown`` for None and NaN."""
    return unknown if value is None or math.isnan(value) else f"{half_up(value, digits):.{digits}f}"


def whole(value: float) -> str:
    """Formats a number without decimals, as documents give volumes, HU and mg."""
    return number(value, 0)


def shown(key: str, value: float | None, unknown: str = "-") -> str:
    """Formats a value of a column for people."""
    return number(value, _BY_KEY[key].shown or 0, unknown)


def titles(*keys: str) -> list[str]:
    """The headers of columns for people."""
    return [_BY_KEY[key].title for key in keys]


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds a row's values to the digits of files; keys that are no columns stay as they are."""
    return {key: _rounded(key, value) for key, value in row.items()}


def _rounded(key: str, value: Any) -> Any:
    if key == "centroid_ras":
        return [None if place is None else half_up(float(place), 2) for place in value]
    digits = _BY_KEY[key].digits if key in _BY_KEY else None
    return value if digits is None or value is None else half_up(float(value), digits)


def table_text(rows: Sequence[Mapping[str, Any]], keys: Iterable[str], delimiter: str = ",") -> str:
    """Writes rows under a line of headers, for files (commas) or the clipboard (tabs). Unknown values stay empty.

    Numbers have a decimal point whatever the language; texts are quoted where needed, and those that a spreadsheet
    would take for a formula get an apostrophe in front.

    Args:
        rows: one a nodule.
        keys: of the columns; they are written in the order of ``COLUMNS``.
        delimiter: between cells.
    """
    wanted = set(keys)
    columns = [column for column in COLUMNS if column.key in wanted]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    writer.writerows([[_cell(column, row.get(column.key)) for column in columns] for row in rows])
    return stream.getvalue()


def _cell(column: Column, value: Any) -> str:
    if value is None:
        return ""
    if column.digits is not None:
        return number(float(value), column.digits, unknown="")
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not isinstance(value, int) else text
