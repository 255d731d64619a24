"""Marks of nodules in files: the right places from every format, and a message that names the cure from bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from SAMMed3DLib.files.mark_files import Mark, read_marks
from SAMMed3DLib.inference.errors import InputError

SHAPE = (20, 40, 40)
#: As DICOM is loaded: columns to the left, rows to the back, slices upward.
MATRIX = np.array([[-0.5, 0, 0, 10.0], [0, -0.5, 0, 8.0], [0, 0, 2.0, -30.0], [0, 0, 0, 1]])


def _read(folder: Path, name: str, text: str, matrix: np.ndarray = MATRIX) -> list[Mark]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_marks(path, SHAPE, matrix)


def _markups(system: str, **more: object) -> str:
    point = {"position": [1.5, 2.0, -7.0], "selected": False, "description": "here", **more}
    blank = {"position": [0, 0, 0], "positionStatus": "undefined"}
    markup = {"type": "Fiducial", "coordinateSystem": system, "controlPoints": [point, blank]}
    return json.dumps({"markups": [markup]})


@pytest.mark.parametrize(("system", "ras"), (("LPS", (-1.5, -2.0, -7.0)), ("RAS", (1.5, 2.0, -7.0))))
def test_markups(tmp_path: Path, system: str, ras: tuple[float, float, float]) -> None:
    assert _read(tmp_path, "a.mrk.json", _markups(system)) == [Mark(ras, False, "here")]


@pytest.mark.parametrize(("system", "ras"), (("LPS", (-1.0, -2.0, 3.0)), ("0", (1.0, 2.0, 3.0))))
def test_older_point_lists(tmp_path: Path, system: str, ras: tuple[float, float, float]) -> None:
    head = f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {system}\n# columns = id,x,y,z\n"
    assert _read(tmp_path, "a.fcsv", head + "1,1,2,3,0,0,0,1,1,1,0,F-1,a note,\n") == [Mark(ras, True, "a note")]
    oldest = head.replace("id,x,y,z", "label,x,y,z,sel,vis")
    assert _read(tmp_path, "a.fcsv", oldest + "F-1,1,2,3,0,1\nF-2,1,2,3,1,0\n") == [Mark(ras, False), Mark(ras, True)]


def test_annotations(tmp_path: Path) -> None:
    head = "# pointColumns = type|x|y|z|sel|vis\n"
    assert _read(tmp_path, "a.acsv", head + "point|-60.5|21|-310.25|1|1\n") == [Mark((-60.5, 21.0, -310.25))]
    with pytest.raises(InputError, match="columns are not x, y and z"):
        _read(tmp_path, "c.acsv", head.replace("x|y|z", "z|y|x") + "point|-310.25|21|-60.5|1|1\n")
    with pytest.raises(InputError, match="ruler or a box"):
        _read(tmp_path, "b.acsv", head + "point|1|2|3|1|1\npoint|4|5|6|1|1\n")


@pytest.mark.parametrize(
    ("text", "ras"),
    (
        ("name,R,A,S\nx,1,2,3\n\n", (1.0, 2.0, 3.0)),
        ("l;p;s\n1;2;3\n", (-1.0, -2.0, 3.0)),
        ("seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,1,2,3,5\n", (-1.0, -2.0, 3.0)),
        ("label\tclick_r\tclick_a\tclick_s\n1\t1\t2\t3\n", (1.0, 2.0, 3.0)),
    ),
)
def test_tables(tmp_path: Path, text: str, ras: tuple[float, float, float]) -> None:
    assert _read(tmp_path, "a.csv", text) == [Mark(ras)]


def _nodule(edge: list[tuple[int, int]], z: float, inclusion: str = "TRUE") -> str:
    places = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in edge)
    return (
        f"<unblindedReadNodule><roi><imageZposition>{z}</imageZposition><inclusion>{inclusion}</inclusion>"
        f"{places}</roi></unblindedReadNodule>"
    )


def _lidc(*readers: str) -> str:
    sessions = "".join(f"<readingSession>{one}</readingSession>" for one in readers)
    return f'<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">{sessions}</LidcReadMessage>'


@pytest.mark.parametrize("flip", (False, True))
def test_lidc_counts_from_the_patients_right_and_front_however_the_voxels_lie(tmp_path: Path, flip: bool) -> None:
    large = [(6, 4), (14, 4), (14, 12), (6, 12)]
    readers = (_nodule(large, -20.0) + _nodule([(30, 30)], -10.0), _nodule([(x + 1, y) for x, y in large], -20.0))
    matrix = MATRIX.copy()
    if flip:  # the same places, with rows and columns stored the other way round
        matrix[:2, 3] += matrix[[0, 1], [0, 1]] * 39
        matrix[:2, :2] *= -1
    marks = _read(tmp_path, "a.xml", _lidc(*readers), matrix)
    assert len(marks) == 2, "two readers marked the same nodule"
    np.testing.assert_allclose(marks[0].ras, (5.0, 4.0, -20.0))
    np.testing.assert_allclose(marks[1].ras, (-5.0, -7.0, -10.0))


def test_what_lidc_readers_left_out_is_no_mark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no marks"):
        _read(tmp_path, "a.xml", _lidc(_nodule([(1, 1), (3, 3)], -20.0, "FALSE")))


@pytest.mark.parametrize(
    ("name", "text", "cure"),
    (
        ("a.xml", _lidc(_nodule([(1, 1), (3, 3)], 500.0)), "file of this scan"),
        ("a.xml", _lidc(_nodule([(90, 1)], -20.0)), "file of this scan"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "no file of LIDC"),
        ("a.xml", "<a>", "damaged"),
        ("a.csv", "x,y,z\n1,2,3\n", "r,a,s"),
        ("a.csv", "r,a,s\n1,2\n", "damaged"),
        ("a.csv", "r,a,s\n1,2,nan\n", "damaged"),
        ("a.csv", "r,a,s\n", "holds no marks"),
        ("a.csv", "r,a,s\n , , \n", "holds no marks"),
        ("a.csv", "r,a,s\n1,5,2,5,3,5\n", "decimal points"),
        ("a.fcsv", "# columns = id,z,y,x\n1,3,2,1\n", "columns are not x, y and z"),
        ("a.mrk.json", _markups("LPS").replace('"type"', '"coordinateUnits": "um", "type"'), "in um; export it in mm"),
        ("a.csv", "seriesuid,coordX,coordY,coordZ\n1,1,2,3\n2,1,2,3\n", "several scans"),
        ("a.mrk.json", _markups("IJK"), "neither LPS nor RAS"),
        ("a.mrk.json", '{"markups": [{"type": "Curve"}]}', "no list of points"),
        ("a.mrk.json", "[]", "damaged"),
        ("a.txt", "", "none of the files"),
    ),
)
def test_bad_files_are_refused_with_a_cure(tmp_path: Path, name: str, text: str, cure: str) -> None:
    with pytest.raises(InputError, match=cure):
        _read(tmp_path, name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    (
        ("a.csv", "seriesuid,coordX,coordY,coordZ\n1.2.3,1,2,3\n"),
        (
            "a.xml",
            _lidc(_nodule([(1, 1), (3, 3)], -20.0)).replace(
                "<readingSession>",
                "<ResponseHeader><SeriesInstanceUid>1.2.3</SeriesInstanceUid></ResponseHeader><readingSession>",
            ),
        ),
    ),
)
def test_marks_of_another_series_are_refused(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    for known in ("", "1.2.3"):
        assert len(read_marks(path, SHAPE, MATRIX, known)) == 1
    with pytest.raises(InputError, match=r"of another scan \(series 1\.2\.3\); choose the file of this one"):
        read_marks(path, SHAPE, MATRIX, "1.2.4")


def test_lidc_needs_axial_slices(tmp_path: Path) -> None:
    turned = MATRIX.copy()
    turned[1, 2] = 0.5
    with pytest.raises(InputError, match="axial slices"):
        _read(tmp_path, "a.xml", _lidc(_nodule([(1, 1)], -20.0)), turned)
