"""Findings as documents: plain text for the clipboard, a table for spreadsheets, one self-contained page, a PDF."""

from __future__ import annotations

import base64
import html
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files.output_files import whole_file, write_text_whole
from ..inference.nodule_table import BY_HAND, FOLLOWED, REPORTED, table_text, whole
from . import rules
from .findings import Caveat, Change, Findings, Interval, Nodule, Pair, Scan, signed

DISCLAIMER = "For research only. Not a medical device: not for diagnosis, and no advice to anybody."
#: More nodules than this get no picture of their own: the largest have one.
MOST_PICTURES = 12
_RAISED = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹˒")
#: Unicode's marks around a text of unknown direction.
_ISOLATE, _POP = "\u2068", "\u2069"
_MARKS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")

_TABLE = (
    "name",
    "status",
    "volume_mm3",
    "volume_low_mm3",
    "volume_high_mm3",
    "long_axis_mm",
    "short_axis_mm",
    "mean_diameter_mm",
    "diameters",
    "mean_hu",
    "mass_mg",
    "note",
    *REPORTED,
    "tracking_uid",
)


def as_text(findings: Findings) -> str:
    """The findings as plain text, a few lines a nodule."""
    lines = [scan_line(findings.scan)]
    course = findings.follow_up
    if course is not None:
        lines += [f"Prior: {scan_line(course.prior)}, {days_text(course.days)}", f"Registration: {course.registration}"]
    lines += [f"Caveat: {caveat_line(each)}" for each in all_caveats(findings)]
    if not findings.nodules:
        lines += ["", "No nodules."]
    for number, nodule in enumerate(findings.nodules, start=1):
        lines += ["", f"{number}. {name_text(nodule.name)}: {nodule_line(nodule)}"]
        pair = pair_of(findings, nodule)
        if pair is not None:
            lines += [f"   {course_line(findings, pair)}"]
        lines += [f"   {line}" for line in remark_lines(findings, nodule)]
    for pair in course.pairs if course is not None else ():
        if pair.current_uid is None:
            lines += ["", f"{pair_name(findings, pair)}: {course_line(findings, pair)}"]
    return "\n".join([*lines, "", DISCLAIMER, f"{findings.software}, masks: {findings.model}"]) + "\n"


def as_csv(findings: Findings) -> str:
    """The findings as a table, one row a nodule; those of the prior that are gone at the end."""
    rows = [_row(findings, nodule) for nodule in findings.nodules]
    keys = list(_TABLE)
    if findings.follow_up is not None:
        keys += FOLLOWED
        for pair in findings.follow_up.pairs:
            prior = findings.prior_nodule(pair.prior_uid)
            if pair.current_uid is None and prior is not None:
                rows.append(
                    {
                        "name": f"{prior.name} (prior)",
                        "tracking_uid": prior.tracking_uid,
                        "type": prior.type,
                        "remarks": [f"prior: {each}" for each in prior.remarks],
                        **_course_cells(findings, pair),
                    }
                )
    spoiled = [caveat_line(each) for each in all_caveats(findings)]
    return table_text([{**row, "note": "; ".join([*row.get("remarks", ()), *spoiled])} for row in rows], keys)


def _row(findings: Findings, nodule: Nodule) -> dict[str, Any]:
    place, interval = nodule.place, nodule.volume_interval_mm3
    found = {category.guideline: category.category for category in rules.categories(findings, nodule)}
    pair = pair_of(findings, nodule)
    return {
        "name": nodule.name,
        "status": nodule.status,
        "type": nodule.type,
        "side": place.side,
        "lobe": place.lobe,
        "slice_number": place.slice_number,
        **_xyz("center", place.centroid_ras),
        "distance_to_pleura_mm": place.distance_to_pleura_mm,
        "volume_mm3": nodule.volume_mm3,
        "volume_low_mm3": interval.low,
        "volume_high_mm3": interval.high,
        "long_axis_mm": nodule.long_axis.length_mm,
        "short_axis_mm": nodule.short_axis.length_mm,
        "mean_diameter_mm": nodule.mean_diameter_mm,
        "diameters": BY_HAND if nodule.diameters_by_hand else None,
        "mean_hu": nodule.mean_hu,
        "mass_mg": nodule.mass_mg,
        "solid_volume_mm3": nodule.solid and nodule.solid.volume_mm3,
        "solid_mean_diameter_mm": nodule.solid and nodule.solid.mean_diameter_mm,
        "lung_rads_2022": found["Lung-RADS 2022"],
        "fleischner_2017": found["Fleischner 2017"],
        "bts_2015": found["BTS 2015"],
        "tracking_uid": nodule.tracking_uid,
        "remarks": _remarks(findings, nodule),
        **(_course_cells(findings, pair) if pair is not None else {"course": "baseline"}),
    }


