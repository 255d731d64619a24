"""Text, table, page and PDF: what they say of findings, and that nothing of a name or a caveat breaks them."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import re
import warnings

import numpy as np
import pytest
from matplotlib.image import imread

from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.inference.geometry import Block
from SAMMed3DLib.report import document, pdf
from SAMMed3DLib.report.findings import Caveat, Interval, from_json, to_json
from SAMMed3DLib.report.follow_up import Registration, follow_up
from SAMMed3DLib.report.pictures import Seen, nodule_picture

from .made_nodules import findings, nodule

SAME_PLACE = Registration(np.eye(4), 0.9, 0.95, "affine, correlation 0.90")


def followed():
    """One grown, one new, one gone nodule; the grown one in both scans with the same place."""
    grown = nodule(9.0, label=1, name="größer <b>&</b>")
    before = dataclasses.replace(nodule(6.0, label=4, share=0.1, name="Herd"), place=grown.place)
    new, gone = nodule(5.0, "ground-glass", label=2), nodule(7.0, label=8)
    now = findings(grown, new)
    then = findings(before, gone, date="2024-01-01", series_uid="1.2.4", caveats=())
    return follow_up(now, then, SAME_PLACE)


class Page(html.parser.HTMLParser):
    """The page's text, and the tags that are open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_text_says_it_all() -> None:
    text = document.as_text(followed())
    assert "2024-06-01" in text and "Prior: thorax" in text and "152 days earlier" in text
    assert "größer <b>&</b>" in text and "9.0 x 9.0 mm (mean 9.0 mm), 382 mm³" in text
    assert "volume +238 %" in text and "doubling time" in text and "mean diameter +3.0 mm" in text
    assert "new: no partner" in text and "in the prior only; expected at R 0, A 0, S 80" in text
    assert "size category according to Lung-RADS 2022: 4B" in text, "9 mm and growing"
    assert "Caveat: slices of 3.0 mm (spoils: volume)" in text
    assert text.count("research only") >= 6 and document.DISCLAIMER in text
    assert document.as_text(findings()).count("No nodules.") == 1


def test_what_was_reviewed_or_flagged_is_said() -> None:
    for status, count in (("AI", 0), ("reviewed", 1), ("flagged", 1)):
        line = document.nodule_line(dataclasses.replace(nodule(), status=status))
        assert line.endswith(f", {status}") == bool(count) and "12 mm to the lung's surface" in line


def test_diameters_by_hand_are_marked_wherever_they_stand() -> None:
    drawn = findings(dataclasses.replace(nodule(), diameters_by_hand=True))
    (row,) = csv.DictReader(io.StringIO(document.as_csv(drawn)))
    assert row["diameters"] == "by hand" and "mm, by hand)" in document.as_text(drawn)
    assert re.search(r"\d x \d+\.\d, by hand", Page(document.as_html(drawn, {})).text)
    course = follow_up(drawn, findings(nodule(6.0), date="2024-01-01"), SAME_PLACE)
    assert Page(document.as_html(course, {})).text.count("mm, by hand ") == 1
    assert document.as_text(course).count("drawn by hand in one of the two scans only") == 1
    own = findings(nodule())
    assert ", by hand" not in document.as_text(own) + document.as_csv(own) + document.as_html(own, {})


def test_what_could_not_be_matched_is_neither_new_nor_gone() -> None:
    failed = Registration(None, 0.1, 0.2, "registration failed")
    text = document.as_text(follow_up(findings(nodule()), findings(nodule(label=2), date="2024-01-01"), failed))
    assert text.count("not matched; the registration failed") == 2 and "in the prior only" not in text
    assert "new: no partner" not in text and "the row of a first scan" in text


def at(ras, mm: float, label: int):
    made = nodule(mm, label=label)
    return dataclasses.replace(made, place=dataclasses.replace(made.place, centroid_ras=ras))


