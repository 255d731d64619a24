"""Samples of real nodules from tight crops: what is known, what is made up, where is clicked."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from Research.real_samples import FIRST_CLICKS, RealCrop, RealSampler, first_click, read_crops
from SAMMed3DLib.model.profile import PROFILES

PROFILE = PROFILES["nodule_light"]
SHAPE = (9, 40, 44)
SPACING = (2.0, 0.7, 0.7)
COLUMNS = (
    "name",
    "patient",
    "split",
    "equivalent_diameter_mm",
    "slices_below",
    "slices_above",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
)


def ball(center_kji: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    return np.linalg.norm((grid - center_kji) * SPACING, axis=-1) < radius_mm


def crop_of(**changes) -> RealCrop:
    masks = np.stack([ball((4, 20, 22), radius) for radius in (4.2, 5.0, 5.6)])
    noise = np.random.default_rng(2).normal(0, 20, SHAPE)
    hu = np.where(masks[1], 30.0, -850.0) + noise
    facts = {
        "name": "A",
        "hu": hu.astype(np.float32),
        "votes": masks,
        "ijk_to_ras": np.diag([-0.7, -0.7, 2.0, 1.0]),
        "diameter_mm": 10.0,
        "texture": 5.0,
        "margin": 5.0,
        "lobulation": 1.0,
        "spiculation": 1.0,
        "open_below": False,
        "open_above": False,
    }
    return RealCrop(**{**facts, **changes})


def sampler(crop: RealCrop, seed: int = 0) -> RealSampler:
    return RealSampler([crop], [], PROFILE, np.random.default_rng(seed))


def test_only_the_asked_split_is_read(tmp_path: Path) -> None:
    crop = crop_of()
    rows = []
    for name, split in (("A", "train"), ("B", "validation"), ("C", "train")):
        np.savez(
            tmp_path / f"{name}.npz",
            hu=crop.hu.astype(np.int16),
            votes=np.packbits(crop.votes),
            nvotes=3,
            affine=crop.ijk_to_ras,
        )
        rows.append(
            dict(zip(COLUMNS, (name, f"P{name}", split, 10, 0 if name == "C" else 2, 2, 4, 1, 1, 2.5), strict=True))
        )
    with (tmp_path / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    found = read_crops(tmp_path)
    assert [each.name for each in found] == ["A", "C"]
    assert np.array_equal(found[0].votes, crop.votes) and np.array_equal(found[0].hu, np.trunc(crop.hu))
    assert [each.open_below for each in found] == [False, True] and not found[1].open_above
    assert np.array_equal(found[0].consensus, crop.votes[1])
    assert found[0].weight > crop.weight  # ground glass is rare
    assert [each.name for each in read_crops(tmp_path, "validation")] == ["B"]


def test_a_sample_shows_the_nodule_where_its_truth_is() -> None:
    draws = sampler(crop_of())
    volumes = []
    for _ in range(12):
        sample = draws.sample()
        lung_window = sample.crop[0]
        inner = ndimage.binary_erosion(sample.truth, iterations=2)
        outer = ndimage.binary_dilation(sample.truth, iterations=6) & ~ndimage.binary_dilation(
            sample.truth, iterations=4
        )
        if inner.any():
            assert lung_window[inner].mean() > lung_window[outer].mean() + 0.2
        assert sample.known is None
        for click in (sample.click, sample.second_click):
            assert click is None or (np.all(click >= 0) and np.all(click <= 63))
        volumes.append(sample.truth.sum() * sample.spacing_mm**3 / sample.diameter_mm**3)
    # The consensus is the middle reader's ball, which has the volume that its diameter says.
    assert 0.3 < np.median(volumes) < 0.75


def test_where_the_nodule_runs_out_of_the_crop_nothing_is_known_beyond() -> None:
    votes = np.stack([ball((8.4, 20, 22), 5.0)] * 3)
    crop = crop_of(votes=votes, hu=np.where(votes[0], 30.0, -850.0).astype(np.float32), open_above=True)
    draws = sampler(crop, 4)
    samples = [draws.sample() for _ in range(12)]
    assert sum(not sample.known.all() for sample in samples) >= 6
    for sample in samples:
        assert not (sample.truth & ~sample.known).any()
        if not sample.known.all():
            touching = ndimage.binary_dilation(sample.truth, iterations=3) & ~sample.known
            assert touching.any()
            # ... and beside the nodule everything is known.
            assert sample.known.mean() > 0.5


def test_the_surroundings_are_never_the_same() -> None:
    draws = sampler(crop_of())
    crop = crop_of()
    blocks = [draws._surrounded(crop.hu, crop.votes[1], crop.ijk_to_ras, crop) for _ in range(12)]
    assert len({block.width for block in blocks}) > 4
    for block in blocks:
        inside = tuple(slice(before, before + size) for (before, _), size in zip(block.width, SHAPE, strict=True))
        assert np.array_equal(block.hu[inside], crop.hu)
        place = np.linalg.inv(block.ijk_to_ras) @ crop.ijk_to_ras @ (0, 0, 0, 1)
        assert place[:3] == pytest.approx([before for before, _ in block.width[::-1]])


@pytest.mark.parametrize("kind", FIRST_CLICKS)
def test_first_clicks_go_where_they_say(kind: str) -> None:
    mask = ball((4, 20, 22), 6.0)
    depth = ndimage.distance_transform_edt(mask, sampling=SPACING)
    rng = np.random.default_rng(1)
    for _ in range(20):
        place = first_click(mask, np.array(SPACING), kind, rng).astype(int)
        found = depth[tuple(place)] / depth.max()
        if kind == "outside":
            in_plane = ndimage.distance_transform_cdt(~mask[place[0]], "taxicab")[tuple(place[1:])]
            assert found == 0 and 1 <= in_plane <= 2
        else:
            low, high = {"inner": (0.5, 1), "center": (0.99, 1), "border": (1e-6, 0.34), "anywhere": (1e-6, 1)}[kind]
            assert low <= found <= high
    lone = np.zeros(SHAPE, bool)
    lone[3, 4, 5] = True
    assert kind == "outside" or first_click(lone, np.array(SPACING), kind, rng).tolist() == [3, 4, 5]


def test_masses_are_as_large_as_they_say() -> None:
    draws = sampler(crop_of(), 3)
    for wanted_mm in (30.0, 45.0, 70.0, 100.0):
        sample = draws.sample_of(crop_of(), wanted_mm)
        assert sample is not None and sample.diameter_mm == wanted_mm
        if not any(sample.truth.take(index, axis).any() for axis in range(3) for index in (0, -1)):  # seen whole
            seen = np.cbrt(6 / np.pi * sample.truth.sum()) * sample.spacing_mm
            assert seen == pytest.approx(sample.diameter_mm, rel=0.25)


def test_faint_ones_are_enlarged_and_solid_ones_are_not() -> None:
    def drawn(texture: float) -> list[float]:
        draws = sampler(crop_of(texture=texture), 5)
        return [draws.sample().diameter_mm for _ in range(60)]

    assert not any(16 < diameter < 30 for diameter in drawn(5.0))  # masses are larger
    assert sum(16 < diameter < 30 for diameter in drawn(1.5)) >= 2
