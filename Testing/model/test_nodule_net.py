import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from SAMMed3DLib.model import build_model
from SAMMed3DLib.model.nodule_net import Downsample, Upsample
from SAMMed3DLib.model.sam import Sam3D


@pytest.fixture(scope="module")
def model() -> Sam3D:
    torch.manual_seed(0)
    return build_model("nodule")


@pytest.fixture(scope="module")
def embedding(model: Sam3D) -> torch.Tensor:
    return model.encode(torch.rand(1, 3, 64, 64, 64, generator=torch.Generator().manual_seed(1)))


POINT = torch.tensor([[[30.0, 31.0, 32.0]]])
POSITIVE = torch.ones(1, 1, dtype=torch.long)


def test_shapes_follow_the_contract(model: Sam3D, embedding: torch.Tensor) -> None:
    logits, iou = model.decode(embedding, POINT, POSITIVE)
    assert logits.shape == (1, 1, 32, 32, 32)
    assert iou.shape == (1, 1)
    logits, iou = model.decode(embedding, POINT, POSITIVE, multimask_output=True)
    assert logits.shape == (1, 3, 32, 32, 32)
    assert iou.shape == (1, 3)
    assert ((iou >= 0) & (iou <= 1)).all()


def test_every_prompt_matters(model: Sam3D, embedding: torch.Tensor) -> None:
    plain = model.decode(embedding, POINT, POSITIVE)[0]
    others = {
        "place": model.decode(embedding, POINT + 6, POSITIVE),
        "sign": model.decode(embedding, POINT, POSITIVE * 0),
        "mask": model.decode(embedding, POINT, POSITIVE, mask=torch.full((1, 1, 32, 32, 32), 3.0)),
        "box": model.decode(embedding, POINT, POSITIVE, boxes=torch.tensor([[20.0, 20, 20, 40, 40, 40]])),
        "click": model.decode(embedding, POINT.repeat(1, 2, 1) + torch.tensor([[[0.0], [5]]]), POSITIVE.repeat(1, 2)),
    }
    for name, (logits, _) in others.items():
        assert (logits - plain).abs().max() > 1e-4, name


def test_prompts_of_a_batch_do_not_mix(model: Sam3D, embedding: torch.Tensor) -> None:
    points = torch.cat((POINT, POINT - 9))
    together = model.decode(embedding, points, POSITIVE.repeat(2, 1))[0]
    for n in range(2):
        assert torch.allclose(model.decode(embedding, points[n : n + 1], POSITIVE)[0][0], together[n], atol=1e-4)


def test_padding_and_missing_boxes_change_little_but_break_nothing(model: Sam3D, embedding: torch.Tensor) -> None:
    padded = model.decode(embedding, POINT.repeat(1, 2, 1), torch.tensor([[1, -1]]))[0]
    assert torch.isfinite(padded).all()
    none = torch.full((1, 6), float("nan"))
    assert torch.isfinite(model.decode(embedding, POINT, POSITIVE, boxes=none)[0]).all()


def test_direct_convolution_equals_the_training_path(model: Sam3D) -> None:
    """Inference calls oneDNN by name; with gradients torch chooses: both must give the same."""
    crop = torch.rand(1, 3, 64, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.enable_grad():
        reference = model.image_encoder(crop).detach()
    assert torch.allclose(model.encode(crop), reference, atol=1e-4)


def test_resampling_layers_are_the_strided_convolutions() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6, 8)
    down = Downsample(3, 5)
    kernel = down.weight.view(5, 2, 2, 2, 3).permute(0, 4, 1, 2, 3)
    assert torch.allclose(down(x), torch.nn.functional.conv3d(x, kernel, down.bias, stride=2), atol=1e-5)
    up = Upsample(3, 5)
    kernel = up.weight.view(2, 2, 2, 5, 3).permute(4, 3, 0, 1, 2)
    bias = up.bias.view(8, 5)
    expected = torch.nn.functional.conv_transpose3d(x, kernel, stride=2)
    offsets = bias.view(2, 2, 2, 5).permute(3, 0, 1, 2).repeat(1, 4, 6, 8)
    assert torch.allclose(up(x), expected + offsets, atol=1e-5)


def test_weights_fit_the_promised_file_size(model: Sam3D) -> None:
    assert sum(p.numel() * 4 for p in model.parameters()) < 27e6


def test_a_click_costs_half_in_the_light_network() -> None:
    """Multiplications and additions of one decoding."""
    counts = []
    for name in ("nodule", "nodule_light"):
        model = build_model(name)
        dense_position, embedding = model.prompt_encoder.get_dense_pe(), torch.zeros(1, 32, 32, 32, 32)
        # With gradients: the operator that inference calls by name is not counted.
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            sparse, dense = model.prompt_encoder((POINT, POSITIVE), None, torch.zeros(1, 1, 32, 32, 32))
            model.mask_decoder(embedding, dense_position, sparse, dense, multimask_output=False)
        counts.append(counter.get_total_flops())
    assert counts[0] == pytest.approx(8.27e9, rel=0.01)
    assert counts[1] <= 0.5 * counts[0]
