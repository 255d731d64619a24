import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from Research import pretraining
from Research.pretraining import PretrainingConfig, Run, learning_rate
from research.test_background_samples import dotted
from SAMMed3DLib.finding.lungs import LungMask
from SAMMed3DLib.model import build_model, load_model, save_checkpoint


@pytest.fixture
def without_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Procedural backgrounds only: the repository holds no CT."""
    monkeypatch.setattr(pretraining, "training_backgrounds", lambda data, cache: [])


def _arguments(folder: Path, steps: int) -> list[str]:
    return [
        "--data",
        str(folder),
        "--work_dir",
        str(folder),
        "--steps",
        str(steps),
        "--batch_size",
        "2",
        "--processes",
        "1",
        "--seed",
        "5",
    ]


def test_a_run_learns_saves_and_continues(tmp_path: Path, without_scans: None) -> None:
    pretraining.main(_arguments(tmp_path, 2))
    first = Run(PretrainingConfig(str(tmp_path), str(tmp_path)))
    assert first.step == 2
    pretraining.main(_arguments(tmp_path, 3))
    events = [json.loads(line) for line in (tmp_path / "pretraining_0.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["step"] for event in events] == [1, 2, 3]
    assert all(math.isfinite(event["loss"]) for event in events)
    second = Run(PretrainingConfig(str(tmp_path), str(tmp_path)))
    assert second.step == 3
    moved = [
        name
        for (name, a), b in zip(first.model.named_parameters(), second.model.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    # One-click steps never look at the padding embeddings alone; nearly everything else must move.
    assert len(moved) > 0.9 * len(list(first.model.parameters()))
    shipped = load_model(tmp_path / "sammed3d_nodule.pth")
    assert shipped.name == "nodule_light"
    name = "mask_decoder.mask_tokens"
    # shipped weights are rounded to half precision
    assert torch.equal(shipped.state_dict()[name], second.average.values[name].half().float())


def test_learning_rate_warms_up_and_falls() -> None:
    config = PretrainingConfig("", "", steps=1000, warmup=100, lr=1.0)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (99, 100)
    assert all(a >= b for a, b in zip(rates[100:], rates[101:], strict=False))
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)


def test_what_can_be_mistaken_is_found_outside_of_the_lesions(monkeypatch: pytest.MonkeyPatch) -> None:
    background, places = dotted()
    everywhere = np.ones((30, 45, 45), bool)
    grid = np.diag([2.0, 2.0, 3.0, 1.0])
    monkeypatch.setattr(pretraining, "find_lungs", lambda hu, matrix: LungMask(everywhere, grid, True, ""))
    found = np.array([place.center_ras for place in pretraining.mistakable_places(background)])
    for place in places[:3]:
        assert np.linalg.norm(found - place.center_ras, axis=1).min() < 2.5
    index = np.floor(np.linalg.solve(background.ijk_to_ras[:3, :3], found.T).T + 0.5).astype(int)
    assert not background.lesion[index[:, 2], index[:, 1], index[:, 0]].any()


def test_the_learning_rate_falls_over_the_time_there_is() -> None:
    config = PretrainingConfig("", "", steps=10**6, minutes=2.0, warmup=10, lr=1.0)
    assert learning_rate(9, config, 1.0) == pytest.approx(1.0)
    rates = [learning_rate(50, config, seconds) for seconds in (0, 30, 60, 90, 120, 130)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(1.0) and rates[-2:] == pytest.approx([0.02, 0.02])


def test_a_run_ends_when_its_time_is_over_and_saves(tmp_path: Path, without_scans: None) -> None:
    pretraining.main([*_arguments(tmp_path, 10**6), "--minutes", "0.01"])
    done = (tmp_path / "pretraining_0.jsonl").read_text(encoding="utf-8").splitlines()
    assert Run(PretrainingConfig(str(tmp_path), str(tmp_path))).step == len(done) < 100
    assert load_model(tmp_path / "sammed3d_nodule.pth").name == "nodule_light"


def test_a_run_starts_from_what_fits_of_another_network(tmp_path: Path) -> None:
    torch.manual_seed(8)
    other = build_model("nodule")
    save_checkpoint(other, tmp_path / "start.pth")
    run = Run(PretrainingConfig("", str(tmp_path), start=str(tmp_path / "start.pth")))
    own, given = run.model.state_dict(), other.state_dict()
    for name in ("image_encoder.stem.weight", "mask_decoder.merge2.conv.weight", "prompt_encoder.gaussian_matrix"):
        assert torch.equal(own[name], given[name])
    assert run.model.name == "nodule_light" and "mask_decoder.middle.conv1.weight" not in own
    assert own["mask_decoder.enter.conv.weight"].shape == (32, 32)
