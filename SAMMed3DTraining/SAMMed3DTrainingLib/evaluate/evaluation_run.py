"""Evaluates the chosen cases: from a command line to a folder of results, or one clear message why not."""

from __future__ import annotations

import dataclasses
import functools
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from SAMMed3DLib import __version__
from SAMMed3DLib.commandline.task_queue import ONE_AT_A_TIME, TimeLeft, WorkerDied, Workers, use_threads, work_through
from SAMMed3DLib.commandline.terminal import Terminal, ending_cleanly, few, our_warnings_told
from SAMMed3DLib.files.image_file import given_path
from SAMMed3DLib.files.made_record import MadeRecord, weights_of
from SAMMed3DLib.files.output_files import check_folder
from SAMMed3DLib.files.segmentation_io import write_segmentation
from SAMMed3DLib.inference import InputError
from SAMMed3DLib.inference.geometry import PlacedMask, label_map
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
from ..data.instances import LabelledNodule
from ..data.splits import FILE_NAME, Split, read_split, split_cases, unused_folds
from .evaluated_models import Evaluated, load_evaluated
from .evaluation_config import CLASSICS, DECIDING, EvaluationConfig, EvaluationError
from .evaluation_plots import draw_dice, draw_volumes, draw_worst
from .evaluation_report import Evaluation, text_report, write_csv, write_dice_of_clicks, write_json, write_text
from .nodule_scores import ScoredNodule, score_as_json, score_from_json, score_nodule, summarize
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
        terminal.note(f"{prog}: interrupted: there is no report; start again to go on")
        return getattr(error, "code", 130)
    return 2


def evaluate(config: EvaluationConfig, terminal: Terminal) -> Evaluation:
    """Evaluates as configured and writes all results.

    Raises:
        EvaluationError, DatasetError, InputError, CheckpointError, DeviceError, PeerError: the message says what to do.
    """
    config.check()
    chosen = choose_cases(config)
    with _result_folder(config) as folder:
        return _evaluation(config, chosen, folder, terminal)


def _evaluation(config: EvaluationConfig, chosen: EvaluationCases, folder: Path, terminal: Terminal) -> Evaluation:
    for note in config.notes:
        terminal.note(f"note: {note}")
    terminal.note(f"{len(chosen.cases)} case{'s' * (len(chosen.cases) != 1)}: {chosen.source}")
    there = config
    if config.workers.are_elsewhere and config.checkpoint is not None:  # where this folder is not the current one
        there = dataclasses.replace(config, checkpoint=str(given_path(config.checkpoint).absolute()))
    with terminal.step("loading the model"):
        description = _evaluated(there).description  # now, so that what is wrong with it is said once
    tasks = _tasks(there, chosen, folder)
    if config.workers != Workers():
        _evaluated.cache_clear()  # it is loaded again where the work is
    try:
        results = _results(config, tasks, terminal)
    finally:
        _evaluated.cache_clear()
    scores = [score for result in results for score in result.scores]
    skipped = {
        task.case.full_name: result.left_out for task, result in zip(tasks, results, strict=True) if result.left_out
    }
    if not scores:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise DatasetError(f"no nodule to evaluate: all label maps are empty or unreadable. {reasons}".strip())
    evaluation = Evaluation(
        config,
        description,
        chosen.source,
        (*chosen.notes, *(note for result in results for note in result.notes)),
        skipped,
        tuple(scores),
        summarize(scores, config.seed),
    )
    with terminal.step(f"writing {folder}"):
        _write(folder, evaluation, chosen)
    return evaluation


@contextmanager
def _result_folder(config: EvaluationConfig) -> Iterator[Path]:
    """Makes the folders of the results; where an error ends the work, takes away those that it made and left empty."""
    folder = given_path(config.vis_path)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        for name in ("predictions", "cases"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder of the results {folder} cannot be made: {error.strerror or error}; choose another -vp"
        ) from error
    check_folder(folder)
    check_folder(folder / "predictions")
    try:
        yield folder
    except BaseException:
        for each in (folder / "predictions", folder / "cases", *made):
            with suppress(OSError):  # it holds finished cases
                each.rmdir()
        raise


