"""Draws findings on A4 pages: the table in front, then a picture and the categories of each nodule."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.image import imread

from . import document, rules
from .findings import Findings, Nodule

_WIDTH, _HEIGHT, _MARGIN = 8.27, 11.69, 0.5  # A4, inches
_TEXT, _FAINT, _WARN = "#1c2430", "#5a6573", "#8a5f00"
#: Widths that the pictures may have, inches; the text stands beside them.
_PICTURE_WIDTHS = (4.2, 3.9, 3.6, 3.3, 3.0, 2.7, 2.4, 2.2)
_BETWEEN = 0.15


class _Pages:
    """Writes lines and pictures down the page, and goes on to the next page.

    Args:
        pdf: gets the pages; None only counts them.
        foot: of each page.
    """

    def __init__(self, pdf: PdfPages | None, foot: str) -> None:
        self._pdf, self._foot, self.number = pdf, foot, 0
        self._figure: Figure | None = None
        self._y = 0.0
        self.turn()

    def turn(self) -> None:
        """Ends the page, if one was begun, and begins the next."""
        self.close()
        self._figure = None if self._pdf is None else Figure(figsize=(_WIDTH, _HEIGHT))
        self._y = _HEIGHT - _MARGIN
        self.number += 1

    def close(self) -> None:
        """Writes the page."""
        if self._figure is not None and self._pdf is not None:
            self._figure.text(
                _MARGIN / _WIDTH, 0.3 / _HEIGHT, f"{self._foot}   page {self.number}", fontsize=6.5, color=_FAINT
            )
            self._pdf.savefig(self._figure)
            self._figure = None

    def room(self, inches: float) -> None:
        """Begins a new page unless so many inches are left on this one."""
        if self._y - inches < _MARGIN:
            self.turn()

    def line(self, text: str, size: float = 8.0, color: str = _TEXT, bold: bool = False, indent: float = 0.0) -> None:
        """Writes a paragraph, broken into lines."""
        for part in _wrapped(text, size, bold, indent):
            height = _line_height(size)
            self.room(height)
            self._put(_MARGIN + indent, part, size, color, bold)
            self._y -= height

    def row(self, cells: list[str], places: list[float], size: float = 7.2, bold: bool = False) -> None:
        """Writes the cells of a table at their places, in inches from the margin."""
        height = size * 1.55 / 72.0
        self.room(height)
        for cell, place in zip(cells, places, strict=True):
            self._put(_MARGIN + place, cell, size, _FAINT if bold else _TEXT, bold)
        self._y -= height

    def picture(self, png: bytes, width: float, paragraphs: Sequence[str], size: float) -> None:
        """Puts a picture onto the page, with paragraphs at its right; the picture has to fit on it."""
        height, top, page = _picture_height(png, width), self._y, self.number
        if self._figure is not None:
            axes = self._figure.add_axes((_MARGIN / _WIDTH, (top - height) / _HEIGHT, width / _WIDTH, height / _HEIGHT))
            axes.imshow(imread(io.BytesIO(png), format="png"), aspect="auto", interpolation="none")
            axes.set_axis_off()
        for text in paragraphs:
            self.line(text, size, _FAINT, indent=width + _BETWEEN)
        if self.number == page:
            self._y = min(self._y, top - height)

    def gap(self, inches: float) -> None:
        """Leaves a gap of so many inches."""
        self._y -= inches

    def _put(self, x: float, text: str, size: float, color: str, bold: bool) -> None:
        if self._figure is not None:
            self._figure.text(
                x / _WIDTH,
                self._y / _HEIGHT,
                text.replace("$", r"\$"),
                fontsize=size,
                color=color,
                va="top",
                fontweight="bold" if bold else "normal",
            )


def _line_height(size: float) -> float:
    return size * 1.4 / 72.0


def _wrapped(text: str, size: float, bold: bool = False, indent: float = 0.0) -> list[str]:
    """Breaks a paragraph into the lines that fit between an indent and the right margin."""
    width = int((_WIDTH - 2 * _MARGIN - indent) * 72.0 / (size * (0.6 if bold else 0.53)))
    return textwrap.wrap(text, width) or [""]


def _picture_height(png: bytes, width: float) -> float:
    columns, rows = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))  # of the PNG's header
    return width * rows / columns


def draw_pages(path: Path, findings: Findings, pictures: Mapping[str, bytes]) -> None:
    """Writes the PDF to ``path``, with pictures as large as leaves it at the fewest pages."""
    facts = {"Title": f"Lung nodules: {findings.scan.name}", "Creator": findings.software, "CreationDate": None}
    width = min(_PICTURE_WIDTHS, key=lambda inches: (_drawn(None, findings, pictures, inches), -inches))
    with rc_context({"pdf.fonttype": 42}), PdfPages(path, metadata=facts) as pdf:
        _drawn(pdf, findings, pictures, width)


def _drawn(pdf: PdfPages | None, findings: Findings, pictures: Mapping[str, bytes], picture_width: float) -> int:
    """Draws all pages; returns how many there are."""
    pages = _Pages(pdf, f"{document.DISCLAIMER} {findings.software}, {findings.created}.")
    pages.line(f"Lung nodules: {findings.scan.patient_name or findings.scan.name}", 14.0, bold=True)
    pages.line(document.scan_line(findings.scan), 7.4, _FAINT)
    course = findings.follow_up
    if course is not None:
        pages.line(
            f"Prior: {document.scan_line(course.prior)}, {document.days_text(course.days)}. "
            f"Registration: {course.registration}.",
            7.4,
            _FAINT,
        )
    for number, caveat in enumerate(document.all_caveats(findings), start=1):
        pages.line(f"{number}. {document.caveat_line(caveat)}", 7.2, _WARN)
    pages.gap(0.12)
    _draw_table(pages, findings)
    if course is not None:
        pages.gap(0.12)
        pages.line("Follow-up", 9.5, bold=True)
        for pair in course.pairs:
            pages.line(f"{document.pair_name(findings, pair)}: {document.course_line(findings, pair)}", 7.0)
    for number, nodule in enumerate(findings.nodules, start=1):
        if nodule.tracking_uid in pictures:
            _draw_nodule(pages, findings, number, nodule, pictures[nodule.tracking_uid], picture_width)
    pages.close()
    return pages.number


def _draw_table(pages: _Pages, findings: Findings) -> None:
    if not findings.nodules:
        pages.line("No nodules.", 9.0)
        return
    places = [0.0, 0.25, 1.55, 2.55, 3.35, 4.15, 4.6, 6.0, 6.4, 6.75]
    heads = ["", "Nodule", "Place", "Type", "Axes mm", "Mean", "Volume mm³ (95 %)", "HU", "Mass", "Lung-RADS"]
    pages.row(heads, places, bold=True)
    for number, nodule in enumerate(findings.nodules, start=1):
        category = rules.categories(findings, nodule)[0]
        place = ", ".join(filter(None, (nodule.place.side, f"slice {nodule.place.slice_number}")))
        name = nodule.name if len(nodule.name) <= 20 else f"{nodule.name[:19]}…"
        pages.row(
            [
                str(number),
                name,
                place,
                nodule.type,
                document.axes_text(nodule, " *"),  # a narrow column; what is said of the nodule names it
                f"{nodule.mean_diameter_mm:.1f}",
                document.volume_text(nodule).replace(" mm³", ""),
                f"{nodule.mean_hu:.0f}",
                f"{nodule.mass_mg:.0f}",
                "/".join(category.range) if len(category.range) > 1 else category.category or "none",
            ],
            places,
        )


def _draw_nodule(
    pages: _Pages, findings: Findings, number: int, nodule: Nodule, picture: bytes, picture_width: float
) -> None:
    pair, size = document.pair_of(findings, nodule), 6.6
    said = [*nodule.remarks, *(category.text for category in rules.categories(findings, nodule))]
    if pair is not None:  # its change is told above, with all others
        said = [*document.growth_lines(findings, nodule, pair), *said]
    facts = document.nodule_line(nodule)
    beside = sum(len(_wrapped(text, size, indent=picture_width + _BETWEEN)) for text in said)
    pages.gap(0.12)
    pages.room(  # heading, picture and what is said of it stay together
        _line_height(10.0)
        + len(_wrapped(facts, 7.0)) * _line_height(7.0)
        + max(_picture_height(picture, picture_width), beside * _line_height(size))
    )
    pages.line(f"{number}. {nodule.name}", 10.0, bold=True)
    pages.line(facts, 7.0)
    pages.picture(picture, picture_width, said, size)
