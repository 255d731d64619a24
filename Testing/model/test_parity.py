"""The public model's numbers, within the tolerances stated beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.padded_reference import padded_encode
from SAMMed3DLib.model import Sam3D, build_model, load_model
from shared_data import shared_dir

EMBEDDING, LOGITS, IOU = 5e-5, 2e-4, 1e-5


@pytest.fixture(scope="module")
def model(seed1_file: Path) -> Sam3D:
    return load_model(seed1_file)


@pytest.fixture(scope="module")
def given(parity) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in parity.inputs(1).items()}


@pytest.fixture(scope="module")
def expected(parity) -> Mapping[str, np.ndarray]:
    shared = shared_dir()
    assert shared is not None
    return np.load(shared / "parity" / "outputs_seed1.npz")


@pytest.fixture(scope="module")
def taps() -> dict[int, Tensor]:
    """Outputs of the blocks during the encoding of ``embedding``."""
    return {}


@pytest.fixture(scope="module")
def embedding(model: Sam3D, given, taps) -> Tensor:
    hooks = [
        block.register_forward_hook(lambda module, args, output, index=index: taps.update({index: output}))
        for index, block in enumerate(model.image_encoder.blocks)
    ]
    try:
        return model.encode(given["image"])
    finally:
        for hook in hooks:
            hook.remove()


def close(actual: Tensor, expected: np.ndarray, tolerance: float) -> bool:
    return actual.shape == expected.shape and float(np.abs(actual.numpy() - expected).max()) < tolerance


def decode(
    model: Sam3D, embedding: Tensor, points: tuple[Tensor, Tensor] | None, masks: Tensor | None, multimask: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        sparse, dense = model.prompt_encoder(points=points, boxes=None, masks=masks)
        logits, iou = model.mask_decoder(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
    return sparse, logits, iou


def check(result: tuple[Tensor, Tensor, Tensor], expected: Mapping[str, np.ndarray], prefix: str) -> None:
    sparse, logits, iou = result
    if f"{prefix}_sparse" in expected:
        assert close(sparse, expected[f"{prefix}_sparse"], 1e-5)
    assert close(logits, expected[f"{prefix}_low_res"], LOGITS)
    assert close(iou, expected[f"{prefix}_iou"], IOU)


def test_embedding(embedding, expected) -> None:
    assert close(embedding, expected["image_embedding"], EMBEDDING)


def test_dense_positions(model, expected) -> None:
    assert close(model.prompt_encoder.get_dense_pe(), expected["dense_pe"], 1e-5)


@pytest.mark.parametrize("index", [0, 2])
def test_blocks(embedding, taps, expected, index) -> None:
    assert close(taps[index][:, ::3, ::3, ::3], expected[f"tap_block{index}"], EMBEDDING)


def test_one_point_without_and_with_a_zero_mask(model, embedding, given, expected) -> None:
    points = given["points"][:, :1], given["labels"][:, :1]
    check(decode(model, embedding, points, None), expected, "one_point_no_mask")
    check(decode(model, embedding, points, given["zero_mask"]), expected, "one_point_zero_mask")


def test_no_mask_is_decoded_as_zeros(model, embedding, given, expected) -> None:
    logits, iou = model.decode(embedding, given["points"][:, :1], given["labels"][:, :1])
    assert close(logits, expected["one_point_zero_mask_low_res"], LOGITS)
    assert close(iou, expected["one_point_zero_mask_iou"], IOU)


@pytest.mark.parametrize("multimask", [False, True])
def test_five_points_and_a_mask(model, embedding, given, expected, multimask) -> None:
    result = decode(model, embedding, (given["points"], given["labels"]), given["mask_lowres"], multimask)
    check(result, expected, "five_points_mask" + "_multimask" * multimask)


def test_a_mask_alone(model, embedding, given, expected) -> None:
    check(decode(model, embedding, None, given["mask_lowres"]), expected, "no_points_mask")


def test_two_objects_on_one_embedding(model, embedding, given, expected) -> None:
    coords = torch.cat([given["points"][:, :1], given["points"][:, 4:5]])
    result = decode(
        model, embedding, (coords, torch.ones(2, 1, dtype=torch.long)), given["zero_mask"].expand(2, -1, -1, -1, -1)
    )
    check(result, expected, "batch_of_two")


def test_newest_point_steps_and_the_final_mask(model, embedding, given, expected) -> None:
    logits = given["zero_mask"]
    for step in range(3):
        newest = slice(step, step + 1)
        result = decode(model, embedding, (given["points"][:, newest], given["labels"][:, newest]), logits)
        check(result, expected, f"newest_point_step{step}")
        logits = result[1]
    mask = F.interpolate(logits, size=(128, 128, 128), mode="trilinear", align_corners=False) > 0
    final = expected["newest_point_final_mask"]
    if final.size != mask.numel():
        final = np.unpackbits(final, count=mask.numel())
    assert np.count_nonzero(mask.numpy().ravel() != final.ravel().astype(bool)) <= 20


def test_all_points_steps(model, embedding, given, expected) -> None:
    logits = given["zero_mask"]
    for step in range(3):
        points = given["points"][:, : step + 1], given["labels"][:, : step + 1]
        result = decode(model, embedding, points, logits)
        check(result, expected, f"all_points_step{step}")
        logits = result[1]


def test_another_seed_against_padded_windows(parity) -> None:
    """One windowed and one global block of full size, and everything before them, with weights of seed 2."""
    model = build_model("vit_b_ori")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in parity.state_dict(2).items()})
    model.image_encoder.blocks = model.image_encoder.blocks[1:3]
    image = torch.from_numpy(parity.inputs(2)["image"])
    with torch.no_grad():
        reference = padded_encode(model.image_encoder, image)
    assert (model.encode(image) - reference).abs().max() < EMBEDDING


def test_reduced_precision_is_close(seed1_file, embedding, given) -> None:
    """bf16 rounds to 3 digits: the embedding keeps a relative error of about 1 %."""
    rounded = load_model(seed1_file, precision="bf16").encode(given["image"])
    assert rounded.dtype == torch.float32
    assert (rounded - embedding).square().mean().sqrt() < 0.02 * embedding.square().mean().sqrt()
