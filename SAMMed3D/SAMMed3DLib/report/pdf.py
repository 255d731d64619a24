"""Draws findings on A4 pages: the table in front, then a picture and the categories of each nodule."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.image import imread

from . import document, rules
from .findings import Findings, Nodule

_WIDTH, _HEIGHT, _MARGIN = 8.27, 11.69, 0.6  # A4, inches
_TEXT, _FAINT, _WARN = "#1c2430", "#5a6573", "#8a5f00"
_PICTURE_WIDTH = 5.2


class _Pages:
    """Writes lines and pictures down the page, and goes on to the next page."""

    def __init__(self, pdf: PdfPages, foot: str) -> None:
        self._pdf, self._foot, self._number = pdf, foot, 0
        self._figure: Figure | None = None
        self._y = 0.0
        self.turn()

    def turn(self) -> None:
        """Ends the page, if one was begun, and begins the next."""
        self.close()
        self._figure, self._y = Figure(figsize=(_WIDTH, _HEIGHT)), _HEIGHT - _MARGIN
        self._number += 1

    def close(self) -> None:
        """Writes the page."""
        if self._figure is not None:
            self._figure.text(
                _MARGIN / _WIDTH, 0.3 / _HEIGHT, f"{self._foot}   page {self._number}", fontsize=6.5, color=_FAINT
            )
            self._pdf.savefig(self._figure)
            self._figure = None

    def room(self, inches: float) -> None:
        """Begins a new page unless so many inches are left on this one."""
        if self._y - inches < _MARGIN:
            self.turn()

    def line(self, text: str, size: float = 8.0, color: str = _TEXT, bold: bool = False, indent: float = 0.0) -> None:
        """Writes a paragraph, broken into lines."""
        width = int((_WIDTH - 2 * _MARGIN - indent) * 72.0 / (size * (0.6 if bold else 0.53)))
        for part in textwrap.wrap(text, width) or [""]:
            height = size * 1.4 / 72.0
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

    def picture(self, png: bytes) -> None:
        """Puts a picture onto the page, as wide as all pictures."""
        image = imread(io.BytesIO(png), format="png")
        height = _PICTURE_WIDTH * image.shape[0] / image.shape[1]
        assert self._figure is not None
        axes = self._figure.add_axes(
            (_MARGIN / _WIDTH, (self._y - height) / _HEIGHT, _PICTURE_WIDTH / _WIDTH, height / _HEIGHT)
        )
        axes.imshow(image, aspect="auto", interpolation="none")
        axes.set_axis_off()
        self._y -= height + 0.06

    def gap(self, inches: float) -> None:
        """Leaves a gap of so many inches."""
        self._y -= inches

    def _put(self, x: float, text: str, size: float, color: str, bold: bool) -> None:
        assert self._figure is not None
        self._figure.text(
            x / _WIDTH,
            self._y / _HEIGHT,
            text.replace("$", r"\$"),
            fontsize=size,
            color=color,
            va="top",
            fontweight="bold" if bold else "normal",
        )


def draw_pages(path: Path, findings: Findings, pictures: Mapping[str, bytes]) -> None:
    """Writes the PDF to ``path``."""
    facts = {"Title": f"Lung nodules: {findings.scan.name}", "Creator": findings.software, "CreationDate": None}
    with rc_context({"pdf.fonttype": 42}), PdfPages(path, metadata=facts) as pdf:
        pages = _Pages(pdf, f"{document.DISCLAIMER} {findings.software}, {findings.created}.")
        pages.line(f"Lung nodules: {findings.scan.patient_name or findings.scan.name}", 14.0, bold=True)
        pages.line(document.scan_line(findings.scan), color=_FAINT)
        course = findings.follow_up
        if course is not None:
            pages.line(
                f"Prior: {document.scan_line(course.prior)}, {document.days_text(course.days)}. "
                f"Registration: {course.registration}.",
                color=_FAINT,
            )
        for number, caveat in enumerate(document.all_caveats(findings), start=1):
            pages.line(f"{number}. {document.caveat_line(caveat)}", 7.2, _WARN)
        pages.gap(0.12)
        _draw_table(pages, findings)
        if course is not None:
            pages.gap(0.12)
            pages.line("Follow-up", 9.5, bold=True)
            for pair in course.pairs:
                pages.line(f"{document.pair_name(findings, pair)}: {document.course_line(findings, pair)}", 7.4)
        for number, nodule in enumerate(findings.nodules, start=1):
            if nodule.tracking_uid in pictures:
                _draw_nodule(pages, findings, number, nodule, pictures[nodule.tracking_uid])
        pages.close()


def _draw_table(pages: _Pages, findings: Findings) -> None:
    if not findings.nodules:
        pages.line("No nodules.", 9.0)
        return
    places = [0.0, 0.25, 1.55, 2.55, 3.3, 4.1, 4.6, 5.75, 6.15, 6.6]
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


def _draw_nodule(pages: _Pages, findings: Findings, number: int, nodule: Nodule, picture: bytes) -> None:
    image_height = _PICTURE_WIDTH * 0.34 * (2 if findings.prior_nodule(nodule.tracking_uid) else 1)
    pages.gap(0.15)
    pages.room(image_height + 1.6)  # heading, picture and what is said of it stay together
    pages.line(f"{number}. {nodule.name}", 10.0, bold=True)
    pages.line(document.nodule_line(nodule), 7.4)
    pair = document.pair_of(findings, nodule)
    if pair is not None:
        pages.line(document.course_line(findings, pair), 7.4, bold=True)
    pages.picture(picture)
    lines = document.growth_lines(findings, nodule, pair) if pair is not None else []
    for line in [*lines, *nodule.remarks, *(category.text for category in rules.categories(findings, nodule))]:
        pages.line(line, 7.0, _FAINT)