def _course_cells(findings: Findings, pair: Pair) -> dict[str, Any]:
    prior = findings.prior_nodule(pair.prior_uid)
    cells: dict[str, Any] = {"course": pair.status, "days": findings.follow_up and findings.follow_up.days}
    if prior is not None:
        cells |= {"prior_volume_mm3": prior.volume_mm3, "prior_mean_diameter_mm": prior.mean_diameter_mm}
    if pair.volume is not None:
        cells["volume_change_percent"] = pair.volume.percent
        cells |= _ends("volume_change", "percent", pair.volume.percent_interval)
    if pair.mass is not None:
        cells["mass_change_percent"] = pair.mass.percent
    if pair.mean_diameter is not None:
        cells["diameter_change_mm"] = pair.mean_diameter.current - pair.mean_diameter.prior
    cells["doubling_days"] = pair.doubling_days
    cells |= _ends("doubling", "days", pair.doubling_days_interval)
    return cells | (_xyz("expected", pair.expected_ras) if pair.expected_ras is not None else {})


def _ends(name: str, unit: str, interval: Interval | None) -> dict[str, float | None]:
    bounds = (None, None) if interval is None else (interval.low, interval.high)
    return {
        f"{name}_{end}_{unit}": None if bound is None or not math.isfinite(bound) else bound
        for end, bound in zip(("low", "high"), bounds, strict=True)
    }


def _xyz(name: str, ras: Sequence[float]) -> dict[str, float]:
    return {f"{name}_{axis}": value for axis, value in zip("ras", ras, strict=True)}


def name_text(name: str) -> str:
    """Formats a name for a line of text: without line breaks; one of right-to-left letters does not turn the rest."""
    text = "".join(" " if letter.isspace() else letter for letter in name)
    ways = {unicodedata.bidirectional(letter) for letter in text}
    # control characters, and marks of direction, which would reach beyond the name
    kept = (
        each for each in text if unicodedata.category(each) != "Cc" and unicodedata.bidirectional(each) not in _MARKS
    )
    line = " ".join("".join(kept).split())
    return f"{_ISOLATE}{line}{_POP}" if ways & {"R", "AL"} else line


def pair_of(findings: Findings, nodule: Nodule) -> Pair | None:
    """Returns the pair of a nodule: what became of it since the prior scan; None without a prior."""
    pairs = findings.follow_up.pairs if findings.follow_up is not None else ()
    return next((pair for pair in pairs if pair.current_uid == nodule.tracking_uid), None)


def pair_name(findings: Findings, pair: Pair) -> str:
    """Returns the name of a pair: that of the current scan's nodule, since the prior's names may mean others."""
    nodule, prior = findings.nodule(pair.current_uid), findings.prior_nodule(pair.prior_uid)
    if nodule is not None:
        return name_text(nodule.name)
    return "" if prior is None else f"{name_text(prior.name)} (prior)"


def all_caveats(findings: Findings) -> list[Caveat]:
    """Lists the caveats of both scans and of their comparison, each once."""
    course = findings.follow_up
    caveats = list(findings.scan.caveats)
    if course is not None:
        caveats += [Caveat(f"prior: {each.text}", each.spoils) for each in course.prior.caveats]
        caveats += course.caveats
    return list(dict.fromkeys(caveats))


