"""Splits never tear a patient apart, are the same every time, and survive on disk."""

from __future__ import annotations

import json

import pytest

from SAMMed3DTrainingLib.data.datasets import DatasetError, find_datasets
from SAMMed3DTrainingLib.data.splits import changed_labels, read_split, split_cases, unused_folds, write_split

from .dataset_files import balls, write_case

LABELS = balls((12, 20, 20))


def patients(cases) -> set[str]:
    return {case.patient for case in cases}


@pytest.fixture
def folder(tmp_path):
    for patient in range(10):
        for scan in (1, 2):
            write_case(tmp_path / "set", f"P{patient}_scan{scan}", LABELS)
    return tmp_path / "set"


def test_a_splits_final_json_that_is_not_used_is_said(tmp_path):
    for name in ("P1", "P2", "P3"):
        write_case(tmp_path, name, LABELS)
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["P1", "P2"], "val": ["P3"]}]))
    datasets = find_datasets(tmp_path)
    (note,) = unused_folds(datasets, None)
    assert note == f"splits_final.json of {datasets[0].name} is not used: --fold 0 takes its first fold"
    assert unused_folds(datasets, 0) == ()


def test_random_by_patient(folder):
    split = split_cases(find_datasets(folder))
    assert len(split.val) == 4 and len(split.test) == 4 and len(split.train) == 12 and split.caution == ""
    parts = [patients(part) for part in (split.train, split.val, split.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 10
    assert "2 patients of 10 choose, 2 patients test" in split.source
    assert split_cases(find_datasets(folder)) == split
    seeds = {frozenset(patients(split_cases(find_datasets(folder), seed=seed).val)) for seed in range(8)}
    assert len(seeds) > 1


def test_without_a_test_part_it_is_said_who_chose(folder):
    split = split_cases(find_datasets(folder), test_fraction=0.0)
    assert len(split.val) == 4 and len(split.train) == 16 and split.test == ()
    assert "choose the epoch" in split.caution and "held out" in split.source


@pytest.mark.parametrize(
    ("count", "fraction", "sizes"),
    [(2, 0.2, (1, 1, 0)), (4, 0.2, (3, 1, 0)), (5, 0.2, (3, 1, 1)), (5, 0.9, (1, 3, 1)), (12, 0.2, (8, 2, 2))],
)
def test_three_parts_from_five_patients_on(tmp_path, count, fraction, sizes):
    for patient in range(count):
        write_case(tmp_path / "set", f"P{patient}", LABELS)
    split = split_cases(find_datasets(tmp_path), val_fraction=fraction)
    assert (len(split.train), len(split.val), len(split.test)) == sizes
    assert bool(split.caution) == (count < 5)


def test_labels_that_changed_are_named(folder, tmp_path):
    split = split_cases(find_datasets(folder))
    names = [case.full_name for case in (*split.train, *split.val)]
    assert changed_labels(tmp_path, dict.fromkeys(names, "a")) == []  # nothing was written down
    write_split(split, tmp_path, dict.fromkeys(names, "a"))
    assert changed_labels(tmp_path, dict.fromkeys(names, "a")) == []
    assert changed_labels(tmp_path, {**dict.fromkeys(names, "a"), names[1]: "b"}) == [names[1]]
    write_split(split, tmp_path)  # by an earlier version
    assert changed_labels(tmp_path, dict.fromkeys(names, "b")) == []


def test_test_patients_are_never_trained_on(folder):
    write_case(folder, "P3_scan9", LABELS, part="Ts")
    split = split_cases(find_datasets(folder))
    assert patients(split.test) == {"P3"}
    assert "P3" not in patients(split.train) | patients(split.val)


def test_a_val_part_is_used(folder):
    write_case(folder, "P3_scan9", LABELS, part="Val")
    split = split_cases(find_datasets(folder))
    assert [case.name for case in split.val] == ["P3_scan9"]
    assert "P3" not in patients(split.train) | patients(split.test) and len(split.train) + len(split.test) == 18
    assert len(split.test) == 4 and not patients(split.train) & patients(split.test) and "2 patients" in split.source
    whole = split_cases(find_datasets(folder), test_fraction=0.0)
    assert len(whole.train) == 18 and whole.test == () and whole.source == "the data set's Val part"


def test_folds(folder):
    names = [f"P{p}_scan{s}" for p in range(10) for s in (1, 2)]
    good = {"train": names[:6], "val": names[6:10]}
    torn = {"train": names[:5], "val": names[5:]}
    (folder / "splits_final.json").write_text(json.dumps([good, torn, {"train": ["x"], "val": ["y"]}]))
    datasets = find_datasets(folder)
    split = split_cases(datasets, fold=0)
    assert [c.name for c in split.test] == names[6:10] and len(patients(split.val)) == 1
    assert sorted(c.name for c in (*split.train, *split.val)) == names[:6]
    assert not patients(split.train) & patients(split.val) and len(split.train) == 4
    whole = split_cases(datasets, fold=0, test_fraction=0.0)
    assert [c.name for c in whole.train] == names[:6] and [c.name for c in whole.val] == names[6:10]
    for fold, message in ((1, "by patient"), (2, "names no case"), (3, "3 folds")):
        with pytest.raises(DatasetError, match=message):
            split_cases(datasets, fold=fold)


def test_labelled_cases_that_are_not_used_are_named(folder):
    names = [f"P{p}_scan{s}" for p in range(10) for s in (1, 2)]
    assert split_cases(find_datasets(folder)).notes == ()
    (folder / "splits_final.json").write_text(json.dumps([{"train": names[:6], "val": names[6:10]}]))
    (note,) = split_cases(find_datasets(folder), fold=0).notes
    assert note.startswith("10 labelled cases") and "fold 0" in note and "set/Tr/P5_scan1" in note
    write_case(folder, "P3_scan9", LABELS, part="Val")
    write_case(folder, "P4_scan9", LABELS, part="Ts")
    notes = split_cases(find_datasets(folder)).notes
    assert len(notes) == 2 and "set/Tr/P3_scan1" in notes[0] and "Val part" in notes[0]
    assert "set/Tr/P4_scan1" in notes[1] and "test part" in notes[1]


def test_one_patient_validates_on_itself_and_says_so(tmp_path):
    write_case(tmp_path, "a", LABELS)
    split = split_cases(find_datasets(tmp_path))
    assert split.train == split.val and "one patient" in split.source and "one patient only" in split.caution


def test_nothing_to_train_on(tmp_path):
    write_case(tmp_path, "a", None)
    with pytest.raises(DatasetError, match="no case to train on"):
        split_cases(find_datasets(tmp_path))


def test_written_and_read_again(folder, tmp_path):
    datasets = find_datasets(folder)
    split = split_cases(datasets)
    assert read_split(tmp_path, datasets) is None
    path = write_split(split, tmp_path)
    assert read_split(tmp_path, datasets) == split
    gone = [type(d)(d.name, d.folder, d.cases[2:], {}) for d in datasets]
    with pytest.raises(DatasetError, match="no longer holds"):
        read_split(tmp_path, gone)
    path.write_text("{")
    with pytest.raises(DatasetError, match=r"split\.json"):
        read_split(tmp_path, datasets)
