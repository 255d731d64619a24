"""``sammed3d segment-all FOLDER|LIST.csv --out DIR``: all nodules of many scans.

Each scan gets a folder with its segmentation, its findings and, last of all, a record of what they were made from. A
scan whose record fits (same files, same options, same weights) is not done again, so that a run that was killed goes on
where it was. The table of all is made from the records' rows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__
from ..files.made_record import MadeRecord, weights_of
from ..inference.errors import InputError
from ..inference.nodule_table import rounded, table_text
from .segment_all import COLUMNS, NOTE, Search, find_nodules, nodule_row
from .task_queue import ONE_AT_A_TIME, TimeLeft, WorkerDied, Workers, duration, use_threads, work_through
from .terminal import Terminal, our_warnings_told

if TYPE_CHECKING:
    from ..files.scan_search import FoundScan
    from ..files.volume_io import Volume
    from ..inference import SamPredictor3D
    from ..report.findings import Findings
    from ..report.measuring import Segment

SEGMENTATION, FINDINGS, RECORD = "segmentation.seg.nrrd", "findings.json", "record.json"
TABLE, LOG = "nodules.csv", "log.txt"
_ABOUT = ("scan", "path", "outcome", "reason")
_REPORTED = ("type", "side", "distance_to_pleura_mm", "tracking_uid")
#: The table of all is written anew this often while scans come in.
_TABLE_SECONDS = 30.0

Outcome = Literal["done", "failed", "left out"]


@dataclass(frozen=True)
class ScanTask:
    """One scan that a worker does.

    Attributes:
        scan: its name is that of its folder, its paths are absolute.
        folder: of the results.
        search: what is looked for.
        model: checkpoint, network, profile, device and precision, as :func:`.segmenting.load_predictor` takes them.
        made_by: what decides the results beside the files: options, weights, version.
        threads: for the network; None leaves it.
    """

    scan: FoundScan
    folder: Path
    search: Search
    model: tuple[str | None, str | None, str | None, str, str]
    made_by: dict[str, Any]
    threads: int | None = None


@dataclass(frozen=True)
class ScanRow:
    """The result of one scan, with its nodules.

    Attributes:
        outcome: "left out" is a file that is no CT, such as a label map.
        reason: why it failed or was left out; "" else.
        nodules: rows of the table.
        notes: what users should know of it.
        before: whether an earlier run has done it.
        seconds: that it took now.
        details: of an error of ours, for the log.
    """

    outcome: Outcome
    reason: str = ""
    nodules: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    before: bool = False
    seconds: float = 0.0
    details: str = ""


def process_scan(task: ScanTask) -> ScanRow:
    """Segments one scan and writes its results, unless an earlier run did; a worker process calls nothing else.

    Raises:
        InputError, CheckpointError, DeviceError: the model cannot be loaded; no scan could be done.
    """
    with ONE_AT_A_TIME:
        begun = time.perf_counter()
        notes: list[str] = []
        with our_warnings_told(notes.append):
            try:
                record = _record(task)
                row = record.known(_row_before) or _segmented(task, record, notes)
            except _ModelError as error:
                raise error.cause from error
            except Exception as error:  # one scan of thousands: the others go on
                row = _failed(task, error)
    seconds = 0.0 if row.before else time.perf_counter() - begun
    return dataclasses.replace(row, notes=(*row.notes, *notes), seconds=seconds)


def _row_before(content: Mapping[str, Any]) -> ScanRow:
    return ScanRow("done", nodules=tuple(content["nodules"]), notes=tuple(content["notes"]), before=True)


class _ModelError(Exception):
    """The model cannot be loaded."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@functools.lru_cache(maxsize=1)
def _predictor(*model: Any) -> SamPredictor3D:
    """The model, loaded once a process."""
    from . import segmenting

    try:
        return segmenting.load_predictor(*model)
    except Exception as error:
        raise _ModelError(error) from error


