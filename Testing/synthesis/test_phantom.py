"""The chest phantom: a plausible CT, nodules where the labels say, and the same again from the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from SAMMed3DLib.synthesis.phantom import NODULES, ChestPhantom, chest_phantom

COARSE = {"shape_kji": (88, 150, 200), "spacing_kji": (2.5, 1.6, 1.6)}


@pytest.fixture(scope="module")
def phantom() -> ChestPhantom:
    return chest_phantom(2, **COARSE)


def lungs(phantom: ChestPhantom) -> np.ndarray:
    """Air that is not around the patient: the components below -500 HU that do not touch the border of a slice."""
    air, _ = ndimage.label(phantom.array_kji < -500)
    outside = np.unique(np.concatenate((air[:, 0].ravel(), air[:, -1].ravel())))
    return (air > 0) & ~np.isin(air, outside)


def test_volume_and_its_geometry(phantom):
    assert phantom.array_kji.shape == phantom.labels_kji.shape == (88, 150, 200)
    assert phantom.array_kji.dtype == np.int16 and phantom.labels_kji.dtype == np.uint8
    np.testing.assert_allclose(np.linalg.norm(phantom.ijk_to_ras[:3, :3], axis=0), (1.6, 1.6, 2.5))
    assert np.linalg.det(phantom.ijk_to_ras[:3, :3]) > 0
    # the middle of the field of view is the origin
    np.testing.assert_allclose(phantom.ijk_to_ras @ (99.5, 74.5, 43.5, 1), (0, 0, 0, 1), atol=1e-9)


def test_tissues_are_where_a_chest_has_them(phantom):
    hu = phantom.array_kji
    voxel_ml = 2.5 * 1.6 * 1.6 / 1000
    lung = lungs(phantom)
    assert 2500 < lung.sum() * voxel_ml < 7000
    assert -920 < np.median(hu[lung]) < -800
    assert np.all(np.median(hu[:, :3].astype(float), axis=(1, 2)) < -950)  # air in front of the patient
    assert 100 < (hu > 300).sum() * voxel_ml < 1500  # bone
    left, right = lung[:, :, 100:].sum(), lung[:, :, :100].sum()
    assert 0.6 < left / right < 1.1  # the heart lies on the left
    assert hu[40, 75 + 20 : 75 + 45, 95:105].max() > 300  # the spine is at the back


def test_nodules_are_in_the_lungs_and_look_their_kind(phantom):
    around = ndimage.binary_closing(lungs(phantom), iterations=4) | (phantom.labels_kji > 0)
    assert [(entry["kind"], entry["attachment"]) for entry in phantom.nodules] == [(k, a) for k, _, a in NODULES]
    assert [entry["label"] for entry in phantom.nodules] == list(range(1, len(NODULES) + 1))
    assert set(np.unique(phantom.labels_kji)) == set(range(len(NODULES) + 1))
    for entry, (kind, diameter, _) in zip(phantom.nodules, NODULES, strict=True):
        mask = phantom.labels_kji == entry["label"]
        volume = mask.sum() * 2.5 * 1.6 * 1.6
        assert entry["diameter_mm"] == pytest.approx(np.cbrt(6 * volume / np.pi), abs=0.01)
        assert 0.6 * diameter < entry["diameter_mm"] < 1.25 * diameter
        shell = ndimage.binary_dilation(mask, iterations=3) & around
        assert shell[mask].all()
        center = phantom.ijk_to_ras @ np.append(np.argwhere(mask).mean(axis=0)[::-1], 1)
        np.testing.assert_allclose(entry["center_ras"], center[:3], atol=0.01)
        inside = np.median(phantom.array_kji[mask])
        if kind == "ground-glass":
            assert -840 < inside < -250
        elif diameter > 8:
            assert inside > (-250 if kind == "solid" else -750)


def test_attachments(phantom):
    hu, labels = phantom.array_kji, phantom.labels_kji
    wall = ndimage.binary_opening((hu > -300) & (labels == 0), iterations=5)
    spacing = (2.5, 1.6, 1.6)
    to_wall = ndimage.distance_transform_edt(~wall, sampling=spacing)
    for entry in phantom.nodules:
        distance = to_wall[labels == entry["label"]].min()
        assert (distance < 5) if entry["attachment"] == "pleura" else distance > 2


def test_seed(phantom):
    again = chest_phantom(2, **COARSE)
    assert np.array_equal(again.array_kji, phantom.array_kji)
    assert np.array_equal(again.labels_kji, phantom.labels_kji) and again.nodules == phantom.nodules


def test_nodules_do_not_touch(phantom):
    components, count = ndimage.label(phantom.labels_kji > 0, np.ones((3, 3, 3)))
    for component in range(1, count + 1):
        assert len(np.unique(phantom.labels_kji[components == component])) == 1


def test_too_small_a_field_of_view_is_refused():
    with pytest.raises(ValueError, match="field of view"):
        chest_phantom(0, (20, 20, 20), (1.0, 1.0, 1.0))
