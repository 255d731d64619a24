from __future__ import annotations

import pytest
import torch

from SAMMed3DLib.model.checkpoint import CheckpointError
from SAMMed3DLib.model.nodule_classifier import EDGE, NoduleClassifier, load_classifier
from SAMMed3DLib.weights import CLASSIFIER, default_checkpoint, resource_path


def crops(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, EDGE, EDGE, EDGE, generator=generator) * 300.0 - 600.0


def test_every_crop_is_judged_by_itself():
    torch.manual_seed(0)
    network = NoduleClassifier().eval()
    hu, spacing = crops(3), torch.tensor([0.5, 1.0, 1.5])
    with torch.inference_mode():
        together = network(hu, spacing)
        alone = torch.cat([network(hu[n : n + 1], spacing[n : n + 1]) for n in range(3)])
    assert together.shape == (3,) and torch.allclose(together, alone, atol=1e-4)
    with torch.inference_mode():
        assert not torch.allclose(network(hu, torch.tensor([1.5, 0.5, 0.7])), together, atol=1e-6)


def test_what_is_beyond_both_windows_makes_no_difference():
    torch.manual_seed(0)
    network = NoduleClassifier().eval()
    hu = crops(1)
    metal, air = torch.where(hu > 0, 3000.0, hu), torch.where(hu > 0, 20000.0, hu)
    with torch.inference_mode():
        assert torch.equal(network(metal, torch.ones(1)), network(air, torch.ones(1)))


def test_the_one_that_comes_with_the_module_is_small_and_ready():
    path = resource_path(CLASSIFIER)
    assert path.stat().st_size < 1_000_000
    network = load_classifier(path)
    assert not network.training and not any(each.requires_grad for each in network.parameters())
    assert {each.dtype for each in network.parameters()} == {torch.float32}


def test_what_is_loaded_says_what_was_trained_without_its_normalizations(tmp_path):
    torch.manual_seed(0)
    trained = NoduleClassifier()
    with torch.no_grad():
        for buffer in (each for each in trained.buffers() if each.is_floating_point()):
            buffer.add_(0.5 * torch.rand(buffer.shape))
    torch.save(trained.eval().state_dict(), tmp_path / "trained.pth")
    loaded = load_classifier(tmp_path / "trained.pth")
    assert not any(isinstance(each, torch.nn.BatchNorm3d) for each in loaded.modules())
    hu, spacing = crops(4), torch.linspace(0.5, 1.5, 4)
    with torch.inference_mode():
        assert torch.allclose(loaded(hu, spacing), trained(hu, spacing), atol=1e-4)


def test_files_of_something_else_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nodule_classifier"):
        load_classifier(default_checkpoint())
    (tmp_path / "broken.pth").write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match="broken"):
        load_classifier(tmp_path / "broken.pth")
