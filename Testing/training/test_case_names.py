"""Names of cases that every file system takes, and that nnU-Net's layout does not take for something else."""

from __future__ import annotations

import pytest

from SAMMed3DTrainingLib.data.case_names import safe_case_name, same_name, unique_case_name
from SAMMed3DTrainingLib.data.datasets import strip_ending
from SAMMed3DTrainingLib.store.dataset_files import image_file, label_file


@pytest.mark.parametrize(
    "text, name",
    [
        ("LIDC-IDRI-0001", "LIDC-IDRI-0001"),
        ("2: CT Chest / lung <1.0>", "2_CT_Chest_lung_1.0"),
        ("Müller  Jürgen", "Müller_Jürgen"),
        ("肺 結節", "肺_結節"),
        ("Mu\u0308ller", "Müller"),
        ("con", "case_con"),
        ("NUL.nii.gz", "case_NUL"),
        ("com1.CT", "case_com1.CT"),
        ("console", "console"),
        ("scan.nii.gz", "scan"),
        ("x_0000", "x-0000"),
        ("x_0001", "x_0001"),
        (".hidden", "hidden"),
        ("--data", "data"),
        ("ends with a dot. ", "ends_with_a_dot"),
        ("a\u200bb\x07c", "a_b_c"),
        ("", "case"),
        ("...", "case"),
        ("///", "case"),
    ],
)
def test_safe_names(text, name):
    assert safe_case_name(text) == name
    assert safe_case_name(name) == name, "a safe name stays"


@pytest.mark.parametrize("text", ["x" * 400, "肺" * 400, "x" * 99 + "  y"])
def test_long_names_leave_room_for_the_path(text):
    name = safe_case_name(text)
    assert len(name.encode()) <= 100
    assert safe_case_name(name) == name
    name.encode().decode()


def test_a_taken_name_gets_a_number_where_only_case_or_accents_form_differs():
    assert unique_case_name("CT", ()) == "CT"
    assert unique_case_name("CT", ("ct",)) == "CT-2"
    assert unique_case_name("ct", ("CT", "ct-2")) == "ct-3"
    assert unique_case_name("Mu\u0308ller", ("MÜLLER",)) == "Müller-2"
    assert same_name("Straße", "STRASSE")


@pytest.mark.parametrize("text", ["x_0000", "x.nii", "a.b", "scan_0012"])
def test_the_reader_finds_the_name_in_the_files(text):
    name = safe_case_name(text)
    assert strip_ending(image_file(name).split("/")[1]) == f"{name}_0000"
    assert strip_ending(label_file(name).split("/")[1]) == name
