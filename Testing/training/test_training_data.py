"""Samples prepared by another process are those prepared here, in the same order, and no batch is taken too early."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from SAMMed3DLib.model.registry import default_profile
from SAMMed3DTrainingLib.train import training_data, training_run
from SAMMed3DTrainingLib.train.run_folder import RunFolder, read_events
from SAMMed3DTrainingLib.train.training_data import SampleSlots, load_cases, loader

from .runs import config, write_data


@pytest.fixture
def slots(tmp_path: Path) -> SampleSlots:
    options = config(tmp_path, write_data(tmp_path / "set", cases=3))
    cases = load_cases(options.resolved(from_scratch=True), lambda message: None)
    return SampleSlots(cases.train, default_profile("vit_tiny"), options.resolved(from_scratch=True))


@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_a_worker_gives_the_same_samples(slots, monkeypatch, system):
    monkeypatch.setattr(training_data.platform, "system", lambda: system)  # elsewhere processes are not forked
    keys = slots.slots(0)[:3]
    batches = [keys[:2], keys[2:]]
    here = [sample for batch in loader(slots, batches, 0) for sample in batch]
    there = [sample for batch in loader(slots, iter(batches), 1) for sample in batch]
    assert len(here) == len(there) == 3
    for first, second in zip(here, there, strict=True):
        np.testing.assert_array_equal(first.crop, second.crop)
        np.testing.assert_array_equal(first.truth, second.truth)


def test_batches_are_taken_as_they_are_needed(slots):
    taken = []

    def batches():
        for epoch in range(1000):
            taken.append(epoch)
            yield slots.slots(epoch)[:1]

    source = loader(slots, batches(), 0)
    for _ in range(3):
        next(source)
    assert taken == [0, 1, 2]


def test_what_readers_doubt_is_an_event_of_the_run(tmp_path):
    data = write_data(tmp_path / "set", cases=2)
    path = data / "imagesTr" / "P0_0000.nii.gz"
    image = nibabel.load(path)
    plain = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    plain.set_sform(None, code=0)
    plain.set_qform(None, code=0)
    nibabel.save(plain, path)
    label = data / "labelsTr" / "P0.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(label).dataobj), nibabel.load(path).affine), label)
    said = []
    load_cases(config(tmp_path / "work", data), said.append)
    assert [text for text in said if "orientation" in text and "P0_0000.nii.gz" in text]
    again = []
    load_cases(config(tmp_path / "work", data), again.append)  # from the cache
    assert again == said


def test_reading_many_cases_is_told(tmp_path, monkeypatch):
    data = write_data(tmp_path / "set", cases=3)
    told = []
    load_cases(config(tmp_path / "work", data), lambda message: None, lambda *state: told.append(state))
    assert told == [(1, 3), (2, 3), (3, 3)]
    clock = iter(np.arange(0.0, 100.0, 0.6))
    monkeypatch.setattr(training_run.time, "monotonic", lambda: next(clock))
    folder = RunFolder(tmp_path / "run")
    tell = training_run._reading(folder)
    for done in range(1, 5):
        tell(done, 4)
    events = [event for event in read_events(tmp_path / "run") if event["event"] == "reading"]
    assert 1 <= len(events) < 4 and events[-1]["total"] == 4
