from __future__ import annotations

import csv
import io

from SAMMed3DLib.scene.nodule_table import NoduleRow, tableText

ROWS = [
    NoduleRow("S1", (1.0, 0.0, 0.0), "Hilar, left", 1234.56, 15.04, 9.96, -120.4, 0.876, "reviewed", True, 0.91),
    NoduleRow("S2", (0.0, 1.0, 0.0), "=1+1"),
]


def test_the_clipboard_gets_tabs_and_a_line_of_titles():
    lines = tableText(ROWS).split("\n")
    assert lines[0].split("\t")[:2] == ["Name", "Volume (mm3)"]
    assert lines[1].split("\t") == ["Hilar, left", "1234.6", "15.0", "10.0", "-120", "0.88", "0.91", "reviewed"]
    assert lines[-1] == ""


def test_a_csv_file_reads_back_and_unknown_values_are_empty():
    titles, first, second = csv.reader(io.StringIO(tableText(ROWS, ",")))
    assert len(titles) == len(first) == 8 and first[0] == "Hilar, left"
    # a name that a spreadsheet would run is made harmless
    assert second == ["'=1+1", "", "", "", "", "", "", "AI"]


def test_no_rows_are_titles_only():
    assert len(tableText([]).splitlines()) == 1
