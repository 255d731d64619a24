"""Downloads large files: resumed, verified, and whole or not there at all. No Qt, no torch; for any thread.

What has come lies in ``NAME.part`` beside the target, with the server's mark of its version in ``NAME.part.json``; only
a complete and verified file takes the target's name. Functions import the networking they need: it takes a while, and
listing models needs none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    import urllib.request

#: progress(bytes done, bytes in all or None): False cancels. Called at least some ten times a second.
Progress = Callable[[int, "int | None"], bool]

TIMEOUT_SECONDS = 30.0
#: Tries in a row that bring less than a hundredth of the file before giving up; the same while nothing has come at all.
TRIES, FIRST_TRIES = 5, 2
#: Space that has to stay free on the disk.
SPARE_BYTES = 64 << 20
#: Taken for the size of a file whose server does not tell it.
_UNKNOWN_BYTES = 100 << 20
_BLOCK_BYTES, _CHUNK_BYTES, _CHUNKS_WAITING = 1 << 20, 256 << 10, 8
_BEAT_SECONDS = 0.1
#: HTTP statuses that often pass by themselves, and what others mean.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_STATUS = {
    **dict.fromkeys(_PASSING, "is too busy now. Try again later."),
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
    url: str, path: Path, *, sha256: str | None = None, size: int | None = None, progress: Progress | None = None,
    timeout: float = TIMEOUT_SECONDS, sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Fetches a file over HTTP or HTTPS; continues what an earlier call has begun.

    Args:
        url: where it is.
        path: where it goes; folders are made, an older file is replaced in the end.
        sha256: what the content must have; without it the file is only checked for its size.
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
    return _Download(url, path, sha256, size, progress or (lambda done, total: True), timeout, sleep, _total=size).run()


def part_path(path: Path) -> Path:
    """Where the beginning of an unfinished download to ``path`` lies."""
    return path.with_name(f"{path.name}.part")


def discard_part(path: Path) -> None:
    """Removes the beginning of an unfinished download to ``path``, if there is one. Raises OSError."""
    part_path(path).unlink(missing_ok=True)
    _notes_path(path).unlink(missing_ok=True)


def file_sha256(path: Path, go_on: Callable[[], bool] = lambda: True) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError, and DownloadCancelled when ``go_on`` returns False."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            if not go_on():
                raise DownloadCancelled("The check of the file was cancelled.")
    return digest.hexdigest()


def _notes_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


class _Lost(Exception):
    """A try failed in the network; ``error`` is what urllib or http.client raised."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class _Damaged(Exception):
    """The complete file is not the one expected."""


