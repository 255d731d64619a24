"""The nodule classifier learns from crops, and what it learned can be kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from Research import classifier_crops, classifier_fitting
from Research.classifier_crops import FINER, STORED, Crops, views
from Research.classifier_fitting import save, separation, train, without
from Research.detection_scans import DetectionScan, KnownNodule
from Research.real_samples import training_shapes
from research.test_detection_scans import background, real_crop
from SAMMed3DLib.finding.appearance import classifier_spacing
from SAMMed3DLib.finding.candidates import Candidate
from SAMMed3DLib.model.nodule_classifier import EDGE, load_classifier
from SAMMed3DLib.synthesis import NoduleShapes
from SAMMed3DLib.synthesis.shapes import LIBRARY
from SAMMed3DLib.weights import resource_path

GRID = np.indices((STORED,) * 3) - (STORED - 1) / 2


def crops(count=40, seed=0):
    """Balls, and tubes of the same radius, every other one."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 0
    distance = np.linalg.norm(GRID, axis=0), np.linalg.norm(GRID[:2], axis=0)
    radius = rng.uniform(8.0, 11.0, count)
    hu = [np.where(distance[0 if ball else 1] < r, 0.0, -850.0) for ball, r in zip(truth, radius, strict=True)]
    return Crops((np.stack(hu) + rng.normal(0, 20, (count, *GRID.shape[1:]))).astype(np.float16), np.ones(count), truth)


