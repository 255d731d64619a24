"""Samples of labelled scans show the nodule where the truth says it is, at every zoom and for every size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from SAMMed3DLib.model.profile import PROFILES
from SAMMed3DTrainingLib.data.augmentation import NO_AUGMENTATION, Augmentation
from SAMMed3DTrainingLib.data.case_cache import CachedCase
from SAMMed3DTrainingLib.data.datasets import Case
from SAMMed3DTrainingLib.data.instances import split_instances
from SAMMed3DTrainingLib.data.nodule_samples import NoduleSampler

from .dataset_files import balls, ct, matrix

NODULE = PROFILES["nodule"]
MED3D = dataclasses.replace(PROFILES["sam_med3d"], crop_size=(32, 32, 32))
NATIVE = dataclasses.replace(PROFILES["lidc_fork_native"], crop_size=(32, 32, 32))


def case(labels: np.ndarray, ijk_to_ras: np.ndarray | None = None) -> CachedCase:
    to_ras = matrix() if ijk_to_ras is None else ijk_to_ras
    return CachedCase(Case("a", None, None, "a", "set", "Tr"), ct(labels), to_ras, split_instances(labels, to_ras))


@pytest.mark.parametrize("profile", [NODULE, MED3D, NATIVE], ids=lambda profile: profile.name)
@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, Augmentation()], ids=["plain", "varied"])
def test_truth_click_and_image_agree(profile, augmentation):
    sampler = NoduleSampler([case(balls((8, 14, 14), (16, 28, 28), radius_mm=4.0))], profile, augmentation)
    assert len(sampler) == 2
    for seed in range(12):
        sample = sampler.sample(seed % 2, np.random.default_rng(seed))
        assert sample.crop.shape == (profile.channels, *profile.crop_size) and sample.crop.dtype == np.float32
        assert np.isfinite(sample.crop).all()
        inside = tuple(np.floor(sample.click + 0.5).astype(int))
        assert sample.truth[inside]
        if augmentation is NO_AUGMENTATION and sample.truth.sum() > 20:
            bright, dark = sample.crop[0][sample.truth].mean(), np.percentile(sample.crop[0][~sample.truth], 5)
            assert bright > dark + 0.3


def test_the_truth_has_the_nodules_volume():
    sampler = NoduleSampler([case(balls((12, 20, 20), radius_mm=5.0))], NODULE)
    (nodule,) = sampler._nodules[0][1:]
    for seed in range(10):
        sample = sampler.sample(0, np.random.default_rng(seed))
        volume = sample.truth.sum() * sample.spacing_mm**3
        assert volume == pytest.approx(nodule.volume_mm3, rel=0.15)


def test_first_looks_and_zooms_as_in_inference():
    sampler = NoduleSampler([case(balls((12, 20, 20), radius_mm=4.0))], NODULE)
    samples = [sampler.sample(0, np.random.default_rng(seed)) for seed in range(60)]
    first = [s for s in samples if s.spacing_mm == pytest.approx(NODULE.spacing_mm)]
    assert 0.25 < len(first) / len(samples) < 0.65
    assert all(np.allclose(s.click, 32) for s in first)
    zoomed = [s.spacing_mm for s in samples if s.spacing_mm != pytest.approx(NODULE.spacing_mm)]
    assert np.median(zoomed) == pytest.approx(8.0 / NODULE.target_voxels, rel=0.25)


@pytest.mark.parametrize(("slice_mm", "changes"), [(1.0, True), (5.0, False)])
def test_only_scans_of_thin_slices_are_shown_in_thicker_ones(slice_mm, changes):
    to_ras = matrix()
    to_ras[2, 2] = slice_mm
    scan = case(balls((12, 20, 20)), to_ras)
    thickened = dataclasses.replace(NO_AUGMENTATION, thicken=1.0, thick_mm=5.0)
    plain, varied = (
        [NoduleSampler([scan], NODULE, each).sample(0, np.random.default_rng(seed)).crop for seed in range(6)]
        for each in (NO_AUGMENTATION, thickened)
    )
    assert any(not np.array_equal(a, b) for a, b in zip(plain, varied, strict=True)) is changes


@pytest.mark.parametrize("profile", [NODULE, MED3D], ids=lambda profile: profile.name)
def test_a_single_voxel_still_trains(profile):
    labels = np.zeros_like(balls())
    labels[12, 20, 20] = 1
    sampler = NoduleSampler([case(labels)], profile, Augmentation())
    for seed in range(8):
        sample = sampler.sample(0, np.random.default_rng(seed))
        assert sample.truth.any() and sample.truth[tuple(np.floor(sample.click + 0.5).astype(int))]


def test_the_other_nodule_is_no_truth():
    labels = balls((12, 14, 14), (12, 26, 26), radius_mm=3.0)
    sampler = NoduleSampler([case(labels)], NODULE)
    for seed in range(6):
        sample = sampler.sample(0, np.random.default_rng(seed))
        volume = sample.truth.sum() * sample.spacing_mm**3
        assert volume < 1.3 * sampler._nodules[0][1].volume_mm3


def test_empty_samples_keep_away_from_nodules():
    labels = balls((12, 20, 20), radius_mm=4.0)
    sampler = NoduleSampler([case(labels)], NODULE)
    for seed in range(10):
        sample = sampler.empty(np.random.default_rng(seed))
        assert not sample.truth.any() and sample.kind == "none" and sample.crop.shape == (3, 64, 64, 64)
        assert sample.crop[0][tuple(np.floor(sample.click + 0.5).astype(int))] < 0.4  # lung, not the nodule's 50 HU


def test_the_same_generator_gives_the_same_sample():
    sampler = NoduleSampler([case(balls((12, 20, 20)))], NODULE, Augmentation())
    first, second = (sampler.sample(0, np.random.default_rng([1, 2, 3])) for _ in range(2))
    np.testing.assert_array_equal(first.crop, second.crop)
    np.testing.assert_array_equal(first.truth, second.truth)
