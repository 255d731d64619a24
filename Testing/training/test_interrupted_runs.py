"""Killed runs and several processes: the same result as if nothing had happened. Real child processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from SAMMed3DLib.model import load_model
from SAMMed3DTrainingLib.runs.process_tree import processes
from SAMMed3DTrainingLib.runs.run_files import read_config
from SAMMed3DTrainingLib.train.run_folder import read_events

from .runs import ROOT, events, options, start, write_data

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


@pytest.mark.parametrize("name", ["vit_tiny", "nodule", "nodule_light"])
def test_two_processes_share_their_gradients(name, tmp_path):
    """One update of two processes is that of one with the doubled batch: some samples have boxes, one is on nothing."""
    path = os.pathsep.join(str(ROOT / part) for part in ("SAMMed3D", "SAMMed3DTraining"))
    script = str(ROOT / "Testing" / "training" / "gradient_parts.py")
    found = []
    for count in (1, 2):
        file = tmp_path / f"{count}.pth"
        finish(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "torch.distributed.run",
                    "--standalone",
                    "--nproc_per_node",
                    str(count),
                    script,
                    name,
                    str(file),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
            )
        )
        found.append(torch.load(file, weights_only=True))
    one, two = found
    assert one.norm() > 0 and (two - one).norm() < 1e-4 * one.norm()


def test_of_two_processes_one_speaks_and_saves(data, tmp_path):
    output = finish(
        start(options(tmp_path, data, "--num_epochs", "1", "--batch_size", "2", "--multi_gpu", "--gpu_ids", "0", "1"))
    )
    assert output.count("training run:") == 1
    written = read_config(tmp_path / "run")
    assert written["precision"] == "fp32" and written["matrix_library"] in ("torch", "onednn")
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups to signal")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_the_whole_group_ends_in_order(data, tmp_path, name):
    """As SLURM, timeout, terminals and the module's own Stop send it: to the processes that prepare samples too."""
    if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup, and a run keeps to that")
    process = start(options(tmp_path, data, "--num_epochs", "50", "--num_workers", "2"), group=True)
    deadline = time.monotonic() + TIMEOUT
    while len(events(tmp_path, "step")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len([each for each in processes() if each.parent == process.pid and each.group == process.pid]) >= 2
    os.killpg(process.pid, getattr(signal, name))
    finish(process)
    assert events(tmp_path, "end")[-1]["reason"] == "stopped"
    assert (tmp_path / "run" / "training_state.pth").exists()
    assert not [each for each in processes() if each.group == process.pid]


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
