"""Failures are told by kind, however deep their cause lies; and the last event of a run carries it."""

from __future__ import annotations

import errno

import pytest
import torch

from SAMMed3DTrainingLib.data.datasets import DatasetError
from SAMMed3DTrainingLib.job import kind_of
from SAMMed3DTrainingLib.train import training_run
from SAMMed3DTrainingLib.train.training_config import TrainingError

from .runs import config, events, write_data


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (caused(TrainingError("cannot be written"), OSError(errno.ENOSPC, "full")), "disk_full"),
        (RuntimeError("PytorchStreamWriter failed writing file data.pkl: file write failed"), "disk_full"),
        (caused(TrainingError("x"), caused(DatasetError("no disk"), OSError(errno.ENOSPC, "full"))), "disk_full"),
        (caused(TrainingError("x"), DatasetError("torn")), "bad_data"),
        (DatasetError("torn"), "bad_data"),
        (OSError(errno.EACCES, "no"), "other"),
        (TrainingError("the loss is not finite"), "other"),
    ],
)
def test_kinds(error, kind):
    assert kind_of(error) == kind


def test_a_circle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert kind_of(first) == "other"


@pytest.mark.parametrize(
    ("error", "code", "kind", "word"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 2, "out_of_memory", "batch_size"),
        (MemoryError(), 2, "out_of_memory", "batch_size"),
        (ZeroDivisionError("by zero"), 1, "other", "ZeroDivisionError"),
        (caused(TrainingError("full"), OSError(errno.ENOSPC, "full")), 2, "disk_full", "full"),
    ],
)
def test_the_last_event_says_what_kind(tmp_path, monkeypatch, error, code, kind, word):
    def fail(*unused):
        raise error

    monkeypatch.setattr(training_run, "_run", fail)
    assert training_run.run_training(config(tmp_path, tmp_path)) == code
    last = events(tmp_path)[-1]
    assert (last["event"], last["reason"], last["kind"]) == ("end", "failed", kind) and word in last["message"]


def test_a_dry_run_leaves_no_run_behind(tmp_path, capsys):
    data = write_data(tmp_path / "set", cases=2)
    assert training_run.run_training(config(tmp_path / "work", data, "--dry_run", "--json")) == 0
    assert '"event": "estimate"' in capsys.readouterr().out.splitlines()[-1]
    assert not (tmp_path / "work" / "run").exists()
