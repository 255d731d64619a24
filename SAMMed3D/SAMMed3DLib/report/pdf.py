"""Draws findings on A4 pages: the table in front, then a picture and the categories of each nodule."""

from __future__ import annotations

import functools
import io
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager, rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.image import imread

from ..inference.nodule_table import whole
from . import document
from .findings import Findings, Nodule

_WIDTH, _HEIGHT, _MARGIN = 8.27, 11.69, 0.5  # A4, inches
_TEXT, _FAINT, _WARN = "#1c2430", "#5a6573", "#8a5f00"
#: Widths that the pictures may have, inches; the text stands beside them.
_PICTURE_WIDTHS = (4.2, 3.9, 3.6, 3.3, 3.0, 2.7, 2.4, 2.2)
_BETWEEN = 0.15
_COLUMN_GAP = 0.05
_SMALLEST_IN_TABLE = 4.0
#: The fonts, as far as they are installed; those after the first help out with letters that it lacks.
_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Yu Gothic",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Nirmala UI",
    "Leelawadee UI",
    "Arial Unicode MS",
)
#: Says that a line is written from left to right; within a line such marks take letters along with Matplotlib 3.11.
_LEFT_TO_RIGHT = "\u200e"
#: Whether it draws right-to-left letters in their order.
_ORDERS = matplotlib.__version_info__ >= (3, 11)
_NO_MARKS = {ord(mark): None for mark in "\u2068\u2069"}


class _Pages:
    """Writes lines and pictures down the page, and goes on to the next page.

    Args:
        pdf: gets the pages; None only counts them.
        foot: of each page.

    Attributes:
        foreign: letters that the first font lacks.
    """

    def __init__(self, pdf: PdfPages | None, foot: str) -> None:
        self._pdf, self._foot, self.number = pdf, foot, 0
        self.foreign: set[str] = set()
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
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # said on the last page
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
        """Writes the cells of a table at their places, in inches from the margin.

        What is too long gets smaller letters, so that no figure, unit or number of a caveat is cut; names of many
        letters lose their end.
        """
        height = size * 1.55 / 72.0
        self.room(height)
        for cell, place, end in zip(cells, places, [*places[1:], _WIDTH - 2 * _MARGIN], strict=True):
            width = end - place - _COLUMN_GAP
            fitting = size * min(0.999 * width / max(_inches(cell, size, bold), 1e-6), 1.0)
            fitting = fitting if fitting >= _SMALLEST_IN_TABLE else size
            self._put(_MARGIN + place, _cut(cell, fitting, bold, width), fitting, _FAINT if bold else _TEXT, bold)
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
        text = text.translate(_NO_MARKS)
        self.foreign |= {letter for letter in text if ord(letter) not in _fonts(bold)[0][2]}
        text = _turned(text)
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


def _turned(text: str, orders: bool = _ORDERS) -> str:
    """Prepares a line that holds right-to-left letters for Matplotlib, so that they stay within the line.

    Args:
        text: one line.
        orders: whether Matplotlib draws such letters in their order.
    """
    ways = {"L": "L", "R": "R", "AL": "R"}
    kinds = "".join(ways.get(unicodedata.bidirectional(letter), "-") for letter in text)
    if orders:  # a name at its beginning would turn the line around
        return _LEFT_TO_RIGHT + text if kinds.lstrip("-").startswith("R") else text
    for run in re.finditer("R(?:[R-]*R)?", kinds):
        part = text[run.start() : run.end()][::-1]
        part = re.sub(r"\d+(?:[.,:/-]\d+)*", lambda number: number[0][::-1], part)
        text = text[: run.start()] + part + text[run.end() :]
    return text


def _line_height(size: float) -> float:
    return size * 1.4 / 72.0


@functools.cache
def _fonts(bold: bool) -> list[tuple[str, Any, frozenset[int]]]:
    """Returns the fonts that are installed: name, opened, and the codes of their letters."""
    there, found = set(font_manager.get_font_names()), []
    for name in _FONTS:
        if name in there:
            wanted = font_manager.FontProperties(family=[name], weight="bold" if bold else "normal")
            font = font_manager.get_font(font_manager.findfont(wanted))
            found.append((name, font, frozenset(font.get_charmap())))
    return found


@functools.cache
def _advance(letter: str, bold: bool) -> float | None:
    """Returns a letter's width, a part of the font's size; None where no font has it."""
    code = ord(letter)
    font = next((font for _name, font, codes in _fonts(bold) if code in codes), None)
    if font is None:
        return None
    font.set_size(100.0, 72.0)  # Matplotlib draws with the same object
    return font.load_char(code).linearHoriAdvance / 65536.0 / 100.0


def _inches(text: str, size: float, bold: bool) -> float:
    """Measures a text, letter by letter."""
    widths = (_advance(letter, bold) for letter in text.translate(_NO_MARKS))
    return sum(1.0 if width is None else width for width in widths) * size / 72.0


def _cut(text: str, size: float, bold: bool, width: float) -> str:
    """Cuts the end of a text off that is wider than so many inches."""
    if _inches(text, size, bold) <= width:
        return text
    while text and _inches(f"{text}…", size, bold) > width:
        text = text[:-1]
    return f"{text}…"