def spoiled_by(findings: Findings, *figures: str) -> list[int]:
    """Returns the numbers (from 1, in the order of :func:`all_caveats`) of caveats that spoil any of the figures."""
    return [number for number, each in enumerate(all_caveats(findings), start=1) if set(figures) & set(each.spoils)]


def raised(findings: Findings, *figures: str) -> str:
    """Formats the numbers of the caveats that spoil any of the figures as raised digits; "" where none does."""
    return ",".join(map(str, spoiled_by(findings, *figures))).translate(_RAISED)


def scan_line(scan: Scan) -> str:
    """A scan in one line."""
    thickness = "" if scan.slice_thickness_mm is None else f", slices {scan.slice_thickness_mm:g} mm"
    parts = [
        name_text(scan.name),
        name_text(scan.patient_name or ""),
        scan.date or "no date",
        f"voxels {' x '.join(f'{each:.3g}' for each in scan.spacing_mm)} mm{thickness}",
        f"kernel {scan.kernel}" if scan.kernel else "",
    ]
    return ", ".join(part for part in parts if part)


def caveat_line(caveat: Caveat) -> str:
    """Formats a caveat and the figures that it spoils."""
    return f"{caveat.text} (spoils: {', '.join(caveat.spoils)})"


def nodule_line(nodule: Nodule) -> str:
    """A nodule's figures in one line."""
    place = nodule.place
    where = " ".join(part for part in (place.side, place.lobe) if part)
    parts = [
        where,
        f"slice {place.slice_number}",
        f"{nodule.type} ({nodule.type_reason})",
        size_text(nodule),
        f"{volume_text(nodule)}",
        f"{whole(nodule.mean_hu)} HU",
        f"{whole(nodule.mass_mg)} mg",
    ]
    if nodule.solid is not None:
        parts.append(f"solid part {nodule.solid.mean_diameter_mm:.1f} mm, {whole(nodule.solid.volume_mm3)} mm³")
    if place.distance_to_pleura_mm is not None:
        parts.append(
            "touches the lung's surface"
            if place.distance_to_pleura_mm == 0.0
            else f"{whole(place.distance_to_pleura_mm)} mm to the lung's surface"
        )
    if nodule.status != "AI":
        parts.append(nodule.status)
    return ", ".join(part for part in parts if part)


def _mean_text(nodule: Nodule) -> str:
    return f"{nodule.mean_diameter_mm:.1f} mm{', by hand' * nodule.diameters_by_hand}"


def size_text(nodule: Nodule) -> str:
    """Formats both axes and their mean."""
    return f"{axes_text(nodule)} mm (mean {_mean_text(nodule)})"


def axes_text(nodule: Nodule, by_hand: str = "") -> str:
    """Formats both axes without a unit, with ``by_hand`` where a person drew them."""
    return f"{nodule.long_axis.length_mm:.1f} x {nodule.short_axis.length_mm:.1f}{by_hand * nodule.diameters_by_hand}"


def volume_text(nodule: Nodule) -> str:
    """Formats the volume with its interval."""
    interval = nodule.volume_interval_mm3
    return f"{whole(nodule.volume_mm3)} mm³ ({whole(interval.low)} to {whole(interval.high)})"


def lung_rads_text(findings: Findings, nodule: Nodule) -> str:
    """Formats the size category of Lung-RADS for tables, with the categories that its interval reaches."""
    category = rules.categories(findings, nodule)[0]
    reach = f" ({'/'.join(category.range)})" if len(category.range) > 1 else ""
    return f"{category.category or 'none'}{reach}"


def days_text(days: int | None) -> str:
    """Formats the time between the scans."""
    return "time between the scans unknown" if days is None else f"{days} day{'s' * (days != 1)} earlier"


