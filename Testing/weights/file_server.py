"""A local HTTP server that hands out one file, well or badly."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: What a test may change of the answers: handler(request) -> True when it has answered.
Answer = Callable[["Request"], bool]


class Request(BaseHTTPRequestHandler):
    """Serves ``server.content`` with ranges and ETag, unless the first of ``server.answers`` does it."""

    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        self.close_connection = True
        self.server.ranges.append(self.headers.get("Range"))
        with self.server.lock:
            answer = self.server.answers.pop(0) if self.server.answers else None
        if answer is None or not answer(self):
            self.serve()

    def serve(self, *, ranges: bool = True, length: int | None = None, send: int | None = None) -> None:
        """Answers as a good server does, but for what is asked otherwise.

        Args:
            ranges: whether Range is obeyed.
            length: the Content-Length told, where it is a lie.
            send: how many bytes of the body are sent before the line drops.
        """
        content, start = self.server.content, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if ranges and asked and self.headers.get("If-Range") in (None, self.server.etag):
            start = int(asked[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(content) - start if length is None else length))
        self.end_headers()
        self.wfile.write(content[start:][:send])

    def status(self, code: int, body: bytes = b"", kind: str = "text/plain") -> None:
        """Answers with a status and a short text."""
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class FileServer(ThreadingHTTPServer):
    """Attributes: content, etag, answers (one a request, then good ones), ranges (the Range header of each request)."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.content, self.etag = content, '"version 1"'
        self.answers: list[Answer | None] = []
        self.ranges: list[str | None] = []
        self.lock = threading.Lock()
        self.stalled = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/model.pth"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of these tests."""


def drop_after(count: int) -> Answer:
    """Sends so many bytes of the body, then drops the line."""
    return lambda request: request.serve(send=count) or True


def stall_after(count: int) -> Answer:
    """Sends so many bytes of the body, then nothing more until ``server.stalled`` is set."""

    def answer(request: Request) -> bool:
        request.serve(send=count)
        request.wfile.flush()
        request.server.stalled.wait(60.0)
        return True

    return answer


def answer_status(code: int, body: bytes = b"", kind: str = "text/plain") -> Answer:
    """Answers with a status."""
    return lambda request: request.status(code, body, kind) or True
