"""Downloads large files: resumed, verified by SHA-256, and whole or not there at all. No Qt, no torch; for any thread.

What has come lies in ``NAME.part`` beside the target; only a complete and verified file takes the target's name.
Functions import the networking that they need: it takes a while, and listing models needs none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    import urllib.request

#: progress(bytes done, bytes in all or None): False cancels.
Progress = Callable[[int, "int | None"], bool]

#: Seconds without any answer after which a try has failed; a cancelled download ends after so long at the latest.
TIMEOUT_SECONDS = 10.0
#: Tries in a row that bring next to nothing before giving up; fewer while nothing has come at all.
TRIES, FIRST_TRIES = 5, 2
_WORTH_BYTES = 1 << 20
#: Space that has to stay free on the disk.
SPARE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 18
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_STATUS = {
    **dict.fromkeys(_BUSY, "is too busy now. Try again later."),
    **dict.fromkeys((401, 403, 451), "refuses to hand out the file."),
    **dict.fromkeys((404, 410), "no longer has the file. A newer version of SAMMed3D may know where it is."),
    407: "is behind a proxy that asks for a password. Put it into HTTPS_PROXY, and start again.",
}
_BY_HAND = "Or fetch the file with a web browser, and choose it as a checkpoint file."


class DownloadError(RuntimeError):
    """The file could not be fetched; the message names the cure. What has come so far is kept for the next try."""


class DownloadCancelled(RuntimeError):
    """The progress callback asked to stop; what has come so far is kept for the next try."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Fetches a file over HTTP or HTTPS; continues what an earlier call has begun.

    Args:
        url: where it is.
        path: where it goes; folders are made, an older file is replaced in the end.
        sha256: what the content must have. Only a file whose hash is known is continued, not begun anew.
        size: its exact size in bytes, where known.
        progress: see :data:`Progress`.
        timeout: seconds without any answer that make a try fail.
        sleep: waits between tries.

    Returns:
        The SHA-256 of the file.

    Raises:
        DownloadError: it could not be fetched, or is not what was expected; the message names the cure.
        DownloadCancelled: ``progress`` returned False.
    """
    from http.client import HTTPException

    report = progress or (lambda done, total: True)
    part = part_path(path)
    with _disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        failures, begun, mended = 0, False, False
        while True:
            start = _size(part) if sha256 else 0
            try:
                if start == 0 or start != size:
                    _transfer(url, part, start, size, report, timeout)
                digest = file_sha256(part, lambda: report(_size(part), size))
                wrong = _mismatch(digest, sha256, _size(part), size)
                if not wrong:
                    part.replace(path)
                    return digest
                discard_part(path)
                if start == 0 or mended:
                    raise DownloadError(f"{wrong} {_BY_HAND}")
                mended = True  # what was continued was another file, or damaged on the disk: once more from the start
            except (_NetworkError, HTTPException) as lost:
                error = lost.error if isinstance(lost, _NetworkError) else lost
                failures = 1 if _size(part) - start >= _WORTH_BYTES else failures + 1
                begun = begun or start > 0 or _size(part) > 0
                message, passing = diagnose(error, url, begun)
                if not passing or failures >= (TRIES if begun else FIRST_TRIES):
                    raise DownloadError(message) from error
                _go_on(report, _size(part), size)
                sleep(min(2.0 ** (failures - 1), 10.0))


def part_path(path: Path) -> Path:
    """Returns where the beginning of an unfinished download to ``path`` lies."""
    return path.with_name(f"{path.name}.part")


def discard_part(path: Path) -> None:
    """Removes the beginning of an unfinished download to ``path``, if there is one. Raises OSError."""
    part_path(path).unlink(missing_ok=True)


def file_sha256(path: Path, go_on: Callable[[], bool] = lambda: True) -> str:
    """Returns a file's SHA-256 in hexadecimal. Raises OSError, and DownloadCancelled when ``go_on`` returns False."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            if not go_on():
                raise DownloadCancelled("The check of the file was cancelled.")
    return digest.hexdigest()


