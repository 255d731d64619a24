"""From a command line to a folder of results, and one clear message when it cannot be."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from SAMMed3DLib.commandline.terminal import Terminal, ending_cleanly, our_warnings_told
from SAMMed3DLib.files.image_file import given_path
from SAMMed3DLib.files.output_files import check_folder
from SAMMed3DLib.files.segmentation_io import write_segmentation
from SAMMed3DLib.inference import InputError
from SAMMed3DLib.model import CheckpointError, DeviceError

from ..data.datasets import Case, DatasetError, LoadedCase, load_finite_case
from ..data.instances import Nodule
from ..runs.progress import duration
from .evaluated_models import Evaluated, load_evaluated
from .evaluation_cases import EvaluationCases, choose_cases
from .evaluation_config import EvaluationConfig, EvaluationError
from .evaluation_plots import draw_dice, draw_volumes, draw_worst
from .evaluation_report import Evaluation, text_report, write_csv, write_json, write_text
from .evaluation_summary import summarize
from .nodule_scores import NoduleScore, score_nodule
from .sam_package import PeerError

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
