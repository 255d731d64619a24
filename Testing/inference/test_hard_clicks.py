"""Clicks that used to mislead the bundled model, on nodules made here: each once gave a mask that nobody would keep."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.inference import SamPredictor3D
from SAMMed3DLib.inference.geometry import transform_points
from SAMMed3DLib.model import load_model
from SAMMed3DLib.weights import default_checkpoint

SPACING = (1.25, 0.7, 0.7)


@pytest.fixture(scope="module")
def predictor() -> SamPredictor3D:
    return SamPredictor3D(load_model(default_checkpoint()))


class Scene:
    """An ellipsoid of soft tissue in lung, on the chest wall where asked; voxels (k, j, i) at SPACING mm."""

    def __init__(self, half_axes_mm, size_mm=90.0, wall_mm=None, seed=0, soften=0.8):
        self.shape = tuple(int(size_mm / step) for step in SPACING)
        self.matrix = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
        self.middle = np.array(self.shape) // 2
        place = (np.moveaxis(np.indices(self.shape), 0, -1) - self.middle) * SPACING
        self.truth = ((place / half_axes_mm) ** 2).sum(axis=-1) <= 1.0
        tissue = self.truth.copy()
        if wall_mm is not None:
            tissue |= place[..., 1] > wall_mm
            self.truth &= place[..., 1] <= wall_mm
        rng = np.random.default_rng(seed)
        lung = ndimage.gaussian_filter(rng.normal(0.0, 1.0, self.shape), 1.2)
        share = ndimage.gaussian_filter(tissue.astype(np.float32), np.array(soften) / SPACING)
        hu = (-860.0 + 45.0 * lung / lung.std()) * (1.0 - share) + (35.0 + rng.normal(0.0, 12.0, self.shape)) * share
        self.hu = np.round(hu).astype(np.int16)

    def ras(self, offset_mm) -> NDArray[np.float64]:
        """(3,) of the voxel so far (k, j, i) from the middle."""
        voxel = np.round(self.middle + np.array(offset_mm) / SPACING)
        return transform_points(self.matrix, voxel[::-1])

    def dice(self, prediction) -> float:
        mask = prediction.full_mask(self.shape) > 0
        return 2.0 * np.count_nonzero(mask & self.truth) / (np.count_nonzero(mask) + np.count_nonzero(self.truth))


def shown(predictor: SamPredictor3D, scene: Scene) -> SamPredictor3D:
    predictor.cache.clear()
    predictor.set_image(scene.hu, scene.matrix)
    return predictor


# -- the volume ends beside the nodule --------------------------------------------------------------------------------


@pytest.mark.parametrize("margin_mm", [2.0, 4.0, 7.0])
def test_a_tightly_cropped_volume_does_not_flood(predictor, margin_mm):
    scene = Scene((5.0, 6.5, 5.5))
    click = scene.ras((0, 0, 0))
    whole = scene.dice(shown(predictor, scene).predict([click]))
    inside = np.argwhere(scene.truth)
    margin = np.round(margin_mm / np.array(SPACING)).astype(int)
    low, high = inside.min(axis=0) - margin, inside.max(axis=0) + margin + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    matrix = scene.matrix.copy()
    matrix[:3, 3] = transform_points(scene.matrix, low[::-1])
    predictor.set_image(np.ascontiguousarray(scene.hu[box]), matrix)
    mask, truth = predictor.predict([click]).full_mask(scene.hu[box].shape) > 0, scene.truth[box]
    tight = 2.0 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))
    assert whole > 0.9 and tight > whole - 0.03