def course_line(findings: Findings, pair: Pair) -> str:
    """Describes in one line what became of a nodule."""
    prior = findings.follow_up.prior_nodules if findings.follow_up is not None else ()
    if pair.status == "new":
        return f"new: no partner in the prior scan{_within(pair, prior, ' (prior): split?')}"
    if pair.status == "unmatched":
        failed = findings.follow_up is not None and findings.follow_up.prior_to_current is None
        other = "this" if pair.current_uid is None else "prior"
        reason = "the registration failed" if failed else f"its place lies outside the {other} scan"
        return f"not matched; {reason}"
    if pair.status == "gone":
        assert pair.expected_ras is not None
        right, front, up = (whole(each) for each in pair.expected_ras)
        within = _within(pair, findings.nodules, ": merged?")
        return f"in the prior only; expected at R {right}, A {front}, S {up}{within}"
    assert pair.volume is not None and pair.mean_diameter is not None
    grown = pair.mean_diameter.current - pair.mean_diameter.prior
    hand = ", paired by hand" if pair.by_hand else ""
    mass = "" if pair.mass is None else f", mass {change_text(pair.mass)}"
    return (
        f"prior {whole(pair.volume.prior)} mm³, volume {change_text(pair.volume)}{mass}, "
        f"mean diameter {signed(grown, 1)} mm{hand}; {doubling_text(pair)}"
    )


def _within(pair: Pair, others: Sequence[Nodule], question: str) -> str:
    """Names the other scan's nodule in whose reach a nodule without a partner should lie; "" where there is none."""
    if pair.expected_ras is None:
        return ""
    for each in others:
        if math.dist(pair.expected_ras, each.place.centroid_ras) < each.long_axis.length_mm / 2.0:
            return f"; its place lies in {name_text(each.name)}{question}"
    return ""


def remark_lines(findings: Findings, nodule: Nodule) -> list[str]:
    """What is said below a nodule's figures: the guidelines' thresholds of growth, remarks, categories."""
    pair, course = pair_of(findings, nodule), findings.follow_up
    growth = []
    if pair is not None and course is not None and pair.status == "matched":
        growth = rules.growth_statements(pair, nodule.type, course.days)
    return [*growth, *_remarks(findings, nodule), *(category.text for category in rules.categories(findings, nodule))]


def _remarks(findings: Findings, nodule: Nodule) -> list[str]:
    """The remarks on a nodule, and those on its partner in the prior scan, whose mask spoils the change."""
    pair = pair_of(findings, nodule)
    before = None if pair is None else findings.prior_nodule(pair.prior_uid)
    return [*nodule.remarks, *(f"prior: {each}" for each in (before.remarks if before is not None else ()))]


def change_text(change: Change) -> str:
    """Formats a change in percent with its interval."""
    interval = change.percent_interval
    within = "" if interval is None else f" ({signed(interval.low)} to {signed(interval.high)})"
    return f"{signed(change.percent)} %{within}"


def doubling_text(pair: Pair) -> str:
    """Formats the doubling time with its interval, or says that there is no measurable change."""
    interval = pair.doubling_days_interval
    if not pair.is_measurable:
        least = 0 if interval is None else round(interval.low)
        return "no measurable change" + (f" (if it grows, doubling takes at least {least} days)" if least else "")
    if pair.doubling_days is None:
        return "doubling time unknown: a date is missing, or both scans are of one day"
    if interval is None:
        return f"doubling time {pair.doubling_days:.0f} days"
    halves = pair.doubling_days < 0
    low, high = (-interval.high, -interval.low) if halves else (interval.low, interval.high)
    reach = f"{low:.0f} to {high:.0f}" if math.isfinite(high) else f"{low:.0f} or more"
    return f"{'halving' if halves else 'doubling'} time {abs(pair.doubling_days):.0f} days ({reach})"


def write_text(path: Path, findings: Findings) -> None:
    """Writes the plain text. Raises InputError where the place cannot be written."""
    write_text_whole(path, as_text(findings))


def write_csv(path: Path, findings: Findings) -> None:
    """Writes the table, with a byte-order mark by which spreadsheets know the encoding. Raises InputError."""
    write_text_whole(path, as_csv(findings), encoding="utf-8-sig")


def write_html(path: Path, findings: Findings, pictures: Mapping[str, bytes]) -> None:
    """Writes the page, whole or not at all; it needs no other file. Raises InputError.

    Args:
        pictures: PNG bytes by the nodules' tracking UIDs.
    """
    write_text_whole(path, as_html(findings, pictures))


