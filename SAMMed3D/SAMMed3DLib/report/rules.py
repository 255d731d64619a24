"""Size categories of published guidelines, each a table with its source. For research only, never an instruction.

A rule says which row of its table a nodule's size falls into, and how near the row's border the measurement is. It
says nothing of what to do. Sources:

* Lung-RADS 2022 (American College of Radiology): sizes as in version 1.1, NCBI Bookshelf NBK568579, appendix 2;
  the changes of 2022 in Chest 2024;165:738.
* Fleischner Society 2017: Radiology 2017, doi:10.1148/radiol.2017161659; that diameters are rounded to whole mm, and
  BTS' are longest ones: table of key differences of the two at thorax.bmj.com (markup 189438).
* British Thoracic Society 2015: Thorax 2015;70 suppl. 2 and 2015;70:1188, table 4 in PMC6784443; subsolid nodules:
  table 2 in PMC7177089.
* Growth of mass in subsolid nodules: 30 %, repeat limits in Scholten et al. 2015.
* Brock (PanCan) model, full model with spiculation: PMC6717521, table 2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..inference.errors import InputError
from ..inference.nodule_table import half_up, whole
from .findings import Change, Findings, Nodule, NoduleType, Pair, signed

NOTE = "Size categories are for research only. They are no diagnosis and no instruction to anybody."

Course = Literal["baseline", "new", "growing", "not growing"]


@dataclass(frozen=True)
class Step:
    """One row of a size table: sizes from ``mm`` (and ``mm3``) on fall into ``category``, up to the next row."""

    category: str
    mm: float
    mm3: float | None = None


@dataclass(frozen=True)
class Category:
    """The row of a guideline's table that a nodule's size falls into.

    Attributes:
        guideline: its name.
        category: None where the table has no row for this nodule; ``note`` says why.
        size_mm: the diameter that decided.
        by_volume: category by volume where the table has volumes, else None.
        nearest_border_mm: the border nearest to the diameter, None where there is one row only.
        range: categories that the 95 % interval of the size reaches, the lowest first.
        note: a remark for users, "" if there is none.
    """

    guideline: str
    category: str | None
    size_mm: float | None = None
    by_volume: str | None = None
    nearest_border_mm: float | None = None
    range: tuple[str, ...] = ()
    note: str = ""

    @property
    def text(self) -> str:
        """One line: category, its border, what the interval reaches."""
        words = f"size category according to {self.guideline}: {self.category or 'none'} (research only)"
        parts = []
        if self.category is not None and self.size_mm is not None:
            parts.append(f"decided by {self.size_mm:.1f} mm")
        if self.nearest_border_mm is not None and self.size_mm is not None:
            away = abs(self.size_mm - self.nearest_border_mm)
            parts.append(f"{away:.1f} mm from the border at {self.nearest_border_mm:g} mm")
        if len(self.range) > 1:
            parts.append(f"the measurement's interval reaches {' to '.join((self.range[0], self.range[-1]))}")
        if self.by_volume is not None and self.by_volume != self.category:
            parts.append(f"by volume {self.by_volume}")
        if self.note:
            parts.append(self.note)
        return "; ".join([words, *parts])


#: Lung-RADS 2022, by mean diameter (mm) and volume (mm3), for each course of a solid nodule.
LUNG_RADS_SOLID: dict[str, tuple[Step, ...]] = {
    "baseline": (Step("2", 0.0, 0.0), Step("3", 6.0, 113.0), Step("4A", 8.0, 268.0), Step("4B", 15.0, 1767.0)),
    "new": (Step("2", 0.0, 0.0), Step("3", 4.0, 34.0), Step("4A", 6.0, 113.0), Step("4B", 8.0, 268.0)),
    "growing": (Step("4A", 0.0, 0.0), Step("4B", 8.0, 268.0)),
}
#: Part-solid nodules of at least 6 mm in total, by the mean diameter of the solid part, which is the one that grows.
LUNG_RADS_PART_SOLID: dict[str, tuple[Step, ...]] = {
    "baseline": (Step("3", 0.0, 0.0), Step("4A", 6.0, 113.0), Step("4B", 8.0, 268.0)),
    "new": (Step("4A", 0.0, 0.0), Step("4B", 4.0, 34.0)),
    "growing": (Step("4A", 0.0, 0.0), Step("4B", 4.0, 34.0)),
}
#: Part-solid nodules below 6 mm in total.
LUNG_RADS_SMALL_PART_SOLID = {"baseline": "2", "new": "3"}
LUNG_RADS_PART_SOLID_TOTAL_MM = 6.0
LUNG_RADS_GROUND_GLASS: dict[str, tuple[Step, ...]] = {
    "baseline": (Step("2", 0.0, 0.0), Step("3", 30.0, 14137.0)),
    "new": (Step("2", 0.0, 0.0), Step("3", 30.0, 14137.0)),
    "not growing": (Step("2", 0.0, 0.0),),
}
#: Solid, smooth, oval, lentiform or triangular nodules at the pleura, up to this mean diameter: category 2 at baseline
#: or when new.
LUNG_RADS_JUXTAPLEURAL_MM = 10.0
#: Growth: the mean diameter by more than this within twelve months.
LUNG_RADS_GROWTH_MM, LUNG_RADS_GROWTH_DAYS = 1.5, 366
_NO_GROWTH = "not known to have grown 1.5 mm in 12 months since the prior: the row of a first scan"
_OPEN = "more than 12 months apart, or no dates: whether"

#: Fleischner's diameters are rounded to whole mm first, halves up: 5.5 mm are 6 mm, 8.4 mm are 8 mm. 250 mm3 are not
#: above 250 mm3.
FLEISCHNER_SOLID = (Step("below 6 mm", 0.0, 0.0), Step("6 to 8 mm", 5.5, 100.0), Step("above 8 mm", 8.5, 251.0))
FLEISCHNER_SUBSOLID = (Step("below 6 mm", 0.0), Step("6 mm or more", 5.5))
FLEISCHNER_GROWTH_MM = 2.0
FLEISCHNER_NOTE = "rounded to whole mm; not for screening, under 35 years, known cancer or immunosuppression"

BTS = (Step("below 80 mm³", 0.0, 0.0), Step("80 to below 300 mm³", 6.0, 80.0), Step("300 mm³ or more", 8.0, 300.0))
#: BTS' diameters are longest ones; subsolid nodules have no volumes.
BTS_BY_DIAMETER = (
    Step("below 5 mm", 0.0),
    Step("5 to below 6 mm", 5.0),
    Step("6 to below 8 mm", 6.0),
    Step("8 mm or more", 8.0),
)
BTS_SUBSOLID = (Step("below 5 mm", 0.0), Step("5 mm or more", 5.0))
BTS_GROWTH_PERCENT, BTS_DOUBLING_DAYS = 25.0, 400.0

SUBSOLID_MASS_PERCENT = 30.0

#: Brock model: intercept and coefficients.
BROCK = {
    "intercept": 0.2761,
    "age": 0.0287,
    "female": 0.6011,
    "family_history": 0.2961,
    "emphysema": 0.2953,
    "size": -5.3854,
    "ground-glass": -0.1276,
    "part-solid": 0.3770,
    "solid": 0.0,
    "upper_lobe": 0.6581,
    "nodule_count": -0.0824,
    "spiculation": 0.7729,
}


#: Words for facts on patient and nodule, and the fields of :class:`Patient`.
BROCK_WORDS = {"family": "family_history", "emphysema": "emphysema", "spiculated": "spiculation", "upper": "upper_lobe"}


@dataclass(frozen=True)
class Patient:
    """The user's entries for the Brock model; nothing of it is guessed."""

    age: float
    female: bool
    family_history: bool
    emphysema: bool
    spiculation: bool
    upper_lobe: bool


