"""What the section *Follow-up and report* shows: one function of plain facts, no Qt, so that a table can test it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..inference.nodule_table import whole
from ..report.document import change_text, doubling_text, raised
from ..report.findings import Findings, signed
from ..scene.comparison import Row
from ..translation import tr as _
from .state_view import Control, _usable

_NONE = "–"


@dataclass(frozen=True)
class FollowUpFacts:
    """All that the section's look depends on.

    Attributes:
        volume: a CT is chosen.
        prior: a prior is chosen.
        running: something is being measured or written.
        findings: there are some.
        masks: they are of the scans at hand, not from a file.
        compared: they are of two scans.
        pairing: clicks make a pair.
        sideBySide: the two rows are on screen.
        selected: a row is selected, which has a nodule ``now``, one ``before``, and a place for a click (``expected``).
        message: for the status line.
        stale: they are not of the scans and nodules as these are now.
        knownDates: whether the dates of the current and of the prior scan are in their files.
    """

    volume: bool = False
    prior: bool = False
    running: bool = False
    findings: bool = False
    masks: bool = False
    compared: bool = False
    pairing: bool = False
    sideBySide: bool = False
    selected: bool = False
    now: bool = False
    before: bool = False
    expected: bool = False
    message: str = ""
    stale: bool = False
    knownDates: tuple[bool, bool] = (False, False)


def followUpView(facts: FollowUpFacts) -> Mapping[str, Control]:
    """The look of each widget, by its name in the .ui file."""
    busy = _("Wait until this is done, or cancel it.") if facts.running else ""
    noVolume = busy or ("" if facts.volume else _("Choose a CT volume first."))
    none = busy or ("" if facts.findings else _("Press Measure or Compare first, or open findings."))
    noMasks = none or ("" if facts.masks else _("These findings are from a file: press Measure or Compare first."))
    noPairs = noMasks or ("" if facts.compared else _("Choose a prior CT and press Compare first."))
    noPrior = "" if facts.prior else _("Choose a prior CT first.")
    noRow = "" if facts.selected else _("Select a row of the table first.")
    single = noPairs or noRow or ("" if facts.now and facts.before else _("The selected nodule has no partner."))
    alone = noPairs or noRow
    if not alone and (facts.now or not facts.before):
        alone = _("Only for nodules of the prior that have no partner.")
    elif not alone and not facts.expected:
        alone = _("Its place in the CT is not known: the registration failed, or the place lies outside the CT.")
    compare = _("Compare") if facts.prior else _("Measure")
    tip = _("Measure the nodules of both scans, register the prior with the CT, and pair the nodules.")
    if not facts.prior:
        tip = _("Measure the CT's nodules for a report.")
    changed = _("Scans or nodules have changed since: press {button}.").format(button=compare) if facts.stale else ""
    message = facts.message or changed
    return {
        "compareButton": _usable(tip, noVolume, text=compare),
        "twoRowsButton": _usable(
            _("The CT above, the prior below; a row of the table is shown in both."), noPrior, checked=facts.sideBySide
        ),
        "pairButton": _usable(
            _("Correct a pair with two clicks: a nodule, then the same one in the other scan, in table or views."),
            noPairs,
            checked=facts.pairing,
        ),
        "partButton": _usable(_("These two are not the same nodule."), single),
        "clickHereButton": _usable(
            _("Click in the CT where this nodule of the prior should lie; the answer becomes its partner."), alone
        ),
        "currentDateEdit": _usable(_("Date of the CT, such as 2024-05-31."), _dateTip(facts.knownDates[0])),
        "priorDateEdit": _usable(
            _("Date of the prior CT, such as 2023-05-31."), noPrior or _dateTip(facts.knownDates[1])
        ),
        "reportButton": _usable(_("Save a page (HTML), a PDF, or the findings to open them again (JSON)."), none),
        "copyTextButton": _usable(_("Copy the findings as plain text."), none),
        "csvButton": _usable(_("Save the findings as a table."), none),
        "dicomButton": _usable(_("Save DICOM SEG and SR (TID 1500) with the nodules' tracking UIDs."), noMasks),
        "spiculatedCheckBox": _usable(_("The selected nodule is spiculated."), noRow),
        "upperCheckBox": _usable(
            _("The selected nodule lies in an upper lobe. A segmentation of the lobes says it by itself."), noRow
        ),
        "followUpLabel": Control(text=message, toolTip=message),
    }


def _dateTip(known: bool) -> str:
    return _("From the DICOM header.") if known else ""


def heads(findings: Findings | None) -> list[tuple[str, str]]:
    """Caption and tool tip of each column; raised numbers are those of the caveats that spoil the figures below."""
    course = None if findings is None else findings.follow_up
    before = (course.prior.date if course is not None else None) or _("prior")
    now = (findings.scan.date if findings is not None else None) or _("now")

    def marked(caption: str, *figures: str) -> str:
        return caption + ("" if findings is None else raised(findings, *figures))

    return [
        (_("Nodule"), _("Its name in the CT, else in the prior.")),
        (marked(_("Course"), "number of nodules"), _("Matched, new, gone, or not matched where that cannot be told.")),
        (marked(_("Volume"), "change"), _("Change of the volume with its 95 % interval.")),
        (marked(_("Doubling, days"), "change"), _("Time in which the volume doubles, with its 95 % interval.")),
        (marked(f"{before} mm³", "volume"), _("Volume in the prior scan.")),
        (marked(f"{now} mm³", "volume"), _("Volume in the CT, with its 95 % interval.")),
        (marked(_("Mean mm"), "diameters"), _("Mean diameter before and now; * of axes that were drawn by hand.")),
        (marked(_("Mass"), "mass", "change"), _("Change of the mass with its 95 % interval.")),
    ]


def cells(row: Row) -> list[str]:
    """What the table shows of a row."""
    now, before, pair = row.current, row.prior, row.pair
    words = {"matched": _("matched"), "new": _("new"), "gone": _("gone"), "unmatched": _("not matched")}
    course = "" if pair is None else words[pair.status] + (" ✋" if pair.by_hand else "")
    interval = None if now is None else now.volume_interval_mm3
    sizes = [
        _NONE if each is None else f"{each.mean_diameter_mm:.1f}{'*' * each.diameters_by_hand}"
        for each in (before, now)
    ]
    matched = pair is not None and pair.status == "matched"
    return [
        row.shown.name if now is not None else _("{name} (prior)").format(name=row.shown.name),
        course,
        change_text(pair.volume) if pair is not None and pair.volume is not None else _NONE,
        doubling_text(pair).removeprefix("doubling time ") if matched and pair is not None else _NONE,
        _NONE if before is None else whole(before.volume_mm3),
        _NONE
        if now is None or interval is None
        else f"{whole(now.volume_mm3)} ({whole(interval.low)}–{whole(interval.high)})",
        f"{sizes[0]} → {sizes[1]}" + _grown(row) if pair is not None else sizes[1],
        change_text(pair.mass) if pair is not None and pair.mass is not None else _NONE,
    ]


def _grown(row: Row) -> str:
    if row.current is None or row.prior is None:
        return ""
    return f" ({signed(row.current.mean_diameter_mm - row.prior.mean_diameter_mm, 1)})"