class _NetworkError(Exception):
    """A try failed in the network, not on the disk; ``error`` is what urllib raised."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def _transfer(url: str, part: Path, start: int, size: int | None, report: Progress, timeout: float) -> None:
    """Sends one request and appends what comes from the byte ``start`` on. Raises _NetworkError."""
    import urllib.request
    from urllib.error import HTTPError

    headers = {"User-Agent": f"SAMMed3D/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = opener().open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except OSError as error:
        if start and isinstance(error, HTTPError) and error.code == 416:
            error.close()
            return  # there is no more than has come: its hash says whether that is the file
        raise _NetworkError(error) from error
    with response:
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise DownloadError(
                "A web page came instead of the file: this network may ask for a login or show a "
                f"notice first. Open any page in a web browser, then try again. {_BY_HAND}"
            )
        span = re.fullmatch(r"bytes (\d+)-\d+/\d+", response.headers.get("Content-Range", "").strip())
        if not (response.status == 206 and span and int(span[1]) == start):
            start = 0  # the whole file: the server does not resume, or not from where it was asked to
            if response.status == 206:
                part.unlink(missing_ok=True)
                raise _NetworkError(ConnectionError("the server sent another part than the one asked for"))
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else size
        if size is not None and total != size:
            raise DownloadError(
                f"The server offers a file of {total} bytes, not the expected {size}: it was "
                f"replaced. A newer version of SAMMed3D may know it. {_BY_HAND}"
            )
        needed, free = (total or 0) - start + SPARE_BYTES, shutil.disk_usage(part.parent).free
        if needed > free:
            raise DownloadError(
                f"Too little space in {part.parent}: {needed / 1e6:.0f} MB are needed, "
                f"{free / 1e6:.0f} MB are free. Remove something there, or choose another folder."
            )
        done = start
        with part.open("ab" if start else "wb") as file:
            while piece := _read(response):
                file.write(piece)
                file.flush()
                done += len(piece)
                _go_on(report, done, total)
            os.fsync(file.fileno())
        if total is not None and done < total:
            raise _NetworkError(ConnectionError(f"{done} of {total} bytes came"))


def _read(response: Any) -> bytes:
    """Returns what has come, b"" at the end; read(n) would wait for n bytes and lose them when the line drops."""
    try:
        return bytes(response.read1(_CHUNK_BYTES))
    except OSError as error:
        raise _NetworkError(error) from error


def _go_on(report: Progress, done: int, total: int | None) -> None:
    if not report(done, total):
        raise DownloadCancelled("The download was cancelled; the next one goes on where it stopped.")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _mismatch(digest: str, sha256: str | None, size: int, expected: int | None) -> str:
    """Returns what is wrong with a complete file, or nothing."""
    if sha256 is not None and digest != sha256.lower():
        return (
            f"The file that came ({size} bytes) is not the expected one: its SHA-256 is {digest}, not {sha256}. It "
            "was damaged on the way or replaced by its authors, and is not kept. Try again later."
        )
    if expected is not None and size != expected:
        return f"{size} bytes came instead of {expected}; the file is not kept. Try again later."
    return ""


@contextmanager
def _disk_errors_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a full disk hinders everyone: nothing is left there
            with suppress(OSError):
                discard_part(path)
            raise DownloadError(
                f"The disk of {path.parent} is full; nothing was left there. Make room, then try again."
            ) from error
        raise DownloadError(
            f"{path} cannot be written: {error.strerror or error}. Close programs that use it, or "
            "choose another folder."
        ) from error


def opener() -> urllib.request.OpenerDirector:
    """Returns what opens addresses, through the environment's proxies; no redirect leads from https to less."""
    from urllib import error, request

    class NoDowngrade(request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if not newurl.lower().startswith(("https:", f"{req.type}:")):
                raise error.HTTPError(req.full_url, code, "redirected to an unencrypted address", headers, fp)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return request.build_opener(NoDowngrade)


def diagnose(error: Any, url: str, begun: bool = False) -> tuple[str, bool]:
    """Says what went wrong in the network and what to do about it; and whether trying again soon makes sense.

    Args:
        error: what urllib or http.client raised.
        url: what was asked for.
        begun: whether something of the file has come before; then an unknown host or a refused connection is a
            disturbance of the network, else a fact to be told at once.
    """
    import socket
    import ssl
    from urllib.error import HTTPError
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    parts = urlsplit(url)
    host, address = parts.hostname or url, getproxies().get(parts.scheme, "")
    proxy = urlsplit(address if "//" in address else f"//{address}").netloc.rpartition("@")[2]  # without a password
    through = f" through the proxy {proxy}" if proxy else ""
    if isinstance(error, HTTPError):
        error.close()
        told = _STATUS.get(error.code, f"answered with an error ({error.reason}).")
        return f"{host} {told} HTTP {error.code}. {_BY_HAND}", error.code in (*_BUSY, 416)
    reason = error.reason if isinstance(getattr(error, "reason", None), Exception) else error  # what urllib wraps
    again = begun
    if isinstance(reason, ssl.SSLCertVerificationError):
        again = False
        what = (
            f"The identity of {host} could not be verified ({reason.verify_message}). Check the date of this "
            "computer; in a network that inspects traffic, ask its administrator to install the network's "
            "certificate (SSL_CERT_FILE)."
        )
    elif isinstance(reason, ssl.SSLError):
        what = (
            f"The encrypted connection to {host} failed ({getattr(reason, 'reason', '') or reason}). A "
            "proxy or firewall may be in the way: try another network."
        )
    elif "Tunnel connection failed" in str(reason):
        again = False
        what = (
            f"The proxy {proxy or 'of this network'} refused the connection to {host} ({reason}). Check its "
            "address and password in HTTPS_PROXY, or ask the administrator to allow it."
        )
    elif isinstance(reason, socket.gaierror) and proxy:
        what = f"The proxy {proxy} was not found: check HTTPS_PROXY."
    elif isinstance(reason, socket.gaierror):
        what = (
            f"{host} was not found. Is this computer online? If it is, a proxy may be needed: set "
            "HTTPS_PROXY and start again."
        )
    elif isinstance(reason, ConnectionRefusedError):
        cure = "Check the proxy in HTTPS_PROXY." if proxy else "Try again later."
        what = f"{proxy or host} refused the connection. {cure}"
    elif isinstance(reason, TimeoutError):
        what, again = f"{host} does not answer{through}: the transfer stalled. Try again later.", True
    elif getattr(reason, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        what, again = f"{host} cannot be reached: this computer seems to be offline.", True
    else:
        what = f"The connection to {host}{through} was lost ({reason}). Try again; it goes on where it stopped."
        again = True
    return f"{what} {_BY_HAND}", again
