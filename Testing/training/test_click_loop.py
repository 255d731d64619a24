"""The click loop: what it shows to whom, and gradients that do not depend on how a batch is divided."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from SAMMed3DLib.model import attention, build_model, image_encoder
from SAMMed3DTrainingLib.data.nodule_samples import Sample
from SAMMed3DTrainingLib.train import click_loop
from SAMMed3DTrainingLib.train.click_loop import CLICK_COUNTS, ClickLoop, device_clicks, draw_click_count

from .networks import small_vit


def ball_sample(model, seed: int, empty: bool = False) -> Sample:
    """A bright ball in noise, clicked off its center."""
    profile = model.profile
    rng = np.random.default_rng(seed)
    size = np.array(profile.crop_size)
    center = size / 2 + rng.uniform(-2, 2, 3)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    truth = np.linalg.norm(grid - center, axis=-1) < rng.uniform(3, 6)
    crop = rng.normal(0, 0.1, (profile.channels, *size)).astype(np.float32) + truth
    if empty:
        truth = np.zeros_like(truth)
    return Sample(crop.astype(np.float32), truth, np.round(center).astype(np.float32), 1.0, "solid", 8.0)


def gradients(model, samples, seeds, clicks=3) -> tuple[list[torch.Tensor], dict[str, float]]:
    model.train()
    model.zero_grad()
    loss, figures = ClickLoop(model)(samples, clicks, [np.random.default_rng([7, s]) for s in seeds])
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()], figures


@pytest.fixture(params=["vit", "nodule"])
def model(request):
    if request.param == "vit":
        return small_vit()
    torch.manual_seed(0)
    return build_model("nodule").requires_grad_(True)


def test_the_gradient_of_a_batch_is_the_mean_of_its_parts(model):
    samples = [ball_sample(model, 1), ball_sample(model, 2, empty=True), ball_sample(model, 3), ball_sample(model, 4)]
    whole, _ = gradients(model, samples, range(4))
    first, _ = gradients(model, samples[:2], (0, 1))
    second, _ = gradients(model, samples[2:], (2, 3))
    norm = math.sqrt(sum(float(g.square().sum()) for g in whole))
    differences = [w - (a + b) / 2 for w, a, b in zip(whole, first, second, strict=True)]
    apart = math.sqrt(sum(float(d.square().sum()) for d in differences))
    assert norm > 0 and apart < 2e-3 * norm


def test_what_is_computed_again_on_the_way_back_changes_no_gradient(model, monkeypatch):
    samples = [ball_sample(model, 1), ball_sample(model, 2)]
    again, _ = gradients(model, samples, (0, 1))
    calls = []

    def at_once(function, *arguments, **unused):
        calls.append(function)
        return function(*arguments)

    for module in (click_loop, image_encoder, attention):
        monkeypatch.setattr(module, "checkpoint", at_once)
    kept, _ = gradients(model, samples, (0, 1))
    assert calls
    for first, second in zip(again, kept, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_encoder_decoder_and_iou_head_all_learn(model):
    grads, figures = gradients(model, [ball_sample(model, 1), ball_sample(model, 2)], (0, 1))
    moved = {name.split(".")[0] for (name, _), g in zip(model.named_parameters(), grads, strict=True) if g.any()}
    assert moved == {"image_encoder", "prompt_encoder", "mask_decoder"}
    head = [g.any() for (name, _), g in zip(model.named_parameters(), grads, strict=True) if "iou_" in name]
    assert any(head)
    assert 0 <= figures["dice_first"] <= 1 and 0 <= figures["dice_last"] <= 1 and 0 <= figures["iou_error"] <= 1.5


def test_an_empty_sample_teaches_the_iou_head_only():
    model = small_vit()
    grads, figures = gradients(model, [ball_sample(model, 1, empty=True)], (0,), clicks=1)
    by_name = {name: g for (name, _), g in zip(model.named_parameters(), grads, strict=True)}
    assert by_name["mask_decoder.iou_prediction_head.layers.0.weight"].any()
    assert not by_name["mask_decoder.output_hypernetworks_mlps.0.layers.0.weight"].any()
    assert math.isnan(figures["dice_first"])


@pytest.mark.parametrize(("kind", "shown"), [("vit", [1, 1, 1, 1]), ("nodule", [1, 2, 3, 4])])
def test_newest_click_or_all_of_them(kind, shown, monkeypatch):
    model = small_vit() if kind == "vit" else build_model("nodule")
    counts, masks = [], []
    forward = model.prompt_encoder.forward

    def watch(points=None, boxes=None, masks_=None, **given):
        counts.append(int((points[1] >= 0).sum()))
        masks.append(bool(given["masks"].any()))
        return forward(points=points, boxes=boxes, masks=given["masks"])

    monkeypatch.setattr(model.prompt_encoder, "forward", watch)
    rng = next(np.random.default_rng(s) for s in range(100) if np.random.default_rng(s).random() > 0.5)  # plain start
    with torch.no_grad():
        ClickLoop(model)([ball_sample(model, 1)], 4, [rng])
    assert counts == shown and masks == [False, True, True, True]


def test_a_known_embedding_saves_the_encoder(model, monkeypatch):
    model.eval()
    samples = [ball_sample(model, 1), ball_sample(model, 2)]
    rngs = [[np.random.default_rng([9, s]) for s in range(2)] for _ in range(2)]
    with torch.no_grad():
        expected, _ = ClickLoop(model)(samples, 2, rngs[0])
        embedding = model.image_encoder(torch.from_numpy(np.stack([s.crop for s in samples])))
        monkeypatch.setattr(model.image_encoder, "forward", None)
        found, _ = ClickLoop(model)(samples, 2, rngs[1], embedding)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_a_few_steps_learn_a_ball():
    torch.manual_seed(1)
    model = small_vit().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(30):
        rngs = [np.random.default_rng([3, step, n]) for n in range(2)]
        loss, _ = ClickLoop(model)([ball_sample(model, n) for n in range(2)], 1, rngs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


def test_clicks_that_are_placed_on_the_device_go_into_the_error():
    """A ball of which a piece is missed, one that is marked too large, one that is right, and a click's three kinds."""
    size = 40
    grid = np.moveaxis(np.indices((size,) * 3), 0, -1).astype(float)
    ball = {r: np.linalg.norm(grid - (20, 18, 22), axis=-1) < r for r in (5, 9)}
    truth = torch.from_numpy(np.stack([ball[9], ball[5], ball[5]]))
    found = torch.from_numpy(np.stack([ball[9] & (grid[..., 0] < 20), ball[9], ball[5]]))
    rng = np.random.default_rng(0)
    for kind in (0.1, 0.6, 0.9):
        for _ in range(10):
            draws = torch.tensor([[kind, rng.random()] for _ in range(3)])
            coords, signs = device_clicks(truth, found, draws)
            assert signs.tolist() == [1, 0, -1]
            for n in range(2):
                error = (truth[n] != found[n]).numpy()
                place = tuple(coords[n].long().tolist())
                depth = ndimage.distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1, 1:-1]
                assert error[place]
                assert depth[place] >= {0.1: 0.35, 0.6: 0.55, 0.9: 0.0}[kind] * depth.max()
    places = {tuple(device_clicks(truth, found, torch.full((3, 2), x))[0][0].tolist()) for x in np.linspace(0, 0.49, 9)}
    assert len(places) > 5  # not always the same voxel
    first = device_clicks(truth, found, draws)[0]
    assert torch.equal(first, device_clicks(truth, found, draws)[0])