def test_nodules_that_grew_together_or_fell_apart_are_asked_about() -> None:
    """The one without a partner is neither gone nor new: it lies in the other scan's nodule."""
    one, two = at((0.0, 0.0, 0.0), 13.0, 1), (at((-3.5, 0.0, 0.0), 8.0, 2), at((3.5, 0.0, 0.0), 6.0, 3))
    far = at((60.0, 0.0, 0.0), 6.0, 4)
    merged = follow_up(findings(one), findings(*two, far, date="2024-01-01"), SAME_PLACE)
    assert [pair.status for pair in merged.follow_up.pairs] == ["matched", "gone", "gone"]
    for said in (document.as_text(merged), Page(document.as_html(merged, {})).text):
        assert "expected at R 4, A 0, S 0; its place lies in nodule 1: merged?" in said and said.count("merged?") == 1
    split = follow_up(findings(*two, far), findings(one, date="2024-01-01"), SAME_PLACE)
    assert [pair.status for pair in split.follow_up.pairs] == ["matched", "new", "new"]
    for said in (document.as_text(split), Page(document.as_html(split, {})).text):
        assert "its place lies in nodule 1 (prior): split?" in said and said.count("its place lies") >= 1
    assert document.as_text(split).count("split?") == 1


def test_no_measurable_change_is_said() -> None:
    grown = nodule(9.0)
    before = dataclasses.replace(nodule(8.9, label=4), place=grown.place)
    text = document.as_text(follow_up(findings(grown), findings(before, date="2024-01-01"), SAME_PLACE))
    assert "no measurable change (if it grows, doubling takes at least" in text and "; doubling time" not in text
    undated = follow_up(
        findings(nodule(12.0), date=None),
        findings(dataclasses.replace(nodule(6.0, label=4), place=nodule(12.0).place)),
        SAME_PLACE,
    )
    assert "doubling time unknown: a date is missing, or both scans are of one day" in document.as_text(undated)


def test_the_table_has_a_row_a_nodule() -> None:
    rows = list(csv.DictReader(io.StringIO(document.as_csv(followed()))))
    assert [row["course"] for row in rows] == ["matched", "new", "gone"]
    first, _, last = rows
    assert last["name"] == "nodule 8 (prior)", "as in the other documents: the CT may have a nodule 8 of its own"
    assert first["name"] == "größer <b>&</b>" and first["lung_rads_2022"] == "4B" and first["days"] == "152"
    assert float(first["volume_low_mm3"]) < float(first["volume_mm3"]) < float(first["volume_high_mm3"])
    assert float(first["volume_change_percent"]) == pytest.approx(237.5, abs=0.1)
    assert float(first["doubling_low_days"]) < float(first["doubling_days"]) < float(first["doubling_high_days"])
    assert first["diameter_change_mm"] == "3.0" and last["volume_mm3"] == "" and float(last["expected_s"]) == 80.0
    assert all("slices of 3.0 mm (spoils: volume)" in row["note"] for row in rows), "beside the figures they spoil"
    assert list(csv.DictReader(io.StringIO(document.as_csv(findings())))) == []
    formula = document.as_csv(findings(nodule(name="=cmd()")))
    assert "'=cmd()" in formula, "spreadsheets must not run names"


def test_the_page_is_whole_and_self_contained() -> None:
    found = followed()
    picture = nodule_picture(seen())
    page = Page(document.as_html(found, {found.nodules[0].tracking_uid: picture}))
    assert page.open == [], "every tag is closed"
    assert len(page.sources) == 1 and page.sources[0].startswith("data:image/png;base64,")
    assert "größer <b>&</b>" in page.text and "Müller Änne" in page.text
    assert page.text.count("size category according to Lung-RADS 2022") == 2, "without a picture too"
    assert "slices of 3.0 mm (spoils: volume)" in page.text and "Volume mm³ (95 %) 1" in page.text, "named beside"
    assert "For research only" in page.text and "expected at R 0, A 0, S 80" in page.text
    assert "No nodules at either date" in Page(document.as_html(follow_up(findings(), findings(), SAME_PLACE), {})).text
    assert "No nodules." in Page(document.as_html(findings(), {})).text


