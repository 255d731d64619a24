from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from Research.pretraining_loop import PretrainingLoop, disagreement, needless_click
from SAMMed3DLib.model import build_model
from training.test_click_loop import ball_sample


def test_two_first_clicks_are_taught_to_agree():
    torch.manual_seed(0)
    model = build_model("nodule").requires_grad_(True)
    samples = [ball_sample(model, 1), ball_sample(model, 3)]
    plain_start = [np.random.default_rng(s) for s in range(100) if np.random.default_rng(s).random() > 0.5]
    twice = [dataclasses.replace(sample, second_click=sample.click + 2) for sample in samples]
    same = [dataclasses.replace(sample, second_click=sample.click) for sample in samples]
    losses, apart = [], []
    for batch in (samples, twice, same):
        loss, figures = PretrainingLoop(model, agreement=0.5)(batch, 1, copy.deepcopy(plain_start[:2]))
        losses.append(loss)
        apart.append(figures.get("apart"))
    assert apart[0] is None and apart[1] > 1e-4 and apart[2] == pytest.approx(0, abs=1e-5)
    assert losses[1] > losses[0]
    gradient = torch.autograd.grad(losses[1], model.prompt_encoder.label_embeddings)[0]
    assert torch.isfinite(gradient).all() and gradient.any()


def test_needless_clicks_say_what_the_mask_says_already():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.arange(32),) * 3, indexing="ij"), -1)
    truth = np.linalg.norm(grid - 16, axis=-1) < 6
    mask = np.linalg.norm(grid - (17, 16, 16), axis=-1) < 6
    depth = ndimage.distance_transform_cdt(~truth, "chessboard")
    signs = set()
    for _ in range(60):
        place, positive = needless_click(truth, mask, rng)
        signs.add(positive)
        assert truth[place] == mask[place] == positive
        assert positive or depth[place] <= 3
    assert signs == {True, False}
    assert not any((needless_click(truth, np.zeros_like(truth), rng) or (0, False))[1] for _ in range(20))


def test_disagreement_is_none_with_itself_and_whole_with_the_opposite():
    logits = torch.full((1, 1, 8, 8, 8), -20.0)
    logits[..., :4] = 20.0
    assert disagreement(logits, logits).item() == pytest.approx(0, abs=1e-5)
    assert disagreement(logits, -logits).item() == pytest.approx(1, abs=0.01)
    half = logits.clone()
    half[..., 2:4] = -20.0
    assert disagreement(logits, half).item() == pytest.approx(1 / 3, abs=0.01)
