"""The 2D models: their layouts are recognized, loaded strictly, and compute what their public code computes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from SAMMed3DLib.model import CheckpointError, save_checkpoint
from SAMMed3DTrainingLib.evaluate import sam2d
from SAMMed3DTrainingLib.evaluate.peer2d import PEERS, Peer2D
from SAMMed3DTrainingLib.evaluate.sam2d import SIZES, Sam2D, SamLayout, load_sam2d

from .networks import small_vit
from .peer_weights import SMALL, SMALL_ADAPTED, made, need_segment_anything, written


@pytest.fixture(autouse=True)
def _package():
    need_segment_anything()


# The public sizes: (image, dim, depth, heads, global blocks).
PUBLIC = {
    "vit_b": (768, 12, 12, (2, 5, 8, 11), 93_735_472),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23), 312_342_832),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31), 641_090_608),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sizes_are_recognized_from_the_tensors_alone(name):
    dim, depth, heads, global_blocks, parameters = PUBLIC[name]
    layout = SamLayout(1024, dim, depth, heads, global_blocks, 14, 256, 2048, False)
    with torch.device("meta"):
        network = Sam2D(layout)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert SamLayout.of(network.state_dict(), Path("sam.pth")) == layout and layout.name == name
    assert SIZES[(dim, depth)] == name


def test_sam_med2d_is_256_pixels_with_adapters():
    layout = SamLayout(256, 768, 12, 12, (2, 5, 8, 11), 14, 256, 2048, True)
    with torch.device("meta"):
        network = Sam2D(layout)
    names = network.state_dict()
    assert SamLayout.of(names, Path("sam-med2d_b.pth")) == layout
    assert tuple(names["image_encoder.blocks.3.Adapter.channel.0.weight"].shape) == (192, 768)
    assert tuple(names["image_encoder.blocks.3.Adapter.spatial.2.weight"].shape) == (768, 768, 4, 4)


@pytest.mark.parametrize(("key", "prefix"), [(None, ""), ("model", ""), ("model", "module."), ("model_state_dict", "")])
def test_the_files_of_all_three_projects_load(tmp_path, key, prefix):
    network = load_sam2d(written(tmp_path / "weights.pth", key=key, prefix=prefix))
    expected = made()
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(network.encode(image), expected.encode(image))


def test_loading_runs_nothing_and_names_what_is_wrong(tmp_path):
    weights = made().state_dict()
    del weights["mask_decoder.iou_token.weight"]
    weights["extra"] = torch.zeros(1)
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"missing: mask_decoder\.iou_token.*unexpected: extra"):
        load_sam2d(tmp_path / "odd.pth")
    torch.save({"model": made()}, tmp_path / "pickle.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        load_sam2d(tmp_path / "pickle.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        load_sam2d(tmp_path / "text.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no checkpoint of SAM"):
        load_sam2d(tmp_path / "other.pth")


def test_3d_checkpoints_are_told_apart(tmp_path):
    save_checkpoint(small_vit(), tmp_path / "three.pth")
    with pytest.raises(CheckpointError, match="3D checkpoint"):
        load_sam2d(tmp_path / "three.pth")


def test_the_wrong_peer_is_named():
    with pytest.raises(CheckpointError, match="not of SAM-Med2D"):
        Peer2D(made(), PEERS["sam_med2d"])
    with pytest.raises(CheckpointError, match="SAM-Med2D"):
        Peer2D(made(SMALL_ADAPTED), PEERS["sam"])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "_segment_anything_modeling", raising=False)
    monkeypatch.setattr(sam2d.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(sam2d.PeerError, match="pip install segment-anything"):
        sam2d.sam_modeling()


def test_torchvision_is_not_needed():
    sam2d.sam_modeling()
    assert "torchvision" not in sys.modules and "segment_anything" not in sys.modules


def test_adapters_follow_the_published_equations():
    network = made(SMALL_ADAPTED)
    block = network.image_encoder.blocks[1]  # attends over the whole image
    tokens = torch.randn(2, 4, 4, 48)
    attended = tokens + block.attn(block.norm1(tokens))
    normed = block.norm2(attended)
    adapter, channels_first = block.Adapter, normed.permute(0, 3, 1, 2)
    pooled = torch.nn.functional.adaptive_avg_pool2d(channels_first, 1).flatten(1)
    gate = adapter.channel(pooled)[:, :, None, None]
    summed = channels_first + adapter.spatial(gate * channels_first)
    expected = attended + block.mlp(normed) + adapter.norm(summed.permute(0, 2, 3, 1))
    torch.testing.assert_close(block(tokens), expected)


def test_windows_of_adapted_blocks_are_those_of_the_package():
    """With an adapter whose output is nothing, a block is the package's own."""
    adapted, plain = made(SMALL_ADAPTED), made()
    weights = plain.state_dict()
    adapted.load_state_dict(weights, strict=False)
    for block in adapted.image_encoder.blocks:
        torch.nn.init.zeros_(block.Adapter.norm.weight)
        torch.nn.init.zeros_(block.Adapter.norm.bias)
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(adapted.encode(image), plain.encode(image))


