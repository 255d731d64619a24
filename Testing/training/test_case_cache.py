"""The cache gives what the files hold, notices changes, and survives damage and full disks with a message."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from SAMMed3DLib.files import output_files
from SAMMed3DTrainingLib.data.case_cache import CaseCache
from SAMMed3DTrainingLib.data.datasets import DatasetError, find_datasets, load_case

from .dataset_files import balls, ct, write, write_case

LABELS = balls((8, 12, 12), (16, 28, 28))


@pytest.fixture
def dataset(tmp_path):
    write_case(tmp_path / "set", "Fäll 1", LABELS)
    return find_datasets(tmp_path / "set")[0]


def test_the_same_as_from_the_files_twice(dataset, tmp_path):
    loaded = load_case(dataset.cases[0])
    for _ in range(2):
        cached = CaseCache(tmp_path / "cache").load(dataset.cases[0], dataset)
        np.testing.assert_array_equal(cached.array_kji, loaded.array_kji)
        np.testing.assert_array_equal(cached.ijk_to_ras, loaded.ijk_to_ras)
        assert isinstance(cached.array_kji, np.memmap) and not cached.array_kji.flags.writeable
        for mine, theirs in zip(cached.nodules, loaded.nodules, strict=True):
            np.testing.assert_array_equal(mine.mask, theirs.mask)
            assert (mine.name, mine.offset_kji, mine.volume_mm3) == (theirs.name, theirs.offset_kji, theirs.volume_mm3)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_another_process_maps_the_scan_instead_of_being_sent_it(dataset, tmp_path):
    cached = CaseCache(tmp_path / "cache").load(dataset.cases[0], dataset)
    sent = pickle.dumps(cached)
    assert len(sent) < cached.array_kji.nbytes / 4
    other = pickle.loads(sent)
    assert isinstance(other.array_kji, np.memmap)
    np.testing.assert_array_equal(other.array_kji, cached.array_kji)
    assert [n.name for n in other.nodules] == [n.name for n in cached.nodules]
    part = pickle.loads(pickle.dumps(dataclasses.replace(cached, array_kji=cached.array_kji[2:5])))
    np.testing.assert_array_equal(part.array_kji, cached.array_kji[2:5])


def test_a_changed_label_map_is_read_again(dataset, tmp_path):
    cache = CaseCache(tmp_path / "cache")
    assert len(cache.load(dataset.cases[0], dataset).nodules) == 2
    write(dataset.folder / "labelsTr" / "Fäll 1.nii.gz", balls((8, 12, 12)))
    assert len(cache.load(dataset.cases[0], dataset).nodules) == 1


def test_damage_is_named(dataset, tmp_path):
    cache = CaseCache(tmp_path / "cache")
    cache.load(dataset.cases[0], dataset)
    (entry,) = cache.folder.iterdir()
    (entry / "nodules.npz").write_bytes(b"x")
    with pytest.raises(DatasetError, match="damaged.*delete"):
        cache.load(dataset.cases[0], dataset)


def test_nan_and_a_place_that_cannot_be_written(dataset, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match="could not be unpacked"):
        CaseCache(tmp_path / "file" / "cache").load(dataset.cases[0], dataset)
    holed = ct(LABELS).astype(np.float32)
    holed[0, 0, 0] = np.inf
    write(dataset.folder / "imagesTr" / "Fäll 1_0000.nii.gz", holed)
    with pytest.raises(DatasetError, match="NaN or infinite"):
        CaseCache(tmp_path / "cache").load(dataset.cases[0], dataset)
    assert not list((tmp_path / "cache").glob("*")) or not (tmp_path / "cache").exists()


def test_what_a_killed_run_left_is_removed(dataset, tmp_path):
    cache = CaseCache(tmp_path / "cache")
    left = cache.folder / f".sammed3d-{output_files._HOST}-99999999-abc" / "entry"
    left.mkdir(parents=True)
    cache.load(dataset.cases[0], dataset)
    assert [path.name[:9] for path in cache.folder.iterdir() if path.name.startswith(".")] == []