class UsableCases:
    """Goes through the chosen cases: reads each, shows it to every model, and leaves out what cannot be used.

    Args:
        chosen: the cases.
        models: that are to see them.
        tell: takes notes for people.
        begin: told the number of each case, from 0, and the case before it is read.

    Attributes:
        skipped: why a case was left out, by its name.
        notes: what is doubtful about cases.
    """

    def __init__(
        self,
        chosen: EvaluationCases,
        models: Collection[Evaluated],
        tell: Callable[[str], object] = lambda text: None,
        begin: Callable[[int, Case], object] = lambda done, case: None,
    ) -> None:
        self._chosen, self._models, self._tell, self._begin = chosen, models, tell, begin
        self.notes: list[str] = []
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        """All that were chosen."""
        return len(self._chosen.cases)

    def __iter__(self) -> Iterator[tuple[int, LoadedCase]]:
        """The number of each case among all, from 0, and the case; the models have its image."""
        for done, case in enumerate(self._chosen.cases):
            self._begin(done, case)
            loaded = None
            with self.leaving_out(case):
                loaded = self._shown(case)
            if loaded is not None:
                yield done, loaded

    @contextmanager
    def leaving_out(self, case: Case) -> Iterator[None]:
        """A case that proves unusable within is left out."""
        try:
            yield
        except (DatasetError, InputError) as error:
            self.skipped[case.full_name] = str(error).removeprefix(f"case {case.full_name}: ")
            self._tell(f"{case.full_name}: LEFT OUT, {self.skipped[case.full_name]}")

    @property
    def reasons(self) -> str:
        """Reasons why cases were left out, in one line."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())

    def _shown(self, case: Case) -> LoadedCase:
        doubts: list[str] = []
        with our_warnings_told(doubts.append):
            loaded = _load(case, self._chosen)
            for model in self._models:
                model.set_image(loaded.array_kji, loaded.ijk_to_ras)
        for doubt in doubts:
            self.notes.append(f"{case.full_name}: {doubt}")
            self._tell(self.notes[-1])
        return loaded


@dataclass(frozen=True)
class CaseTask:
    """One case that a worker evaluates.

    Attributes:
        dataset: the case's, without its cases.
        folder: of all results.
        made_by: what decides the scores beside the case's files.
    """

    config: EvaluationConfig
    case: Case
    dataset: Dataset
    folder: Path
    made_by: Mapping[str, Any]


@dataclass(frozen=True)
class CaseResult:
    """The result of a case.

    Attributes:
        notes: what is doubtful about it.
        left_out: why it could not be used; "" where it could.
        before: whether an earlier run has evaluated it.
    """

    scores: tuple[ScoredNodule, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: str = ""
    before: bool = False


_evaluated = functools.lru_cache(maxsize=1)(load_evaluated)


def _tasks(config: EvaluationConfig, chosen: EvaluationCases, folder: Path) -> list[CaseTask]:
    weights = {} if config.model in CLASSICS else weights_of(config.checkpoint)
    options = {name: getattr(config, name) for name in DECIDING}
    tasks = []
    for case in chosen.cases:
        dataset = dataclasses.replace(chosen.datasets[case.dataset], cases=())
        if config.workers.are_elsewhere:
            assert case.label is not None
            case = dataclasses.replace(case, image=case.image.absolute(), label=case.label.absolute())
            dataset = dataclasses.replace(dataset, folder=dataset.folder.absolute())
        made_by = {
            "version": __version__,
            "options": options,
            "weights": weights,
            "case": [case.full_name, case.patient],
            "ignored": sorted(dataset.ignored_values),
        }
        tasks.append(CaseTask(config, case, dataset, folder.absolute(), made_by))
    return tasks


def evaluate_case(task: CaseTask) -> CaseResult:
    """Scores the nodules of one case and writes its predictions, unless that is done already; a worker's whole work.

    Raises:
        EvaluationError: nothing can be written; or whatever the model's loading raises.
    """
    case, config = task.case, task.config
    assert case.label is not None
    with ONE_AT_A_TIME:
        record = MadeRecord(
            task.folder / "cases" / f"{case.dataset}_{case.part}_{case.name}.json",
            task.made_by,
            [case.image, case.label],
            task.dataset.folder,
            [
                *(_prediction_path(task.folder, case, method, config) for method in config.point_methods),
                *_paths_of_clicks(task.folder, case, config),
            ],
        )
        known = record.known(_result_before)
        if known is not None:
            return known
        use_threads(config.workers.threads)
        evaluated = _evaluated(config)
        cases = UsableCases(EvaluationCases((case,), {case.dataset: task.dataset}, "", ()), [evaluated])
        scores: list[ScoredNodule] = []
        for _, loaded in cases:
            if not loaded.nodules:
                cases.notes.append(f"{case.full_name}: the label map is empty, there is nothing to find")
            with cases.leaving_out(case):
                scores = _scores_of_case(config, loaded, evaluated, task.folder)
        if case.full_name in cases.skipped:
            return CaseResult((), tuple(cases.notes), cases.skipped[case.full_name])
        record.write({"scores": [score_as_json(score) for score in scores], "notes": cases.notes})
        return CaseResult(tuple(scores), tuple(cases.notes))


def _result_before(content: Mapping[str, Any]) -> CaseResult:
    """The result in a case's record. Raises ValueError and the like where it has none that can be counted."""
    scores = tuple(map(score_from_json, content["scores"]))
    if not all(np.isfinite(score.dice).all() and np.isfinite(score.volumes_mm3).all() for score in scores):
        raise ValueError("NaN among the scores")
    return CaseResult(scores, tuple(content["notes"]), before=True)


