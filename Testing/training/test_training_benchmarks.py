"""The benchmarks of training compare what they say, and miss a target when it is missed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from SAMMed3DLib.model.profile import PROFILES

from .dataset_files import balls, write_case

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def script(name: str, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("resample", [False, True])
def test_the_plain_loop_crops_around_a_nodule(tmp_path, monkeypatch, resample):
    plain = script("plain_training", monkeypatch)
    write_case(tmp_path, "P0", balls((8, 12, 12), (16, 28, 28), radius_mm=3.0, values=(1, 2)))
    image, label = tmp_path / "imagesTr" / "P0_0000.nii.gz", tmp_path / "labelsTr" / "P0.nii.gz"
    cases = plain.PlainCases((image,), (label,), PROFILES["nodule"], resample)
    for number in range(4):
        sample = cases[number]
        assert sample.crop.shape == (3, 64, 64, 64) and sample.truth.shape == (64, 64, 64)
        assert sample.truth[tuple(sample.click.astype(int))]
        middle = np.argwhere(sample.truth).mean(axis=0)
        assert np.abs(middle - 31.5).max() < 2
        # The nodule is bright in the lung's window and dark around.
        assert sample.crop[0][sample.truth].mean() > 0.5 > sample.crop[0][~sample.truth].mean()


def test_a_missed_speed_or_a_long_wait_is_told(monkeypatch, capsys):
    speed = script("training_speed", monkeypatch)

    def measured(quick: float, full: float, waiting: float):
        return {
            "plain": speed.Measured([1.0, 1.0]),
            "plain, resampling each time": speed.Measured([3.0]),
            "frozen": speed.Measured([quick], 10.0, 10.0 * waiting),
            "full": speed.Measured([full], 10.0, 0.1),
        }

    assert speed.report(measured(0.1, 0.4, 0.01), [1e-3])
    for missed in (measured(0.25, 0.4, 0.01), measured(0.1, 0.6, 0.01), measured(0.1, 0.4, 0.2)):
        capsys.readouterr()
        assert not speed.report(missed, [1e-3])
        assert capsys.readouterr().out.count("MISSED") == 1
