"""The public detector in plain PyTorch: the same numbers as MONAI's own, and boxes in the right places.

MONAI's body is put together here as its ``BackboneWithFPN`` does it, which needs torchvision for that alone.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from inference.volumes import ORIENTATIONS, grid, world_of
from SAMMed3DLib.finding import detectors
from SAMMed3DLib.finding.detectors import LOWEST, RetinaNetDetector, anchors_of, decoded, not_suppressed
from SAMMed3DLib.finding.lungs import LungMask
from SAMMed3DLib.finding.nodule_score import joined
from SAMMed3DLib.inference import PredictionCancelled
from SAMMed3DLib.model import retina_net
from SAMMed3DLib.model.checkpoint import CheckpointError
from SAMMed3DLib.model.retina_net import GFLOP_PER_MEGAVOXEL, RetinaNet, load_retina_net


@pytest.fixture(scope="module")
def network() -> RetinaNet:
    """Weights from a seed that find boxes in noise; the statistics of the normalizations are not the usual ones."""
    torch.manual_seed(3)
    network = RetinaNet().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
    nn.init.normal_(network.classification_head.cls_logits.weight, std=0.05)
    nn.init.constant_(network.classification_head.cls_logits.bias, -4.0)
    nn.init.normal_(network.regression_head.bbox_reg.weight, std=0.02)
    return network


@pytest.fixture(scope="module")
def theirs(network):
    """MONAI's network with the same weights."""
    pytest.importorskip("monai")
    from monai.apps.detection.networks.retinanet_network import RetinaNet as Reference
    from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
    from monai.networks.nets.resnet import ResNet

    class Extractor(nn.Module):
        out_channels = 256

        def __init__(self) -> None:
            super().__init__()
            # the second half of a ResNet-50 is not used
            whole = ResNet(
                "bottleneck", [3, 4, 1, 1], [64, 128, 8, 8], 3, 1, 7, (2, 2, 1), num_classes=1, feed_forward=False
            )
            names = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2")
            self.body = nn.ModuleDict({name: getattr(whole, name) for name in names})
            self.fpn = FeaturePyramidNetwork(3, [256, 512], 256, LastLevelMaxPool(3))

        def forward(self, x):
            maps = {}
            for name, module in self.body.items():
                x = module(x)
                if name.startswith("layer"):
                    maps[name] = x
            return self.fpn(maps)

    reference = Reference(3, 1, 3, Extractor(), size_divisible=(16, 16, 8)).eval().requires_grad_(False)
    reference.load_state_dict(network.state_dict(), strict=True)
    return reference


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_layout_is_that_of_the_public_weights(network):
    names = list(network.state_dict())
    assert len(names) == 190
    assert {
        "feature_extractor.body.layer2.0.downsample.1.running_var",
        "feature_extractor.fpn.inner_blocks.1.bias",
    } <= {*names}


def test_the_network_gives_the_numbers_of_monai(network, theirs, monkeypatch):
    image = noise(1, 1, 48, 32, 24)
    expected = theirs(image)
    whole = network(image)
    monkeypatch.setattr(retina_net, "_SLAB_CELLS", 1)
    ticks = []
    for given in (whole, network(image, lambda: ticks.append(1))):
        for ours, reference in zip(given, (expected["classification"], expected["box_regression"]), strict=True):
            assert [level.shape for level in ours] == [level.shape for level in reference]
            for level, other in zip(ours, reference, strict=True):
                assert torch.allclose(level, other, atol=2e-5, rtol=1e-4)
    assert len(ticks) > 100, "slab by slab it is the same, and is told"


@pytest.mark.parametrize(("cells", "steps", "scale"), [((5, 4, 3), (4, 4, 2), 1.0), ((3, 2, 2), (16, 16, 8), 4.0)])
def test_anchors_are_those_of_monai(cells, steps, scale):
    pytest.importorskip("monai")
    from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape

    generator = AnchorGeneratorWithAnchorShape([scale], [(6, 8, 4), (8, 6, 5), (10, 10, 6)])
    image = torch.zeros(1, 1, *(n * step for n, step in zip(cells, steps, strict=True)))
    assert torch.equal(anchors_of(cells, steps, scale), generator(image, [torch.zeros(1, 1, *cells)])[0])


def test_boxes_are_decoded_and_suppressed_as_by_monai():
    pytest.importorskip("monai")
    from monai.apps.detection.utils.box_coder import BoxCoder
    from monai.data.box_utils import non_max_suppression

    anchors, codes = anchors_of((6, 6, 6), (4, 4, 2), 1.0), noise(648, 6, seed=1) * 2.0 - 1.0
    codes[::50] *= 20.0
    boxes = decoded(codes, anchors)
    assert torch.allclose(boxes, BoxCoder([1.0] * 6).decode_single(codes, anchors), rtol=1e-5, atol=1e-4)
    scores = noise(648, seed=2)
    assert torch.equal(not_suppressed(boxes, scores), non_max_suppression(boxes, scores, 0.22, 300))
    assert len(not_suppressed(torch.zeros(0, 6), torch.zeros(0))) == 0