def _results(config: EvaluationConfig, tasks: Sequence[CaseTask], terminal: Terminal) -> list[CaseResult]:
    """Evaluates all cases; reports each result as it comes."""
    results: dict[int, CaseResult] = {}
    left = TimeLeft(len(tasks))
    with closing(work_through(evaluate_case, tasks, config.workers)) as coming:
        for number, result in coming:
            if isinstance(result, WorkerDied):
                result = CaseResult(left_out=str(result))
            results[number] = result
            name = tasks[number].case.full_name
            for note in result.notes:
                terminal.note(f"note: {note}")
            told = f"LEFT OUT, {result.left_out}" if result.left_out else _told(config, result.scores)
            terminal.note(left.line(name, told + ", done before" * result.before, worked=not result.before))
    return [results[number] for number in range(len(tasks))]


def _told(config: EvaluationConfig, scores: Sequence[ScoredNodule]) -> str:
    own = [score for score in scores if score.method == config.point_methods[0]]
    if not own:
        return "the label map is empty"
    first, last = (np.mean([score.dice[click] for score in own]) for click in (0, -1))
    nodules = "1 nodule" if len(own) == 1 else f"{len(own)} nodules"
    return f"{nodules}, Dice {first:.3f} at 1 click, {last:.3f} at {config.num_clicks}"


def _scores_of_case(
    config: EvaluationConfig, loaded: LoadedCase, evaluated: Evaluated, folder: Path
) -> list[ScoredNodule]:
    scores: list[ScoredNodule] = []
    for number, method in enumerate(config.point_methods if loaded.nodules else ()):
        # A box takes the place of the first click.
        first_clicks = config.first_clicks if number == 0 and config.prompt == "point" else 0
        own = []
        for nodule in loaded.nodules:
            own.append(score_nodule(evaluated, loaded, nodule, method, config.num_clicks, first_clicks, config.seed))
        path = _prediction_path(folder, loaded.case, method, config)
        write_predictions(path, loaded, [score.prediction for score in own])
        for click, path in enumerate(_paths_of_clicks(folder, loaded.case, config) if number == 0 else (), start=1):
            write_predictions(path, loaded, [score.after(click) for score in own])
        scores += own
    return scores


def _prediction_path(folder: Path, case: Case, method: str, config: EvaluationConfig) -> Path:
    suffix = "" if method == config.point_methods[0] else f"_{method}"
    return folder / "predictions" / case.dataset / f"{case.name}_pred{suffix}.nii.gz"


def _paths_of_clicks(folder: Path, case: Case, config: EvaluationConfig) -> list[Path]:
    """One file for each click, numbered from 0 as SAM-Med3D does; [] where they are not asked for."""
    count = config.num_clicks if config.per_click else 0
    return [folder / "predictions" / case.dataset / f"{case.name}_pred{click}.nii.gz" for click in range(count)]


def write_predictions(path: Path, loaded: LoadedCase, masks: Sequence[PlacedMask]) -> None:
    """Writes one mask for each nodule of a case as one label map, in the image's own voxels; makes the folder.

    Raises:
        EvaluationError: it cannot be written; no further one could be either.
    """
    blocks = dict(zip(prediction_values(loaded.nodules), masks, strict=True))
    labels = label_map(blocks, loaded.array_kji.shape)
    try:
        path.parent.mkdir(exist_ok=True)
        write_segmentation(path, labels, loaded.ijk_to_ras)
    except OSError as error:
        raise EvaluationError(f"{path.parent} cannot be made: {error.strerror or error}") from error
    except InputError as error:
        raise EvaluationError(str(error)) from error


def prediction_values(nodules: tuple[LabelledNodule, ...]) -> list[int]:
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
    if config.per_click:
        write_dice_of_clicks(folder / "out_dice.json", first)
    draw_dice(folder / "dice_over_clicks.png", scores, title, config.seed)
    draw_volumes(folder / "volumes_bland_altman.png", first, title)
    if config.worst > 0:
        draw_worst(folder / "worst_nodules.png", first, config.worst, _reader(chosen), title)