def lung_rads(nodule: Nodule, course: Course) -> Category:
    """The size category of Lung-RADS 2022.

    Args:
        nodule: its mean diameter decides; of a part-solid nodule that of its solid part.
        course: "baseline" without a prior, "new", "growing" (by Lung-RADS' own measure; of a part-solid nodule the
            solid part) or "not growing".
    """
    name = "Lung-RADS 2022"
    mean = nodule.mean_diameter_mm
    if nodule.type == "solid":
        # a solid nodule without growth keeps a size, for which the table has the row of the first scan
        found = _sized(name, LUNG_RADS_SOLID["baseline" if course == "not growing" else course], mean, nodule)
        notes = [_NO_GROWTH] if course == "not growing" else []
        benign = course != "growing" and mean <= LUNG_RADS_JUXTAPLEURAL_MM
        if benign and nodule.place.distance_to_pleura_mm == 0.0 and found.category != "2":
            notes.append("touches the lung's surface: 2 if smooth and oval, lentiform or triangular")
        return dataclasses.replace(found, note=", ".join(notes))
    if nodule.type == "ground-glass":
        if course == "growing":
            if mean < 30.0:
                return _sized(name, LUNG_RADS_GROUND_GLASS["baseline"], mean, nodule)
            return Category(name, None, mean, note="the table has no row for growing ground glass of 30 mm or more")
        return _sized(name, LUNG_RADS_GROUND_GLASS[course], mean, nodule)
    if nodule.solid is None:
        return Category(name, None, note="the solid part was not measured")
    rows = LUNG_RADS_PART_SOLID["baseline" if course == "not growing" else course]
    note = _NO_GROWTH if course == "not growing" else ""
    core = nodule.solid
    low, high = _size_bounds(nodule)
    reached = _reached(rows, core.mean_diameter_mm * low, core.mean_diameter_mm * high)
    if course != "growing":
        border = LUNG_RADS_PART_SOLID_TOTAL_MM
        small = LUNG_RADS_SMALL_PART_SOLID["new" if course == "new" else "baseline"]
        reached = _by_total((small,), reached, border, mean * low, mean * high)
        if mean < border:
            return Category(name, small, mean, None, border, reached, note)
    by_volume = _by_volume(rows, core.volume_mm3)
    return Category(
        name,
        _row(rows, core.mean_diameter_mm),
        core.mean_diameter_mm,
        by_volume,
        _border(rows, core.mean_diameter_mm),
        reached,
        note or "by the solid part",
    )


