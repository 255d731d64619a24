"""A local file server, and no proxy between it and the tests."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from .file_server import FileServer


@pytest.fixture
def content() -> bytes:
    return random.Random(0).randbytes(300_000)


@pytest.fixture
def server(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FileServer(content) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.stalled.set()
        running.shutdown()
        thread.join()