def _segmented(task: ScanTask, record: MadeRecord, notes: list[str]) -> ScanRow:
    from ..files.volume_io import read_volume
    from ..report.measuring import Segment, measure_scan
    from ..report.scan_facts import check_modality, scan_of

    scan = task.scan
    volume = read_volume(scan.path, scan.files if scan.is_series else ())
    check_modality(scan_of(volume.array_kji, volume.ijk_to_ras, scan.name, volume.header_file))
    use_threads(task.threads)
    found = find_nodules(_predictor(*task.model), volume, task.search)
    segments = [Segment(n, f"nodule {n}", each["prediction"]) for n, each in enumerate(found.records, start=1)]
    facts = scan_of(volume.array_kji, volume.ijk_to_ras, scan.name, volume.header_file, found.lungs, list(notes))
    findings = measure_scan(
        facts, volume.array_kji, volume.ijk_to_ras, segments, found.lungs, f"found by SAMMed3D {__version__}"
    )
    reported = {each.label: each for each in findings.nodules}
    rows = []
    for number, each in enumerate(found.records, start=1):
        values, nodule = nodule_row(number, each), reported.get(number)
        if nodule is not None:
            place = nodule.place
            values |= {"type": nodule.type, "side": place.side, "tracking_uid": nodule.tracking_uid}
            values["distance_to_pleura_mm"] = place.distance_to_pleura_mm
        rows.append(rounded(values))
    told = (found.message,) if found.message else ()
    row = ScanRow("done", nodules=tuple(rows), notes=(*told, *notes))
    notes.clear()
    _write(task, volume, segments, findings)
    record.write({"notes": row.notes, "nodules": row.nodules})
    return row


def _write(task: ScanTask, volume: Volume, segments: Sequence[Segment], findings: Findings) -> None:
    """Puts the results into their place; what an older run made there is taken away first, its record before all."""
    from ..files.output_files import temporary_folder
    from ..files.segmentation_io import write_segmentation
    from ..inference.geometry import label_map
    from ..report.findings import write_findings

    folder = task.folder
    try:
        folder.mkdir(exist_ok=True)
        with temporary_folder(folder.parent) as made:
            uids = {each.label: each.tracking_uid for each in findings.nodules}
            names = {each.label: each.name for each in segments}
            labels = label_map({each.label: each.block for each in segments}, volume.array_kji.shape)
            write_segmentation(made / SEGMENTATION, labels, volume.ijk_to_ras, names, uids)
            write_findings(made / FINDINGS, findings)
            for name in (RECORD, SEGMENTATION, FINDINGS):
                (folder / name).unlink(missing_ok=True)
            for name in (SEGMENTATION, FINDINGS):
                (made / name).replace(folder / name)
    except OSError as error:
        raise InputError(f"{folder} could not be written: {error.strerror or error}") from error


def _failed(task: ScanTask, error: Exception) -> ScanRow:
    from ..files.image_file import LabelVolume

    if isinstance(error, LabelVolume):
        return ScanRow("left out", str(error))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ScanRow("failed", "out of memory: take fewer --workers, or crop the volume to the lungs")
    if isinstance(error, InputError):
        return ScanRow("failed", str(error))
    if isinstance(error, OSError):
        return ScanRow("failed", f"{error.filename or task.scan.path}: {error.strerror or error}")
    return ScanRow("failed", f"{type(error).__name__}: {error}", details=traceback.format_exc())


def _record(task: ScanTask) -> MadeRecord:
    folder, scan = task.folder, task.scan
    base = scan.path if scan.is_series else scan.path.parent
    return MadeRecord(folder / RECORD, task.made_by, scan.files, base, (folder / SEGMENTATION, folder / FINDINGS))


# -- the run ----------------------------------------------------------------------------------------------------------


def run_cohort(options: argparse.Namespace, search: Search, workers: Workers, terminal: Terminal) -> int:
    """Runs the search on all scans of a folder or a list.

    Returns:
        the exit code: 0 done, 2 scans that failed (the others' results are written).

    Raises:
        InputError: there is nothing to do, the results cannot be written, another run writes there, no cluster.
    """
    from ..files.image_file import given_path
    from ..files.output_files import LockHeld, check_folder, file_lock
    from ..files.scan_search import find_scans

    out: Path = options.out
    workers.check()
    if options.table is not None:
        raise InputError(f"--table is for a single CT: the table of many CTs is {out / TABLE}")
    # workers may have another current folder
    checkpoint = None if options.checkpoint is None else str(given_path(options.checkpoint).absolute())
    model = (checkpoint, options.model, options.profile, options.device, options.precision)
    made_by = {
        "version": __version__,
        "search": dataclasses.asdict(search),
        "model": model[1:],
        "weights": weights_of(checkpoint),
    }
    check_folder(out if out.exists() else out.parent)
    with terminal.step(f"looking for scans in {options.ct}"):
        scans, left_out = find_scans(options.ct, out, lambda files: terminal.part(f"{files} files"))
    try:
        out.mkdir(exist_ok=True)
        with file_lock(out / ".lock"), _Log(out / LOG) as log:
            log.line(f"sammed3d {__version__}: {len(scans)} scans of {options.ct}; {json.dumps(made_by)}")
            for line in left_out:
                terminal.note(f"left out: {line}")
                log.line(f"left out: {line}")
            tasks = [
                ScanTask(scan.absolute(), (out / scan.name).absolute(), search, model, made_by, workers.threads)
                for scan in scans
            ]
            rows = _all_rows(tasks, workers, out, terminal, log)
    except LockHeld as error:
        raise InputError(f"another run writes into {out}: wait for it, or choose another --out") from error
    except OSError as error:
        raise InputError(f"{error.filename or out} cannot be written: {error.strerror or error}") from error
    return _told(tasks, rows, options.json, out, terminal)


