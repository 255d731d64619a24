"""The windows without padding against the windows with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.padded_reference import padded_encode, windowed
from SAMMed3DLib.model import attention as attention_module
from SAMMed3DLib.model.attention import Attention
from SAMMed3DLib.model.image_encoder import ImageEncoderViT3D

# grid, window: one window larger than the grid, exact tilings, and partly padded windows of many shapes
CASES = [
    ((8, 8, 8), 14),
    ((4, 4, 4), 4),
    ((4, 4, 4), 2),
    ((5, 5, 5), 3),
    ((7, 7, 7), 4),
    ((3, 3, 3), 8),
    ((1, 1, 1), 3),
    ((5, 6, 7), 4),
    ((3, 8, 2), 4),
    ((4, 4, 3), 4),
    ((4, 3, 4), 4),
    ((3, 4, 4), 4),
    ((9, 2, 4), 4),
]


def randomize(module: nn.Module, seed: int) -> None:
    """Every weight non-trivial; the default of the position tables is zero, which hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        scale = 0.7 if parameter.dim() != 2 or parameter.shape[0] % 2 else parameter.shape[1] ** -0.5
        parameter.data.copy_(scale * values)


def make(window: int, dtype: torch.dtype, seed: int = 0) -> Attention:
    attention = Attention(24, 3, window).to(dtype)
    randomize(attention, seed)
    return attention


def tokens(grid: tuple[int, int, int], dtype: torch.dtype, batch: int = 2) -> Tensor:
    return torch.randn(batch, *grid, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("grid", "window"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@torch.no_grad()
def test_equals_padded_windows(grid, window, dtype, tolerance) -> None:
    attention, x = make(window, dtype), tokens(grid, dtype)
    assert (attention(x) - windowed(attention, x)).abs().max() < tolerance


@torch.no_grad()
def test_wrong_axes_and_padding_matter(monkeypatch) -> None:
    """The comparison above would notice: a bias on the right axes, or masked padding, is far off."""
    attention, x = make(4, torch.float64), tokens((3, 3, 3), torch.float64)
    exact = windowed(attention, x)
    attention.rel_pos_d.data, attention.rel_pos_w.data = attention.rel_pos_w.data, attention.rel_pos_d.data
    assert (attention(x) - exact).abs().max() > 0.01
    attention.rel_pos_d.data, attention.rel_pos_w.data = attention.rel_pos_w.data, attention.rel_pos_d.data
    monkeypatch.setattr(
        attention_module,
        "_padding_bias",
        lambda second, third, extent: second.new_full((*second[:, :, 0].shape[:2], 3, 4), -1e9).repeat(1, 3, 1, 1),
    )
    assert (attention(x) - exact).abs().max() > 0.01


@torch.no_grad()
def test_pieces_of_the_logits_change_nothing(monkeypatch) -> None:
    attention, x = make(4, torch.float32), tokens((5, 6, 7), torch.float32)
    whole = attention(x)
    monkeypatch.setattr(attention_module, "CPU_LOGITS", 500)
    assert (attention(x) - whole).abs().max() < 1e-5


@torch.no_grad()
def test_large_logits_do_not_overflow() -> None:
    attention, x = make(4, torch.float32), tokens((3, 3, 3), torch.float32)
    for table in (attention.rel_pos_d, attention.rel_pos_h, attention.rel_pos_w):
        table.mul_(60)
    double = make(4, torch.float64)
    double.load_state_dict(attention.state_dict())
    assert attention(x).isfinite().all()
    assert (attention(x) - windowed(double, x.double())).abs().max() < 1e-3


@pytest.mark.parametrize(("grid", "window"), [((3, 3, 3), 4), ((4, 4, 3), 4), ((5, 6, 7), 4), ((4, 4, 4), 4)])
def test_gradients_equal_those_of_padded_windows(grid, window) -> None:
    gradients = []
    for function in (Attention.forward, windowed):
        attention = make(window, torch.float64)
        x = tokens(grid, torch.float64).requires_grad_()
        weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        (function(attention, x) * weights).sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in attention.parameters())])
    for ours, reference in zip(*gradients, strict=True):
        assert (ours - reference).abs().max() < 1e-10 * (1 + reference.abs().max())


@pytest.mark.parametrize(("grid", "window"), [(8, 14), (5, 3), (4, 4), (3, 2)])
@torch.no_grad()
def test_encoder_equals_padded_encoder(grid, window) -> None:
    encoder = ImageEncoderViT3D(
        4 * grid, 32, 3, 2, (1,), window=window, patch=4, in_channels=2, out_channels=6
    ).double()
    randomize(encoder, 3)
    image = torch.randn(2, 2, *[4 * grid] * 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert (encoder(image) - padded_encode(encoder, image)).abs().max() < 1e-10


def test_encoder_names_the_shape_it_takes() -> None:
    encoder = ImageEncoderViT3D(8, 12, 1, 2, (), patch=4, out_channels=6)
    with pytest.raises(ValueError, match=r"\(B, 1, 8, 8, 8\)"):
        encoder(torch.zeros(1, 1, 8, 8, 4))
