"""The model panel's requests on a real worker thread: downloads, files and the device line."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import pytest

from SAMMed3DLib.torch_setup.device import report_device
from SAMMed3DLib.weights import store as store_module
from SAMMed3DLib.weights.catalog import CatalogModel, WeightsError
from SAMMed3DLib.weights.download import download
from SAMMed3DLib.weights.store import WeightsStore
from SAMMed3DLib.worker.requests import FunctionRequest, model_download
from SAMMed3DLib.worker.thread import Client

from .file_server import answer_status, stall_after


class Asking:
    """Asks as the panel does; keeps what it hears."""

    def __init__(self, store: WeightsStore) -> None:
        self.client, self.store = Client(), store
        self.progress: list[object] = []
        self.results: list[object] = []
        self.client.progressed.connect(self.progress.append)

    def download(self, name: str) -> None:
        self.client.submit(model_download(self.store, name), self.results.append)

    def ask(self, function) -> None:  # noqa: ANN001
        self.client.submit(FunctionRequest(lambda report: function()), self.results.append)

    def wait(self, enough=lambda: False) -> None:  # noqa: ANN001
        """Polls until all is done, or ``enough()``."""
        for _attempt in range(6000):
            if not self.client.poll(0.01) or enough():
                return
        raise AssertionError("the requests never ended")


@pytest.fixture
def asking(server, content, tmp_path) -> Asking:
    def read(path: Path) -> str:
        if path.name == "bad.pth":
            raise WeightsError("bad.pth is no checkpoint")
        return "nodule"

    model = CatalogModel(
        "turbo",
        "Turbo",
        server.url,
        "https://example.org",
        "Apache-2.0",
        len(content),
        hashlib.sha256(content).hexdigest(),
        "",
    )
    asking = Asking(WeightsStore(tmp_path / "store", (model,), read))
    yield asking
    asking.client.close(0.2)


def test_a_download_reports_progress_and_the_new_entry(asking, content) -> None:
    asking.download("turbo")
    assert asking.client.isBusy
    asking.wait()
    (result,) = asking.results
    assert result.error is None and result.value.installed and result.value.name == "turbo"
    assert asking.progress[-1].total == len(content)
    assert asking.progress[-1].text == "Downloading Turbo: 0 of 0 MB"
    assert not asking.client.isBusy


def test_a_failed_download_has_words_for_users(asking, server) -> None:
    server.answers = [answer_status(404)]
    asking.download("turbo")
    asking.download("no such model")
    asking.wait()
    assert "no longer has the file" in asking.results[0].error
    assert "There is no model" in asking.results[1].error


def test_a_stalled_download_is_cancelled_and_can_go_on(asking, server, content, monkeypatch) -> None:
    server.answers = [stall_after(100_000)]
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "download", functools.partial(download, timeout=5.0))
        asking.download("turbo")
        asking.wait(lambda: bool(asking.progress) and asking.progress[-1].done == 100_000)
        asking.client.cancel()
        asking.wait()
    assert asking.results[-1].cancelled
    asking.download("turbo")
    asking.wait()
    assert asking.results[-1].value.installed
    assert server.ranges[:2] == [None, "bytes=100000-"]


def test_short_requests_are_answered_while_a_download_runs(asking, server, tmp_path) -> None:
    server.answers = [stall_after(100_000)]
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    good.write_bytes(b"")
    bad.write_bytes(b"")
    asking.download("turbo")
    asking.wait(lambda: bool(asking.progress))
    asking.ask(lambda: asking.store.add_file(good))
    asking.ask(lambda: asking.store.add_file(bad))
    asking.ask(lambda: report_device("cpu", "fp32"))
    asking.wait(lambda: len(asking.results) == 3)
    first, second, third = asking.results
    assert first.value.name == "good"
    assert second.error == "bad.pth is no checkpoint"
    assert third.value.device == "cpu"
    server.stalled.set()
    asking.wait()
    assert asking.results[-1].value.installed