def fleischner(nodule: Nodule) -> Category:
    """The size group of the Fleischner Society 2017, for nodules found by chance: by mean diameter in whole mm."""
    name = "Fleischner 2017"
    mean = nodule.mean_diameter_mm
    if nodule.type == "solid":
        return dataclasses.replace(_sized(name, FLEISCHNER_SOLID, mean, nodule), note=FLEISCHNER_NOTE)
    rows = FLEISCHNER_SUBSOLID
    found = dataclasses.replace(_sized(name, rows, mean, nodule), note=FLEISCHNER_NOTE)
    if nodule.type == "ground-glass" or nodule.solid is None:
        return found
    solid, (low, high) = nodule.solid.mean_diameter_mm, _size_bounds(nodule)
    small, large = (row.category for row in rows)
    parts = tuple(f"{large}, solid part {row}" for row in _reached(rows, solid * low, solid * high))
    found = dataclasses.replace(found, range=_by_total((small,), parts, rows[1].mm, mean * low, mean * high))
    if found.category == small:
        return found
    category = f"{large}, solid part {_row(rows, solid)}"
    return dataclasses.replace(found, category=category, size_mm=solid)


def bts(nodule: Nodule) -> Category:
    """The size group of the British Thoracic Society 2015.

    Solid nodules by volume, with the group by diameter beside; subsolid ones by diameter. It is the longest one.
    """
    longest = nodule.long_axis.length_mm
    if nodule.type != "solid":
        return dataclasses.replace(
            _sized("BTS 2015", BTS_SUBSOLID, longest, nodule), note="subsolid: by the longest diameter"
        )
    volume, interval = nodule.volume_mm3, nodule.volume_interval_mm3
    category = _by_volume(BTS, volume)
    groups = [_by_volume(BTS, each) for each in (interval.low, volume, interval.high)]
    reached = tuple(dict.fromkeys(group for group in groups if group is not None))
    borders = [step.mm3 for step in BTS if step.mm3]
    nearest = min(borders, key=lambda border: abs(math.log(volume / border)))
    away = 100.0 * (volume / nearest - 1.0)
    return Category(
        "BTS 2015",
        category,
        None,
        None,
        None,
        reached,
        f"{whole(volume)} mm³, {signed(away)} % from the border at {nearest:g} mm³; "
        f"by the longest diameter {_row(BTS_BY_DIAMETER, longest)}",
    )


def categories(findings: Findings, nodule: Nodule) -> list[Category]:
    """Returns every guideline's category of a nodule, with its course since the prior scan where there is one."""
    found = []
    course, doubt = course_of(findings, nodule)
    category = lung_rads(nodule, course)
    found.append(dataclasses.replace(category, note="; ".join(filter(None, (category.note, doubt)))))
    return [*found, fleischner(nodule), bts(nodule)]


