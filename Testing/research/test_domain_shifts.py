"""The domain shifts are what they are called, and no patient is in two parts."""

from __future__ import annotations

import types

import numpy as np
import pytest

from Research import domain_shifts as shifts
from SAMMed3DLib.inference.geometry import voxel_spacing

SPACING = (0.7, 0.7, 1.25)
MATRIX = np.diag([*SPACING, 1.0])


def ball(radius_mm: float, shape=(24, 40, 40)) -> np.ndarray:
    grid = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    return np.linalg.norm(grid * SPACING[::-1], axis=-1) <= radius_mm


def radius(mask: np.ndarray, matrix: np.ndarray) -> float:
    return float(np.cbrt(mask.sum() * np.prod(voxel_spacing(matrix)) * 3 / 4 / np.pi))


def image(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 0.0, -850.0).astype(np.float32)


@pytest.mark.parametrize(("by", "wanted"), [(1.0, 7.0), (-1.0, 5.0), (0.0, 6.0)])
def test_outlines_move_by_so_many_mm(by, wanted) -> None:
    mask = ball(6.0)
    hu, moved, matrix = shifts.moved_outline(by)(image(mask), mask, MATRIX)
    assert radius(moved, matrix) == pytest.approx(wanted, abs=0.25)
    assert np.array_equal(hu, image(mask)) and np.array_equal(matrix, MATRIX)


def test_slices_become_thick_and_stay_in_place() -> None:
    mask = ball(6.0)
    hu, thick, matrix = shifts.thick_slices(image(mask), mask, MATRIX)
    assert voxel_spacing(matrix) == pytest.approx((0.7, 0.7, 5.0)) and hu.shape == thick.shape == (6, 40, 40)
    assert hu.mean() == pytest.approx(image(mask).mean(), abs=0.01)
    assert radius(thick, matrix) == pytest.approx(6.0, abs=0.5)
    middles = [(m @ [*np.argwhere(each).mean(axis=0)[::-1], 1.0])[:3] for each, m in ((mask, MATRIX), (thick, matrix))]
    assert middles[0] == pytest.approx(middles[1], abs=0.2)


def test_a_sharp_kernel_adds_noise_and_stresses_edges() -> None:
    mask = ball(6.0)
    hu, same, _ = shifts.sharp_kernel(image(mask), mask, MATRIX)
    assert np.array_equal(same, mask)
    assert hu[:, :8].std() == pytest.approx(shifts.NOISE_HU, rel=0.25)
    assert hu[mask].max() > 150  # beyond the edge's own value
    assert np.array_equal(hu, shifts.sharp_kernel(image(mask), mask, MATRIX)[0])


def test_no_patient_is_in_two_parts() -> None:
    nodules = [types.SimpleNamespace(name=str(n), facts={"patient": f"P{n // 3}"}) for n in range(60)]
    parts = shifts.chosen(iter(nodules), (7, 4))
    assert [len(part) for part in parts] == [7, 4]
    patients = [{each.facts["patient"] for each in part} for part in parts]
    assert not patients[0] & patients[1]
    assert max(sum(each.facts["patient"] == p for each in parts[0]) for p in patients[0]) == 2


def test_a_row_counts_nodules_and_patients() -> None:
    names = {"a/1": "P1", "b/1": "P1", "c/1": "P2"}
    before = shifts.Scores(dict.fromkeys(names, 0.7), dict.fromkeys(names, -0.3), names)
    after = shifts.Scores(dict.fromkeys(reversed(names), 0.8), dict.fromkeys(names, 0.0), names)
    row = shifts.row_of("out", "5min", before, after, -0.004, {"clock": 4.9, "processor": 9.0})
    assert "| 3 of 2 | 0.700 -> 0.800 | +0.100 (+0.100 to +0.100) | -30.0 % -> +0.0 % | -0.004 | 4.9 (9.0) |" in row
