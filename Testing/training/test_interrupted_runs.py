"""Killed runs and several processes: the same result as if nothing had happened. Real child processes."""

from __future__ import annotations

import random
import signal
import sys
import time

import pytest
import torch

from SAMMed3DLib.model import load_model
from SAMMed3DTrainingLib.train.run_folder import read_events

from .runs import events, options, start, write_data

TIMEOUT = 300


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "Fälle mit Leerzeichen")


def finish(process) -> str:
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    return output


def weights(work):
    return load_model(work / "run" / "sam_model_latest.pth").state_dict()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(data, tmp_path):
    whole = start(options(tmp_path / "whole", data, "--save_minutes", "0"))
    finish(whole)
    killed_after = random.SystemRandom().randint(1, 8)
    process = start(options(tmp_path / "killed", data, "--save_minutes", "0"))
    deadline = time.monotonic() + TIMEOUT
    while len(events(tmp_path / "killed", "step")) < killed_after and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finish(start(options(tmp_path / "killed", data, "--save_minutes", "0", "--resume")))

    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(expected[name], found[name]) for name in expected), f"killed after step {killed_after}"
    curves = [
        [(e["step"], e["loss"]) for e in read_events(tmp_path / work / "run") if e["event"] == "step"]
        for work in ("whole", "killed")
    ]
    assert curves[0] == curves[1]


def test_two_processes_share_their_gradients(data, tmp_path):
    """Same data, and the same result as one process with the doubled batch."""
    common = ("--num_epochs", "1", "--ema", "0", "--seed", "7")
    finish(start(options(tmp_path / "one", data, *common, "--batch_size", "4")))
    output = finish(
        start(options(tmp_path / "two", data, *common, "--batch_size", "2", "--multi_gpu", "--gpu_ids", "0", "1"))
    )
    assert output.count("training run:") == 1  # one of them speaks
    # Where both started.
    torch.manual_seed(7)
    from SAMMed3DLib.model import build_model

    begun = build_model("vit_tiny").state_dict()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    moved = sum(float((one[n] - begun[n]).square().sum()) for n in one) ** 0.5
    apart = sum(float((one[n] - two[n]).square().sum()) for n in one) ** 0.5
    assert moved > 0.1 and apart < 0.05 * moved


def test_a_polite_kill_saves_first(data, tmp_path):
    process = start(options(tmp_path, data, "--num_epochs", "50", "--json"))
    deadline = time.monotonic() + TIMEOUT
    while len(events(tmp_path, "step")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=TIMEOUT)
    if sys.platform != "win32":
        assert process.returncode == 0, output
        assert events(tmp_path, "end")[0]["reason"] == "stopped"
        assert (tmp_path / "run" / "training_state.pth").exists()
    assert '"event": "step"' in output