def _all_rows(tasks: Sequence[ScanTask], workers: Workers, out: Path, terminal: Terminal, log: _Log) -> list[ScanRow]:
    """Runs the tasks and returns their results; the table is rewritten meanwhile, and also when an error ends this."""
    rows: list[ScanRow | None] = [None] * len(tasks)
    left, written = TimeLeft(len(tasks)), time.monotonic()
    try:
        with contextlib.closing(work_through(process_scan, tasks, workers)) as results:
            for number, row in results:
                if isinstance(row, WorkerDied):
                    row = ScanRow("failed", str(row))
                rows[number] = row
                name, text = tasks[number].scan.name, _in_words(row)
                terminal.note(left.line(name, text, worked=not row.before))
                log.line(f"{left.done}/{len(tasks)} {name}: {text}")
                for note in (*row.notes, *row.details.splitlines()):
                    log.line(f"  {name}: {note}")
                if time.monotonic() - written > _TABLE_SECONDS:
                    _write_table(out, tasks, rows)
                    written = time.monotonic()
    finally:
        _predictor.cache_clear()
        _write_table(out, tasks, rows)
    return [row for row in rows if row is not None]


def _in_words(row: ScanRow) -> str:
    if row.outcome != "done":
        return f"{row.outcome.upper()}, {row.reason}"
    count = len(row.nodules)
    text = f"{count} nodule{'s' * (count != 1)}"
    return f"{text}, done before" if row.before else f"{text} in {duration(row.seconds)}"


def _write_table(out: Path, tasks: Sequence[ScanTask], rows: Sequence[ScanRow | None]) -> None:
    """One row a nodule, and one for each scan that has none, failed, or was not reached."""
    from ..files.output_files import write_text_whole

    lines = []
    for task, row in zip(tasks, rows, strict=True):
        outcome, reason = ("not reached", "") if row is None else (row.outcome, row.reason)
        about = {"scan": task.scan.name, "path": task.scan.path, "outcome": outcome, "reason": " ".join(reason.split())}
        lines += [about | nodule for nodule in (row.nodules if row is not None and row.nodules else ({},))]
    write_text_whole(out / TABLE, table_text(lines, (*_ABOUT, *COLUMNS, *_REPORTED)))


def _told(tasks: Sequence[ScanTask], rows: Sequence[ScanRow], as_json: bool, out: Path, terminal: Terminal) -> int:
    """Prints a summary of all scans, as text or JSON; returns the exit code."""
    counts = Counter(row.outcome for row in rows)
    nodules = sum(len(row.nodules) for row in rows)
    if as_json:
        content = {
            "out": str(out),
            "note": NOTE,
            "scans": [
                {
                    "scan": task.scan.name,
                    "path": str(task.scan.path),
                    "outcome": row.outcome,
                    "reason": row.reason,
                    "before": row.before,
                    "seconds": round(row.seconds, 3),
                    "nodules": row.nodules,
                }
                for task, row in zip(tasks, rows, strict=True)
            ],
        }
        sys.stdout.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
    else:
        parts = [f"{_counted(nodules, 'nodule')} in {_counted(counts['done'], 'scan')}"]
        parts += [f"{counts[word]} {word}" for word in ("failed", "left out") if counts[word]]
        sys.stdout.write(f"{', '.join(parts)}: {out / TABLE}\n")
        terminal.note(NOTE)
    if counts["failed"]:
        terminal.note(
            f"sammed3d: error: {counts['failed']} of {_counted(len(rows), 'scan')} failed, see {out / TABLE}; start "
            "again to try them once more"
        )
        return 2
    return 0


def _counted(number: int, noun: str) -> str:
    """A number with its noun: "1 scan", "2 scans"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class _Log:
    """Lines with the time, added to what is there; each is written at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Log:
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def line(self, text: str) -> None:
        """Adds a line."""
        self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())
