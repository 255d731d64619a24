"""One HTTP request, read by a thread of its own, so that whoever waits for it can always stop waiting.

A blocked connection attempt or a stalled transfer cannot be interrupted in Python; here only the reading thread is
caught in it. It ends by itself when its timeout has passed.
"""

from __future__ import annotations

import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPMessage
from types import TracebackType
from typing import IO

CHUNK_BYTES = 256 << 10
#: Chunks that wait for their consumer; more would only fill the memory when the disk is slow.
_BACKLOG = 8
_BEAT_SECONDS = 0.1


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from an encrypted address to an open one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise urllib.error.HTTPError(req.full_url, code, "redirected to an unencrypted address", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(request: urllib.request.Request, timeout: float):  # noqa: ANN201 - http.client.HTTPResponse
    """Opens an http or https address, through the proxies of the environment; no other kind of address."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.UnknownHandler, urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler, urllib.request.HTTPDefaultErrorHandler, _NoDowngrade,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener.open(request, timeout=timeout)


class HttpStream:
    """The answer to one GET request. A context manager: leaving it abandons what was not read.

    Attributes:
        status: HTTP status, known after :meth:`opened`.
        headers: of the answer, likewise.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float) -> None:
        self._request = urllib.request.Request(url, headers=dict(headers))
        self._timeout = timeout
        self._items: queue.Queue[bytes | BaseException | None] = queue.Queue(_BACKLOG)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._read, name="SAMMed3D download", daemon=True)
        self.status = 0
        self.headers: Mapping[str, str] = {}

    def __enter__(self) -> HttpStream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()

    def chunks(self) -> Iterator[bytes | None]:
        """The content, piece by piece; None while there is nothing new, some ten times a second.

        Before the first piece comes one empty piece, when status and headers are known.

        Raises:
            OSError: what urllib raises (URLError, HTTPError, TimeoutError, ...), in the caller's thread.
            http.client.HTTPException: an answer that is no HTTP, or chunks cut short.
        """
        while True:
            try:
                item = self._items.get(timeout=_BEAT_SECONDS)
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _read(self) -> None:
        try:
            with open_url(self._request, self._timeout) as response:
                self.status, self.headers = response.status, response.headers
                self._put(b"")
                # read1 hands on what has come; read(n) would wait for n bytes, and lose them when the line drops.
                while not self._abandoned.is_set() and (chunk := response.read1(CHUNK_BYTES)):
                    self._put(chunk)
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the waiting thread has to hear of it
            self._put(error)

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._abandoned.is_set():
            try:
                self._items.put(item, timeout=_BEAT_SECONDS)
            except queue.Full:
                continue
            return
