"""Downloads against a server that drops, stalls, lies, forgets and is sometimes not there at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections import namedtuple
from pathlib import Path

import pytest

from SAMMed3DLib.weights import download as download_module
from SAMMed3DLib.weights.download import (
    DownloadCancelled,
    DownloadError,
    diagnose,
    discard_part,
    download,
    file_sha256,
    opener,
    part_path,
)

from .file_server import FileServer, answer_status, drop_after, stall_after


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "mit blank é" / "model.pth"


@pytest.fixture
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetch(server: FileServer, target: Path, **options) -> str:  # noqa: ANN003
    return download(server.url, target, timeout=options.pop("timeout", 10.0), sleep=lambda seconds: None, **options)


def left_behind(target: Path) -> list[str]:
    return sorted(file.name for file in target.parent.iterdir() if file != target)


def stop_at(count: int):  # noqa: ANN201
    """A progress callback that cancels once so many bytes have come."""
    return lambda done, total: done < count


def test_a_file_comes_whole_with_progress(server, target, content, sha256) -> None:
    seen: list[tuple[int, int | None]] = []
    assert (
        fetch(
            server, target, sha256=sha256.upper(), size=len(content), progress=lambda *state: seen.append(state) or True
        )
        == sha256
    )
    assert target.read_bytes() == content
    assert left_behind(target) == []
    counts = [done for done, total in seen]
    assert counts == sorted(counts)
    assert seen[-1] == (len(content), len(content))
    assert server.ranges == [None]


def test_an_older_file_is_replaced_only_by_a_verified_one(server, target, content, sha256) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(server, target, sha256="0" * 64)
    assert target.read_bytes() == b"old"
    assert left_behind(target) == []
    fetch(server, target, sha256=sha256)
    assert target.read_bytes() == content


def test_a_dropped_line_is_taken_up_where_it_broke(server, target, content, sha256) -> None:
    server.answers = [drop_after(100_000), drop_after(60_000), drop_after(60_000)]
    assert fetch(server, target, sha256=sha256) == sha256
    assert server.ranges == [None, "bytes=100000-", "bytes=160000-", "bytes=220000-"]


def test_a_line_that_always_drops_ends_in_a_message_and_goes_on_later(server, target, content, sha256) -> None:
    server.answers = [drop_after(100_000)] + [drop_after(10)] * 8
    with pytest.raises(DownloadError, match="goes on where it stopped"):
        fetch(server, target, sha256=sha256)
    assert len(server.ranges) == download_module.TRIES, "tries in a row that bring next to nothing"
    kept = part_path(target).stat().st_size
    server.answers, server.ranges = [], []
    assert fetch(server, target, sha256=sha256) == sha256
    assert server.ranges == [f"bytes={kept}-"]


def test_cancelling_keeps_what_came(server, target, content, sha256) -> None:
    server.answers = [drop_after(200_000)]
    with pytest.raises(DownloadCancelled):
        fetch(server, target, sha256=sha256, progress=stop_at(200_000))
    assert not target.exists()
    assert fetch(server, target, sha256=sha256) == sha256
    assert server.ranges == [None, "bytes=200000-"]


def test_a_killed_download_is_taken_up_where_it_was(server, target, content, sha256) -> None:
    server.answers = [stall_after(120_000)]
    code = (
        "import sys\nfrom pathlib import Path\nfrom SAMMed3DLib.weights.download import download\n"
        "download(sys.argv[1], Path(sys.argv[2]), progress=lambda done, total: print(done, flush=True) or True)"
    )
    source = Path(download_module.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, server.url, str(target)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source)},
    ) as child:
        assert any(line.strip() == "120000" for line in child.stdout)
        child.kill()
    assert not target.exists()
    assert fetch(server, target, sha256=sha256) == sha256
    assert server.ranges == [None, "bytes=120000-"]


def test_a_stalled_transfer_can_be_cancelled_and_goes_on(server, target, content, sha256) -> None:
    server.answers = [stall_after(50_000), stall_after(10_000)]
    seen: list[int] = []

    def give_up(done: int, total: int | None) -> bool:
        seen.append(done)
        return seen.count(50_000) < 2

    with pytest.raises(DownloadCancelled):
        fetch(server, target, sha256=sha256, timeout=2.0, progress=give_up)
    assert server.ranges == [None], "cancelled as soon as the try had failed"
    assert fetch(server, target, sha256=sha256, timeout=2.0) == sha256
    assert server.ranges == [None, "bytes=50000-", "bytes=60000-"]


def test_without_a_known_hash_nothing_is_continued(server, target, content) -> None:
    server.answers = [drop_after(100_000)]
    fetch(server, target)
    assert server.ranges == [None, None]
    assert target.read_bytes() == content


def test_a_server_without_ranges_starts_again(server, target, content, sha256) -> None:
    server.answers = [drop_after(100_000), lambda request: request.serve(ranges=False) or True]
    assert fetch(server, target, sha256=sha256) == sha256
    assert target.read_bytes() == content


def test_a_changed_file_starts_again(server, target, content) -> None:
    with pytest.raises(DownloadCancelled):
        fetch(server, target, sha256="0" * 64, progress=stop_at(1))
    server.content = content[::-1]
    changed = hashlib.sha256(server.content).hexdigest()
    assert fetch(server, target, sha256=changed) == changed
    assert len(server.ranges) == 3 and server.ranges[1:] == [server.ranges[1], None] and server.ranges[1] is not None


def test_the_wrong_part_is_not_glued_on(server, target, content, sha256) -> None:
    def shifted(request) -> bool:  # noqa: ANN001
        request.headers.replace_header("Range", "bytes=7-")
        request.serve()
        return True

    server.answers = [drop_after(100_000), shifted]
    assert fetch(server, target, sha256=sha256) == sha256
    assert server.ranges == [None, "bytes=100000-", None]


def test_a_part_damaged_on_the_disk_is_fetched_again(server, target, content, sha256) -> None:
    with pytest.raises(DownloadCancelled):
        fetch(server, target, sha256=sha256, progress=stop_at(1))
    damaged = bytearray(part_path(target).read_bytes())
    damaged[0] ^= 1
    part_path(target).write_bytes(damaged)
    assert fetch(server, target, sha256=sha256) == sha256
    assert target.read_bytes() == content


def test_a_complete_part_is_only_verified(server, target, content, sha256) -> None:
    target.parent.mkdir()
    part_path(target).write_bytes(content)
    assert fetch(server, target, sha256=sha256, size=len(content)) == sha256
    assert server.ranges == []


def test_a_complete_part_of_unknown_size_is_only_verified(server, target, content, sha256) -> None:
    """The line dropped after the last byte, or the check was cancelled: all of it was fetched anew."""
    target.parent.mkdir()
    part_path(target).write_bytes(content)
    assert fetch(server, target, sha256=sha256) == sha256
    assert server.ranges == [f"bytes={len(content)}-"] and target.read_bytes() == content


def test_a_shrunken_file_on_the_server_starts_again(server, target, content) -> None:
    server.answers = [drop_after(250_000)]
    short = hashlib.sha256(content[:1000]).hexdigest()
    with pytest.raises(DownloadCancelled):
        fetch(server, target, sha256=short, progress=stop_at(250_000))
    server.content = content[:1000]
    assert fetch(server, target, sha256=short) == short
    assert server.ranges == [None, "bytes=250000-", None]


def test_lies_about_the_length(server, target, content, sha256) -> None:
    server.answers = [lambda request: request.serve(length=len(content) + 5) or True] * 20
    with pytest.raises(DownloadError, match="lost"):
        fetch(server, target)
    assert len(server.ranges) <= 2 * download_module.TRIES
    discard_part(target)
    server.answers = [lambda request: request.serve(length=len(content) - 5) or True]
    with pytest.raises(DownloadError, match=f"file of {len(content) - 5} bytes, not the expected {len(content)}"):
        fetch(server, target, size=len(content))
    server.answers = [lambda request: request.serve(length=len(content) - 5) or True]
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(server, target, sha256=sha256)
    assert not target.exists()
    assert left_behind(target) == []


def test_without_a_length_the_known_size_is_checked_in_the_end(server, target, content) -> None:
    def open_end(request) -> bool:  # noqa: ANN001
        request.send_response(200)
        request.end_headers()
        request.wfile.write(content[:-1])
        return True

    server.answers = [open_end] * 20
    with pytest.raises(DownloadError, match="lost"):
        fetch(server, target, size=len(content))
    server.answers = [open_end]
    fetch(server, target)
    assert target.read_bytes() == content[:-1], "nothing is known of it but that the line was closed in order"


@pytest.mark.parametrize(
    ("code", "message"),
    [(404, "no longer has the file"), (403, "refuses"), (407, "HTTPS_PROXY"), (418, "HTTP 418"), (503, "too busy")],
)
def test_refusals_are_explained(server, target, code, message) -> None:
    server.answers = [answer_status(code)] * 8
    with pytest.raises(DownloadError, match=message) as caught:
        fetch(server, target)
    assert "web browser" in str(caught.value)
    assert len(server.ranges) == (2 if code == 503 else 1), "only what may pass is tried again"


def test_a_busy_server_is_tried_again(server, target, content, sha256) -> None:
    server.answers = [answer_status(503)]
    assert fetch(server, target, sha256=sha256) == sha256


def test_a_login_page_is_no_model(server, target) -> None:
    server.answers = [answer_status(200, b"<html>please log in", "text/html; charset=utf-8")]
    with pytest.raises(DownloadError, match="A web page came"):
        fetch(server, target)
    assert not target.exists()


def test_redirects_are_followed_but_never_to_another_kind_of_address(server, target, content) -> None:
    def elsewhere(url: str):  # noqa: ANN202
        def answer(request) -> bool:  # noqa: ANN001
            request.send_response(302)
            request.send_header("Location", url)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return True

        return answer

    server.answers = [elsewhere(server.url)]
    fetch(server, target)
    assert target.read_bytes() == content
    server.answers = [elsewhere("file:///etc/hostname")] * 3
    with pytest.raises(DownloadError):
        fetch(server, target)
    secure = urllib.request.Request("https://a.example/x")
    (redirects,) = [each for each in opener().handlers if isinstance(each, urllib.request.HTTPRedirectHandler)]
    for worse in ("http://a.example/x", "ftp://a.example/x", "file:///x"):
        with pytest.raises(urllib.error.HTTPError, match="unencrypted"):
            redirects.redirect_request(secure, None, 302, "", None, worse)
    assert (
        redirects.redirect_request(secure, None, 302, "", {}, "https://b.example/x").full_url == "https://b.example/x"
    )


def test_space_is_checked_before_the_transfer(server, target, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 5, 200_000))
    with pytest.raises(DownloadError, match="Too little space"):
        fetch(server, target)
    assert left_behind(target) == []


def test_a_disk_that_fills_up_is_left_as_it_was(server, target, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download_module.os, "fsync", full)
    with pytest.raises(DownloadError, match="is full"):
        fetch(server, target)
    assert left_behind(target) == []


def test_a_place_that_cannot_be_written_is_named(server, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(server, tmp_path / "file" / "model.pth")
    assert server.ranges == []


def test_nobody_there(target) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    with pytest.raises(DownloadError, match="refused the connection"):
        download(url, target, sleep=lambda seconds: None)


def test_tls_proxy_and_offline_errors_are_explained(monkeypatch) -> None:
    url = "https://models.example/x"
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    certificate = ssl.SSLCertVerificationError(1, "x")
    certificate.verify_message = "self-signed certificate"
    offline = urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))
    tunnel = urllib.error.URLError(OSError("Tunnel connection failed: 407 Proxy Authentication Required"))
    assert "self-signed certificate" in diagnose(urllib.error.URLError(certificate), url)[0]
    assert "models.example was not found" in diagnose(offline, url)[0]
    assert "cannot be reached" in diagnose(OSError(errno.ENETUNREACH, "x"), url)[0]
    assert "stalled" in diagnose(TimeoutError("timed out"), url)[0]
    assert "encrypted connection" in diagnose(urllib.error.URLError(ssl.SSLError(1, "WRONG_VERSION")), url)[0]
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example:3128")
    explained = [diagnose(error, url)[0] for error in (offline, tunnel, TimeoutError("timed out"))]
    assert all("proxy.example:3128" in text for text in explained)
    assert not any("secret" in text for text in explained)
    assert not diagnose(urllib.error.URLError(certificate), url, begun=True)[1]
    assert not diagnose(tunnel, url, begun=True)[1]
    assert not diagnose(offline, url, begun=False)[1]
    assert diagnose(offline, url, begun=True)[1]


def test_hashing_a_file_can_be_cancelled(tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    assert file_sha256(file) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DownloadCancelled):
        file_sha256(file, lambda: False)