def test_a_whole_image_gives_the_boxes_of_monai(network, theirs):
    """More than one window, edges that are no multiples, boxes of all levels."""
    pytest.importorskip("monai")
    from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector as Reference
    from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape

    shapes = [(6, 8, 4), (8, 6, 5), (10, 10, 6)]
    reference = Reference(theirs, AnchorGeneratorWithAnchorShape([1, 2, 4], shapes)).eval()
    reference.set_box_selector_parameters(0.02, 1000, 0.22, 300)
    reference.set_sliding_window_inferer([32, 32, 16], 1, 0.25, mode="constant", device="cpu")
    image = noise(43, 30, 21, seed=4)
    (expected,) = reference([image[None]], use_inferer=True)
    boxes = RetinaNetDetector(network, (32, 32, 16)).detect(image)
    assert len(boxes.scores) == len(expected[reference.pred_score_key]) > 20
    assert torch.allclose(boxes.scores, expected[reference.pred_score_key], atol=1e-5)
    assert torch.allclose(boxes.corners, expected[reference.target_box_key], atol=1e-2)
    assert boxes.scores.tolist() == sorted(boxes.scores.tolist(), reverse=True)


def test_the_work_is_told_and_can_be_cancelled(network):
    detector, told = RetinaNetDetector(network, (32, 32, 16)), []
    with FlopCounterMode(display=False) as counter:
        detector.detect(noise(40, 32, 16), lambda done, total: told.append(done / total))
    assert told == sorted(told) and told[-1] == 1.0 and len({*told}) > 10
    assert told[0] <= 0.1, "how much there is to do is known from the beginning"
    assert counter.get_total_flops() / 1e12 == pytest.approx(detector.tflop, rel=0.02)
    assert detector.tflop == pytest.approx(2 * 32 * 32 * 16 * GFLOP_PER_MEGAVOXEL / 1e9)
    with pytest.raises(PredictionCancelled):
        detector.detect(noise(32, 32, 16), lambda done, total: False)


@pytest.mark.parametrize(("size", "slab"), [((48, 32, 24), 1), ((48, 32, 24), 500), ((32, 48, 16), 100_000)])
def test_the_pieces_of_work_are_counted_before(network, monkeypatch, size, slab):
    monkeypatch.setattr(retina_net, "_SLAB_CELLS", slab)
    ticks = []
    network(noise(1, 1, *size), lambda: ticks.append(1))
    assert network.ticks(size) == len(ticks)


class BrightSpots(nn.Module):
    """Stands for the network: at each cell of the first level the first shape is as likely as the image is bright."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def ticks(self, size):
        return 1

    def forward(self, x, tick=lambda: None):
        tick()
        levels = [x[:, :, 2::4, 2::4, 1::2], x[:, :, 4::8, 4::8, 2::4], x[:, :, 8::16, 8::16, 4::8]]
        logits = [torch.full((1, 3, *level.shape[2:]), -20.0) for level in levels]
        logits[0][:, :1] = 20.0 * (levels[0] - 0.8)
        return logits, [torch.zeros(1, 18, *level.shape[2:]) for level in levels]


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_places_are_right_in_every_orientation(name):
    shape, spacing, directions = ORIENTATIONS[name]
    matrix, center = grid(shape, spacing, directions), np.array([6.0, -9.0, 4.0])
    away = np.linalg.norm(world_of(shape, matrix) - center, axis=-1)
    array = np.where(away < 3.5, 100, -900).astype(np.int16)
    found = RetinaNetDetector(BrightSpots())(array, matrix)
    assert found and all(0.02 < each.detection <= 1.0 and math.isnan(each.response) for each in found)
    centers = np.array([each.center_ras for each in found])
    assert np.linalg.norm(centers - center, axis=1).max() < 5.5
    assert np.linalg.norm(centers.mean(axis=0) - center) < 2.0
    assert found[0].diameter_mm == pytest.approx((6 * 0.703125 + 8 * 0.703125 + 4 * 1.25) / 3.0)


def test_only_the_surroundings_of_the_lungs_are_looked_at():
    seen = []

    class Sized(BrightSpots):
        def forward(self, x, tick=lambda: None):
            seen.append(x.shape[2:])
            return super().forward(x, tick)

    array, matrix = np.full((60, 160, 160), -900, np.int16), np.eye(4)
    cells = np.zeros((6, 16, 16), bool)
    cells[2:4, 5:8, 5:8] = True
    to_ras = np.diag([10.0, 10.0, 10.0, 1.0])
    RetinaNetDetector(Sized())(array, matrix, LungMask(cells, to_ras, True, ""))
    RetinaNetDetector(Sized())(array, matrix, LungMask(cells[:0], to_ras, False, "none"))
    assert np.prod(seen[0]) < 0.2 * np.prod(seen[1])


def test_windows_cover_the_image():
    for edge, window in itertools.product((16, 48, 512, 784, 800), (16, 512)):
        starts = detectors._starts(edge, min(window, edge))
        covered = np.zeros(edge, bool)
        for start in starts:
            covered[start : start + min(window, edge)] = True
        assert covered.all() and starts[-1] + min(window, edge) == edge and len({*starts}) == len(starts)


def test_files_are_read_without_running_anything(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    torch.save({"model": network.state_dict(), "epoch": 3}, tmp_path / "inside.pt")
    for name in ("bare.pt", "inside.pt"):
        loaded = load_retina_net(tmp_path / name)
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in network.state_dict().items())
        assert not loaded.training
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.ts")
    (tmp_path / "text.pt").write_text("no weights")
    for name in ("other.pt", "script.ts", "text.pt", "absent.pt"):
        with pytest.raises(CheckpointError, match=r"models/model\.pt"):
            load_retina_net(tmp_path / name)


def test_both_count_alike_and_a_detector_that_was_not_asked_does_not_count():
    assert joined(0.7, math.nan) == 0.7
    assert joined(0.8, 0.8) == pytest.approx(0.8) and joined(0.9, 0.1) == pytest.approx(0.5)
    assert joined(0.9, LOWEST) < 0.5 < joined(0.3, 0.95) and 0.0 < joined(0.0, 0.0) < joined(1.0, 1.0) < 1.0