@dataclass
class _Download:
    """One call of :func:`download`. An OSError in here is one of the disk: those of the network come as _Lost."""

    _url: str
    _path: Path
    _sha256: str | None
    _size: int | None
    _progress: Progress
    _timeout: float
    _sleep: Callable[[float], None]
    _done: int = 0
    _total: int | None = None

    def run(self) -> str:
        """Tries until the file is there or trying on makes no sense."""
        with _disk_errors_explained(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            failures, farthest, fresh = 0, 0, False
            while True:
                self._done = start = self._resumable()
                farthest, fresh = max(farthest, start), fresh or start == 0
                try:
                    if start == 0 or start != self._total:
                        self._transfer(start)
                    return self._finish()
                except _Damaged as damage:
                    discard_part(self._path)
                    if fresh:
                        raise DownloadError(f"{damage} {_BY_HAND}") from None
                except _Lost as lost:
                    enough = max((self._total or _UNKNOWN_BYTES) // 100, 1)
                    failures = 1 if self._done - farthest >= enough else failures + 1
                    farthest = max(farthest, self._done)
                    message, passing = diagnose(lost.error, self._url, begun=farthest > 0)
                    if failures >= (TRIES if farthest else FIRST_TRIES) or not passing:
                        raise DownloadError(message) from lost.error
                    for _beat in range(round(2.0 ** (failures - 1) / _BEAT_SECONDS)):
                        self._report()
                        self._sleep(_BEAT_SECONDS)

    def _resumable(self) -> int:
        """Bytes of an earlier try that can be continued; what cannot is removed."""
        noted, part = self._noted(), part_path(self._path)
        done, total = part.stat().st_size if part.is_file() else 0, noted.get("total")
        known = noted.get("url") == self._url and bool(noted.get("validator") or self._sha256)
        if not done or not known or (isinstance(total, int) and done > total):
            discard_part(self._path)
            return 0
        self._total = total if isinstance(total, int) else self._size
        return done

    def _transfer(self, start: int) -> None:
        """Sends one request, and appends what comes from the byte ``start`` on."""
        with closing(_answer(self._url, self._headers(start), self._timeout)) as answer:
            try:
                while (response := next(answer)) is None:
                    self._report()
            except _Lost as lost:
                if start and getattr(lost.error, "code", None) == 416:  # it has less than we have: begin anew
                    discard_part(self._path)
                    raise _Lost(ConnectionError("the server has less of the file than has come")) from lost
                raise
            self._begin(response.status, response.headers, start)
            with part_path(self._path).open("ab") as file:
                for piece in answer:
                    if piece is not None:
                        file.write(piece)
                        file.flush()
                        self._done += len(piece)
                    self._report()
                os.fsync(file.fileno())
        if self._total is not None and self._done < self._total:
            raise _Lost(ConnectionError(f"{self._done} of {self._total} bytes came"))

    def _headers(self, start: int) -> dict[str, str]:
        headers = {"User-Agent": f"SAMMed3D/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator := self._noted().get("validator"):
                headers["If-Range"] = str(validator)
        return headers

    def _begin(self, status: int, headers: Any, start: int) -> None:
        """Looks at the answer's head: does it go on where we are, does it fit, is it a file at all?"""
        length = headers.get("Content-Length", "")
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        if headers.get("Content-Type", "").lower().startswith("text/html"):
            raise DownloadError("A web page came instead of the file: this network may ask for a login or show a "
                                f"notice first. Open any page in a web browser, then try again. {_BY_HAND}")
        if status == 206 and span is not None and int(span[1]) == start:
            total = int(span[2]) if span[2] != "*" else self._size
        elif status == 206:
            discard_part(self._path)
            raise _Lost(ConnectionError("the server sent another part than the one asked for"))
        else:  # the whole file: the server does not resume, or has another version now
            self._done = start = 0
            total = int(length) if length.isdigit() else self._size
        if self._size is not None and total != self._size:
            discard_part(self._path)
            raise DownloadError(f"The server offers a file of {total} bytes, not the expected {self._size}: it was "
                                f"replaced. A newer version of SAMMed3D may know it. {_BY_HAND}")
        needed, free = (total or 0) - start + SPARE_BYTES, shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise DownloadError(f"Too little space in {self._path.parent}: {needed / 1e6:.0f} MB are needed, "
                                f"{free / 1e6:.0f} MB are free. Remove something there, or choose another folder.")
        self._total = total
        if start == 0:
            part_path(self._path).write_bytes(b"")
        tag = headers.get("ETag", "")
        validator = headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        notes = {"url": self._url, "validator": validator, "total": total}
        _notes_path(self._path).write_text(json.dumps(notes), encoding="utf-8")

    def _noted(self) -> dict[str, object]:
        try:
            notes = json.loads(_notes_path(self._path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _finish(self) -> str:
        """Verifies the complete part and gives it its name."""
        part = part_path(self._path)
        size, digest = part.stat().st_size, file_sha256(part, lambda: self._progress(self._done, self._total))
        if self._sha256 is not None and digest != self._sha256.lower():
            raise _Damaged(f"The file that came ({size} bytes) is not the expected one: its SHA-256 is {digest}, not "
                           f"{self._sha256}. It was damaged on the way or replaced by its authors, and is not kept. "
                           "Try again later.")
        if self._size is not None and size != self._size:
            raise _Damaged(f"{size} bytes came instead of {self._size}; the file is not kept. Try again later.")
        part.replace(self._path)
        _notes_path(self._path).unlink(missing_ok=True)
        return digest

    def _report(self) -> None:
        if not self._progress(self._done, self._total):
            raise DownloadCancelled("The download was cancelled; the next one goes on where it stopped.")


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
        raise DownloadError(f"{path} cannot be written: {error.strerror or error}. Close programs that use it, or "
                            "choose another folder.") from error


# -- the network ------------------------------------------------------------------------------------------------------


def _answer(url: str, headers: dict[str, str], timeout: float) -> Generator[Any, None, None]:
    """Yields the response to a GET request, then its content piece by piece; None where there is nothing new.

    A stalled connection cannot be interrupted in Python. So a thread of its own reads, and whoever waits for it can
    always stop waiting; the thread ends by itself when the timeout has passed. Raises _Lost.
    """
    import urllib.request

    request = urllib.request.Request(url, headers=headers)
    items: queue.Queue[Any] = queue.Queue(_CHUNKS_WAITING)
    abandoned, end = threading.Event(), object()

    def put(item: Any) -> None:
        while not abandoned.is_set():
            with suppress(queue.Full):
                items.put(item, timeout=_BEAT_SECONDS)
                return

    def read() -> None:
        try:
            with opener().open(request, timeout=timeout) as response:
                put(response)
                # read1 hands on what has come; read(n) would wait for n bytes, and lose them when the line drops.
                while not abandoned.is_set() and (chunk := response.read1(_CHUNK_BYTES)):
                    put(chunk)
            put(end)
        except Exception as error:  # whatever it is, the waiting thread has to hear of it
            put(_Lost(error))

    threading.Thread(target=read, name="SAMMed3D download", daemon=True).start()
    try:
        while True:
            item = None
            with suppress(queue.Empty):
                item = items.get(timeout=_BEAT_SECONDS)
            if item is end:
                return
            if isinstance(item, _Lost):
                raise item
            yield item
    finally:
        abandoned.set()


def opener() -> urllib.request.OpenerDirector:
    """Opens addresses through the proxies of the environment; no redirect leads to anything less safe than https."""
    from urllib import error, request

    class NoDowngrade(request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if not newurl.lower().startswith(("https:", f"{req.type}:")):
                raise error.HTTPError(req.full_url, code, "redirected to an unencrypted address", headers, fp)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return request.build_opener(NoDowngrade)


def diagnose(error: Any, url: str, begun: bool = False) -> tuple[str, bool]:
    """What went wrong in the network and what to do about it, for users; and whether trying again soon makes sense.

    Args:
        error: what urllib or http.client raised.
        url: what was asked for.
        begun: whether something of the file has come before; then an unknown host or a refused connection is a
            disturbance of the network, else a fact to be told at once.
    """
    import http.client
    import socket
    import ssl
    from urllib.error import HTTPError
    from urllib.parse import urlsplit

    host, proxy = urlsplit(url).hostname or url, _proxy(url)
    through = f" through the proxy {proxy}" if proxy else ""
    if isinstance(error, HTTPError):
        error.close()
        return f"{host} {_STATUS.get(error.code, f'answered with an error ({error.reason}).')} HTTP {error.code}. " \
               f"{_BY_HAND}", error.code in _PASSING
    reason = error.reason if isinstance(getattr(error, "reason", None), Exception) else error  # what urllib wraps
    number, again = getattr(reason, "errno", None), True
    if isinstance(reason, ssl.SSLCertVerificationError):
        what, again = (
            f"The identity of {host} could not be verified ({reason.verify_message}). Check the date of this computer; "
            "in a network that inspects traffic, ask its administrator to install the network's certificate "
            "(SSL_CERT_FILE)."), False
    elif isinstance(reason, ssl.SSLError):
        what, again = (f"The encrypted connection to {host} failed ({getattr(reason, 'reason', '') or reason}). A "
                       "proxy or firewall may be in the way: try another network."), begun
    elif "Tunnel connection failed" in str(reason):
        what, again = (f"The proxy {proxy or 'of this network'} refused the connection to {host} ({reason}). Check its "
                       "address and password in HTTPS_PROXY, or ask the administrator to allow it."), False
    elif isinstance(reason, socket.gaierror):
        what, again = (f"The proxy {proxy} was not found: check HTTPS_PROXY." if proxy else
                       f"{host} was not found. Is this computer online? If it is, a proxy may be needed: set "
                       "HTTPS_PROXY and start again."), begun
    elif isinstance(reason, ConnectionRefusedError):
        what, again = (f"{proxy or host} refused the connection. "
                       f"{'Check the proxy in HTTPS_PROXY.' if proxy else 'Try again later.'}"), begun
    elif isinstance(reason, TimeoutError) or number == errno.ETIMEDOUT:
        what = f"{host} does not answer{through}: the transfer stalled. Try again; it goes on where it stopped."
    elif isinstance(reason, (ConnectionError, http.client.HTTPException)):
        what = f"The connection to {host}{through} was lost again and again. Try again; it goes on where it stopped."
    elif number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        what = f"{host} cannot be reached: this computer seems to be offline."
    else:
        what, again = f"{host} could not be read{through} ({reason}).", isinstance(reason, OSError)
    return f"{what} {_BY_HAND}", again


def _proxy(url: str) -> str:
    """The host of the proxy that urllib takes for this address, without user name and password; "" for none."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    address = getproxies().get(parts.scheme, "")
    return "" if proxy_bypass(parts.hostname or "") else urlsplit(
        address if "//" in address else f"//{address}").netloc.rpartition("@")[2]