def test_all_is_said_of_nodules_without_a_picture() -> None:
    found = followed()
    nodules = tuple(dataclasses.replace(each, remarks=("Brock model: 5 %",)) for each in found.nodules)
    found = dataclasses.replace(found, nodules=nodules)
    page = Page(document.as_html(found, {}))
    assert page.open == [] and page.sources == []
    for words in ("Brock model: 5 %", "according to Fleischner 2017", "according to BTS 2015"):
        assert page.text.count(words) == 2
    assert page.text.count("BTS 2015: volume +238 %") == 1


def test_figures_are_rounded_and_signed_alike_everywhere(monkeypatch) -> None:
    """Halves go up in every document, as diameters do; what rounds to 0 has no sign."""
    odd = dataclasses.replace(nodule(7.8), volume_mm3=248.5, volume_interval_mm3=Interval(200.5, 300.5), mean_hu=-0.3)
    before = dataclasses.replace(nodule(7.8, label=4), place=odd.place)
    gone = nodule(7.0, label=8)
    gone = dataclasses.replace(gone, place=dataclasses.replace(gone.place, centroid_ras=(-0.2, 0.5, 80.0)))
    found = follow_up(findings(odd), findings(before, gone, date="2024-01-01", series_uid="1.2.4"), SAME_PLACE)
    text, page = document.as_text(found), Page(document.as_html(found, {})).text
    drawn = [each[1] for each in put(monkeypatch, found)]
    (row, last) = csv.DictReader(io.StringIO(document.as_csv(found)))
    assert "249 mm³ (201 to 301), 0 HU" in text and "expected at R 0, A 1, S 80" in text
    assert "249 (201 to 301) 0 " in page and "249 (201 to 301)" in drawn and "0" in drawn
    assert row["mean_hu"] == "-0.3" and row["volume_mm3"] == "248.50" and last["expected_r"] == "-0.20"
    assert "Lung-RADS 2022: mean diameter 0.0 mm" in text and "Fleischner 2017: 0.0 mm" in text
    assert "3 (3/4A)" in drawn and "3 (3/4A)" in page, "the category itself, and those that it may be"


def test_no_figure_of_the_pdfs_table_is_cut(monkeypatch) -> None:
    """A leak of many slices: "right, slice 1…" and "123.4 x 12…" would be other figures."""
    leak = dataclasses.replace(
        nodule(123.4, volume=1234567.0), mean_hu=-1000.0, mass_mg=1234567.0, diameters_by_hand=True
    )
    leak = dataclasses.replace(leak, place=dataclasses.replace(leak.place, slice_number=1234))
    drawn = [text for _x, text, *_rest in put(monkeypatch, findings(leak))]
    for figure in ("right, slice 1234", "123.4 x 123.4 *", "1234567 (1028806 to 1481480)", "-1000", "1234567"):
        assert figure in drawn


def test_what_speaks_against_a_mask_is_in_its_row() -> None:
    cut = dataclasses.replace(nodule(), remarks=("It reaches the edge of the volume.",))
    rows = list(csv.DictReader(io.StringIO(document.as_csv(findings(cut, nodule(label=2))))))
    assert rows[0]["note"] == "It reaches the edge of the volume.; slices of 3.0 mm (spoils: volume)"
    assert rows[1]["note"] == "slices of 3.0 mm (spoils: volume)", "not that of another nodule"
    then = dataclasses.replace(cut, label=7, mean_diameter_mm=6.0, remarks=("It was cut off.",))
    gone = dataclasses.replace(at((60.0, 0.0, 0.0), 6.0, 8), remarks=("It is in 2 separate parts.",))
    course = follow_up(findings(nodule(), caveats=()), findings(then, gone, date="2024-01-01", caveats=()), SAME_PLACE)
    said = "prior: It was cut off."
    rows = list(csv.DictReader(io.StringIO(document.as_csv(course))))
    assert [row["note"] for row in rows] == [said, "prior: It is in 2 separate parts."]
    assert document.as_text(course).count(said) == Page(document.as_html(course, {})).text.count(said) == 1


THICK = Caveat("slices of 5.0 mm", ("volume", "diameters", "type", "change"))
DENSE = Caveat("contrast phase unknown", ("mean HU", "mass", "type"))


