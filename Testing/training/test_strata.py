"""Groups of nodules at their bounds."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.inference.geometry import slice_step
from SAMMed3DTrainingLib.data.instances import density_group, size_group, split_instances, thickness_group


@pytest.mark.parametrize(
    ("diameter", "name"),
    [(3.0, "<6 mm"), (5.99, "<6 mm"), (6.0, "6-8 mm"), (8.0, "8-15 mm"), (15.0, "15-30 mm"), (31.0, ">30 mm")],
)
def test_sizes(diameter, name):
    assert size_group(diameter) == name


@pytest.mark.parametrize(
    ("mm", "name"),
    [
        (0.6, "slices <=1.25 mm"),
        (1.25, "slices <=1.25 mm"),
        (1.3, "slices 1.25-2.5 mm"),
        (2.5, "slices 1.25-2.5 mm"),
        (5.0, "slices >2.5 mm"),
    ],
)
def test_thickness_is_along_the_patient(mm, name):
    matrix = np.diag((0.7, 0.7, mm, 1.0))
    turned = matrix[:, [2, 0, 1, 3]]  # stored with i running along the patient
    assert thickness_group(matrix) == thickness_group(turned) == name
    assert slice_step(turned) == pytest.approx(mm)


def ball(radius: float) -> np.ndarray:
    grid = np.moveaxis(np.indices((24, 40, 40)), 0, -1)
    return np.linalg.norm((grid - (12, 20, 20)) * (1.5, 0.8, 0.8), axis=-1) <= radius


def group(hu: np.ndarray, radius: float) -> str:
    matrix = np.diag((0.8, 0.8, 1.5, 1.0))
    (nodule,) = split_instances(ball(radius).astype(np.uint8), matrix)
    return density_group(hu, nodule)


@pytest.mark.parametrize("radius", [2.0, 4.0, 8.0])
def test_densities(radius):
    lung = np.random.default_rng(0).normal(-860, 30, (24, 40, 40))
    solid, glass = (np.where(ball(radius), hu, lung) for hu in (30.0, -600.0))
    assert group(solid, radius) == "solid" and group(glass, radius) == "ground glass"
    if radius > 2:
        core = np.where(ball(0.6 * radius), 30.0, glass)
        assert group(core, radius) == "part-solid"


def test_a_border_of_half_lung_makes_no_part_solid_nodule():
    lung = np.full((24, 40, 40), -860.0)
    blurred = np.where(ball(4.0), -420.0, lung)
    assert group(np.where(ball(3.2), 20.0, blurred), 4.0) == "solid"


def test_images_without_hu_say_nothing():
    assert group(np.where(ball(4.0), 1.0, 0.1), 4.0) == "unknown"
