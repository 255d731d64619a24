"""Large files from the web: resumed, verified, and whole or not there at all. No Qt, no torch; for any thread.

What has come lies in ``NAME.part`` beside the target, with the server's mark of its version in ``NAME.part.json``; only
a complete and verified file takes the target's name.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .. import __version__
from .download_errors import DownloadCancelled, DownloadError
from .http_stream import HttpStream
from .network_errors import BY_HAND, explain, may_pass
from .part_files import Progress, discard_part, file_sha256, notes_path, part_path

TIMEOUT_SECONDS = 30.0
#: Tries in a row that bring less than a hundredth of the file before giving up.
TRIES = 5
#: The same while nothing has come at all.
FIRST_TRIES = 2
#: Space that has to stay free on the disk.
SPARE_BYTES = 64 << 20
#: Taken for the size of a file whose server does not tell it.
_UNKNOWN_BYTES = 100 << 20


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
        progress: see :data:`.part_files.Progress`; an exception of it ends the download as a cancellation does.
        timeout: seconds without any answer that make a try fail.
        sleep: waits between tries.

    Returns:
        The SHA-256 of the file.

    Raises:
        DownloadError: it could not be fetched, or is not what was expected; the message names the cure.
        DownloadCancelled: ``progress`` returned False.
    """
    return _Download(url, path, sha256, size, progress or (lambda done, total: True), timeout, sleep).run()


class _Damaged(Exception):
    """The complete file is not the one expected."""


class _DiskFull(DownloadError):
    """A full disk hinders everyone: nothing of it is ours to keep."""