def as_html(findings: Findings, pictures: Mapping[str, bytes]) -> str:
    """The page as text; see :func:`write_html`."""
    text = html.escape
    course = findings.follow_up
    head = [
        f"<h1>Lung nodules: {text(name_text(findings.scan.patient_name or findings.scan.name))}</h1>",
        f"<p class=scan>{text(scan_line(findings.scan))}</p>",
    ]
    if course is not None:
        head.append(
            f"<p class=scan>Prior: {text(scan_line(course.prior))}, {text(days_text(course.days))}. "
            f"Registration: {text(course.registration)}.</p>"
        )
    caveats = all_caveats(findings)
    if caveats:
        head.append("<ol class=caveats>" + "".join(f"<li>{text(caveat_line(each))}</li>" for each in caveats) + "</ol>")
    body = [_html_table(findings), _html_follow_up(findings)]
    body += [
        _html_card(findings, number, nodule, pictures.get(nodule.tracking_uid))
        for number, nodule in enumerate(findings.nodules, start=1)
    ]
    foot = (
        f"<footer><b>{text(DISCLAIMER)}</b> {text(rules.NOTE)}<br>Intervals: 95 %, of made-up nodules "
        f"scanned and measured again. Lung window, radiological view. {text(findings.software)}, masks: "
        f"{text(findings.model)}, {text(findings.created)}.</footer>"
    )
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Lung nodules: {text(name_text(findings.scan.name))}</title><style>{_STYLE}</style></head>\n<body>"
        + "\n".join([*head, *body, foot])
        + "</body></html>\n"
    )


_STYLE = """
body{font:14px/1.45 system-ui,'Segoe UI','DejaVu Sans',sans-serif;color:#1c2430;max-width:1060px;margin:24px auto;
padding:0 20px}h1{font-size:22px;margin:0 0 4px}h2{font-size:16px;margin:22px 0 6px}.scan{margin:2px 0;color:#44505f}
.caveats{margin:10px 0;padding:8px 10px 8px 34px;background:#fff4d6;border-left:4px solid #d99a00;border-radius:3px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:4px 8px;text-align:right;
border-bottom:1px solid #dde2e8;vertical-align:top}th{font-weight:600;color:#44505f;border-bottom:2px solid #9aa5b1}
th:nth-child(-n+4),td:nth-child(-n+4){text-align:left}sup{color:#a06f00}td.name{min-width:8em;overflow-wrap:anywhere}
td.figure{white-space:nowrap}h1,h2,.scan{overflow-wrap:anywhere}.card{margin:18px 0;break-inside:avoid}
.card div{display:grid;grid-template-columns:58% 1fr;gap:0 14px;align-items:start}.card img{width:100%;display:block;
border-radius:4px}.card h2{margin:0 0 4px}.card p{margin:4px 0}
.card ul{margin:4px 0;padding-left:20px;color:#44505f;font-size:13px}
footer{margin-top:24px;padding-top:8px;border-top:1px solid #9aa5b1;color:#44505f;font-size:12px}
@media print{body{margin:0;max-width:none}table{font-size:11px}th,td{padding:3px 4px}}
"""


def _marks(findings: Findings, *figures: str) -> str:
    """The numbers of the caveats that spoil any of the figures, for the head of their column."""
    numbers = spoiled_by(findings, *figures)
    return f" <sup>{','.join(map(str, numbers))}</sup>" if numbers else ""