def course_of(findings: Findings, nodule: Nodule) -> tuple[Course, str]:
    """Returns a nodule's course by Lung-RADS' measure, and a remark on what decided it or is in doubt about it."""
    follow_up = findings.follow_up
    if follow_up is None:
        return "baseline", "without a prior scan Lung-RADS has category 0 where one exists"
    pair = next((each for each in follow_up.pairs if each.current_uid == nodule.tracking_uid), None)
    if pair is None or pair.status == "unmatched":
        return "baseline", "not matched with the prior scan: the row of a first scan"
    if pair.status == "new":
        return "new", ""
    before = findings.prior_nodule(pair.prior_uid)
    growing = grows_by_lung_rads(pair.mean_diameter, follow_up.days)
    if nodule.type == "part-solid" and nodule.solid is not None and before is not None:
        return _course_of_core(nodule.solid.mean_diameter_mm, before, growing, follow_up.days)
    if growing is None:
        return "not growing", f"{_OPEN} it grew 1.5 mm within 12 months is open"
    mixed = before is not None and before.diameters_by_hand != nodule.diameters_by_hand
    doubt = "its axes were drawn by hand in one of the two scans only" if mixed else ""
    return ("growing" if growing else "not growing"), doubt


def _course_of_core(core_mm: float, before: Nodule, total: bool | None, days: int | None) -> tuple[Course, str]:
    """The course of a part-solid nodule, of which Lung-RADS' table asks for a new or growing solid part.

    Args:
        core_mm: mean diameter of its solid part.
        before: the nodule in the prior scan.
        total: whether the whole nodule grew; None where it did in more than twelve months, or without dates.
        days: between the scans.
    """
    if before.type == "ground-glass":
        return "growing", "its solid part is new since the prior: the row of a growing one"
    prior_mm = before.mean_diameter_mm if before.solid is None else before.solid.mean_diameter_mm
    growing = grows_by_lung_rads(Change(prior_mm, core_mm, 0.0), days)
    if growing is None:
        return "not growing", f"{_OPEN} its solid part grew 1.5 mm within 12 months is open"
    if growing:
        return "growing", f"its solid part grew by {core_mm - prior_mm:.1f} mm"
    return "not growing", "the whole grew by more than 1.5 mm, its solid part did not" if total is not False else ""


def grows_by_lung_rads(diameter: Change | None, days: int | None) -> bool | None:
    """Whether the mean diameter grew by more than 1.5 mm within twelve months; None where that cannot be told.

    Over more than twelve months it did where it grew by so much in each of them on average.
    """
    if diameter is None:
        return None
    grown = round(diameter.current - diameter.prior, 1)
    if grown <= LUNG_RADS_GROWTH_MM:
        return False
    if days is None or days <= 0:
        return None
    return True if round(grown / math.ceil(days / LUNG_RADS_GROWTH_DAYS), 3) > LUNG_RADS_GROWTH_MM else None


def growth_statements(pair: Pair, kind: NoduleType, days: int | None) -> list[str]:
    """Compares a matched nodule with the guidelines' thresholds of growth, one line each."""
    lines = []
    if pair.mean_diameter is not None:
        grown = round(pair.mean_diameter.current - pair.mean_diameter.prior, 1)
        by_lung_rads = grows_by_lung_rads(pair.mean_diameter, days)
        words = {
            True: "above 1.5 mm in 12 months",
            False: "not above 1.5 mm in 12 months",
            None: "above 1.5 mm, but not known to be within 12 months",
        }
        lines.append(f"Lung-RADS 2022: mean diameter {signed(grown, 1)} mm, {words[by_lung_rads]}")
        at_least = "reaches" if grown >= FLEISCHNER_GROWTH_MM else "below"
        lines.append(f"Fleischner 2017: {signed(grown, 1)} mm, {at_least} 2 mm")
    if pair.volume is not None:
        lines.append(f"BTS 2015: volume {signed(pair.volume.percent)} %, {_against(pair.volume, BTS_GROWTH_PERCENT)}")
        if pair.doubling_days is not None and pair.doubling_days > 0:
            lines.append(f"BTS 2015: doubling time {pair.doubling_days:.0f} days, {_doubling(pair)}")
    if pair.mass is not None and kind != "solid":
        lines.append(f"subsolid: mass {signed(pair.mass.percent)} %, {_against(pair.mass, SUBSOLID_MASS_PERCENT)}")
    return lines