class _Download:
    """One call of :func:`download`."""

    def __init__(
        self, url: str, path: Path, sha256: str | None, size: int | None, progress: Progress, timeout: float,
        sleep: Callable[[float], None],
    ) -> None:
        self._url, self._path, self._sha256, self._size = url, path, sha256, size
        self._progress, self._timeout, self._sleep = progress, timeout, sleep
        self._part = part_path(path)
        self._notes = notes_path(path)
        self._done = 0
        self._total: int | None = size

    def run(self) -> str:
        with self._local_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
        failures, farthest, fresh = 0, 0, False
        while True:
            self._done = start = self._beginning()
            farthest, fresh = max(farthest, start), fresh or start == 0
            try:
                if start == 0 or start != self._total:
                    self._transfer(start)
                return self._finish()
            except _DiskFull:
                with suppress(OSError):
                    discard_part(self._path)
                raise
            except _Damaged as error:
                self._discard()
                if fresh:
                    raise DownloadError(f"{error} {BY_HAND}") from None
            except (OSError, http.client.HTTPException) as error:
                error = self._understood(error, start)
                enough = (self._total or _UNKNOWN_BYTES) // 100
                failures = 1 if self._done - farthest >= max(enough, 1) else failures + 1
                farthest = max(farthest, self._done)
                if failures >= (TRIES if farthest else FIRST_TRIES) or not may_pass(error, begun=farthest > 0):
                    raise DownloadError(explain(error, self._url)) from error
                self._wait(2.0 ** (failures - 1))

    def _understood(self, error: Exception, start: int) -> Exception:
        """The error, or a lost connection in its place when the server cannot go on where we are: then begin anew."""
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            if error.code == 416 and start:
                self._discard()
                return ConnectionError("the server has less of the file than has come")
        return error

    def _transfer(self, start: int) -> None:
        """One request, from the byte ``start`` on. Raises what HttpStream raises, ConnectionError for an early end."""
        with HttpStream(self._url, self._headers(start), self._timeout) as stream:
            pieces = stream.chunks()
            while next(pieces) is None:
                self._report()
            self._begin(stream, start)
            with self._opened_part() as file:
                for piece in pieces:
                    if piece:
                        self._write(file, piece)
                    self._report()
        if self._total is not None and self._done < self._total:
            raise ConnectionError(f"{self._done} of {self._total} bytes came")

    def _headers(self, start: int) -> dict[str, str]:
        headers = {"User-Agent": f"SAMMed3D/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            validator = self._noted().get("validator")
            if validator:
                headers["If-Range"] = str(validator)
        return headers

    def _begin(self, stream: HttpStream, start: int) -> None:
        """Looks at the answer's head: does it go on where we are, does it fit, is it a file at all?"""
        length = stream.headers.get("Content-Length", "")
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", stream.headers.get("Content-Range", "").strip())
        if stream.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise DownloadError("A web page came instead of the file: this network may ask for a login or show a "
                                f"notice first. Open any page in a web browser, then try again. {BY_HAND}")
        if stream.status == 206 and span is not None and int(span[1]) == start:
            total = int(span[2]) if span[2] != "*" else self._size
        elif stream.status == 206:
            self._discard()
            raise ConnectionError("the server sent another part than the one asked for")
        else:  # the whole file: the server does not resume, or has another version now
            self._done = start = 0
            total = int(length) if length.isdigit() else self._size
        if self._size is not None and total != self._size:
            self._discard()
            raise DownloadError(f"The server offers a file of {total} bytes, not the expected {self._size}: it was "
                                f"replaced. A newer version of SAMMed3D may know it. {BY_HAND}")
        self._total = total
        self._check_space((total or 0) - start)
        with self._local_errors():
            if start == 0:
                self._part.write_bytes(b"")
            self._note(stream)

    def _check_space(self, needed: int) -> None:
        with self._local_errors():
            free = shutil.disk_usage(self._path.parent).free
        if needed + SPARE_BYTES > free:
            raise DownloadError(
                f"Too little space in {self._path.parent}: {(needed + SPARE_BYTES) / 1e6:.0f} MB are needed, "
                f"{free / 1e6:.0f} MB are free. Remove something there, or choose another folder."
            )

    def _finish(self) -> str:
        """Verifies the complete part and gives it its name."""
        with self._local_errors():
            size, digest = self._part.stat().st_size, file_sha256(self._part, self._verifying)
            if self._sha256 is not None and digest != self._sha256.lower():
                raise _Damaged(f"The file that came ({size} bytes) is not the expected one: its SHA-256 is {digest}, "
                               f"not {self._sha256}. It was damaged on the way or replaced by its authors, and is "
                               "not kept. Try again later.")
            if self._size is not None and size != self._size:
                raise _Damaged(f"{size} bytes came instead of {self._size}; the file is not kept. Try again later.")
            self._part.replace(self._path)
            self._notes.unlink(missing_ok=True)
        return digest

    def _beginning(self) -> int:
        """Bytes of an earlier try that can be continued; what cannot is removed."""
        noted = self._noted()
        with self._local_errors():
            done = self._part.stat().st_size if self._part.is_file() else 0
            total = noted.get("total")
            known = noted.get("url") == self._url and bool(noted.get("validator") or self._sha256)
            if not done or not known or (isinstance(total, int) and done > total):
                discard_part(self._path)
                return 0
        self._total = total if isinstance(total, int) else self._size
        return done

    def _discard(self) -> None:
        with self._local_errors():
            discard_part(self._path)

    def _note(self, stream: HttpStream) -> None:
        tag = stream.headers.get("ETag", "")
        validator = stream.headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        notes = {"url": self._url, "validator": validator, "total": self._total}
        self._notes.write_text(json.dumps(notes), encoding="utf-8")

    def _noted(self) -> dict[str, object]:
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _verifying(self, done: int, total: int | None) -> bool:
        return self._progress(self._done, self._total)

    def _report(self) -> None:
        if not self._progress(self._done, self._total):
            raise DownloadCancelled("The download was cancelled; the next one goes on where it stopped.")

    @contextmanager
    def _opened_part(self) -> Iterator[BinaryIO]:
        with self._local_errors():
            file = self._part.open("ab")
        with file:
            yield file
            with self._local_errors():
                os.fsync(file.fileno())

    def _write(self, file: BinaryIO, piece: bytes) -> None:
        with self._local_errors():
            file.write(piece)
            file.flush()
        self._done += len(piece)

    def _wait(self, seconds: float) -> None:
        for _beat in range(round(seconds * 10)):
            self._report()
            self._sleep(0.1)

    @contextmanager
    def _local_errors(self) -> Iterator[None]:
        """Turns errors of the disk into DownloadError."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _DiskFull(f"The disk of {self._path.parent} is full; nothing was left there. Make room, then "
                                "try again.") from error
            raise DownloadError(f"{self._path} cannot be written: {error.strerror or error}. Close programs that use "
                                "it, or choose another folder.") from error
