"""One table of nodules for files, clipboard, terminal and panel."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from SAMMed3DLib.inference import NoduleRecord
from SAMMed3DLib.inference.nodule_table import COLUMNS, MEASURED, rounded, shown, table_text, titles
from SAMMed3DLib.scene.review import NoduleRow, tableText

RECORD = NoduleRecord(
    109.20000000000002, 15.04, 9.96, 12.5, 5.931, -120.44, -700.0, 60.0, 96.1, 0.91234, (1.0, -2.000000001, 3.0), 12
)


def test_every_measurement_that_is_one_number_is_a_column() -> None:
    assert set(MEASURED) == {field.name for field in dataclasses.fields(NoduleRecord)} - {"centroid_ras"}
    assert len({column.key for column in COLUMNS}) == len(COLUMNS)


def test_numbers_have_sane_digits_in_files_and_fewer_for_people() -> None:
    values = rounded(RECORD.to_dict() | {"predicted_iou": None, "seconds": [0.25]})
    assert values["volume_mm3"] == 109.2 and values["slice_index"] == 12 and values["centroid_ras"] == [1.0, -2.0, 3.0]
    assert values["predicted_iou"] is None and values["seconds"] == [0.25]
    assert [shown("volume_mm3", 109.20000000000002), shown("mean_hu", -120.44), shown("dice", float("nan"))] == [
        "109.2",
        "-120",
        "-",
    ]
    assert shown("predicted_iou", None, "–") == "–" and titles("name", "mean_hu") == ["nodule", "mean HU"]


@pytest.mark.parametrize(
    "value, files, people",
    [(5.25, "5.25", "5.3"), (-0.04, "-0.04", "0.0"), (0.125, "0.13", "0.1"), (2.675, "2.68", "2.7")],
)
def test_halves_go_up_as_in_reports(value, files, people) -> None:
    """Of a line of seven voxels of 0.75 mm the list says 5.3 mm, as the report does; JSON and CSV say the same."""
    assert shown("long_axis_mm", value) == people
    assert table_text([{"long_axis_mm": value}], ("long_axis_mm",)).split()[1] == files
    assert rounded({"long_axis_mm": value})["long_axis_mm"] == float(files)


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_table_reads_back_and_what_is_unknown_is_empty(delimiter) -> None:
    rows = [RECORD.to_dict() | {"name": f"Hilar{delimiter}left", "dice": 0.9}, {"name": "=1+1", "volume_mm3": 0.0}]
    text = table_text(rows, ("dice", "name", "volume_mm3", "slice_index", "mean_hu"), delimiter)
    assert list(csv.reader(io.StringIO(text), delimiter=delimiter)) == [
        ["name", "volume_mm3", "mean_hu", "slice_index", "dice"],
        [f"Hilar{delimiter}left", "109.20", "-120.4", "12", "0.9000"],
        ["'=1+1", "0.00", "", "", ""],  # a name that a spreadsheet would run is made harmless
    ]
    assert table_text([], ("name", "dice")) == "name,dice\n"


def test_the_panel_writes_the_headers_of_the_command_line() -> None:
    rows = [
        NoduleRow("S1", (1.0, 0.0, 0.0), "Hilar, left", RECORD.to_dict(), 0.876, "reviewed", True, 0.91),
        NoduleRow("S2", (0.0, 1.0, 0.0), "second"),
    ]
    first, second = csv.DictReader(io.StringIO(tableText(rows, ",")))
    assert list(first) == ["name", "status", "score", "predicted_iou", *MEASURED, "diameters"]
    assert first["name"] == "Hilar, left" and first["volume_mm3"] == "109.20" and first["score"] == "0.9100"
    assert second == dict.fromkeys(first, "") | {"name": "second", "status": "AI"}
    assert tableText(rows).splitlines()[0].split("\t") == list(first)