def brock(nodule: Nodule, patient: Patient, nodule_count: int) -> float:
    """The probability of cancer by the full Brock model with spiculation, 0..1; research only.

    Args:
        nodule: its longest diameter and its type.
        patient: a person's entries.
        nodule_count: number of nodules in the scan, this one included.

    Raises:
        InputError: an age or a count that cannot be.
    """
    if not 18 <= patient.age <= 120:
        raise InputError(f"an age of {patient.age:g} years does not fit the Brock model: give 18 to 120")
    if nodule_count < 1 or nodule.long_axis.length_mm <= 0.0:
        raise InputError("the Brock model needs a nodule with a size")
    x = (
        BROCK["intercept"]
        + BROCK["age"] * patient.age
        + BROCK["female"] * patient.female
        + BROCK["family_history"] * patient.family_history
        + BROCK["emphysema"] * patient.emphysema
        + BROCK["size"] * (nodule.long_axis.length_mm / 10.0) ** -0.5
        + BROCK[nodule.type]
        + BROCK["upper_lobe"] * patient.upper_lobe
        + BROCK["nodule_count"] * nodule_count
        + BROCK["spiculation"] * patient.spiculation
    )
    return 1.0 / (1.0 + math.exp(-x))


def brock_remark(nodule: Nodule, patient: Patient, nodule_count: int) -> str:
    """Formats the Brock model's probability in one line, with its entries. Raises InputError as :func:`brock`."""
    share = brock(nodule, patient, nodule_count)
    told = [f"age {patient.age:g}", "female" if patient.female else "male"]
    told += [word for word, field in BROCK_WORDS.items() if getattr(patient, field)]
    told_of = f"{', '.join(told)}; {nodule_count} nodule{'s' * (nodule_count != 1)}"
    return f"Brock model (full, with spiculation): {100.0 * share:.1f} % ({told_of}), research only"


def _sized(guideline: str, rows: Sequence[Step], mean_mm: float, nodule: Nodule) -> Category:
    low, high = _size_bounds(nodule)
    by_volume = _by_volume(rows, nodule.volume_mm3) if nodule.type != "part-solid" else None
    return Category(
        guideline,
        _row(rows, mean_mm),
        mean_mm,
        by_volume,
        _border(rows, mean_mm),
        _reached(rows, mean_mm * low, mean_mm * high),
    )


def _size_bounds(nodule: Nodule) -> tuple[float, float]:
    """The factors on a diameter at the ends of the volume's interval: their cube roots."""
    interval = nodule.volume_interval_mm3
    return (interval.low / nodule.volume_mm3) ** (1 / 3), (interval.high / nodule.volume_mm3) ** (1 / 3)


def _row(rows: Sequence[Step], mm: float) -> str:
    return [row.category for row in rows if mm >= row.mm][-1]


def _by_volume(rows: Sequence[Step], mm3: float) -> str | None:
    """The row by volume, which tables give in whole mm3; None where the table has no volumes."""
    if any(row.mm3 is None for row in rows) or len(rows) < 2:
        return None
    return [row.category for row in rows if row.mm3 is not None and half_up(mm3, 0) >= row.mm3][-1]


def _reached(rows: Sequence[Step], low_mm: float, high_mm: float) -> tuple[str, ...]:
    return tuple(
        row.category
        for row, after in zip(rows, [*rows[1:], None], strict=True)
        if high_mm >= row.mm and (after is None or low_mm < after.mm)
    )


def _by_total(
    small: tuple[str, ...], large: tuple[str, ...], border_mm: float, low_mm: float, high_mm: float
) -> tuple[str, ...]:
    """The rows that a part-solid nodule reaches, where its whole size decides between two sets of rows."""
    return tuple(dict.fromkeys([*(small if low_mm < border_mm else ()), *(large if high_mm >= border_mm else ())]))


def _border(rows: Sequence[Step], mm: float) -> float | None:
    borders = [row.mm for row in rows if row.mm > 0.0]
    return min(borders, key=lambda border: abs(border - mm)) if borders else None


def _against(change: Change, percent: float) -> str:
    """Compares a change in percent, with its interval, to a threshold of growth."""
    interval = change.percent_interval
    if interval is not None and interval.low < percent <= interval.high:
        reach = f"{signed(interval.low)} to {signed(interval.high)} %"
        return f"the interval ({reach}) includes the threshold of {percent:.0f} %"
    return f"{'reaches' if change.percent >= percent else 'below'} {percent:.0f} %"


def _doubling(pair: Pair) -> str:
    interval, days = pair.doubling_days_interval, pair.doubling_days
    if interval is not None and interval.low <= BTS_DOUBLING_DAYS <= interval.high:
        return f"the interval includes {BTS_DOUBLING_DAYS:.0f} days"
    return f"{'above' if days is not None and days > BTS_DOUBLING_DAYS else 'below'} {BTS_DOUBLING_DAYS:.0f} days"
