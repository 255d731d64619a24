"""Which cases are evaluated: the part asked for, or a held-out split that is named."""

from __future__ import annotations

import dataclasses

import pytest

from SAMMed3DTrainingLib.data.datasets import DatasetError, find_datasets
from SAMMed3DTrainingLib.data.splits import split_cases, write_split
from SAMMed3DTrainingLib.evaluate.evaluation_config import EvaluationConfig
from SAMMed3DTrainingLib.evaluate.evaluation_run import choose_cases

from .dataset_files import balls, write_case

LABELS = balls((12, 20, 20))


@pytest.fixture
def cache(tmp_path):
    for number in range(5):
        write_case(tmp_path / "cache" / "lidc", f"P{number}", LABELS, seed=number)
    return tmp_path / "cache"


def config(cache, **changes) -> EvaluationConfig:
    return EvaluationConfig(data=(str(cache),), **changes)


def names(chosen) -> list[str]:
    return [case.name for case in chosen.cases]


def test_the_part_that_is_asked_for(cache):
    write_case(cache / "lidc", "T1", LABELS, part="Ts")
    write_case(cache / "lidc", "T2", None, part="Ts")
    write_case(cache / "lidc", "V1", LABELS, part="Val")
    tested = choose_cases(config(cache))
    assert names(tested) == ["T1"] and tested.source == "the data's Ts part"
    assert any("no label map" in note and "T2" in note for note in tested.notes)
    assert names(choose_cases(config(cache, data_type="Val"))) == ["V1"]
    trained = choose_cases(config(cache, data_type="Tr"))
    assert len(trained.cases) == 5 and any("trained on" in note for note in trained.notes)


def test_a_data_set_of_a_cache_without_the_part_is_not_left_out_in_silence(cache):
    write_case(cache / "lidc", "T1", LABELS, part="Ts")
    write_case(cache / "other", "A", LABELS)
    chosen = choose_cases(config(cache))
    assert names(chosen) == ["T1"]
    assert any("left out: other" in note for note in chosen.notes)


def test_without_a_test_part_the_runs_own_split_is_used_and_named(cache, tmp_path):
    run = tmp_path / "work_dir" / "tag"
    run.mkdir(parents=True)
    split = split_cases(find_datasets(cache), seed=7, val_fraction=0.4)
    write_split(split, run)
    chosen = choose_cases(config(cache, checkpoint=str(run / "sam_model_dice_best.pth")))
    assert names(chosen) == [case.name for case in split.test] and chosen.caution == ""
    assert "held-out" in chosen.source and "split.json" in chosen.source and "seed 7" in chosen.source
    assert not any("not known" in note for note in chosen.notes)
    whole = choose_cases(config(cache, checkpoint=str(run / "sam_model_dice_best.pth"), data_type="Tr"))
    assert whole.caution == (
        "2 of these 5 cases trained the checkpoint: the figures say nothing about new cases; 2 of these 5 cases chose "
        "the checkpoint's epoch: the figures are too good for new cases"
    )


def test_cases_that_chose_the_epoch_are_told(cache, tmp_path):
    write_split(split_cases(find_datasets(cache), test_fraction=0.0), tmp_path)
    chosen = choose_cases(config(cache, checkpoint=str(tmp_path / "sam_model_dice_best.pth")))
    assert len(chosen.cases) == 1 and "1 of these 1 cases chose" in chosen.caution and chosen.caution in chosen.notes


def test_a_split_of_other_data_is_not_used(cache, tmp_path):
    write_case(tmp_path / "other" / "lidc", "Q1", LABELS)
    write_case(tmp_path / "other" / "lidc", "Q2", LABELS)
    write_split(split_cases(find_datasets(tmp_path / "other")), tmp_path)
    chosen = choose_cases(config(cache, checkpoint=str(tmp_path / "model.pth"), seed=3))
    same = split_cases(find_datasets(cache), seed=3)
    assert names(chosen) == [case.name for case in same.test] and "seed 3" in chosen.source
    assert any("does not fit" in note for note in chosen.notes)
    assert any("not known" in note for note in chosen.notes)


def test_only_a_validation_part(tmp_path):
    write_case(tmp_path / "data", "V1", LABELS, part="Val")
    chosen = choose_cases(config(tmp_path / "data"))
    assert names(chosen) == ["V1"] and "Val part" in chosen.source


def test_one_patient_is_said(tmp_path):
    write_case(tmp_path / "data", "P1", LABELS)
    chosen = choose_cases(config(tmp_path / "data"))
    assert names(chosen) == ["P1"] and any("one patient only" in note for note in chosen.notes)


def test_a_tool_without_weights_was_not_trained_on_anything(cache, tmp_path):
    assert any("trained on is not known" in note for note in choose_cases(config(cache)).notes)
    assert choose_cases(config(cache, model="threshold")).notes == ()
    write_case(tmp_path / "one" / "lidc", "P0", LABELS)
    assert choose_cases(config(tmp_path / "one", model="region_growing")).notes == ()


def test_shares_are_disjoint_and_complete(cache):
    shares = [names(choose_cases(config(cache, data_type="Tr", split_num=2, split_idx=n))) for n in range(2)]
    assert sorted(shares[0] + shares[1]) == [f"P{n}" for n in range(5)] and not set(shares[0]) & set(shares[1])
    with pytest.raises(DatasetError, match="no case"):
        choose_cases(config(cache, data_type="Tr", split_num=9, split_idx=8))


def test_nothing_labelled_is_said(tmp_path):
    write_case(tmp_path / "data", "P1", None)
    with pytest.raises(DatasetError, match="labelsTr"):
        choose_cases(config(tmp_path / "data"))


def test_two_data_sets_of_one_name(cache, tmp_path):
    write_case(tmp_path / "more" / "lidc", "P1", LABELS)
    both = dataclasses.replace(config(cache), data=(str(cache), str(tmp_path / "more")))
    with pytest.raises(DatasetError, match="two data sets have the name lidc: .*more.*; rename one"):
        choose_cases(both)
    twice = dataclasses.replace(config(cache), data=(str(cache), str(cache)))
    with pytest.raises(DatasetError, match="give it once"):
        choose_cases(twice)