@pytest.mark.parametrize("kind", ["vit", "nodule_light"])
def test_a_step_with_clicks_on_the_device_learns_as_others_do(kind):
    """The newest click or all of them, boxes alone and empty samples among them; figures as without."""
    torch.manual_seed(0)
    model = small_vit() if kind == "vit" else build_model("nodule_light").requires_grad_(True)
    samples = [ball_sample(model, 1), ball_sample(model, 2, empty=True), ball_sample(model, 3)]
    shown = []
    encoder = type(model.prompt_encoder).forward

    def watch(self, points=None, boxes=None, masks=None):
        shown.append(points[1].clone())
        return encoder(self, points=points, boxes=boxes, masks=masks)

    told = []
    for on_device in (True, False):
        rngs = [np.random.default_rng([7, s]) for s in range(3)]
        shown.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(model.prompt_encoder), "forward", watch)
            loss, figures = ClickLoop(model.train(), on_device=on_device)(samples, 4, rngs)
        assert torch.isfinite(loss) and set(figures) == {"dice_first", "dice_last", "iou_error"}
        told.append((figures["dice_first"], [signs.shape for signs in shown], shown[-1][1].tolist()))
    assert told[0][0] == pytest.approx(told[1][0])  # the first answer is the same
    assert told[0][1] == [(3, 1)] * 4 if kind == "vit" else [(3, n) for n in range(1, 5)]
    assert told[0][2].count(-1) == (0 if kind == "vit" else 3)  # no second click on no nodule
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_click_counts_are_those_that_are_said():
    rng = np.random.default_rng(0)
    assert {draw_click_count(rng) for _ in range(300)} == set(CLICK_COUNTS)


def test_a_batch_with_unknown_places_teaches_the_others_the_same(model):
    """All known is as good as not said; hidden places take their part out of the gradient."""
    sample = ball_sample(model, 1)
    everywhere = np.ones_like(sample.truth)
    hidden = everywhere.copy()
    hidden[..., hidden.shape[2] // 2 + 2 :] = False
    plain, _ = gradients(model, [sample], (5,), clicks=1)
    known, _ = gradients(model, [dataclasses.replace(sample, known=everywhere)], (5,), clicks=1)
    partly, _ = gradients(
        model, [dataclasses.replace(sample, known=hidden, truth=sample.truth & hidden)], (5,), clicks=1
    )
    for first, second in zip(plain, known, strict=True):
        torch.testing.assert_close(first, second)
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(plain, partly, strict=True))
