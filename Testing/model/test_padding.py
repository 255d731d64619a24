"""Nodule networks: whoever shares a batch with a sample changes nothing of its answer."""

from __future__ import annotations

import math

import pytest
import torch

from SAMMed3DLib.model import build_model
from SAMMed3DLib.model.sam import Sam3D

NAN = float("nan")
NO_BOX = [NAN] * 6


@pytest.fixture(scope="module", params=["nodule", "nodule_light"])
def model(request) -> Sam3D:
    torch.manual_seed(0)
    return build_model(request.param)


def answers(model: Sam3D, embedding, coords, labels, boxes, mask) -> torch.Tensor:
    """All logits and predicted IoU of each sample in one row."""
    with torch.no_grad():
        single = model.decode(embedding, coords, labels, boxes, mask)
        several = model.decode(embedding, coords, labels, boxes, mask, multimask_output=True)
    return torch.cat([part.flatten(1) for part in (*single, *several)], dim=1)


def test_each_sample_of_a_mixed_batch_is_answered_as_if_alone(model: Sam3D) -> None:
    draw = torch.Generator().manual_seed(3)
    embedding = model.encode(torch.rand(5, 3, 64, 64, 64, generator=draw))
    mask = torch.randn(5, 1, 32, 32, 32, generator=draw)
    clicks = [[(30.0, 31, 32)], [(20.0, 30, 40), (33, 12, 40), (28, 29, 41)], [], [(40.0, 22, 9)], []]
    signs = [[1], [1, 0, 1], [], [0], []]
    boxes = [NO_BOX, NO_BOX, [20.0, 21, 22, 40, 41, 42], [10.0, 9, 8, 50, 51, 52], NO_BOX]
    coords, labels = torch.zeros(5, 3, 3), torch.full((5, 3), -1)
    for n, (points, its) in enumerate(zip(clicks, signs, strict=True)):
        if points:
            coords[n, : len(points)], labels[n, : len(points)] = torch.tensor(points), torch.tensor(its)
    together = answers(model, embedding, coords, labels, torch.tensor(boxes), mask)
    for n, (points, its) in enumerate(zip(clicks, signs, strict=True)):
        alone = answers(
            model,
            embedding[n : n + 1],
            torch.tensor([points]) if points else None,
            torch.tensor([its]) if points else None,
            None if math.isnan(boxes[n][0]) else torch.tensor([boxes[n]]),
            mask[n : n + 1],
        )
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-4, atol=1e-5)


def test_a_sample_with_padding_learns_what_it_would_learn_alone(model: Sam3D) -> None:
    """The gradient, too: padding teaches nothing, and is taught nothing."""
    draw = torch.Generator().manual_seed(4)
    embedding = torch.randn(1, 32, 32, 32, 32, generator=draw)
    weights = torch.randn(4, 32, 32, 32, generator=draw)

    def gradient(coords, labels, boxes):
        model.requires_grad_(True).zero_grad()
        sparse, dense = model.prompt_encoder(points=(coords, labels), boxes=boxes, masks=None)
        pe = model.prompt_encoder.get_dense_pe()
        masks, iou = model.mask_decoder.predict_all(embedding, pe, sparse, dense)
        ((masks * weights).mean() + iou.sum()).backward()
        found = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])
        model.requires_grad_(False)
        return found

    point = torch.tensor([[[30.0, 31, 32]]])
    alone = gradient(point, torch.ones(1, 1), None)
    padded = gradient(point.repeat(1, 3, 1), torch.tensor([[1, -1, -1]]), torch.tensor([NO_BOX]))
    assert alone.norm() > 0 and (padded - alone).norm() < 1e-4 * alone.norm()
    assert torch.isfinite(padded).all()
