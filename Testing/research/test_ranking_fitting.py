from __future__ import annotations

import numpy as np

from Research.backgrounds import Background
from Research.detection_scans import DetectionScan, KnownNodule
from Research.ranking_fitting import PeaksOfScan, false_before_hit, fit, peaks_of, within_lungs
from SAMMed3DLib.finding.blob_pyramid import Peaks
from SAMMed3DLib.finding.blob_ranking import MEASURES

RADIUS = 5.0


def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two lungs in a body on a mattress, 4 mm voxels; a matrix and the lungs."""
    matrix = np.diag([4.0, 4.0, 4.0, 1.0])
    matrix[:3, 3] = (-178.0, -134.0, -98.0)
    k, j, i = np.meshgrid(*(np.arange(n) for n in (50, 68, 90)), indexing="ij")
    r, a, s = 4.0 * i - 178, 4.0 * j - 134, 4.0 * k - 98
    hu = np.full(r.shape, -1000.0)
    hu[(np.abs(r) < 150) & (a > -120) & (a < -60)] = -880.0
    hu[(r / 135) ** 2 + (a / 85) ** 2 < 1] = 40.0
    lung = np.square((np.abs(r) - 70) / 45) + np.square(a / 65) + np.square(s / 80) < 1
    hu[lung] = -860.0
    hu += np.random.default_rng(0).normal(0, 10, hu.shape)
    return np.rint(hu).astype(np.int16), matrix, lung


def ball_scan() -> DetectionScan:
    """A solid ball in one lung."""
    hu, matrix, _ = chest()
    k, j, i = np.meshgrid(*(np.arange(n) for n in hu.shape), indexing="ij")
    ball = np.square(4.0 * i - 248) + np.square(4.0 * j - 134) + np.square(4.0 * k - 98) < 10.0**2
    hu[ball] = 20
    return DetectionScan("ball", "training", hu, matrix, (KnownNodule.of(ball, matrix, "solid"),))


def test_sites_on_the_mattress_are_dropped():
    hu, matrix, lung = chest()
    inside = np.argwhere(lung)[::50, ::-1]
    mattress = np.array([[45, 12, 25], [50, 11, 20]])
    background = Background("b", hu, matrix, lung, np.zeros_like(lung), {"lung": np.concatenate([inside, mattress])})
    assert within_lungs(background).sites["lung"].tolist() == inside.tolist()


def test_peaks_on_a_nodule_are_positive_and_those_around_it_left_out():
    scan = ball_scan()
    found = peaks_of(scan, 3)
    assert found.background == 3 and found.measures.shape == (len(found.peaks), len(MEASURES))
    assert set(np.unique(found.nodule)) >= {-2, 0}
    distance = found.distances[:, 0]
    assert (distance[found.nodule == 0] < 0.6 * found.radii[0]).all()
    assert (distance[found.nodule == -1] >= 1.6 * found.radii[0]).all()


def made_up(count: int = 400) -> PeaksOfScan:
    """Peaks of which the round ones are on three nodules."""
    rng = np.random.default_rng(1)
    measures = rng.normal(0, 1, (count, len(MEASURES))).astype(np.float32)
    nodule = np.where(measures[:, 1] > 1.0, rng.integers(3, size=count), -1)
    ras = np.stack([np.where(nodule >= 0, 100.0 * nodule, 1000.0 + 50.0 * np.arange(count)), *np.zeros((2, count))], 1)
    centers = np.array([(0.0, 0, 0), (100.0, 0, 0), (200.0, 0, 0)])
    one = np.ones(count)
    peaks = Peaks(ras, 3 * one, np.zeros(count, np.int8), one, one, np.ones((count, 3)))
    distances = np.linalg.norm(ras[:, None] - centers, axis=2)
    return PeaksOfScan(0, peaks, measures, nodule, distances, np.full(3, RADIUS))


def test_the_fit_puts_nodules_first():
    scan = made_up()
    centers, scales = np.zeros(len(MEASURES)), np.ones(len(MEASURES))
    odds = fit([scan], centers, scales, np.random.default_rng(0)).log_odds(scan.measures)
    assert false_before_hit(scan, odds).tolist() == [0.0, 0.0, 0.0]
    assert false_before_hit(scan, -odds).min() > 20


def test_missed_nodules_stand_after_everything():
    scan = made_up()
    scan.distances[:, 1] = 1000.0
    assert np.isinf(false_before_hit(scan, np.zeros(len(scan.peaks)))).tolist() == [False, True, False]