def test_figures_bear_the_numbers_of_what_spoils_them(monkeypatch) -> None:
    now = findings(nodule(9.0), caveats=(THICK, DENSE))
    found = follow_up(now, findings(nodule(6.0), date="2024-01-01", caveats=()), SAME_PLACE)
    page = Page(document.as_html(found, {})).text
    for head in (
        "Type 1,2",
        "Axes mm 1",
        "Mean mm 1",
        "Volume mm³ (95 %) 1",
        "Solid part mm 1,2",
        "HU 2",
        "Mass mg 1,2",
        "Lung-RADS size 1,2",
        "Prior 1",
        "Now 1",
        "Volume % (95 %) 1",
        "Mass % 1,2",
        "Mean diameter mm 1",
        "Doubling time 1",
    ):
        assert head in page
    drawn = [text for _x, text, *_rest in put(monkeypatch, found)]
    heads = ("Type¹˒²", "Axes mm¹", "Mean mm¹", "Volume mm³ (95 %)¹", "HU²", "Mass mg¹˒²", "Lung-RADS¹˒²")
    assert [text for text in drawn if text in heads] == list(heads)
    many = findings(nodule(), caveats=tuple(Caveat(str(each), ("volume", "diameters", "mass")) for each in range(5)))
    drawn = [text for _x, text, *_rest in put(monkeypatch, many)]
    marks = "¹˒²˒³˒⁴˒⁵"
    assert {f"{head}{marks}" for head in ("Axes mm", "Mean mm", "Volume mm³ (95 %)", "Mass mg")} <= set(drawn)


def put(monkeypatch, found) -> list[tuple[float, str, float, bool]]:
    """What a PDF without pictures holds: place in inches, text, size, and whether it is bold."""
    texts, own = [], pdf._Pages._put

    def told(self, x, text, size, color, bold) -> None:
        if self._figure is not None:
            texts.append((x, text, size, bold))
        own(self, x, text, size, color, bold)

    monkeypatch.setattr(pdf._Pages, "_put", told)
    pdf.draw_pages(io.BytesIO(), found, {})
    return texts


HEBREW, ARABIC, CHINESE = "גוש ריאתי 12", "عقدة 3", "右上叶结节"
NAMES = (
    "<b onclick='x()'>&amp;</b>",
    '"größer"',
    "a\tb\nc\u0007",
    "\u202eevil",
    HEBREW,
    ARABIC,
    CHINESE,
    "🫁",
    "W" * 80,
    "$x_1$",
)


def test_names_of_all_kinds(monkeypatch) -> None:
    nodules = [nodule(6.0 + number, label=number, name=name) for number, name in enumerate(NAMES, start=1)]
    found = findings(*nodules, patient_name=HEBREW)
    page = Page(document.as_html(found, {nodules[0].tracking_uid: b""}))
    assert page.open == [] and f"Lung nodules: \u2068{HEBREW}\u2069" in page.text
    for name in (
        "<b onclick='x()'>&amp;</b>",
        '"größer"',
        "a b c",
        "evil",
        f"\u2068{ARABIC}\u2069",
        CHINESE,
        "🫁",
        "$x_1$",
    ):
        assert page.text.count(f" {name} ") >= 2, "in the table and above its figures"
    text = document.as_text(found)
    assert f"5. \u2068{HEBREW}\u2069: right, slice 4" in text and "\u202e" not in text and "\u0007" not in text
    assert [line for line in text.splitlines() if line.startswith("3. ")] == [
        line for line in text.splitlines() if line.startswith("3. a b c: right")
    ]
    assert [row["name"] for row in csv.DictReader(io.StringIO(document.as_csv(found)))] == list(NAMES), "as they are"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = put(monkeypatch, found)
    ends = [x + pdf._inches(text, size, bold) for x, text, size, bold in texts]
    assert max(ends) <= pdf._WIDTH - pdf._MARGIN + 1e-6, "nothing leaves the page"
    table = [(x, text, size, bold) for x, text, size, bold in texts if text.startswith("WW") and x > 0.6]
    (name, *_rest) = table
    assert name[1].endswith("…") and name[0] + pdf._inches(*name[1:]) < 2.0, "nor the column"
    assert "U+1FAC1" in texts[-1][1] and "See the page (HTML)" in texts[-1][1], "what no font has is said"


