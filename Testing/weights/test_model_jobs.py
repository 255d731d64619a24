"""The model panel's jobs on a real worker thread: downloads, files and the device line."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import pytest

from SAMMed3DLib.weights import store as store_module
from SAMMed3DLib.weights.catalog import CatalogModel, WeightsError
from SAMMed3DLib.weights.download import download
from SAMMed3DLib.weights.model_jobs import ModelJobs
from SAMMed3DLib.weights.store import WeightsStore
from SAMMed3DLib.weights.weights_engine import AddModelFile, FetchModel, ReportDevice

from .file_server import answer_status, stall_after


class Listener:
    """Keeps what the signals tell."""

    def __init__(self, jobs: ModelJobs) -> None:
        self.jobs = jobs
        self.busy: list[bool] = []
        self.progress: list[object] = []
        self.results: list[object] = []
        jobs.busyChanged.connect(self.busy.append)
        jobs.progressed.connect(self.progress.append)
        jobs.finished.connect(self.results.append)

    def wait(self, enough=lambda: False) -> None:  # noqa: ANN001
        """Polls until all is done, or ``enough()``."""
        for _attempt in range(6000):
            if not self.jobs.poll(0.01) or enough():
                return
        raise AssertionError("the jobs never ended")


@pytest.fixture
def jobs(server, content, tmp_path) -> Listener:
    def read(path: Path) -> str:
        if path.name == "bad.pth":
            raise WeightsError("bad.pth is no checkpoint")
        return "nodule"

    model = CatalogModel("turbo", "Turbo", server.url, "https://example.org", "Apache-2.0", len(content),
                         hashlib.sha256(content).hexdigest(), "")
    listener = Listener(ModelJobs(WeightsStore(tmp_path / "store", (model,), read)))
    yield listener
    listener.jobs.close()


def test_a_download_reports_progress_and_the_new_entry(jobs, content) -> None:
    jobs.jobs.download("turbo")
    assert jobs.jobs.busy
    jobs.wait()
    (result,) = jobs.results
    assert result.request == FetchModel("turbo")
    assert result.error is None and result.value.installed
    assert jobs.progress[-1].total == len(content)
    assert jobs.progress[-1].text == "Downloading Turbo: 0 of 0 MB"
    assert jobs.busy == [True, False]
    assert not jobs.jobs.busy


def test_a_failed_download_has_words_for_users(jobs, server) -> None:
    server.answers = [answer_status(404)]
    jobs.jobs.download("turbo")
    jobs.jobs.download("no such model")
    jobs.wait()
    assert "no longer has the file" in jobs.results[0].error
    assert "There is no model" in jobs.results[1].error


def test_a_stalled_download_is_cancelled_and_can_go_on(jobs, server, content, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "download", functools.partial(download, timeout=1.0))
    server.answers = [stall_after(100_000)]
    jobs.jobs.download("turbo")
    jobs.wait(lambda: bool(jobs.progress) and jobs.progress[-1].done == 100_000)
    jobs.jobs.cancel()
    jobs.wait()
    assert jobs.results[-1].cancelled
    jobs.jobs.download("turbo")
    jobs.wait()
    assert jobs.results[-1].value.installed
    assert server.ranges[:2] == [None, "bytes=100000-"]


def test_short_jobs_are_answered_while_a_download_runs(jobs, server, tmp_path) -> None:
    server.answers = [stall_after(100_000)]
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    good.write_bytes(b"")
    bad.write_bytes(b"")
    jobs.jobs.download("turbo")
    jobs.wait(lambda: bool(jobs.progress))
    jobs.jobs.addFile(str(good))
    jobs.jobs.addFile(str(bad))
    jobs.jobs.reportDevice("cpu", "fp32")
    jobs.wait(lambda: len(jobs.results) == 3)
    first, second, third = jobs.results
    assert first.request == AddModelFile(str(good)) and first.value.name == "good"
    assert second.error == "bad.pth is no checkpoint"
    assert third.request == ReportDevice("cpu", "fp32") and third.value.device == "cpu"
    server.stalled.set()
    jobs.wait()
    assert jobs.results[-1].value.installed
