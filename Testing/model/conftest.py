"""Weights for the tests of the networks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from model.public_layout import public_layout
from SAMMed3DLib.model import Sam3D, build_model, registry
from shared_data import shared_dir


@pytest.fixture(scope="session")
def parity() -> ModuleType:
    """The generator of weights and inputs beside the reference outputs."""
    shared = shared_dir()
    if shared is None or not (shared / "parity" / "fixture.py").is_file():
        pytest.skip("no parity data beside the checkout")
    spec = importlib.util.spec_from_file_location("parity_fixture", shared / "parity" / "fixture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def seed1_file(parity: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of seed 1 as a file in the public layout, 402 MB."""
    path = tmp_path_factory.mktemp("parity") / "seed1.pth"
    torch.save(public_layout({name: torch.from_numpy(a) for name, a in parity.state_dict(1).items()}), path)
    return path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Sam3D:
    """A ViT of two small blocks, registered as "vit_tiny": the real code at 2 % of the size."""
    monkeypatch.setitem(registry.VIT_SIZES, "vit_tiny", registry.ViTSize(32, 48, 2, 3, (1,)))
    torch.manual_seed(0)
    return build_model("vit_tiny")
