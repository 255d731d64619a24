"""``sammed3d weights``: the models on this computer, from a terminal. Needs no PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ..weights import CLASSIFIER, resource_path
from ..weights.catalog import APACHE_2, ModelEntry, WeightsError
from ..weights.download import DownloadCancelled, DownloadError
from ..weights.store import WeightsStore
from .terminal import Terminal

ERRORS = (WeightsError, DownloadError, DownloadCancelled)
"""What a command can end with; the message is for users."""


def add_weights_command(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Adds ``weights`` and its own commands. ``options.lines(options, terminal)`` yields what is to be printed."""
    weights = commands.add_parser("weights", help="list, download and remove models", allow_abbrev=False)
    actions = weights.add_subparsers(metavar="ACTION", required=True)
    for name, about, lines in (
        ("list", "what there is, what it may be used for and what it takes", _list),
        ("download", "fetch a model; goes on where an earlier download stopped", _download),
        ("remove", "delete a download or a fine-tuned model, forget a chosen file", _remove),
        ("path", "where a model lies, for --checkpoint; without NAME the folder of all", _path),
    ):
        action = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        if name != "list":
            action.add_argument(
                "name", metavar="NAME", nargs="?" if name == "path" else None, help="a name of 'sammed3d weights list'"
            )
        action.add_argument(
            "--folder",
            type=Path,
            metavar="FOLDER",
            help="where the models are kept (default: the place for application data)",
        )
        action.set_defaults(lines=lines)
    return weights


def _list(options: argparse.Namespace, terminal: Terminal) -> Iterator[str]:
    store = WeightsStore(options.folder)
    entries = store.entries()
    width = max(len(entry.name) for entry in entries)
    entries.append(store.detector())
    for entry in entries:
        yield f"{entry.name:{width}}  {_state(entry):13}  {entry.size_bytes / 1e6:6.1f} MB  {entry.license}"
        yield f"{'':{width}}  {entry.path if entry.installed else entry.source}"
        yield f"{'':{width}}  {entry.note}"
    yield from _others(store, {entry.path for entry in entries if entry.path is not None}, width)
    yield f"{store.disk_use() / 1e6:.1f} MB in {store.folder}"


def _others(store: WeightsStore, known: set[Path], width: int) -> Iterator[str]:
    """The files that come with the package beside the bundled model, and what else lies in the store's folder."""
    with suppress(FileNotFoundError):
        path = resource_path(CLASSIFIER)
        yield f"{'classifier':{width}}  {'installed':13}  {path.stat().st_size / 1e6:6.1f} MB  {APACHE_2}"
        yield f"{'':{width}}  {path}"
        yield f"{'':{width}}  Judges places and objects of 'Segment all nodules'; no model to choose."
    files = sorted(path for path in store.folder.rglob("*") if path.is_file()) if store.folder.is_dir() else []
    for path in (path for path in files if path not in known):
        yield f"{'-':{width}}  {'other file':13}  {path.stat().st_size / 1e6:6.1f} MB  {path}"


def _state(entry: ModelEntry) -> str:
    return "installed" if entry.installed else "begun" if entry.path is None and entry.removable else "not installed"


def _download(options: argparse.Namespace, terminal: Terminal) -> Iterator[str]:
    store = WeightsStore(options.folder)
    entry = store.entry(options.name)
    if not entry.installed:
        with terminal.step(f"downloading {entry.title}, {entry.license}, from {entry.source} (MB)"):
            entry = store.download(options.name, _in_steps(terminal.count))
    yield str(entry.path)


def _remove(options: argparse.Namespace, terminal: Terminal) -> Iterator[str]:
    store = WeightsStore(options.folder)
    before = store.disk_use()
    store.remove(options.name)
    yield f"{options.name} removed, {(before - store.disk_use()) / 1e6:.1f} MB freed"


def _path(options: argparse.Namespace, terminal: Terminal) -> Iterator[str]:
    store = WeightsStore(options.folder)
    yield str(store.checkpoint(options.name) if options.name else store.folder)


def _in_steps(count: Callable[[int, int], None]) -> Callable[[int, int | None], bool]:
    """A progress callback that tells megabytes, at every tenth of the file."""
    told = -1

    def progress(done: int, total: int | None) -> bool:
        nonlocal told
        if total and done * 10 // total > told:
            told = done * 10 // total
            count(round(done / 1e6), round(total / 1e6))
        return True

    return progress