def _html_row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    """A row of a table; each cell is of a kind that the style knows, "" for none."""
    made = (
        f"<td{f' class={kind}' * bool(kind)}>{html.escape(cell)}</td>" for cell, kind in zip(cells, kinds, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"


def _html_table(findings: Findings) -> str:
    if not findings.nodules:
        return "<p>No nodules.</p>"
    heads = [
        "",
        "Nodule",
        "Place",
        f"Type{_marks(findings, 'type')}",
        f"Axes mm{_marks(findings, 'diameters')}",
        f"Mean mm{_marks(findings, 'diameters')}",
        f"Volume mm³ (95 %){_marks(findings, 'volume')}",
        f"Solid part mm{_marks(findings, 'diameters', 'type')}",
        f"HU{_marks(findings, 'mean HU')}",
        f"Mass mg{_marks(findings, 'mass', 'volume')}",
        f"Lung-RADS size{_marks(findings, 'diameters', 'type')}",
    ]
    rows = []
    for number, nodule in enumerate(findings.nodules, start=1):
        place = ", ".join(filter(None, (nodule.place.side, nodule.place.lobe, f"slice {nodule.place.slice_number}")))
        solid = "" if nodule.solid is None else f"{nodule.solid.mean_diameter_mm:.1f}"
        cells = [
            str(number),
            name_text(nodule.name),
            place,
            nodule.type,
            axes_text(nodule, ", by hand"),
            f"{nodule.mean_diameter_mm:.1f}",
            volume_text(nodule).replace(" mm³", ""),
            solid,
            whole(nodule.mean_hu).replace("-", "\u2212"),
            whole(nodule.mass_mg),
            lung_rads_text(findings, nodule),
        ]
        kinds = ["", "name", "", "", *["figure"] * 7]
        rows.append(_html_row(cells, kinds))
    count = len(findings.nodules)
    title = f"<h2>{count} nodule{'s' * (count != 1)}{_marks(findings, 'number of nodules')}</h2>"
    return f"{title}<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(rows)}</table>"


def _html_follow_up(findings: Findings) -> str:
    course = findings.follow_up
    if course is None:
        return ""
    mark, sizes = _marks(findings, "change"), _marks(findings, "volume", "diameters")
    heads = [
        "Nodule",
        f"Course{_marks(findings, 'number of nodules')}",
        f"Prior{sizes}",
        f"Now{sizes}",
        f"Volume % (95 %){mark}",
        f"Mass %{_marks(findings, 'change', 'mass')}",
        f"Mean diameter mm{_marks(findings, 'change', 'diameters')}",
        f"Doubling time{mark}",
    ]
    rows = []
    for pair in course.pairs:
        then, now = findings.prior_nodule(pair.prior_uid), findings.nodule(pair.current_uid)
        cells = [
            pair_name(findings, pair),
            f"{'not matched' if pair.status == 'unmatched' else pair.status}{', by hand' if pair.by_hand else ''}",
            *("" if each is None else f"{whole(each.volume_mm3)} mm³, {_mean_text(each)}" for each in (then, now)),
        ]
        if pair.status == "matched" and pair.volume is not None and pair.mean_diameter is not None:
            grown = pair.mean_diameter.current - pair.mean_diameter.prior
            mass = "" if pair.mass is None else signed(pair.mass.percent)
            cells += [
                change_text(pair.volume).replace(" %", ""),
                mass,
                signed(grown, 1),
                doubling_text(pair).removeprefix("doubling time "),
            ]
        else:
            cells += ["", "", "", course_line(findings, pair).partition("; ")[2]]
        rows.append(_html_row(cells, ["name", "", *["figure"] * 5, ""]))
    if not rows:
        return "<h2>Follow-up</h2><p>No nodules at either date.</p>"
    return f"<h2>Follow-up</h2><table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(rows)}</table>"


def _html_card(findings: Findings, number: int, nodule: Nodule, picture: bytes | None) -> str:
    text = html.escape
    pair = pair_of(findings, nodule)
    course = "" if pair is None else f"<p><b>{text(course_line(findings, pair))}</b></p>"
    name = text(name_text(nodule.name))
    said = f"<ul>{''.join(f'<li>{text(line)}</li>' for line in remark_lines(findings, nodule))}</ul>"
    if picture is not None:
        image = base64.b64encode(picture).decode("ascii")
        said = f"<div><img alt='{name}' src='data:image/png;base64,{image}'>{said}</div>"
    return f"<div class=card><h2>{number}. {name}</h2><p>{text(nodule_line(nodule))}</p>{course}{said}</div>"


def write_pdf(path: Path, findings: Findings, pictures: Mapping[str, bytes]) -> None:
    """Writes the same as a PDF on A4, as many pages as it needs, whole or not at all. Raises InputError."""
    from .pdf import draw_pages

    with whole_file(path) as part:
        draw_pages(part, findings, pictures)
