"""Prompts through the whole network."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from SAMMed3DLib.model import PROFILES, Sam3D, build_model

POINTS, LABELS = torch.tensor([[[3.0, 20.0, 11.0], [30.0, 2.5, 7.0]]]), torch.tensor([[1, 0]])


@pytest.fixture
def embedding(tiny: Sam3D) -> Tensor:
    return tiny.encode(torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_shapes(tiny: Sam3D, embedding) -> None:
    assert embedding.shape == (1, 384, 2, 2, 2)
    for multimask, masks in ((False, 1), (True, 3)):
        logits, iou = tiny.decode(embedding, POINTS, LABELS, multimask_output=multimask)
        assert logits.shape == (1, masks, 8, 8, 8)
        assert iou.shape == (1, masks)


def test_objects_in_one_batch_equal_one_by_one(tiny: Sam3D, embedding) -> None:
    coords, labels = POINTS.transpose(0, 1), torch.ones(2, 1)
    together, _ = tiny.decode(embedding, coords, labels)
    apart = torch.cat([tiny.decode(embedding, coords[i : i + 1], labels[i : i + 1])[0] for i in range(2)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_no_mask_means_a_zero_mask(tiny: Sam3D, embedding) -> None:
    tiny.prompt_encoder.no_mask_embed.weight.data.fill_(9)
    given = tiny.decode(embedding, POINTS, LABELS)[0]
    assert torch.equal(given, tiny.decode(embedding, POINTS, LABELS, mask=torch.zeros(1, 1, 8, 8, 8))[0])


def test_decoding_leaves_no_graph(tiny: Sam3D, embedding) -> None:
    assert not embedding.requires_grad
    assert not tiny.decode(embedding, POINTS, LABELS)[0].requires_grad


def test_every_weight_that_can_learn_gets_a_gradient(tiny: Sam3D) -> None:
    crop = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    embedding = tiny.image_encoder(crop)
    sparse, dense = tiny.prompt_encoder(points=(POINTS, LABELS), boxes=None, masks=torch.randn(1, 1, 8, 8, 8))
    loss = torch.zeros(())
    for multimask in (False, True):
        logits, iou = tiny.mask_decoder(
            image_embeddings=embedding,
            image_pe=tiny.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        loss = loss + logits.square().mean() + iou.square().mean()
    loss.backward()
    without = {name for name, parameter in tiny.named_parameters() if parameter.grad is None}
    assert without == {"prompt_encoder.no_mask_embed.weight"}


def test_labels_go_with_coordinates(tiny: Sam3D, embedding) -> None:
    with pytest.raises(ValueError, match="go together"):
        tiny.decode(embedding, POINTS)


def test_there_is_no_forward(tiny: Sam3D) -> None:
    with pytest.raises(NotImplementedError, match="encode"):
        tiny(torch.zeros(1))


def test_boxes_need_their_embeddings(tiny: Sam3D, embedding) -> None:
    box = torch.tensor([[1.0, 2.0, 3.0, 11.0, 12.0, 13.0]])
    with pytest.raises(ValueError, match="not trained for box prompts"):
        tiny.decode(embedding, boxes=box)
    profile = dataclasses.replace(PROFILES["sam_med3d"], boxes=True, crop_size=(32, 32, 32))
    model = build_model("vit_tiny", profile=profile)
    logits, _ = model.decode(model.encode(torch.zeros(1, 1, 32, 32, 32)), POINTS, LABELS, box)
    assert logits.shape == (1, 1, 8, 8, 8)


def test_box_tokens_are_the_corners(tiny: Sam3D) -> None:
    profile = dataclasses.replace(PROFILES["sam_med3d"], boxes=True, crop_size=(32, 32, 32))
    encoder = build_model("vit_tiny", profile=profile).prompt_encoder
    box = torch.tensor([[1.0, 2.0, 3.0, 11.0, 12.0, 13.0]])
    with torch.no_grad():
        sparse, _ = encoder(points=None, boxes=box, masks=None)
        position = encoder.pe_layer.encode((box.view(1, 2, 3) + 0.5) / 32)
        both, _ = encoder(points=(POINTS, LABELS), boxes=box, masks=None)
        points, _ = encoder(points=(POINTS, LABELS), boxes=None, masks=None)
    assert torch.allclose(sparse[0, 0], position[0, 0] + encoder.point_embeddings[2].weight[0])
    assert torch.allclose(sparse[0, 1], position[0, 1] + encoder.point_embeddings[3].weight[0])
    assert points.shape[1] == 3  # with a padding point, which a box replaces
    assert torch.equal(both, torch.cat([points[:, :2], sparse], 1))
    assert torch.equal(points[0, 2], encoder.not_a_point_embed.weight[0])
