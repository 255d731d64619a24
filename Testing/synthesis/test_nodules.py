import dataclasses

import numpy as np
import pytest

from SAMMed3DLib.synthesis import NoduleAppearance, NoduleShape, NoduleShapes, paint_nodule, random_appearance
from SAMMed3DLib.synthesis.nodules import nodule_outline

AFFINE = np.array([[-0.7, 0, 0, 20.0], [0, -0.7, 0, 15.0], [0, 0, 2.0, -100.0], [0, 0, 0, 1]])
CENTER = AFFINE[:3, :3] @ np.array([30.0, 28.0, 10.0]) + AFFINE[:3, 3]
LOOK = NoduleAppearance("solid", 40.0, 0.0, 0.2, 0.6, 0.0, 0.0, 2.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def shape() -> NoduleShape:
    return NoduleShapes.load().random(np.random.default_rng(4), 14.0)


def _lung() -> np.ndarray:
    return np.full((22, 58, 60), -850, np.float32)


def test_solid_nodule_has_its_density_inside_and_leaves_the_rest(shape: NoduleShape) -> None:
    block = _lung()
    label = paint_nodule(block, AFFINE, shape, CENTER, LOOK, np.random.default_rng(0))
    assert label.sum() * 0.7 * 0.7 * 2 == pytest.approx(np.pi / 6 * 14**3, rel=0.08)
    assert np.percentile(block[label], 90) == pytest.approx(40, abs=5)
    far = ~nodule_outline(block.shape, AFFINE, shape, CENTER)
    assert np.median(block[far]) == -850
    assert block.min() == -850


def test_partial_volume_blurs_only_the_surface(shape: NoduleShape) -> None:
    block = _lung()
    label = paint_nodule(block, AFFINE, shape, CENTER, LOOK, np.random.default_rng(0))
    between = (block > -700) & (block < -100)
    assert between.sum() > 0.1 * label.sum()
    assert between.sum() < 1.5 * label.sum()


def test_vessels_stay_visible_in_ground_glass_and_solids(shape: NoduleShape) -> None:
    for kind in ("solid", "ground-glass", "part-solid"):
        block = _lung()
        block[10, 28] = 45  # a vessel through the middle
        look = dataclasses.replace(LOOK, kind=kind, density_hu=-600.0)
        label = paint_nodule(block, AFFINE, shape, CENTER, look, np.random.default_rng(0))
        assert (block[10, 28] >= 45 - 1e-3).all()
        assert label.any()


def test_ground_glass_adds_its_density(shape: NoduleShape) -> None:
    block = np.full((22, 58, 60), -860, np.float32)
    look = dataclasses.replace(LOOK, kind="ground-glass", density_hu=-620.0)
    label = paint_nodule(block, AFFINE, shape, CENTER, look, np.random.default_rng(0))
    assert np.percentile(block[label], 80) == pytest.approx(-620, abs=15)


def test_part_solid_has_a_core_denser_than_its_rim(shape: NoduleShape) -> None:
    block = _lung()
    look = dataclasses.replace(LOOK, kind="part-solid", density_hu=-620.0, core_hu=20.0)
    label = paint_nodule(block, AFFINE, shape, CENTER, look, np.random.default_rng(0))
    k, j, i = np.indices(block.shape)
    ras = np.stack((i, j, k), -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3] - CENTER
    deep = shape.distance(ras) > 0.3 * 14
    assert block[deep].mean() > -150
    assert block[label & ~deep].mean() < -400


def test_nodule_ends_where_the_lung_ends(shape: NoduleShape) -> None:
    lung = np.zeros((22, 58, 60), bool)
    lung[:, :, :30] = True
    label = paint_nodule(_lung(), AFFINE, shape, CENTER, LOOK, np.random.default_rng(0), lung)
    assert label.any()
    assert not (label & ~lung).any()


def test_nodule_outside_the_block_changes_nothing(shape: NoduleShape) -> None:
    block = _lung()
    label = paint_nodule(block, AFFINE, shape, CENTER + 500, LOOK, np.random.default_rng(0))
    assert not label.any()
    assert np.array_equal(block, _lung())


def test_every_kind_is_drawn() -> None:
    rng = np.random.default_rng(0)
    kinds = [random_appearance(rng).kind for _ in range(200)]
    assert {kinds.count(kind) > 15 for kind in ("solid", "part-solid", "ground-glass")} == {True}
    assert random_appearance(rng, "part-solid").kind == "part-solid"
