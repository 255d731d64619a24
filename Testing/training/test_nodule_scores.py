"""The figures of one nodule, with a model whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from SAMMed3DLib.inference.geometry import Block
from SAMMed3DTrainingLib.data.datasets import Case, LoadedCase
from SAMMed3DTrainingLib.data.instances import split_instances
from SAMMed3DTrainingLib.evaluate.evaluated_models import ClickedVolume
from SAMMed3DTrainingLib.evaluate.metrics import surface_dice, variation
from SAMMed3DTrainingLib.evaluate.nodule_scores import score_nodule

from .dataset_files import SHAPE_KJI, SPACING, balls, ct, matrix
from .scores import score


class Growing:
    """Answers the n-th click with a ball of n mm around the first one."""

    def set_image(self, array_kji, ijk_to_ras):
        self.to_ijk = np.linalg.inv(ijk_to_ras)

    def predict(self, points_ras, labels, *, previous=None):
        center = (self.to_ijk @ np.append(points_ras[0], 1))[2::-1]
        grid = np.moveaxis(np.indices(SHAPE_KJI), 0, -1)
        mask = np.linalg.norm((grid - center) * SPACING[::-1], axis=-1) <= len(points_ras)
        return Block(mask.astype(np.uint8), (0, 0, 0))


def loaded(radius: float = 4.0) -> LoadedCase:
    labels = balls((12, 20, 20), radius_mm=radius)
    case = Case("P1", Path("P1.nii.gz"), Path("P1.nii.gz"), "P1", "lidc", "Ts")
    return LoadedCase(case, ct(labels), matrix(), split_instances(labels, matrix()))


def scored(clicks: int = 6, first_clicks: int = 0, seed: int = 1):
    model, case = ClickedVolume(Growing(), {}), loaded()
    model.set_image(case.array_kji, case.ijk_to_ras)
    return score_nodule(model, case, case.nodules[0], "challenge", clicks, first_clicks, seed), case


def test_curves_and_groups():
    result, case = scored()
    assert result.dice[3] == 1.0 == result.dice[-1] and len(result.dice) == 6 and len(result.seconds) == 4
    assert [len(curve) for curve in result.nsd] == [6, 6, 6] and result.nsd[0][3:] == (1.0,) * 3
    nodule = case.nodules[0].mask
    two = balls((12, 20, 20), radius_mm=2.0)[case.nodules[0].slices_kji] > 0
    expected = surface_dice(np.pad(nodule, 2), np.pad(two, 2), SPACING[::-1])
    assert [curve[1] for curve in result.nsd] == pytest.approx(expected)
    assert (result.size, result.density, result.slices) == ("8-15 mm", "solid", "slices 1.25-2.5 mm")
    assert result.volumes_mm3[-1] == pytest.approx(result.truth_mm3) and result.volume_error == pytest.approx(0.0)
    assert result.worst_first is None and result.volume_variation is None


def test_the_score_is_that_of_the_last_click():
    assert score(dice=(0.5, 0.95, 0.7)).last_dice == 0.7
    assert score(dice=(0.5, 0.9)).dice_auc is None
    assert score(dice=(0.5,) * 5).dice_auc == pytest.approx(2.0) == score(dice=(0.5,) * 5).nsd_auc


def test_first_clicks():
    result, _ = scored(clicks=3, first_clicks=5)
    assert len(result.first_clicks) == 5 and all(len(trial.dice) == 3 for trial in result.first_clicks)
    assert result.worst_first == min(trial.dice[0] for trial in result.first_clicks)
    assert result.worst_last == min(trial.dice[-1] for trial in result.first_clicks) < result.dice[-1]
    assert len({trial.dice for trial in result.first_clicks}) > 1
    assert result.volume_variation == variation([trial.volumes_mm3[0] for trial in result.first_clicks])


def test_same_seed_same_clicks():
    one, two, three = (scored(3, 2, seed)[0] for seed in (1, 1, 2))
    assert one.first_clicks == two.first_clicks != three.first_clicks
    np.testing.assert_array_equal(one.points_ras, two.points_ras)