def test_right_to_left_letters_stay_in_their_line() -> None:
    for line in ("Rundherd 3 mm", f"Herd {HEBREW}", "12, 5"):
        assert pdf._turned(line, True) == line, "as it is"
    assert pdf._turned(f"1. {HEBREW}: new", True) == f"\u200e1. {HEBREW}: new"
    assert pdf._turned("a גוש 12.5 ריאתי: 3 b", False) == "a יתאיר 12.5 שוג: 3 b"
    assert pdf._turned("Rundherd 3 mm", False) == "Rundherd 3 mm"


def test_paragraphs_are_broken_within_the_margins() -> None:
    width = pdf._WIDTH - 2 * pdf._MARGIN
    for text in ("word " * 60, "W" * 400, CHINESE * 60, f"short {'W' * 300} short"):
        lines = pdf._wrapped(text, 7.0)
        assert len(lines) > 1 and all(pdf._inches(line, 7.0, False) <= width for line in lines)
        assert "".join("".join(lines).split()) == "".join(text.split()), "nothing is lost"
    assert pdf._wrapped("", 7.0) == [""] and pdf._wrapped("one", 7.0) == ["one"]


def test_caveats_are_named_once_and_numbered() -> None:
    found = findings(caveats=(Caveat("a", ("volume",)), Caveat("b", ("type", "volume"))))
    assert document.spoiled_by(found, "volume") == [1, 2] and document.spoiled_by(found, "type") == [2]
    assert document.spoiled_by(found, "mass") == []


def seen(title: str = "2024-06-01") -> Seen:
    """A bright ball of 8 mm at the origin of a scan with 1 mm voxels."""
    index = np.indices((40, 50, 60)) - np.reshape((20, 25, 30), (3, 1, 1, 1))
    ball = (index**2).sum(axis=0) <= 16
    matrix = np.eye(4)
    matrix[:3, 3] = (-30.0, -25.0, -20.0)
    array = np.where(ball, 40, -850).astype(np.int16)
    shown = nodule(8.0)
    at_origin = dataclasses.replace(
        shown,
        place=dataclasses.replace(shown.place, centroid_ras=(0.0, 0.0, 0.0)),
        long_axis=dataclasses.replace(shown.long_axis, start_ras=(-4.0, 0.0, 0.0), end_ras=(4.0, 0.0, 0.0)),
        short_axis=dataclasses.replace(shown.short_axis, start_ras=(0.0, -4.0, 0.0), end_ras=(0.0, 4.0, 0.0)),
    )
    return Seen(title, at_origin, Block(ball.astype(np.uint8), (0, 0, 0)), array, matrix)


def test_a_picture_shows_the_nodule_its_outline_and_both_axes() -> None:
    one = imread(io.BytesIO(nodule_picture(seen())), format="png")[..., :3]
    assert one.shape[1] > 2.9 * one.shape[0], "three slices in a row"
    tile = one[:, : one.shape[0]]
    middle = one.shape[0] // 2

    def has(color: tuple[float, float, float], part) -> int:
        return int((np.abs(part - np.array(color)).max(axis=-1) < 0.12).sum())

    assert has((0.18, 0.88, 0.77), tile) > 30, "outline"
    assert has((1.0, 0.72, 0.15), tile[middle - 6 : middle + 6]) > 30, "the long axis lies across the middle"
    assert has((1.0, 0.48, 0.71), tile[:, middle - 6 : middle + 6]) > 30, "the short axis stands in the middle"
    coronal = one[:, one.shape[0] + 10 : 2 * one.shape[0] - 10]
    assert has((1.0, 0.72, 0.15), coronal) == 0 and has((0.18, 0.88, 0.77), coronal) > 30
    two = imread(io.BytesIO(nodule_picture(seen(), seen("2024-01-01"))), format="png")
    assert two.shape[0] > 1.9 * one.shape[0]