def test_the_plain_view_is_the_middle_at_the_spacing_of_the_network():
    hu = np.broadcast_to(GRID[1], (2, STORED, STORED, STORED))
    seen = views(hu)
    assert seen.shape == (2, EDGE, EDGE, EDGE) and seen.dtype == torch.float32
    line = seen[0, EDGE // 2, :, EDGE // 2].numpy()
    # grid_sample names axes backwards: a view may exchange them, but never scales or shifts
    lines = [line, seen[0, :, EDGE // 2, EDGE // 2].numpy(), seen[0, EDGE // 2, EDGE // 2].numpy()]
    steepest = max(lines, key=np.ptp)
    assert np.diff(steepest) == pytest.approx(np.full(EDGE - 1, FINER), abs=1e-3)
    assert steepest.mean() == pytest.approx(0.0, abs=1e-3)


def test_every_other_view_is_a_new_one_that_keeps_what_is_shown():
    given = crops(8)
    plain, turned = views(given.hu), views(given.hu, np.random.default_rng(1))
    again = views(given.hu, np.random.default_rng(1))
    assert torch.equal(turned, again) and not torch.allclose(plain, turned, atol=50.0)
    middle = turned[:, EDGE // 2 - 1 : EDGE // 2 + 1, EDGE // 2 - 1 : EDGE // 2 + 1, EDGE // 2 - 1 : EDGE // 2 + 1]
    assert (middle.mean(dim=(1, 2, 3)) > -200).all()
    assert all(seen.median() < -600 for seen in turned[given.is_nodule])


def test_turns_are_rotations_or_mirror_images():
    rng = np.random.default_rng(0)
    turns = np.stack([classifier_crops._turn(rng) for _ in range(50)])
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    right = np.isin(np.abs(turns).round(9), (0.0, 1.0)).all(axis=(1, 2))
    assert 10 < right.sum() < 40


def test_balls_are_told_from_tubes_after_a_few_steps_and_the_weights_are_kept(tmp_path):
    network = train([crops()], 40)
    fresh = crops(20, seed=1)
    assert not network.training and separation(network, fresh) > 0.9
    file = without(tmp_path, 3)
    save(network, file)
    assert file.name == "nodule_classifier_without_3.pth" and [each.name for each in tmp_path.iterdir()] == [file.name]
    loaded = load_classifier(file)
    hu, spacing = views(fresh.hu), torch.ones(20)
    with torch.inference_mode():
        assert torch.allclose(loaded(hu, spacing), network(hu, spacing), atol=0.05)


def test_the_same_seed_trains_the_same_weights():
    first, second = (train([crops(12)], 3, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def scan():
    truth = np.zeros((60, 60, 60), bool)
    truth[26:34, 26:34, 26:34] = True
    array = np.where(truth, 0, -850).astype(np.int16)
    ignored = np.zeros_like(truth)
    ignored[:, :, :12] = True
    return DetectionScan("a", "training", array, np.eye(4), (KnownNodule.of(truth, np.eye(4), "solid"),), ignored)


def test_what_is_near_a_nodule_or_counts_as_nothing_is_no_sample(monkeypatch, tmp_path):
    places = [Candidate((x, 30.0, 30.0), 5.0, 0.0, "solid") for x in (30.0, 36.0, 48.0, 5.0)]
    monkeypatch.setattr(classifier_crops, "find_candidates", lambda *a, limit, **k: places[:limit])
    samples = list(classifier_crops._samples(iter([(scan(), 4)]), 0))
    assert [truth for *_, truth in samples] == [False, True]
    assert np.stack([center for _, center, *_ in samples]) == pytest.approx(np.array([[48, 30, 30], [29.5] * 3]), abs=4)
    kept = Crops.kept(tmp_path / "crops.npy", iter(samples))
    assert kept.hu.shape == (2, STORED, STORED, STORED) and kept.is_nodule.tolist() == [False, True]
    assert kept.hu[1].max() > -100 > -700 > kept.hu[0].max()
    usual = classifier_spacing(scan().nodules[0].diameter_mm)
    assert kept.spacing_mm[1] == pytest.approx(usual, rel=0.9)
    # the second time they come from the file
    again = Crops.kept(tmp_path / "crops.npy", iter(()))
    assert np.array_equal(again.hu, kept.hu) and np.array_equal(again.spacing_mm, kept.spacing_mm)


def test_each_round_has_painted_and_real_nodules_and_every_third_large_ones(monkeypatch):
    for name, count in (("SMALL_PER_SCAN", 3), ("REAL_PER_SCAN", 2), ("LARGE_PER_SCAN", 1)):
        monkeypatch.setattr(classifier_crops, name, count)
    monkeypatch.setattr(classifier_crops, "LARGE_MM", (14.0, 16.0))
    crop = real_crop()
    shapes = NoduleShapes.load()
    scans = list(classifier_crops._scans_of(background(), 0, 3, shapes, [crop]))
    assert [(len(scan.nodules), others) for scan, others in scans] == [
        (0, classifier_crops.CANDIDATES),
        *[(3, 0), (2, 0)] * 3,
        (1, 0),
    ]
    for number in (2, 4, 6):
        assert [nodule.diameter_mm for nodule in scans[number][0].nodules] == pytest.approx([8.0] * 2, rel=0.1)
    assert scans[7][0].nodules[0].diameter_mm > 11.0


def test_shapes_of_kept_back_scans_are_not_drawn(tmp_path):
    with np.load(resource_path(LIBRARY), allow_pickle=False) as file:
        scans = file["table"][:, list(file["columns"]).index("scan_id")].astype(int)
    folder = tmp_path / "lidc_voi"
    folder.mkdir()
    everything = len(training_shapes(tmp_path))
    for kept_back in (np.unique(scans)[::2], np.unique(scans)):
        (folder / "held_back_scans.txt").write_text("\n".join(map(str, kept_back)))
        left = len(training_shapes(tmp_path))
        assert left == len(NoduleShapes.load(without_scans=kept_back.tolist())) < everything
    assert left == 0


def test_each_background_is_left_out_once(monkeypatch, tmp_path, capsys):
    sets = [crops(8, seed) for seed in range(3)]
    monkeypatch.setattr(classifier_fitting, "collect", lambda *a: (sets[:2], sets[2]))
    assert classifier_fitting.main(["--work_dir", str(tmp_path), "--steps", "2"]) == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "nodule_classifier.pth",
        "nodule_classifier_without_0.pth",
        "nodule_classifier_without_1.pth",
    ]
    printed = capsys.readouterr().out
    assert "12 nodules and 12 other places" in printed and "background 1, never seen" in printed
