"""What the command lines say: progress and notes on standard error, so that standard output holds results only."""

from __future__ import annotations

import math
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def our_warnings_told(tell: Callable[[str], object]) -> Iterator[None]:
    """Passes each warning of our packages to ``tell`` once; those of other packages are not shown.

    ``python -m`` runs a module of ours under the name ``__main__``. What was told of a file by its name is not told
    again of its voxels without one.
    """
    told: list[str] = []

    def show(message, category, filename, lineno, file=None, line=None) -> None:  # noqa: ANN001
        text = str(message)
        if not any(known.endswith(text) for known in told):
            told.append(text)
            tell(text)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"(SAMMed3D(Training)?Lib\b|__main__$)")
        warnings.showwarning = show
        yield


class Ended(KeyboardInterrupt):
    """A signal asked the process to end; what was begun is cleaned up as after Ctrl+C.

    Attributes:
        code: the exit code that tells of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.code = 128 + signal_number


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise :class:`Ended` within the block; only the main thread receives them.

    A signal that is ignored (``nohup``) stays ignored.
    """

    def end(number: int, frame: object) -> None:
        raise Ended(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [
        number for number in (getattr(signal, name) for name in names) if signal.getsignal(number) == signal.SIG_DFL
    ]
    try:
        for number in numbers:
            signal.signal(number, end)
    except ValueError:  # not the main thread
        numbers = []
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class Stopwatch:
    """Seconds that a step took; 0 until it has ended."""

    seconds: float = 0.0


class Terminal:
    """Tells what is being done, step by step: ``Reading the CT ... 0.8 s``."""

    def __init__(self) -> None:
        self._line_open = False

    @contextmanager
    def step(self, text: str) -> Iterator[Stopwatch]:
        """Announces a step and, at its end, how long it took."""
        self._write(f"{text} ... ", open_line=True)
        stopwatch, start = Stopwatch(), time.perf_counter()
        try:
            yield stopwatch
        except BaseException:
            self._close_line()
            raise
        stopwatch.seconds = time.perf_counter() - start
        self._write(f"{stopwatch.seconds:.1f} s\n", open_line=False)

    def count(self, done: int, total: int) -> None:
        """Progress within a step, where there is more than one thing to do."""
        if total > 1:
            self._write(f"{done}/{total} ", open_line=True)

    def part(self, text: str) -> None:
        """Writes a word on the progress of the current step."""
        self._write(f"{text} ", open_line=True)

    def note(self, text: str) -> None:
        """Writes a line of its own."""
        self._close_line()
        self._write(f"{text}\n", open_line=False)

    @contextmanager
    def warnings_as_notes(self) -> Iterator[None]:
        """Shows the warnings of our packages as notes, without the place in the code."""
        with our_warnings_told(lambda text: self.note(f"note: {text}")):
            yield

    def _close_line(self) -> None:
        if self._line_open:
            self._write("\n", open_line=False)

    def _write(self, text: str, open_line: bool) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
        self._line_open = open_line


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first to the left and the others to the right, a rule below the head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in ruled
    )


def few(names: Sequence[object], most: int = 3) -> str:
    """The first names of a list, and dots where there are more."""
    return ", ".join(map(str, names[:most])) + ", ..." * (len(names) > most)


def duration(
    seconds: float | None, unknown: str = "?", words: tuple[str, str, str] = ("{n} s", "{n} min", "{h} h {m} min")
) -> str:
    """Says seconds as people do: "45 s", "12 min", "3 h 20 min".

    Args:
        seconds: None, NaN and infinity are told as ``unknown``.
        unknown: what is said where nobody knows.
        words: for seconds, minutes and hours, in the language of the reader.
    """
    if seconds is None or not math.isfinite(seconds):
        return unknown
    minutes = round(seconds / 60)
    if minutes < 2:
        return words[0].format(n=max(round(seconds), 0))
    return words[1].format(n=minutes) if minutes < 100 else words[2].format(h=minutes // 60, m=f"{minutes % 60:02}")