def _reader(chosen: EvaluationCases) -> Callable[[ScoredNodule], LoadedCase]:
    """Reads cases again, for pictures of them; the latest stays in memory."""
    cases = {(case.dataset, case.name): case for case in chosen.cases}
    kept: dict[tuple[str, str], LoadedCase] = {}

    def load(score: ScoredNodule) -> LoadedCase:
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
    """The cases to evaluate.

    Attributes:
        cases: labelled.
        datasets: theirs, by name.
        source: where the choice comes from, one sentence for reports.
        notes: what else has to be known: cases without labels, cases that may have been trained on.
        caution: whether some of the cases have trained the checkpoint or chosen its epoch, in a sentence; "" where none
            has, or nobody knows. It is among the notes too.
    """

    cases: tuple[Case, ...]
    datasets: dict[str, Dataset]
    source: str
    notes: tuple[str, ...]
    caution: str = ""


def choose_cases(config: EvaluationConfig) -> EvaluationCases:
    """The labelled cases of the part asked for; where the data has none, those that were held out from training.

    Held out is what ``split.json`` beside the checkpoint says, if it fits the data; else a split with the seed.

    Raises:
        DatasetError: no data, or nothing with labels.
    """
    pattern = config.patient_pattern or DEFAULT_PATIENT_PATTERN
    datasets = tuple(dataset for path in config.data for dataset in find_datasets(path, pattern, config.labels))
    ask(datasets)
    by_name: dict[str, Dataset] = {}
    for dataset in datasets:
        other = by_name.setdefault(dataset.name, dataset)
        if other is not dataset:
            cure = "give it once" if other.folder.samefile(dataset.folder) else "rename one of the folders"
            raise DatasetError(f"two data sets have the name {dataset.name}: {other.folder}, {dataset.folder}; {cure}")
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
        notes.append(
            f"{len(bare)} images of the part {config.data_type} have no label map and are left out ({few(bare)})"
        )
    if cases:
        source = f"the data's {config.data_type} part"
        lacking = [
            name
            for name in by_name
            if all(case.dataset != name for case in cases)
            and any(case.dataset == name and case.label is not None for case in everything)
        ]
        if lacking:
            notes.append(
                f"without a labelled {config.data_type} part, and so left out: {', '.join(lacking)}; give "
                "such a data set alone for its held-out split"
            )
        if config.data_type == "Tr" and not (config.checkpoint and _own_split(config, datasets)):
            notes.append("the Tr part is what checkpoints are trained on: these figures say nothing about new cases")
    else:
        cases, source = _held_out(config, datasets, notes)
    caution = "" if config.model in CLASSICS else _caution(cases, _own_split(config, datasets))
    notes += [caution] if caution else []
    total = len(cases)
    cases = cases[config.split_idx :: config.split_num]
    if config.split_num > 1:
        source += f", share {config.split_idx} of {config.split_num} ({len(cases)} of {total} cases)"
    if not cases:
        raise DatasetError(f"share {config.split_idx} of {config.split_num} holds no case: there are {total}")
    return EvaluationCases(tuple(cases), by_name, source, tuple(notes), caution)


def _own_split(config: EvaluationConfig, datasets: Sequence[Dataset]) -> Split | None:
    """The split that lies beside the checkpoint; None without one, or where it does not fit the data."""
    if config.checkpoint is None:
        return None
    try:
        return read_split(given_path(config.checkpoint).parent, datasets)
    except DatasetError:
        return None


def _caution(cases: Sequence[Case], split: Split | None) -> str:
    """Warns, in a sentence, of cases that trained a checkpoint or chose its epoch; "" where none did."""
    if split is None:
        return ""
    trained, chose = ({case.full_name for case in part} for part in (split.train, split.val))
    names = [case.full_name for case in cases]
    counts = (
        (sum(name in trained for name in names), "trained the checkpoint: the figures say nothing about new cases"),
        (
            sum(name in chose and name not in trained for name in names),
            "chose the checkpoint's epoch: the figures are too good for new cases",
        ),
    )
    return "; ".join(f"{count} of these {len(names)} cases {what}" for count, what in counts if count)


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
    own = origin.endswith("of the checkpoint")  # then what it has seen is told by name
    if not own and config.model not in CLASSICS and {c.patient for c in split.train} & {c.patient for c in split.val}:
        notes.append("there is one patient only: what is evaluated may have been trained on")
    name = "test" if split.test and config.data_type == "Ts" else "validation"
    cases = split.test if name == "test" else split.val
    if not cases:
        raise DatasetError(f"{origin} holds no case out: use -dt Tr, or take more patients")
    return list(cases), f"{lacking}{len(cases)} {name} case{'s' * (len(cases) != 1)} of {origin} ({split.source})"
