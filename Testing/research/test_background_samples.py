import dataclasses

import numpy as np
import pytest

from Research import background_samples
from Research.background_samples import BackgroundSynthesizer
from Research.backgrounds import Background
from SAMMed3DLib.finding.candidates import Candidate
from SAMMed3DLib.inference.geometry import transform_points
from SAMMed3DLib.model.profile import PROFILES
from SAMMed3DLib.synthesis import NoduleShapes
from SAMMed3DTrainingLib.data import synthetic_samples
from SAMMed3DTrainingLib.data.nodule_samples import Sample

PROFILE = PROFILES["nodule"]


def _background() -> Background:
    """A block of lung 90 mm wide with a chest wall at one side and a lesion in a corner."""
    shape, spacing = (60, 120, 120), np.array([0.75, 0.75, 1.5])
    rng = np.random.default_rng(0)
    hu = rng.normal(-860, 20, shape).astype(np.int16)
    lung = np.ones(shape, bool)
    lung[:, :, :20] = False
    hu[~lung] = 40
    lesion = np.zeros(shape, bool)
    lesion[40:, 100:, 100:] = True
    sites = np.argwhere(lung & ~lesion)[::97, ::-1].astype(np.int16)
    kinds = {"lung": sites, "pleura": sites, "wall": sites, "vessel": sites[:0]}
    return Background("test", hu, np.diag([*spacing, 1.0]), lung, lesion, kinds)


def _samples(backgrounds: list[Background], count: int, seed: int = 0) -> list[Sample]:
    synthesizer = BackgroundSynthesizer(backgrounds, NoduleShapes.load(), PROFILE, np.random.default_rng(seed))
    return [synthesizer.sample() for _ in range(count)]


def test_the_first_click_is_on_the_nodule() -> None:
    for sample in _samples([_background()], 25):
        voxel = tuple(np.floor(sample.click + 0.5).astype(int))
        assert sample.crop.shape == (PROFILE.channels, *PROFILE.crop_size)
        assert sample.truth[voxel] == (sample.kind != "none")


def test_lesions_never_enter_a_sample() -> None:
    background = _background()
    marked = background.hu.copy()
    marked[background.lesion] = 3000
    bright = Background("marked", marked, background.ijk_to_ras, background.lung, background.lesion, background.sites)
    calm = [s.crop for s in _samples([background], 25, seed=3)]
    assert all(np.array_equal(a, s.crop) for a, s in zip(calm, _samples([bright], 25, seed=3), strict=True))


def dotted() -> tuple[Background, list[Candidate]]:
    """The background with bright balls of 6 mm, as forks of vessels are, one of them in the lesion."""
    background = _background()
    hu, voxels = background.hu.copy(), [(30, 60, 60), (20, 60, 90), (30, 30, 70), (50, 110, 110)]
    k, j, i = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    places = []
    for voxel in voxels:
        ball = ((k - voxel[0]) * 1.5) ** 2 + ((j - voxel[1]) * 0.75) ** 2 + ((i - voxel[2]) * 0.75) ** 2 < 9
        hu[ball] = 60
        center = transform_points(background.ijk_to_ras, np.array(voxel[::-1], float))
        places.append(Candidate((center[0], center[1], center[2]), 6.0, 1.0, "solid"))
    return dataclasses.replace(background, hu=hu), places


def test_negative_clicks_go_on_what_can_be_mistaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_samples, "EMPTY_SHARE", 1.0)
    monkeypatch.setattr(background_samples, "PROCEDURAL_SHARE", 0.0)
    background, places = dotted()
    shares = []
    for mistakable in ([places[:3]], None):
        rng = np.random.default_rng(3)
        synthesizer = BackgroundSynthesizer([background], NoduleShapes.load(), PROFILE, rng, mistakable)
        bright = []
        for _ in range(40):
            sample = synthesizer.sample()
            assert sample.kind == "none" and not sample.truth.any()
            x, y, z = np.floor(sample.click + 0.5).astype(int)
            bright.append(sample.crop[0, x - 2 : x + 3, y - 2 : y + 3, z - 2 : z + 3].max() > 0.6)
        shares.append(np.mean(bright))
    assert shares[0] > 0.5 and shares[0] > shares[1] + 0.25
