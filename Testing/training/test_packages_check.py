"""What is missing is named, and installing it replaces nothing."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from SAMMed3DTrainingLib.runs.packages_check import PACKAGES, check_packages, write_constraints
from SAMMed3DTrainingLib.runs.run_files import RunError


def without(*names: str):
    return lambda name: None if name in names else object()


def test_here_everything_is_installed():
    state = check_packages()
    assert state.ready and state.requirements == [] and not state.needs_torch


def test_a_fresh_slicer():
    state = check_packages(without("torch", "nibabel", "matplotlib"))
    assert not state.ready and state.needs_torch
    assert [each.name for each in state.missing] == ["torch", "nibabel"]
    assert state.requirements == ["nibabel>=5.1", "matplotlib>=3.8"]  # PyTorch is left to its own extension
    assert "nibabel" in state.text and "nothing that is installed is replaced" in state.text


def test_plots_are_no_need():
    assert check_packages(without("matplotlib")).ready


def test_a_package_that_is_half_there_is_missing():
    def find(name):
        if name == "torch":
            raise ValueError("torch.__spec__ is None")
        return object()

    assert [each.name for each in check_packages(find).missing] == ["torch"]


def test_the_bounds_are_those_of_the_project():
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"\ndependencies = \[(.*?)\n\]", text, re.S).group(1)
    assert set(re.findall(r'^    "([^"]+)"', listed, re.M)) == {each.requirement for each in PACKAGES}


def test_every_installed_package_is_pinned(tmp_path):
    lines = write_constraints(tmp_path / "constraints.txt")
    assert f"numpy=={metadata.version('numpy')}" in lines
    assert (tmp_path / "constraints.txt").read_text(encoding="utf-8").splitlines() == lines
    names = [line.partition("==")[0].lower().replace("_", "-") for line in lines]
    assert len(names) == len(set(names)) > 10
    with pytest.raises(RunError):
        write_constraints(tmp_path / "nowhere" / "constraints.txt")