def slice_hu(shape=(40, 60)) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.where(np.hypot(rows - 20, columns - 25) <= 6, 40, -850).astype(np.int16)


def test_inputs_are_as_the_public_code_makes_them():
    image = slice_hu()
    sam = Peer2D(made(), PEERS["sam"]).prepare(image)
    assert sam.shape == (1, 3, 64, 64)
    # The longer side fills 64 pixels, the rest is padded with 0 after standardization.
    assert torch.all(sam[:, :, 43:] == 0) and not torch.any(sam[0, 0, :43] == 0)
    np.testing.assert_allclose(
        sam[0, :, 0, 0], (0 - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375], rtol=1e-5
    )
    medsam = Peer2D(made(), PEERS["medsam"]).prepare(image)
    assert medsam.min() == 0 and medsam.max() == 1 and torch.equal(medsam[:, 0], medsam[:, 2])
    assert not torch.any(medsam[0, 0, 63] != medsam[0, 0, 63, 0])  # stretched over the whole square
    med2d = Peer2D(made(SMALL_ADAPTED), PEERS["sam_med2d"]).prepare(image)
    assert len(torch.unique(med2d[0, 0])) == 2  # nearest neighbor: no new grey values


def test_a_window_makes_ground_glass_visible():
    image = slice_hu()
    image[image > 0] = -600
    image[0, 0] = 3000  # metal: its slice's own range hides the nodule
    own, windowed = (Peer2D(made(), PEERS["sam"], window).prepare(image) for window in (None, (-1000.0, 0.0)))
    contrast = [float((p[0, 0, 20, 26] - p[0, 0, 20, 60]).abs()) for p in (own, windowed)]
    assert contrast[1] > 2 * contrast[0]


@pytest.mark.parametrize("name", PEERS)
def test_masks_come_back_in_the_slices_pixels(name, monkeypatch):
    """Logits that are positive in the upper left quarter of the slice give its mask there."""
    kind = PEERS[name]
    peer = Peer2D(made(SMALL_ADAPTED if kind.adapters else SMALL), kind)
    shape = (40, 60)
    logits = torch.full((16, 16), -8.0)
    height, width = (16 * 43 / 64, 16) if kind.keep_aspect else (16, 16)
    logits[: round(height / 2), : round(width / 2)] = 8.0
    monkeypatch.setattr(
        peer.network,
        "decode",
        lambda e, p, lab, b, m, multimask: (
            logits.expand(3 if multimask else 1, -1, -1),
            torch.ones(3 if multimask else 1),
        ),
    )
    answer = peer.decode(None, shape, np.array([[5.0, 5.0]]), np.array([True]), None, None)
    expected = np.zeros(shape, bool)
    expected[:20, :30] = True
    assert answer.mask.shape == shape and (answer.mask != expected).mean() < 0.06


def test_prompts_follow_each_models_rules():
    seen = []

    def spy(network):
        original = network.decode

        def decode(embedding, points, labels, box, mask, multimask):
            seen.append((points.tolist(), None if box is None else box.tolist(), mask, multimask))
            return original(embedding, points, labels, box, mask, multimask)

        network.decode = decode
        return network

    image, one, two = slice_hu(), np.array([[30.0, 20.0]]), np.array([[30.0, 20.0], [6.0, 8.0]])
    box = np.array([10.0, 5.0, 40.0, 35.0])
    for name in PEERS:
        peer = Peer2D(spy(made(SMALL_ADAPTED if PEERS[name].adapters else SMALL)), PEERS[name])
        embedding = peer.encode(image)
        first = peer.decode(embedding, image.shape, one, np.array([True]), None, None)
        peer.decode(embedding, image.shape, two, np.array([True, False]), None, first.logits)
        peer.decode(embedding, image.shape, one[:0], np.array([], bool), box, None)
        peer.decode(embedding, image.shape, one, np.array([True]), box, first.logits)
        assert 0 < first.mask.size == image.size
    sam, medsam, med2d = seen[:4], seen[4:8], seen[8:]
    assert [call[3] for call in sam] == [True, False, False, False]
    assert [call[3] for call in medsam] == [False] * 4 and [call[3] for call in med2d] == [True] * 4
    assert sam[1][2] is not None and medsam[1][2] is None
    assert med2d[1][2].min() >= 0 and med2d[1][2].max() <= 1
    assert sam[3][1] is not None and med2d[3][1] is None and med2d[2][1] is not None
    np.testing.assert_allclose(sam[0][0], [[32.0, 20 * 43 / 40]], rtol=1e-6)
    np.testing.assert_allclose(medsam[0][0], [[32.0, 32.0]], rtol=1e-6)
