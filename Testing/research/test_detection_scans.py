"""Scans with known nodules: what is painted is where the truth says, and the split of backgrounds holds."""

from __future__ import annotations

import numpy as np
import pytest

from Research import detection_scans
from Research.backgrounds import HELD_OUT, TRAINING, Background
from Research.detection_scans import KINDS, UNMARKED, KnownNodule, painted_scan, phantom_scan, procedural_scan


def background(lesion=None, name="CT.nii.gz"):
    shape = (60, 120, 120)
    rng = np.random.default_rng(0)
    hu = rng.normal(-860, 15, shape).astype(np.int16)
    lung = np.zeros(shape, bool)
    lung[8:-8, 10:-10, 10:-10] = True
    hu[~lung] = 30
    inner = np.argwhere(lung)[:, ::-1]
    sites = {"lung": inner[rng.choice(len(inner), 500)].astype(np.int16)}
    matrix = np.diag([-0.9, -0.9, 1.5, 1.0])
    matrix[:3, 3] = (50.0, 40.0, -20.0)
    return Background(name, hu, matrix, lung, np.zeros(shape, bool) if lesion is None else lesion, sites)


def test_painted_nodules_are_where_the_truth_says():
    source = background()
    scan = painted_scan(source, "training", np.random.default_rng(1), count=6)
    assert [nodule.kind for nodule in scan.nodules] == list(KINDS) * 2
    changed = np.zeros(scan.array_kji.shape, bool)
    for nodule in scan.nodules:
        window = tuple(slice(a, a + n) for a, n in zip(nodule.offset_kji, nodule.mask.shape, strict=True))
        assert (scan.array_kji[window] - source.hu[window].astype(int))[nodule.mask].mean() > 100
        assert 3.2 <= nodule.diameter_mm <= 20.5
        voxels = np.argwhere(nodule.mask) + nodule.offset_kji
        center = scan.ijk_to_ras @ [*voxels.mean(axis=0)[::-1], 1.0]
        assert nodule.center_ras == pytest.approx(center[:3])
        margin = [slice(max(s.start - 8, 0), s.stop + 8) for s in window]
        changed[tuple(margin)] = True
    assert np.array_equal(scan.array_kji[~changed], source.hu[~changed])
    assert scan.array_kji.dtype == np.int16 and source.hu is not scan.array_kji


def real_crop(radius=4.0, hu=40.0, wall=False):
    """A ball in lung, at the scan's own spacing, with a wall beside it if wanted."""
    from Research.real_samples import RealCrop

    matrix = np.diag([0.7, 0.7, 1.25, 1.0])
    matrix[:3, 3] = (30.0, -5.0, 100.0)
    k, j, i = np.indices((14, 30, 30))
    own = np.sqrt(((k - 6.5) * 1.25) ** 2 + ((j - 15) * 0.7) ** 2 + ((i - 14) * 0.7) ** 2) <= radius
    values = np.where(own, hu, -850.0).astype(np.float32)
    if wall:
        values[:, :16] = 50.0
    return RealCrop("a", values, own[None], matrix, 2.0 * radius, 5.0, 5.0, 1.0, 1.0, False, False)


def test_real_nodules_are_where_the_truth_says_and_bring_no_walls():
    from Research.detection_scans import is_free, with_real_nodules

    crop, source = real_crop(), background()
    assert is_free(crop) and not is_free(real_crop(wall=True))
    painted = painted_scan(source, "training", np.random.default_rng(1), count=2)
    scan = with_real_nodules(painted, source, [crop], np.random.default_rng(3), 2)
    assert scan.nodules[:2] == painted.nodules and len(scan.nodules) == 4
    changed = scan.array_kji != painted.array_kji
    far = np.ones(changed.shape, bool)
    for nodule in scan.nodules[2:]:
        window = tuple(slice(a, a + n) for a, n in zip(nodule.offset_kji, nodule.mask.shape, strict=True))
        assert nodule.kind == "solid" and nodule.diameter_mm == pytest.approx(8.0, rel=0.1)
        inside = scan.array_kji[window][nodule.mask]
        assert np.median(inside) == pytest.approx(40.0, abs=60.0)
        far[tuple(slice(max(s.start - 5, 0), s.stop + 5) for s in window)] = False
    assert changed.any() and not changed[far].any()
    apart = [
        np.linalg.norm(np.subtract(a.center_ras, b.center_ras))
        for a in scan.nodules
        for b in scan.nodules
        if a is not b
    ]
    assert min(apart) > 15.0


