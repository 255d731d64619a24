"""Bundled files are found, and a missing one is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from SAMMed3DLib import weights

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_finds_the_bundled_model() -> None:
    assert weights.default_checkpoint() == ROOT / "SAMMed3D" / "Resources" / "Models" / "sammed3d_nodule.pth"


def test_the_bundled_model_is_small_enough_for_the_repository() -> None:
    assert weights.default_checkpoint().stat().st_size <= 25_000_000


def test_a_missing_file_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_RESOURCE_FOLDERS", (tmp_path / "a", tmp_path / "b"))
    with pytest.raises(FileNotFoundError, match="Install SAMMed3D again, or name a checkpoint") as caught:
        weights.default_checkpoint()
    assert str(tmp_path / "a") in str(caught.value)
    assert str(tmp_path / "b") in str(caught.value)