@pytest.mark.parametrize("count", [0, 1, 100])
def test_the_pdf_has_the_pages_it_needs(tmp_path, count) -> None:
    many = findings(*(nodule(6.0, label=number + 1, name=f"Rundherd $x_{number}$ größer") for number in range(count)))
    path = tmp_path / "Bericht größer.pdf"
    pictures = {each.tracking_uid: nodule_picture(seen()) for each in many.nodules[:1]}
    document.write_pdf(path, many, pictures)
    content = path.read_bytes()
    assert content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert (pages == 1) if count < 2 else (pages >= 2)
    assert (b"/Subtype /Image" in content) == (count > 0)


@pytest.mark.parametrize(("count", "most"), [(1, 1), (3, 1), (6, 2), (12, 4)])
def test_pages_are_filled(tmp_path, count, most) -> None:
    """Three planes at both dates of up to three nodules, tables and categories: one page."""
    nodules = [nodule(6.0 + label, label=label) for label in range(1, count + 1)]
    then = findings(*nodules, date="2024-01-01", series_uid="1.2.4")
    many = follow_up(findings(*nodules), then, SAME_PLACE)
    assert all(pair.status == "matched" for pair in many.follow_up.pairs)
    picture = nodule_picture(seen(), seen("2024-01-01"))
    path = tmp_path / "report.pdf"
    document.write_pdf(path, many, {each.tracking_uid: picture for each in many.nodules})
    assert len(re.findall(rb"/Type\s*/Page\b", path.read_bytes())) <= most


def test_a_nodule_of_many_words_is_drawn_whole(tmp_path) -> None:
    """More remarks than a page holds go on on the next one."""
    long = dataclasses.replace(nodule(6.0), remarks=tuple(f"remark {number} " + "word " * 30 for number in range(40)))
    path = tmp_path / "report.pdf"
    document.write_pdf(path, findings(long), {long.tracking_uid: nodule_picture(seen())})
    assert len(re.findall(rb"/Type\s*/Page\b", path.read_bytes())) >= 2


def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
    for write in (
        document.write_text,
        document.write_csv,
        lambda p, f: document.write_html(p, f, {}),
        lambda p, f: document.write_pdf(p, f, {}),
    ):
        with pytest.raises(InputError, match="could not be written"):
            write(tmp_path / "missing" / "x", findings())


def test_intervals_without_an_end_stay_empty() -> None:
    found = followed()
    pairs = tuple(
        dataclasses.replace(pair, doubling_days_interval=Interval(100.0, float("inf")))
        for pair in found.follow_up.pairs
    )
    found = dataclasses.replace(found, follow_up=dataclasses.replace(found.follow_up, pairs=pairs))
    text = document.as_csv(found)
    assert "inf" not in text and next(csv.DictReader(io.StringIO(text)))["doubling_high_days"] == ""
    (pair, *_rest) = pairs
    assert document.doubling_text(pair).endswith(" days (100 or more)")
    halves = dataclasses.replace(pair, doubling_days=-90.0, doubling_days_interval=Interval(float("-inf"), -60.0))
    assert document.doubling_text(halves) == "halving time 90 days (60 or more)"


def test_a_volume_that_may_be_nothing_leaves_the_change_open() -> None:
    """A click elsewhere in a faint nodule found nothing there: the interval begins at 0."""
    grown = nodule(9.0, "ground-glass")
    before = dataclasses.replace(nodule(6.0, "ground-glass", label=4), place=grown.place)
    open_below = Interval(0.0, 200.0)
    for now, then, change, least in (
        (grown, dataclasses.replace(before, volume_interval_mm3=open_below), "+238 % (+85 to +∞)", ""),
        (
            dataclasses.replace(grown, volume_interval_mm3=Interval(0.0, 500.0)),
            before,
            "+238 % (-100 to +367)",
            "at least 68 days",
        ),
    ):
        found = follow_up(findings(now), findings(then, date="2024-01-01"), SAME_PLACE)
        text = document.as_text(found)
        assert f"volume {change}" in text and "inf" not in text and "nan" not in text
        assert found.follow_up.pairs[0].volume.percent == pytest.approx(237.5)
        assert least in text
        assert from_json(to_json(found)).follow_up.pairs[0].volume == found.follow_up.pairs[0].volume
