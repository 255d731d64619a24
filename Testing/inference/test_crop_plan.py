from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from SAMMed3DLib.inference.crop_plan import plan_crops
from SAMMed3DLib.inference.zoom import ZoomPolicy
from SAMMed3DLib.model.profile import PROFILES

ZOOM = ZoomPolicy(PROFILES["nodule"])
MATRIX = np.diag([0.7, 0.7, 1.25, 1.0])


def test_points_close_together_share_the_crop_of_the_strongest():
    points = [(0.0, 0.0, 0.0), (50.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 2.0, 1.0)]
    plan = plan_crops(points, [8.0] * 4, ZOOM, MATRIX, overlap_ratio=0.7)
    assert [shared.members for shared in plan] == [(0, 2, 3), (1,)]
    assert plan[0].crop.center_ras == pytest.approx((0, 0, 0)) and plan[0].crop.spacing_mm == pytest.approx(0.4)
    assert plan[0].anchor_ras == pytest.approx((0, 0, 0))


def test_every_point_lies_in_the_middle_of_its_crop_at_nearly_its_own_spacing():
    rng = np.random.default_rng(0)
    points, sizes = rng.uniform(-60, 60, (200, 3)), rng.uniform(3, 30, 200)
    plan = plan_crops(points, sizes, ZOOM, MATRIX, overlap_ratio=0.5)
    served = [index for shared in plan for index in shared.members]
    assert sorted(served) == list(range(200)) and len(plan) < 170
    for shared in plan:
        for index in shared.members:
            offset = np.abs(shared.crop.index_of(points[index]) - 32)
            assert offset.max() <= 16.0 + 1e-6
            wanted = ZOOM.spacing_for(sizes[index], np.full(3, sizes[index]))
            assert 1 / 1.31 < shared.crop.spacing_mm / wanted < 1.31


def test_objects_of_different_sizes_do_not_share():
    plan = plan_crops([(0.0, 0.0, 0.0), (0.0, 0.0, 1.0)], [6.0, 20.0], ZOOM, MATRIX, overlap_ratio=0.5)
    assert [shared.crop.spacing_mm for shared in plan] == pytest.approx([0.3, 1.0])


def test_full_overlap_gives_each_point_its_own_crop():
    assert len(plan_crops([(0.0, 0.0, 0.0), (0.1, 0.0, 0.0)], [8.0, 8.0], ZOOM, MATRIX, overlap_ratio=1.0)) == 2


def test_unknown_sizes_take_the_first_spacing_and_native_profiles_their_own_voxels():
    assert plan_crops([(0.0, 0.0, 0.0)], [np.nan], ZOOM, MATRIX)[0].crop.spacing_mm == pytest.approx(1.0)
    native = ZoomPolicy(dataclasses.replace(PROFILES["nodule"], spacing_mm=None))
    plan = plan_crops([(0.0, 0.0, 0.0), (2.0, 2.0, 2.0)], [5.0, 20.0], native, MATRIX)
    assert len(plan) == 1 and plan[0].crop.spacing_mm == pytest.approx((0.7 * 0.7 * 1.25) ** (1 / 3))


def test_no_points_no_crops():
    assert plan_crops(np.zeros((0, 3)), [], ZOOM, MATRIX) == []
