"""Thick slices are what averaging makes of thin ones, and the demonstration's data sets keep their scans apart."""

from __future__ import annotations

import numpy as np
import pytest

from Research import demonstration_data
from Research.backgrounds import HELD_OUT
from Research.demonstration_data import DemonstrationSize, averaged_slices, in_thick_slices, label_map, make_data
from Research.detection_scans import DetectionScan, KnownNodule
from SAMMed3DLib.inference.geometry import transform_points

OBLIQUE = np.array([[-0.7, 0, 0.2, 10.0], [0, -0.7, 0, 20.0], [0, 0.1, 1.2, -30.0], [0, 0, 0, 1.0]])


def scan_with_ball(radius: int, spacing: float = 1.0) -> DetectionScan:
    grid = np.indices((30, 24, 24)) - np.array([14, 12, 12])[:, None, None, None]
    mask = np.sqrt((grid**2).sum(axis=0)) <= radius
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    hu = np.where(mask, 40, -850).astype(np.int16)
    return DetectionScan("ball", "training", hu, matrix, (KnownNodule.of(mask, matrix, "solid"),))


def test_whole_groups_of_slices_are_averaged():
    array = np.arange(12, dtype=np.int16)[:, None, None] * np.ones((1, 2, 3), np.int16)
    thick, matrix = averaged_slices(array, np.diag([1, 1, 1.25, 1.0]), 5.0)
    assert thick[:, 0, 0].tolist() == [1.5, 5.5, 9.5] and thick.shape == (3, 2, 3)
    assert matrix[2, 2] == 5.0 and matrix[2, 3] == pytest.approx(1.5 * 1.25)


def test_slices_on_an_edge_count_in_part_and_the_volume_stays_where_it_is():
    rng = np.random.default_rng(0)
    array = rng.normal(0, 1, (10, 2, 2)).astype(np.float32)
    slice_mm = float(np.linalg.norm(OBLIQUE[:3, 2]))
    thick, matrix = averaged_slices(array, OBLIQUE, 2.5 * slice_mm)
    assert len(thick) == 4
    np.testing.assert_allclose(thick[0], (array[0] + array[1] + 0.5 * array[2]) / 2.5, rtol=1e-5)
    np.testing.assert_allclose(thick[1], (0.5 * array[2] + array[3] + array[4]) / 2.5, rtol=1e-5)
    np.testing.assert_allclose(thick.mean(axis=0), array.mean(axis=0), atol=1e-5)
    # The outer face of the first slice is the same.
    np.testing.assert_allclose(
        transform_points(matrix, [0, 0, -0.5]), transform_points(OBLIQUE, [0, 0, -0.5]), atol=1e-9
    )


def test_slices_are_never_made_thinner():
    with pytest.raises(ValueError, match="cannot be averaged"):
        averaged_slices(np.zeros((4, 2, 2)), np.diag([1, 1, 6.0, 1]), 5.0)


@pytest.mark.parametrize("slice_mm", [1.0, 2.5])
def test_a_nodule_keeps_its_volume(slice_mm):
    """Of 2.5 mm slices every other voxel of the surface is filled by exactly one half."""
    thin = scan_with_ball(7)
    matrix = np.diag([1, 1, slice_mm, 1.0])
    mask = thin.nodules[0].mask
    thin = DetectionScan(
        "ball", "training", thin.array_kji, matrix, (KnownNodule.of(mask, matrix, "solid", thin.nodules[0].offset_kji),)
    )
    (nodule,) = in_thick_slices(thin, 5.0).nodules
    assert nodule.mask.sum() * 5.0 == pytest.approx(mask.sum() * slice_mm, rel=0.05)


def test_a_nodule_stays_where_it_is():
    scan = in_thick_slices(scan_with_ball(7), 5.0)
    (nodule,) = scan.nodules
    assert scan.array_kji.dtype == np.int16 and scan.array_kji.shape == (6, 24, 24)
    volume = nodule.mask.sum() * 5.0
    assert volume == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.12)
    labels = label_map(scan)
    assert (labels > 0).sum() == nodule.mask.sum() and scan.array_kji[labels > 0].min() > -500


def test_a_nodule_thinner_than_half_a_slice_is_not_lost():
    (nodule,) = in_thick_slices(scan_with_ball(1), 5.0).nodules
    assert nodule.mask.any()


def test_scans_of_the_test_are_never_trained_on(monkeypatch, tmp_path):
    training = set(demonstration_data.TRAINING_PATIENTS.values()) | set(demonstration_data.VALIDATION_PATIENTS.values())
    assert not training & set(HELD_OUT) and set(demonstration_data.TEST_PATIENTS.values()) <= set(HELD_OUT)
    assert not any(demonstration_data.REAL_TEST_PATIENT in ct for ct in training)
    written = []
    monkeypatch.setattr(demonstration_data, "cached_background", lambda ct, masks, folder: ct)
    monkeypatch.setattr(demonstration_data, "painted_scan", lambda *given: scan_with_ball(4))
    monkeypatch.setattr(demonstration_data, "lidc_scan", lambda *given: scan_with_ball(4))
    monkeypatch.setattr(demonstration_data, "_real_nodules", lambda *given: ())
    write = demonstration_data.write_volume
    monkeypatch.setattr(demonstration_data, "write_volume", lambda path, v: (written.append(path), write(path, v)))
    make_data(tmp_path, tmp_path / "data", DemonstrationSize(2, 1, 1, thin_training_scans=1))
    names = {str(path.relative_to(tmp_path / "data")) for path in written}
    assert {n for n in names if "Ts" in n and "images" in n} == {
        f"{d}/imagesTs/{p}_0000.nii.gz"
        for d in ("slices_5mm", "slices_native")
        for p in ("LungFCP_scan1", "LIDC-IDRI-0003")
    }
    assert "slices_5mm/labelsTr/4D-Lung_scan2.nii.gz" in names
    assert "slices_native/labelsTr/4D-Lung_scan2.nii.gz" not in names
