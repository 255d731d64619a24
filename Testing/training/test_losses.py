import pytest
import torch

from SAMMed3DTrainingLib.train.click_loop import mask_loss, true_iou


def _truth() -> torch.Tensor:
    truth = torch.zeros(2, 1, 8, 8, 8)
    truth[0, :, 2:6, 2:6, 2:6] = 1
    truth[1, :, :4] = 1
    return truth


def test_loss_is_small_when_right_and_large_when_wrong() -> None:
    truth = _truth()
    right = mask_loss((truth * 2 - 1) * 20, truth)
    wrong = mask_loss((1 - truth * 2) * 20, truth)
    assert right.shape == (2, 1)
    assert right.max() < 1e-3
    assert wrong.min() > 1


def test_each_mask_is_judged_by_itself() -> None:
    truth = _truth()
    logits = torch.cat(((truth * 2 - 1) * 20, (1 - truth * 2) * 20), dim=1)
    loss = mask_loss(logits, truth)
    assert loss.shape == (2, 2)
    assert (loss[:, 0] < 1e-3).all()
    assert (loss[:, 1] > 1).all()


def test_a_missed_small_object_costs_as_much_as_a_large_one() -> None:
    """The Dice part does not drown small nodules in background."""
    truth = torch.zeros(1, 1, 32, 32, 32)
    truth[..., 15:17, 15:17, 15:17] = 1
    assert mask_loss(torch.full_like(truth, -20.0), truth) > 0.85


def test_true_iou() -> None:
    truth = _truth() > 0
    half = torch.full((2, 1, 8, 8, 8), -1.0)
    half[0, :, 2:4, 2:6, 2:6] = 1
    iou = true_iou(half, truth)
    assert iou[0, 0] == pytest.approx(0.5)
    assert iou[1, 0] == 0


def test_unknown_places_count_for_nothing():
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 4, 4, 4, generator=draw, requires_grad=True)
    truth = torch.rand(2, 1, 4, 4, 4, generator=draw) > 0.5
    known = torch.ones(2, 1, 4, 4, 4, dtype=torch.bool)
    torch.testing.assert_close(mask_loss(logits, truth, known=known), mask_loss(logits, truth))
    known[0, ..., 2:] = False
    loss = mask_loss(logits, truth, known=known)
    other = truth.clone()
    other[0, ..., 2:] = ~other[0, ..., 2:]
    torch.testing.assert_close(mask_loss(logits, other, known=known), loss)
    gradient = torch.autograd.grad(loss.sum(), logits)[0]
    assert not gradient[0, ..., 2:].any() and gradient[0, ..., :2].all() and gradient[1].all()