def test_nodules_lie_apart_and_off_the_scans_own_lesions():
    lesion = np.zeros((60, 120, 120), bool)
    lesion[:, :, :60] = True
    scan = painted_scan(background(lesion), "training", np.random.default_rng(2), count=4)
    centers = np.array([nodule.center_ras for nodule in scan.nodules])
    apart = np.linalg.norm(centers[:, None] - centers[None], axis=-1) + 1e3 * np.eye(4)
    assert apart.min() > 15.0
    for nodule in scan.nodules:
        assert nodule.offset_kji[2] >= 60 and not scan.ignores(nodule.center_ras)
    assert scan.ignores(scan.ijk_to_ras[:3, :3] @ (10, 60, 30) + scan.ijk_to_ras[:3, 3])
    assert not scan.ignores((1e4, 0.0, 0.0))


def test_nodules_without_a_mask_count_as_nothing(monkeypatch):
    monkeypatch.setitem(UNMARKED, "CT.nii.gz", (((0.0, 0.0, 20.0), 12.0),))
    scan = painted_scan(background(), "training", np.random.default_rng(3), count=3)
    assert scan.ignores((0.0, 0.0, 20.0)) and scan.ignores((11.0, 0.0, 20.0)) and not scan.ignores((14.0, 0.0, 20.0))


def test_the_same_seed_gives_the_same_scan_and_no_room_is_said():
    first, second = (painted_scan(background(), "training", np.random.default_rng(5), count=3) for _ in range(2))
    assert np.array_equal(first.array_kji, second.array_kji)
    with pytest.raises(ValueError, match="room"):
        painted_scan(background(), "training", np.random.default_rng(0), count=400)


def test_the_phantom_counts_nodules_up_to_20_mm_and_ignores_larger_ones():
    scan = phantom_scan(1)
    assert 5 <= len(scan.nodules) <= 7 and all(nodule.diameter_mm <= 20.0 for nodule in scan.nodules)
    assert {nodule.kind for nodule in scan.nodules} == set(KINDS)
    assert scan.ignored is not None and scan.ignored.any()
    for nodule in scan.nodules:
        assert not scan.ignores(nodule.center_ras)


def test_nodules_are_painted_into_a_synthetic_chest_whose_own_count_as_nothing(monkeypatch):
    made = []

    def smaller(seed):
        made.append(real(seed, (88, 150, 200), (2.5, 1.6, 1.6)))
        return made[-1]

    real = detection_scans.chest_phantom
    monkeypatch.setattr(detection_scans, "chest_phantom", smaller)
    scan = procedural_scan(2, count=6)
    assert [nodule.kind for nodule in scan.nodules] == list(KINDS) * 2 and scan.source == "procedural"
    own = made[0]
    for nodule in own.nodules:
        assert scan.ignores(nodule["center_ras"])
    for nodule in scan.nodules:
        window = tuple(slice(a, a + n) for a, n in zip(nodule.offset_kji, nodule.mask.shape, strict=True))
        assert not own.labels_kji[window][nodule.mask].any() and not scan.ignores(nodule.center_ras)
        assert (scan.array_kji[window] - own.array_kji[window].astype(int))[nodule.mask].mean() > 100


def test_a_nodule_needs_voxels():
    with pytest.raises(ValueError, match="voxels"):
        KnownNodule.of(np.zeros((3, 3, 3), bool), np.eye(4))


def test_the_split_is_fixed_and_every_unmarked_nodule_belongs_to_a_background():
    assert not set(TRAINING) & set(HELD_OUT)
    names = {path.split("/")[-1] for path in (*TRAINING, *HELD_OUT)}
    assert set(UNMARKED) <= names
    assert list(HELD_OUT) == ["background/LungFCP-01-0001_lungs_ct.nii.gz"]
