"""Evaluates the chosen cases: from a command line to a folder of results, or one clear message why not."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from SAMMed3DLib.commandline.terminal import Terminal, ending_cleanly, our_warnings_told
from SAMMed3DLib.files.image_file import given_path
from SAMMed3DLib.files.output_files import check_folder
from SAMMed3DLib.files.segmentation_io import write_segmentation
from SAMMed3DLib.inference import InputError
from SAMMed3DLib.model import CheckpointError, DeviceError

from ..data.datasets import (
    DEFAULT_PATIENT_PATTERN,
    Case,
    Dataset,
    DatasetError,
    LoadedCase,
    ask,
    find_datasets,
    load_finite_case,
)
from ..data.instances import Nodule
from ..data.splits import FILE_NAME, read_split, split_cases, unused_folds
from ..runs.progress import duration
from .evaluated_models import Evaluated, load_evaluated
from .evaluation_config import CLASSICS, EvaluationConfig, EvaluationError
from .evaluation_plots import draw_dice, draw_volumes, draw_worst
from .evaluation_report import Evaluation, text_report, write_csv, write_json, write_text
from .nodule_scores import NoduleScore, score_nodule, summarize
from .sam2d import PeerError

_WRONG_INPUT = (EvaluationError, DatasetError, InputError, CheckpointError, DeviceError, PeerError)


def run_evaluation(config: EvaluationConfig, prog: str = "test.py") -> int:
    """Evaluates as configured: tables on standard output, everything in ``config.vis_path``.

    Returns:
        the exit code: 0 done; 2 input that cannot be used, of all or of some cases (the others' results are written);
        130 interrupted.
    """
    terminal = Terminal()
    try:
        with ending_cleanly(), terminal.warnings_as_notes():
            evaluation = evaluate(config, terminal)
        sys.stdout.write(text_report(evaluation) + f"\n\nresults: {Path(config.vis_path).resolve()}\n")
        if evaluation.skipped:
            terminal.note(f"{prog}: error: cases that could not be used: {len(evaluation.skipped)}, see LEFT OUT")
            return 2
        return 0
    except _WRONG_INPUT as error:
        terminal.note(f"{prog}: error: {error}")
    except torch.OutOfMemoryError:
        terminal.note(f"{prog}: error: the GPU's memory is exhausted: try --precision auto, or --device cpu")
    except MemoryError:
        terminal.note(f"{prog}: error: out of memory: close other programs, or crop the scans to the lungs")
    except KeyboardInterrupt as error:
        terminal.note(f"{prog}: interrupted: there is no report")
        return getattr(error, "code", 130)
    return 2


def evaluate(config: EvaluationConfig, terminal: Terminal) -> Evaluation:
    """Evaluates as configured and writes all results.

    Raises:
        EvaluationError, DatasetError, InputError, CheckpointError, DeviceError, PeerError: the message says what to do.
    """
    config.check()
    chosen = choose_cases(config)
    folder = _result_folder(config)
    for note in config.notes:
        terminal.note(f"note: {note}")
    terminal.note(f"{len(chosen.cases)} case{'s' * (len(chosen.cases) != 1)}: {chosen.source}")
    with terminal.step("loading the model"):
        evaluated = load_evaluated(config)
    loop = _CaseLoop(config, chosen, evaluated, folder, terminal)
    loop.run()
    if not loop.scores:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in loop.skipped.items())
        raise DatasetError(f"no nodule to evaluate: all label maps are empty or unreadable. {reasons}".strip())
    evaluation = Evaluation(
        config, evaluated.description, chosen.source, (*chosen.notes, *loop.notes), loop.skipped, tuple(loop.scores),
        summarize(loop.scores, config.seed),
    )
    with terminal.step(f"writing {folder}"):
        _write(folder, evaluation, chosen)
    return evaluation


def _result_folder(config: EvaluationConfig) -> Path:
    folder = given_path(config.vis_path)
    try:
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder of the results {folder} cannot be made: {error.strerror or error}; choose another -vp"
        ) from error
    check_folder(folder)
    check_folder(folder / "predictions")
    return folder


class _CaseLoop:
    """Evaluates the nodules of case after case and writes each case's predictions.

    Attributes:
        scores, notes, skipped: what came out so far.
    """

    def __init__(
        self, config: EvaluationConfig, chosen: EvaluationCases, evaluated: Evaluated, folder: Path, terminal: Terminal
    ) -> None:
        self._config = config
        self._chosen = chosen
        self._evaluated = evaluated
        self._folder = folder
        self._terminal = terminal
        self.scores: list[NoduleScore] = []
        self.notes: list[str] = []
        self.skipped: dict[str, str] = {}

    def run(self) -> None:
        """All cases; one that cannot be used is named in ``skipped`` and left out."""
        begun, total = time.perf_counter(), len(self._chosen.cases)
        for done, case in enumerate(self._chosen.cases, start=1):
            try:
                scores = self._case(case)
            except (DatasetError, InputError) as error:
                self.skipped[case.full_name] = str(error).removeprefix(f"case {case.full_name}: ")
                self._terminal.note(f"{done}/{total} {case.full_name}: LEFT OUT, {self.skipped[case.full_name]}")
                continue
            self.scores += scores
            left = (time.perf_counter() - begun) / done * (total - done)
            self._terminal.note(f"{done}/{total} {case.full_name}: {self._told(scores)}"
                                + (f", about {duration(left)} left" if done < total else ""))

    def _told(self, scores: list[NoduleScore]) -> str:
        own = [score for score in scores if score.method == self._config.point_methods[0]]
        if not own:
            return "the label map is empty"
        first, last = (np.mean([score.dice[click] for score in own]) for click in (0, -1))
        nodules = "1 nodule" if len(own) == 1 else f"{len(own)} nodules"
        return f"{nodules}, Dice {first:.3f} at 1 click, {last:.3f} at {self._config.num_clicks}"

    def _case(self, case: Case) -> list[NoduleScore]:
        doubts: list[str] = []
        with our_warnings_told(doubts.append):
            loaded = _load(case, self._chosen)
            self._evaluated.set_image(loaded.array_kji, loaded.ijk_to_ras)
        for doubt in doubts:
            self.notes.append(f"{case.full_name}: {doubt}")
            self._terminal.note(f"note: {self.notes[-1]}")
        if not loaded.nodules:
            self.notes.append(f"{case.full_name}: the label map is empty, there is nothing to find")
            return []
        scores = []
        for number, method in enumerate(self._config.point_methods):
            # A box takes the place of the first click.
            first_clicks = self._config.first_clicks if number == 0 and self._config.prompt == "point" else 0
            own = []
            for nodule in loaded.nodules:
                own.append(score_nodule(
                    self._evaluated, loaded, nodule, method, self._config.num_clicks, first_clicks, self._config.seed
                ))
                if number == 0:
                    self._terminal.count(len(own), len(loaded.nodules))
            self._write_predictions(loaded, own, "" if number == 0 else f"_{method}")
            scores += own
        return scores

    def _write_predictions(self, loaded: LoadedCase, scores: list[NoduleScore], suffix: str) -> None:
        """The masks after the last click as one label map, in the image's own voxels."""
        values = prediction_values(loaded.nodules)
        labels = np.zeros(loaded.array_kji.shape, np.uint16)
        for value, score in zip(values, scores, strict=True):
            mask = score.prediction.mask
            window = tuple(
                slice(a, a + n) for a, n in zip(score.prediction.offset_kji, mask.shape, strict=True)
            )
            labels[window][mask != 0] = value
        folder = self._folder / "predictions" / loaded.case.dataset
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise EvaluationError(f"{folder} cannot be made: {error.strerror or error}") from error
        try:
            write_segmentation(folder / f"{loaded.case.name}_pred{suffix}.nii.gz", labels, loaded.ijk_to_ras)
        except InputError as error:  # not the case's fault: no further one could be written either
            raise EvaluationError(str(error)) from error


def prediction_values(nodules: tuple[Nodule, ...]) -> list[int]:
    """The value of each nodule's prediction: the reference's where every value is one nodule, else 1, 2, 3, ...

    Values that a file of 16 bits cannot hold are replaced likewise.
    """
    values = [nodule.value for nodule in nodules]
    usable = len(set(values)) == len(values) and max(values, default=0) <= np.iinfo(np.uint16).max
    return values if usable else list(range(1, len(values) + 1))


def _load(case: Case, chosen: EvaluationCases) -> LoadedCase:
    # Finite, whatever is evaluated, so that all are compared on the same cases.
    return load_finite_case(case, chosen.datasets[case.dataset].ignored_values)


def _write(folder: Path, evaluation: Evaluation, chosen: EvaluationCases) -> None:
    scores, config = evaluation.scores, evaluation.config
    write_json(folder / "results.json", evaluation)
    write_csv(folder / "nodules.csv", scores)
    write_text(folder / "summary.txt", evaluation)
    title = str(evaluation.model["title"])
    first = [score for score in scores if score.method == config.point_methods[0]]
    draw_dice(folder / "dice_over_clicks.png", scores, title, config.seed)
    draw_volumes(folder / "volumes_bland_altman.png", first, title)
    if config.worst > 0:
        draw_worst(folder / "worst_nodules.png", first, config.worst, _reader(chosen), title)


def _reader(chosen: EvaluationCases) -> Callable[[NoduleScore], LoadedCase]:
    """Reads cases again, for pictures of them; the latest stays in memory."""
    cases = {(case.dataset, case.name): case for case in chosen.cases}
    kept: dict[tuple[str, str], LoadedCase] = {}

    def load(score: NoduleScore) -> LoadedCase:
        key = (score.dataset, score.case)
        if key not in kept:
            kept.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they have been shown
                kept[key] = _load(cases[key], chosen)
        return kept[key]

    return load


@dataclass(frozen=True)
class EvaluationCases:
    """What is evaluated.

    Attributes:
        cases: labelled.
        datasets: theirs, by name.
        source: where the choice comes from, one sentence for reports.
        notes: what else has to be known: cases without labels, cases that may have been trained on.
    """

    cases: tuple[Case, ...]
    datasets: dict[str, Dataset]
    source: str
    notes: tuple[str, ...]


def choose_cases(config: EvaluationConfig) -> EvaluationCases:
    """The labelled cases of the part asked for; where the data has none, those that were held out from training.

    Held out is what ``split.json`` beside the checkpoint says, if it fits the data; else a split with the seed.

    Raises:
        DatasetError: no data, or nothing with labels.
    """
    pattern = config.patient_pattern or DEFAULT_PATIENT_PATTERN
    datasets = tuple(dataset for path in config.data for dataset in find_datasets(path, pattern, config.labels))
    ask(datasets)
    by_name = {dataset.name: dataset for dataset in datasets}
    if len(by_name) < len(datasets):
        raise DatasetError("two of the data sets have the same name: rename a folder")
    notes = [f"{dataset.name}: {problem}" for dataset in datasets for problem in dataset.problems]
    everything = [case for dataset in datasets for case in dataset.cases]
    if not any(case.label is not None for case in everything):
        raise DatasetError(
            f"no labelled case in {', '.join(config.data)}: evaluation compares with label maps, which belong into "
            "labelsTr, labelsVal or labelsTs under the names of their images"
        )
    part = [case for case in everything if case.part == config.data_type]
    cases = [case for case in part if case.label is not None]
    bare = [case.name for case in part if case.label is None]
    if bare:
        notes.append(f"{len(bare)} images of the part {config.data_type} have no label map and are left out "
                     f"({', '.join(bare[:3])}{', ...' if len(bare) > 3 else ''})")
    if cases:
        source = f"the data's {config.data_type} part"
        lacking = [name for name in by_name if all(case.dataset != name for case in cases)
                   and any(case.dataset == name and case.label is not None for case in everything)]
        if lacking:
            notes.append(f"without a labelled {config.data_type} part, and so left out: {', '.join(lacking)}; give "
                         "such a data set alone for its held-out split")
        if config.data_type == "Tr":
            notes.append("the Tr part is what checkpoints are trained on: these figures say nothing about new cases")
    else:
        cases, source = _held_out(config, datasets, notes)
    total = len(cases)
    cases = cases[config.split_idx :: config.split_num]
    if config.split_num > 1:
        source += f", share {config.split_idx} of {config.split_num} ({len(cases)} of {total} cases)"
    if not cases:
        raise DatasetError(f"share {config.split_idx} of {config.split_num} holds no case: there are {total}")
    return EvaluationCases(tuple(cases), by_name, source, tuple(notes))


def _held_out(config: EvaluationConfig, datasets: Sequence[Dataset], notes: list[str]) -> tuple[list[Case], str]:
    lacking = f"no labelled {config.data_type} part, so the held-out split is used: "
    labelled = [case for dataset in datasets for case in dataset.cases if case.label is not None]
    if not any(case.part == "Tr" for case in labelled):
        part = next(name for name in ("Val", "Ts") if any(case.part == name for case in labelled))
        return [case for case in labelled if case.part == part], f"{lacking}the data's {part} part"
    split = None
    if config.checkpoint is not None and config.fold is None:
        folder = given_path(config.checkpoint).parent
        try:
            split = read_split(folder, datasets)
        except DatasetError as error:
            notes.append(f"the checkpoint's own split does not fit this data ({error})")
        origin = f"{folder / FILE_NAME} of the checkpoint"
    if split is None:
        origin = f"a split made now with seed {config.seed}"
        split = split_cases(datasets, seed=config.seed, val_fraction=config.val_fraction, fold=config.fold)
        notes += unused_folds(datasets, config.fold)
        if config.model not in CLASSICS:
            notes.append("which of these cases the checkpoint was trained on is not known")
    if config.model not in CLASSICS and {c.patient for c in split.train} & {c.patient for c in split.val}:
        notes.append("there is one patient only: what is evaluated may have been trained on")
    name = "test" if split.test and config.data_type == "Ts" else "validation"
    cases = split.test if name == "test" else split.val
    if not cases:
        raise DatasetError(f"{origin} holds no case out: use -dt Tr, or take more patients")
    return list(cases), f"{lacking}{len(cases)} {name} case{'s' * (len(cases) != 1)} of {origin} ({split.source})"
