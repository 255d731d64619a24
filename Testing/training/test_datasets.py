"""Data sets as people have them are found and read; what is wrong with them is named."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from SAMMed3DTrainingLib.data.datasets import DatasetError, ask, find_datasets, load_case
from SAMMed3DTrainingLib.data.splits import split_cases
from SAMMed3DTrainingLib.store.dataset_files import case_files

from .dataset_files import balls, ct, matrix, write, write_case

LABELS = balls((8, 12, 12), (16, 28, 28))


def test_one_dataset_or_a_cache_of_several(tmp_path):
    for name in ("lidc", "other"):
        write_case(tmp_path / "cache" / name, "a", LABELS)
    assert [d.name for d in find_datasets(tmp_path / "cache" / "lidc")] == ["lidc"]
    assert [d.name for d in find_datasets(tmp_path / "cache")] == ["lidc", "other"]
    assert [d.name for d in find_datasets(tmp_path)] == ["lidc", "other"]


def test_channel_suffix_parts_and_unlabelled_cases(tmp_path):
    write_case(tmp_path, "a", LABELS)
    write_case(tmp_path, "b", LABELS, channel="")
    write_case(tmp_path, "c", LABELS, part="Val")
    write_case(tmp_path, "d", None, part="Ts")
    (dataset,) = find_datasets(tmp_path)
    assert {(c.name, c.part, c.label is not None) for c in dataset.cases} == {
        ("a", "Tr", True),
        ("b", "Tr", True),
        ("c", "Val", True),
        ("d", "Ts", False),
    }
    assert dataset.problems == ()


def test_other_formats_and_names(tmp_path):
    for ending in ("nrrd", "mha"):
        name = f"Fäll 1 {ending}"
        for kind, array in (("images", ct(LABELS)), ("labels", LABELS)):
            folder = tmp_path / f"{kind}Tr"
            folder.mkdir(exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.8, 0.8, 1.5))
            sitk.WriteImage(image, str(folder / f"{name}.{ending}"))
    (dataset,) = find_datasets(tmp_path)
    assert sorted(case.name for case in dataset.cases) == ["Fäll 1 mha", "Fäll 1 nrrd"]
    for case in dataset.cases:
        assert len(load_case(case).nodules) == 2


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "nodule", "2": "ignore"},
        {"background": 0, "nodule": 1, "ignore": 2},
        {"background": "0", "nodule": "1", "ignore": "2"},
        {"background": 0, "nodule": [1], "ignore": [2]},
    ],
)
def test_dataset_json_of_both_versions(tmp_path, labels):
    write_case(tmp_path, "a", LABELS)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    (dataset,) = find_datasets(tmp_path)
    assert dataset.label_names == {0: "background", 1: "nodule", 2: "ignore"}
    assert dataset.ignored_values == {2}


def test_cases_that_only_dataset_json_lists(tmp_path):
    write_case(tmp_path, "a", LABELS)
    write(tmp_path / "elsewhere" / "b.nii.gz", ct(LABELS))
    write(tmp_path / "elsewhere" / "b_seg.nii.gz", LABELS)
    listing = {
        "b": {"images": ["elsewhere/b.nii.gz"], "label": "elsewhere/b_seg.nii.gz"},
        "gone": {"images": ["elsewhere/gone.nii.gz"], "label": None},
        "bare": {"images": "elsewhere/b.nii.gz", "label": "elsewhere/bare.nii.gz"},
    }
    version_1 = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"dataset": listing, "training": version_1}))
    (dataset,) = find_datasets(tmp_path)
    assert {case.name: case.label is not None for case in dataset.cases} == {"a": True, "b": True, "bare": False}
    assert dataset.problems == (
        "dataset.json lists elsewhere/gone.nii.gz, which does not exist",
        "dataset.json lists elsewhere/bare.nii.gz, which does not exist",
    )


@pytest.mark.parametrize("key", ["channel_names", "modality"])
def test_the_channel_that_is_named_ct_is_read(key, tmp_path):
    write_case(tmp_path, "a", LABELS, channel="_0001")
    write(tmp_path / "imagesTr" / "a_0000.nii.gz", np.full(LABELS.shape, 7, np.float32))
    (tmp_path / "dataset.json").write_text(json.dumps({key: {"0": "PET", "1": "CT"}}))
    (dataset,) = find_datasets(tmp_path)
    assert dataset.problems == ("imagesTr/a_0000.nii.gz is a further channel: only _0001, the CT, is used",)
    np.testing.assert_array_equal(load_case(dataset.cases[0]).array_kji, ct(LABELS))
    (tmp_path / "dataset.json").write_text(json.dumps({key: {"0": "MRI", "1": "PET"}, "numTraining": 3}))
    (dataset,) = find_datasets(tmp_path)
    assert dataset.cases[0].image.name == "a_0000.nii.gz"
    assert "the images are MRI, not CT" in dataset.problems[0]
    assert dataset.problems[2] == "dataset.json counts 3 training cases, of which 1 are there"


def test_a_data_set_to_which_links_lead_counts_once(tmp_path):
    write_case(tmp_path / "own", "a", LABELS)
    (tmp_path / "again").symlink_to(tmp_path / "own")
    (tmp_path / "loop").symlink_to(tmp_path)
    (dataset,) = find_datasets(tmp_path)
    assert [case.full_name for case in dataset.cases] == ["own/Tr/a"]


def test_patients_from_names_pattern_and_table(tmp_path):
    for name in ("P1_scan1", "P1_scan2", "LIDC-IDRI-0001", "patient1", "LIDC-IDRI-0001_nodule3", "x"):
        write_case(tmp_path, name, LABELS)
    (tmp_path / "dataset.json").write_text(json.dumps({"patients": {"x": "P1"}}))
    (dataset,) = find_datasets(tmp_path)
    assert {case.name: case.patient for case in dataset.cases} == {
        "P1_scan1": "P1",
        "P1_scan2": "P1",
        "LIDC-IDRI-0001": "LIDC-IDRI-0001",
        "patient1": "patient1",
        "LIDC-IDRI-0001_nodule3": "LIDC-IDRI-0001",
        "x": "P1",
    }
    (dataset,) = find_datasets(tmp_path, r"^(\w)")
    assert {case.patient for case in dataset.cases} == {"P", "L", "p", "P1"}
    for wrong in ("no group", "(broken"):
        with pytest.raises(DatasetError):
            find_datasets(tmp_path, wrong)


def test_what_is_left_out_is_said(tmp_path):
    write_case(tmp_path, "a", LABELS)
    write_case(tmp_path, "a", LABELS, channel="")
    write_case(tmp_path, "b", LABELS, channel="_0001")
    (tmp_path / "imagesTr" / "notes.docx").write_text("x")
    (dataset,) = find_datasets(tmp_path)
    text = "\n".join(dataset.problems)
    assert [case.name for case in dataset.cases] == ["a"]
    assert "holds a twice" in text and "further channel" in text and "notes.docx" in text
    assert "labelsTr/b.nii.gz has no image" in text


def test_four_digits_that_number_cases_are_no_channels(tmp_path):
    for number in range(3):
        write_case(tmp_path, f"lung_{number:04d}", LABELS, channel="")
    write_case(tmp_path, "ct_0001", None, part="Ts", channel="")
    write_case(tmp_path, "ct_0002", None, part="Ts", channel="")
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {
                "training": [
                    {"image": f"./imagesTr/lung_{n:04d}.nii.gz", "label": f"./labelsTr/lung_{n:04d}.nii.gz"}
                    for n in range(3)
                ]
            }
        )
    )
    (dataset,) = find_datasets(tmp_path)
    assert dataset.problems == ()
    assert [case.name for case in dataset.part("Tr")] == ["lung_0000", "lung_0001", "lung_0002"]
    assert all(case.label is not None for case in dataset.part("Tr"))
    assert [case.name for case in dataset.part("Ts")] == ["ct_0001", "ct_0002"]
    assert [files.name for files in case_files(tmp_path) if files.part == "Tr"] == [
        "lung_0000",
        "lung_0001",
        "lung_0002",
    ]


def test_channels_of_a_case_stay_channels(tmp_path):
    write_case(tmp_path, "x", LABELS)
    write_case(tmp_path, "x_0001", LABELS)  # a second case, whose CT is x_0001_0000
    write_case(tmp_path, "y", LABELS)
    write(tmp_path / "imagesTr" / "y_0001.nii.gz", ct(LABELS))
    (dataset,) = find_datasets(tmp_path)
    assert [(case.name, case.image.name) for case in dataset.cases] == [
        ("x", "x_0000.nii.gz"),
        ("x_0001", "x_0001_0000.nii.gz"),
        ("y", "y_0000.nii.gz"),
    ]
    assert len(dataset.problems) == 1 and "y_0001.nii.gz is a further channel" in dataset.problems[0]
    assert [files.name for files in case_files(tmp_path)] == ["x", "x_0001", "y"]


def test_data_sets_on_different_levels_of_a_cache(tmp_path):
    write_case(tmp_path / "a", "P1", LABELS)
    write_case(tmp_path / "group" / "b", "P2", LABELS)
    write_case(tmp_path / "a" / "old", "P3", LABELS)  # below a data set nothing is looked for
    assert [dataset.name for dataset in find_datasets(tmp_path)] == ["a", "b"]


def test_data_sets_three_folders_down_are_found(tmp_path):
    write_case(tmp_path / "a" / "b" / "c" / "set", "P1", LABELS)
    assert [dataset.name for dataset in find_datasets(tmp_path)] == ["set"]


def test_numbered_scans_taken_for_one_patient_are_a_problem(tmp_path):
    for number in range(1, 7):
        write_case(tmp_path, f"lung_scan_{number:03d}", LABELS)
    (dataset,) = find_datasets(tmp_path)
    assert {case.patient for case in dataset.cases} == {"lung"}
    (problem,) = dataset.problems
    assert "all 6 cases (lung_scan_001, lung_scan_002, lung_scan_003, ...)" in problem
    assert "one patient, 'lung'" in problem and "--patient_pattern" in problem
    (dataset,) = find_datasets(tmp_path, r"^(.+)$")
    assert dataset.problems == () and len({case.patient for case in dataset.cases}) == 6


def write_classes(folder, names):
    write_case(folder, "P1", balls((8, 12, 12), (16, 28, 28), values=(1, 2)))
    (folder / "dataset.json").write_text(json.dumps({"labels": names}))


@pytest.mark.parametrize(
    ("names", "asks"),
    [
        ({"background": 0, "lung": 1, "nodule": 2}, True),
        ({"background": 0, "left": 1, "right": 2}, True),
        ({"background": 0, "lungs": 1}, True),
        ({"background": 0, "lung nodule": 1, "tumour": 2}, False),
        ({"background": 0, "1": 1, "2": 2}, False),
        ({"background": 0, "object": 1}, False),
        ({"background": 0, "nodule": 1, "ignore": 2}, False),
        ({"background": 0, "lung": [1, 2], "nodule": 2}, True),
        ({"background": "0", "lung": "1", "nodule": "2"}, True),
        ({"background": 0, "object": [1, 2]}, False),
    ],
)
def test_classes_that_may_be_no_nodules_are_asked_for(names, asks, tmp_path):
    write_classes(tmp_path, names)
    datasets = find_datasets(tmp_path)
    assert bool(datasets[0].question) == asks
    assert (datasets[0].question in datasets[0].problems) == asks
    if asks:
        with pytest.raises(DatasetError, match="which classes of dataset.json are nodules"):
            ask(datasets)
        with pytest.raises(DatasetError, match="--labels NAME"):
            split_cases(datasets)
    else:
        ask(datasets)


@pytest.mark.parametrize("label", ["nodule", "Nodule", "2"])
def test_the_chosen_classes_alone_are_nodules(label, tmp_path):
    write_classes(tmp_path, {"background": 0, "lung": 1, "nodule": 2})
    (dataset,) = find_datasets(tmp_path, labels=[label])
    assert dataset.question == ""
    assert [nodule.value for nodule in load_case(dataset.cases[0], dataset.ignored_values).nodules] == [2]


@pytest.mark.parametrize(
    "names",
    [{"0": "background", "1": "nodule", "2": "Nodule", "3": "lung"}, {"nodule": [1, 2], "core": 2, "lung": [3]}],
)
def test_all_values_of_a_chosen_name_are_nodules(names, tmp_path):
    write_case(tmp_path, "P1", balls((6, 8, 8), (12, 20, 20), (18, 32, 32), radius_mm=2.5, values=(1, 2, 3)))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    (dataset,) = find_datasets(tmp_path, labels=["nodule"])
    assert [nodule.value for nodule in load_case(dataset.cases[0], dataset.ignored_values).nodules] == [1, 2]


@pytest.mark.parametrize("labels", [["background", "lung"], {"1": ["lung"]}, {"lung": {"value": 1}}, {"lung": 1.5}])
def test_classes_that_are_not_understood_are_refused(labels, tmp_path):
    write_case(tmp_path, "P1", LABELS)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(DatasetError, match=r"dataset\.json: the label .* no value that is a whole number"):
        find_datasets(tmp_path)


def test_values_are_chosen_without_a_dataset_json_too(tmp_path):
    write_case(tmp_path, "P1", balls((8, 12, 12), (16, 28, 28), values=(1, 2)))
    (dataset,) = find_datasets(tmp_path, labels=["1"])
    assert [nodule.value for nodule in load_case(dataset.cases[0], dataset.ignored_values).nodules] == [1]
    with pytest.raises(DatasetError, match="no such class; dataset.json names none"):
        find_datasets(tmp_path, labels=["nodule"])


def test_a_label_header_less_than_half_a_voxel_off_is_noted(tmp_path):
    write_case(tmp_path, "P1", LABELS)
    write(tmp_path / "labelsTr" / "P1.nii.gz", LABELS, matrix((10.2, -20.2, 30.0)))
    (dataset,) = find_datasets(tmp_path)
    with pytest.warns(UserWarning, match="lies 0.28 mm away from its image's, less than half a voxel"):
        assert len(load_case(dataset.cases[0]).nodules) == 2


@pytest.mark.parametrize("header", [np.eye(4), np.diag([0.8, 0.8, 1.5, 1.0])], ids=["1 mm", "no origin"])
def test_the_cure_of_a_lost_header_is_the_image_s(header, tmp_path):
    write_case(tmp_path, "P1", LABELS)
    write(tmp_path / "labelsTr" / "P1.nii.gz", LABELS, header)
    (dataset,) = find_datasets(tmp_path)
    with pytest.raises(
        DatasetError, match="header is lost, copy the header of imagesTr/P1_0000.nii.gz to labelsTr/P1.nii.gz"
    ):
        load_case(dataset.cases[0])


def test_a_path_that_the_system_refuses(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        find_datasets(tmp_path / ("x" * 300))


def test_cases_that_a_fold_names_and_nobody_has_are_said(tmp_path):
    write_case(tmp_path, "a", LABELS)
    write_case(tmp_path, "b", LABELS)
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a", "gone"], "val": ["b"]}]))
    (dataset,) = find_datasets(tmp_path)
    assert dataset.problems == ("splits_final.json names 1 cases that are not there (gone)",)
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": None, "val": ["b"]}]))
    assert "not a list of" in find_datasets(tmp_path)[0].problems[0]


@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_json_names_the_file(tmp_path, content):
    write_case(tmp_path, "a", LABELS)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        find_datasets(tmp_path)


def test_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="imagesTr"):
        find_datasets(tmp_path)
    with pytest.raises(DatasetError, match="not a folder"):
        find_datasets(tmp_path / "missing")


def test_a_case_in_memory(tmp_path):
    write_case(tmp_path, "a", LABELS)
    (dataset,) = find_datasets(tmp_path)
    loaded = load_case(dataset.cases[0])
    np.testing.assert_array_equal(loaded.array_kji, ct(LABELS))
    np.testing.assert_allclose(loaded.ijk_to_ras, matrix(), atol=1e-5)
    assert len(loaded.nodules) == 2


def _shifted(folder):
    write(folder / "labelsTr" / "a.nii.gz", LABELS, matrix((12.0, -20.0, 30.0)))


def _flipped(folder):
    affine = matrix()
    affine[:3, 3] += affine[:3, 0] * (LABELS.shape[2] - 1)
    affine[:3, 0] *= -1
    write(folder / "labelsTr" / "a.nii.gz", LABELS, affine)


def _smaller(folder):
    write(folder / "labelsTr" / "a.nii.gz", LABELS[:-1])


def _fractions(folder):
    write(folder / "labelsTr" / "a.nii.gz", LABELS * np.float32(0.5))


def _four_axes(folder):
    stack = np.stack([ct(LABELS)] * 2, -1).transpose(2, 1, 0, 3)
    nibabel.save(nibabel.Nifti1Image(stack, matrix()), folder / "imagesTr" / "a_0000.nii.gz")


def _truncated(folder):
    path = folder / "imagesTr" / "a_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_shifted, "2.0 mm away"),
        (_flipped, "another orientation"),
        (_smaller, "40, 40, 23"),
        (_fractions, "whole"),
        (_four_axes, "4D"),
        (_truncated, r"a_0000\.nii\.gz"),
    ],
)
def test_a_broken_case_is_named(tmp_path, spoil, message):
    write_case(tmp_path, "a", LABELS)
    spoil(tmp_path)
    (dataset,) = find_datasets(tmp_path)
    with pytest.raises(DatasetError, match=message) as caught:
        load_case(dataset.cases[0])
    assert f"{tmp_path.name}/Tr/a" in str(caught.value)


def test_float_labels_that_are_whole_numbers_are_fine(tmp_path):
    write_case(tmp_path, "a", LABELS.astype(np.float32))
    (dataset,) = find_datasets(tmp_path)
    assert len(load_case(dataset.cases[0]).nodules) == 2
