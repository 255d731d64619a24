import numpy as np
import pytest

from SAMMed3DLib.synthesis import NoduleShapes


@pytest.fixture(scope="module")
def shapes() -> NoduleShapes:
    return NoduleShapes.load()


def _grid(half: float, step: float) -> np.ndarray:
    axis = np.arange(-half, half + step / 2, step)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


@pytest.mark.parametrize("diameter", [3.5, 8.0, 28.0])
@pytest.mark.parametrize("deform", [False, True])
def test_volume_is_that_of_the_diameter(shapes: NoduleShapes, diameter: float, deform: bool) -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        shape = shapes.random(rng, diameter, deform)
        step = diameter / 24
        volume = (shape.distance(_grid(shape.radius_mm + step, step)) > 0).sum() * step**3
        assert volume == pytest.approx(np.pi / 6 * diameter**3, rel=0.06)


def test_distance_is_a_distance(shapes: NoduleShapes) -> None:
    shape = shapes.random(np.random.default_rng(0), 12.0, deform=False)
    far = np.array([[60.0, 0, 0], [0, -60.0, 0]])
    distance = shape.distance(far)
    assert (distance < -60 + shape.radius_mm + 1).all()
    assert (distance > -61).all()
    step = 0.25
    field = shape.distance(_grid(shape.radius_mm, step))
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(field, step)))
    near_surface = np.abs(field) < 1
    assert np.median(slope[near_surface]) == pytest.approx(1, abs=0.2)


def test_nothing_reaches_beyond_the_radius(shapes: NoduleShapes) -> None:
    shape = shapes.random(np.random.default_rng(5), 20.0)
    points = _grid(1.5 * shape.radius_mm, shape.radius_mm / 12)
    outside = np.abs(points).max(axis=-1) > shape.radius_mm
    assert not (shape.distance(points)[outside] > 0).any()


def test_interior_points_are_as_deep_as_asked(shapes: NoduleShapes) -> None:
    rng = np.random.default_rng(1)
    shape = shapes.random(rng, 10.0)
    deepest = shape.distance(_grid(shape.radius_mm, 0.3)).max()
    for depth in (0.1, 0.5, 0.85):
        points = np.stack([shape.interior_point(rng, depth) for _ in range(20)])
        assert (shape.distance(points) > depth * deepest * 0.9).all()


def test_shapes_differ_and_repeat_with_the_seed(shapes: NoduleShapes) -> None:
    points = _grid(6, 0.5)
    first, again, other = (shapes.random(np.random.default_rng(seed), 9.0).distance(points) > 0 for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
