"""LoRA changes nothing at first, learns little, and merges into an ordinary checkpoint."""

from __future__ import annotations

import pytest
import torch

from SAMMed3DLib.model import build_model, load_model, save_checkpoint
from SAMMed3DTrainingLib.train.trainable import add_lora, merged_state

from .networks import PROFILE, small_vit


def encode(model):
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        size = (1, model.profile.channels, *model.profile.crop_size)
        return model.image_encoder(torch.randn(size, generator=generator))


@pytest.mark.parametrize("build", [small_vit, lambda: build_model("nodule")], ids=["vit", "nodule"])
def test_untouched_at_first_then_learning_then_merged(build):
    torch.manual_seed(0)
    model = build()
    before, count = encode(model), sum(p.numel() for p in model.image_encoder.parameters())
    names = set(model.image_encoder.state_dict())
    learning = add_lora(model.image_encoder, rank=2)
    assert sum(p.numel() for p in learning) < 0.35 * count
    torch.testing.assert_close(encode(model), before, rtol=1e-4, atol=1e-5)

    size = (1, model.profile.channels, *model.profile.crop_size)
    optimizer = torch.optim.SGD(learning, lr=0.05)
    frozen = {n: p.clone() for n, p in model.image_encoder.named_parameters() if not p.requires_grad}
    for _ in range(3):
        optimizer.zero_grad()
        model.image_encoder(torch.randn(size)).square().mean().backward()
        optimizer.step()
    after = encode(model)
    assert not torch.allclose(after, before, rtol=1e-3)
    for name, parameter in model.image_encoder.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name])

    state = merged_state(model.image_encoder)
    assert set(state) == names
    plain = build()
    plain.image_encoder.load_state_dict(state, strict=True)
    torch.testing.assert_close(encode(plain), after, rtol=1e-3, atol=1e-4)


def test_a_merged_network_is_an_ordinary_checkpoint(tmp_path):
    model = build_model("nodule")
    add_lora(model.image_encoder, rank=2)
    plain = build_model("nodule")
    plain.load_state_dict(merged_state(model), strict=True)
    save_checkpoint(plain, tmp_path / "merged.pth")
    assert load_model(tmp_path / "merged.pth").name == "nodule"


def test_small_layers_learn_in_full_and_rank_must_be_positive():
    model = small_vit()
    assert PROFILE.crop_size == (32, 32, 32)
    learning = {id(p) for p in add_lora(model.image_encoder, rank=64)}
    assert all(id(p) in learning for n, p in model.image_encoder.named_parameters() if n.endswith("qkv.weight"))
    with pytest.raises(ValueError, match="rank"):
        add_lora(small_vit().image_encoder, rank=0)
