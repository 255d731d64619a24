"""Tiny but real training runs as child processes, followed as the panel follows them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time

import pytest
import torch

from SAMMed3DLib.model import build_model, load_model, save_checkpoint
from SAMMed3DTrainingLib.runs.child_process import Interpreter
from SAMMed3DTrainingLib.runs.job_process import start_estimate, start_job
from SAMMed3DTrainingLib.runs.process_tree import processes
from SAMMed3DTrainingLib.runs.run_files import RunError, lock_is_held, read_config
from SAMMed3DTrainingLib.runs.run_history import RunHistory
from SAMMed3DTrainingLib.runs.run_monitor import RunMonitor
from SAMMed3DTrainingLib.runs.run_request import TrainingRequest, running_in, start_training

from .runs import write_data

TIMEOUT = 300
MORE = (
    "--samples_per_nodule=1",
    "--replay=0",
    "--empty_share=0.3",
    "--num_workers=0",
    "--val_clicks=1",
    "--precision=fp32",
    "--save_minutes=0",
)


@pytest.fixture(scope="module")
def python(monkeypatch_module):
    monkeypatch_module.setenv("OMP_NUM_THREADS", "1")
    return Interpreter(sys.executable)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    """A small ViT, some hundred steps."""
    folder = tmp_path_factory.mktemp("Läufe mit Leerzeichen")
    torch.manual_seed(3)
    save_checkpoint(build_model("vit_tiny"), folder / "start.pth")
    data = write_data(folder / "Fälle 1", cases=3)
    return TrainingRequest(
        folder / "runs", "Süd 1", (data,), folder / "start.pth", "full", 40, 2, device="cpu", more=MORE
    )


def follow(monitor, condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition(monitor.poll()):
        if monitor.status.is_over or time.monotonic() > deadline:
            pytest.fail(f"{monitor.status.state}: {monitor.status.message}\n" + "\n".join(monitor.status.log))
        time.sleep(0.01)
    return monitor.status


def over(monitor):
    deadline = time.monotonic() + TIMEOUT
    while not monitor.poll().is_over:
        assert time.monotonic() < deadline, "\n".join(monitor.status.log)
        time.sleep(0.01)
    return monitor.status


def test_started_paused_found_again_killed_continued_stopped_compared(request_, python):
    process = start_training(request_, python)
    monitor = RunMonitor(request_.folder, process)
    states = set()
    follow(monitor, lambda status: states.add(status.state) or status.step >= 2)
    assert "starting" in states and monitor.status.state == "running"

    monitor.pause()
    paused = follow(monitor, lambda status: status.state == "paused")
    time.sleep(0.3)
    assert monitor.poll().step == paused.step

    # Slicer is closed and opened again: the run goes on by itself, and is found.
    found = RunMonitor(request_.folder)
    assert found.poll().state == "paused" and found.status.step == paused.step
    assert running_in(request_.work_dir) == ["Süd 1"]
    with pytest.raises(RunError, match="under way"):
        start_training(TrainingRequest(request_.work_dir, "other", request_.data), python)
    found.resume()
    follow(found, lambda status: status.state == "running" and status.step > paused.step)

    os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    killed, same = over(monitor), over(found)
    assert (killed.state, same.state) == ("killed", "killed") and killed.resumable and "outside" in killed.message
    assert not lock_is_held(request_.folder)

    again = TrainingRequest.of_run(request_.folder)
    process = start_training(again, python)
    monitor = RunMonitor(again.folder, process)
    status = follow(monitor, lambda status: status.state == "running" and status.started > killed.started)
    assert status.curves.steps == list(range(1, status.step + 1))  # what was done again is there once
    monitor.stop()
    stopped = over(monitor)
    assert (stopped.state, stopped.kind) == ("stopped", "") and stopped.resumable and stopped.weights.is_file()
    (record,) = RunHistory(request_.work_dir).runs()
    assert (record.state, record.resumable, record.weights) == ("stopped", True, stopped.weights)
    assert read_config(request_.folder)["data"] == [str(path) for path in request_.data]

    job = start_job(
        python,
        "compare",
        ["--run", str(request_.folder), "--device", "cpu", "--clicks", "1"],
        request_.work_dir.parent / "job",
    )
    result = over(job)
    assert result.state == "done", result.message
    content = json.loads((request_.folder / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    assert (
        content["nodules"]
        == result.result["nodules"]
        == [{key: value for key, value in item.items() if key != "event"} for item in result.items]
    )
    assert content["old"]["checkpoint"] == str(request_.checkpoint) and len(content["nodules"]) == 2
    load_model(stopped.weights)


def test_a_lost_data_set_does_not_end_a_run_and_kill_ends_the_sample_processes_too(request_, python, tmp_path):
    data = tmp_path / "set"
    shutil.copytree(request_.data[0], data)
    more = (*(word for word in MORE if not word.startswith("--num_workers")), "--num_workers=2")
    request = TrainingRequest(
        request_.work_dir, "workers", (data,), request_.checkpoint, "full", 40, 2, device="cpu", more=more
    )
    process = start_training(request, python)
    monitor = RunMonitor(request.folder, process)
    step = follow(monitor, lambda status: status.step >= 1).step
    shutil.rmtree(data)
    follow(monitor, lambda status: status.step >= step + 3)
    tree = {each.pid for each in processes() if each.parent == process.pid}
    assert tree
    monitor.kill()
    assert over(monitor).state == "stopped"
    assert not tree & {each.pid for each in processes()}


def test_the_estimate_of_a_run(request_, python, tmp_path):
    request = TrainingRequest(
        request_.work_dir, "estimated", request_.data, request_.checkpoint, "quick", 3, 2, device="cpu", more=MORE
    )
    status = over(start_estimate(request, python, tmp_path / "estimate.log"))
    assert status.state == "done", status.message
    result = status.result
    assert result["epochs"] == 3 and result["steps"] == 3 * -(-result["samples"] // 2)
    assert (result["nodules"], result["cases"]) == (4, 2) and result["time_s"] > 0 and result["disk_mb"] > 100
    assert result["memory_mb"] > 0 or sys.platform == "win32"
    assert not request.folder.exists()  # nothing is left in the folder of runs


def test_data_that_cannot_be_used(request_, python, tmp_path):
    (tmp_path / "empty" / "imagesTr").mkdir(parents=True)
    (tmp_path / "empty" / "labelsTr").mkdir()
    (tmp_path / "empty" / "imagesTr" / "P1_0000.nii.gz").write_bytes(b"torn")
    (tmp_path / "empty" / "labelsTr" / "P1.nii.gz").write_bytes(b"torn")
    request = TrainingRequest(tmp_path / "runs", "bad", (tmp_path / "empty",), request_.checkpoint, device="cpu")
    monitor = RunMonitor(request.folder, start_training(request, python))
    status = over(monitor)
    assert (status.state, status.kind) == ("failed", "bad_data") and "P1" in status.message
    assert not status.resumable and status.suggestion is None
