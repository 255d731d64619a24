"""The nodules of a segmentation as rows, and the rows as text for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from .translation import tr as _


@dataclass(frozen=True)
class NoduleRow:
    """One nodule in the list. Measurements are None until they are known, and of an empty segment.

    Attributes:
        segmentId: of its segment.
        color: (r, g, b), 0 to 1.
        name: of its segment.
        volumeMm3, longAxisMm, shortAxisMm, meanHu: see :class:`SAMMed3DLib.inference.NoduleRecord`.
        predictedIou: the model's own estimate in [0, 1], or None.
        status: "AI", "reviewed" or "flagged".
        visible: whether the segment is shown.
        score: probability that it is a nodule, where *Segment all* found it.
        isPending: its mask is being computed.
    """

    segmentId: str
    color: tuple[float, float, float]
    name: str
    volumeMm3: float | None = None
    longAxisMm: float | None = None
    shortAxisMm: float | None = None
    meanHu: float | None = None
    predictedIou: float | None = None
    status: str = "AI"
    visible: bool = True
    score: float | None = None
    isPending: bool = False


def _columns() -> list[tuple[str, str, str]]:
    """Attribute of the row, title and number format of each column."""
    return [
        ("name", _("Name"), ""),
        ("volumeMm3", _("Volume (mm3)"), ".1f"),
        ("longAxisMm", _("Long axis (mm)"), ".1f"),
        ("shortAxisMm", _("Short axis (mm)"), ".1f"),
        ("meanHu", _("Mean (HU)"), ".0f"),
        ("predictedIou", _("Predicted IoU"), ".2f"),
        ("score", _("Score"), ".2f"),
        ("status", _("Status"), ""),
    ]


def tableText(rows: Sequence[NoduleRow], delimiter: str = "\t") -> str:
    """The rows with a line of titles: tabs for the clipboard, commas for a CSV file. Unknown values stay empty.

    Numbers have a decimal point whatever the language; texts are quoted where needed. Names that a spreadsheet would
    take for a formula get an apostrophe in front.
    """
    columns = _columns()
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow([title for _attribute, title, _format in columns])
    for row in rows:
        writer.writerow([_cell(getattr(row, attribute), form) for attribute, _title, form in columns])
    return stream.getvalue()


def _cell(value: object, form: str) -> str:
    if value is None:
        return ""
    if form:
        return format(value, form)
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
