import numpy as np
import pytest

from SAMMed3DLib.model.profile import PROFILES
from SAMMed3DLib.synthesis import NoduleShapes
from SAMMed3DTrainingLib.data.nodule_samples import Sample
from SAMMed3DTrainingLib.data.synthetic_samples import SampleSynthesizer

PROFILE = PROFILES["nodule"]


def _samples(count: int, seed: int = 0) -> list[Sample]:
    synthesizer = SampleSynthesizer(NoduleShapes.load(), PROFILE, np.random.default_rng(seed))
    return [synthesizer.sample() for _ in range(count)]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return _samples(60)


def test_samples_look_as_the_profile_says(samples: list[Sample]) -> None:
    low, high = PROFILE.spacing_range_mm
    for sample in samples:
        assert sample.crop.shape == (PROFILE.channels, *PROFILE.crop_size)
        assert sample.crop.dtype == np.float32
        assert np.isfinite(sample.crop).all()
        assert sample.crop[:2].min() >= 0
        assert sample.crop[:2].max() <= 1
        assert low * 0.99 <= sample.spacing_mm <= high * 1.01
        assert np.allclose(sample.crop[2], np.log2(sample.spacing_mm), atol=1e-5)


def test_the_first_click_is_on_the_nodule(samples: list[Sample]) -> None:
    for sample in samples:
        voxel = tuple(np.floor(sample.click + 0.5).astype(int))
        assert sample.truth[voxel] == (sample.kind != "none")


def test_nodules_show_in_the_image(samples: list[Sample]) -> None:
    """Inside is brighter than the lung just outside, in the lung window, for every nodule."""
    for sample in samples:
        if sample.kind == "none":
            assert not sample.truth.any()
            continue
        window = sample.crop[0]
        lung = (window < 0.25) & ~sample.truth & (window > 0.02)
        assert window[sample.truth].mean() > np.median(window[lung]) + 0.02


def test_all_kinds_sizes_and_zooms_occur(samples: list[Sample]) -> None:
    assert {sample.kind for sample in samples} == {"solid", "part-solid", "ground-glass", "none"}
    diameters = np.array([sample.diameter_mm for sample in samples])
    spacings = np.array([sample.spacing_mm for sample in samples])
    assert diameters.min() < 6
    assert diameters.max() > 20
    assert (np.abs(spacings - PROFILE.spacing_mm) < 0.2).mean() > 0.25
    assert spacings.min() < 0.5
    large_glass = [sample.kind == "ground-glass" and 12 <= sample.diameter_mm <= 32 for sample in samples]
    assert np.mean(large_glass) > 0.12, "real data have hardly any"


def test_seed_decides_everything() -> None:
    first, again = _samples(3, seed=7), _samples(3, seed=7)
    assert all(
        np.array_equal(a.crop, b.crop) and np.array_equal(a.click, b.click) for a, b in zip(first, again, strict=True)
    )