@functools.lru_cache(8192)
def _wrapped(text: str, size: float, bold: bool = False, indent: float = 0.0) -> list[str]:
    """Breaks a paragraph into the lines that fit between an indent and the right margin, long words in themselves."""
    width = _WIDTH - 2 * _MARGIN - indent
    lines, line, used = [], "", 0.0
    for piece in re.findall(r"\S+|\s+", text):
        long = _inches(piece, size, bold)
        if used + long <= width:
            line, used = line + piece, used + long
            continue
        if line.strip():
            lines.append(line.rstrip())
        line, used = "", 0.0
        for letter in piece.lstrip():
            wide = _inches(letter, size, bold)
            if used + wide > width:
                lines.append(line)
                line, used = "", 0.0
            line, used = line + letter, used + wide
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _picture_height(png: bytes, width: float) -> float:
    columns, rows = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))  # of the PNG's header
    return width * rows / columns


def draw_pages(path: Path, findings: Findings, pictures: Mapping[str, bytes]) -> None:
    """Writes the PDF to ``path``, with pictures as large as leaves it at the fewest pages."""
    facts = {"Title": f"Lung nodules: {findings.scan.name}", "Creator": findings.software, "CreationDate": None}
    widths = _PICTURE_WIDTHS if pictures else _PICTURE_WIDTHS[:1]
    tries = {inches: _drawn(None, findings, pictures, inches) for inches in widths}
    width = min(tries, key=lambda inches: (tries[inches].number, -inches))
    # fonts of another kind than the first may only be drawn, letter by letter
    families, kind = [name for name, *_rest in _fonts(False)], 3
    if not tries[width].foreign:
        families, kind = families[:1], 42
    with rc_context({"pdf.fonttype": kind, "font.family": families}), PdfPages(path, metadata=facts) as pdf:
        _drawn(pdf, findings, pictures, width)


def _drawn(pdf: PdfPages | None, findings: Findings, pictures: Mapping[str, bytes], picture_width: float) -> _Pages:
    """Draws all pages, or only finds out how many there are."""
    pages = _Pages(pdf, f"{document.DISCLAIMER} {findings.software}, {findings.created}.")
    title = document.name_text(findings.scan.patient_name or findings.scan.name)
    pages.line(f"Lung nodules: {title}", 14.0, bold=True)
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
            pages.line(f"{document.pair_name(findings, pair)}: {document.course_line(findings, pair)}", 6.6)
    for number, nodule in enumerate(findings.nodules, start=1):
        _draw_nodule(pages, findings, number, nodule, pictures.get(nodule.tracking_uid), picture_width)
    lacking = sorted(f"U+{ord(letter):04X}" for letter in pages.foreign if _advance(letter, False) is None)
    if lacking:
        pages.gap(0.12)
        pages.line(f"Letters without a font on this computer: {', '.join(lacking)}. See the page (HTML).", 7.0, _WARN)
    pages.close()
    return pages


def _draw_table(pages: _Pages, findings: Findings) -> None:
    if not findings.nodules:
        pages.line("No nodules.", 9.0)
        return
    places = [0.0, 0.22, 1.3, 2.1, 2.8, 3.51, 4.11, 5.4, 5.76, 6.42]

    def marked(caption: str, *figures: str) -> str:
        return caption + document.raised(findings, *figures)

    heads = [
        "",
        marked("Nodule", "number of nodules"),
        "Place",
        marked("Type", "type"),
        marked("Axes mm", "diameters"),
        marked("Mean mm", "diameters"),
        marked("Volume mm³ (95 %)", "volume"),
        marked("HU", "mean HU"),
        marked("Mass mg", "mass", "volume"),
        marked("Lung-RADS", "diameters", "type"),
    ]
    pages.row(heads, places, bold=True)
    for number, nodule in enumerate(findings.nodules, start=1):
        place = ", ".join(filter(None, (nodule.place.side, f"slice {nodule.place.slice_number}")))
        pages.row(
            [
                str(number),
                document.name_text(nodule.name),
                place,
                nodule.type,
                document.axes_text(nodule, " *"),
                f"{nodule.mean_diameter_mm:.1f}",
                document.volume_text(nodule).replace(" mm³", ""),
                whole(nodule.mean_hu),
                whole(nodule.mass_mg),
                document.lung_rads_text(findings, nodule),
            ],
            places,
        )
    if any(nodule.diameters_by_hand for nodule in findings.nodules):
        pages.line("* axes drawn by hand", 6.6, _FAINT)


def _draw_nodule(
    pages: _Pages, findings: Findings, number: int, nodule: Nodule, picture: bytes | None, picture_width: float
) -> None:
    size = 6.6
    said = document.remark_lines(findings, nodule)  # its change is told above, with all others
    facts = document.nodule_line(nodule)
    indent = 0.0 if picture is None else picture_width + _BETWEEN
    height = sum(len(_wrapped(text, size, indent=indent)) for text in said) * _line_height(size)
    if picture is not None:
        height = max(height, _picture_height(picture, picture_width))
    pages.gap(0.12)
    # heading, picture and what is said of it stay together
    pages.room(_line_height(10.0) + len(_wrapped(facts, 7.0)) * _line_height(7.0) + height)
    pages.line(f"{number}. {document.name_text(nodule.name)}", 10.0, bold=True)
    pages.line(facts, 7.0)
    if picture is not None:
        pages.picture(picture, picture_width, said, size)
    else:
        for text in said:
            pages.line(text, size, _FAINT)
