"""Which cases an evaluation rests on: the part asked for, or the split that was held out, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from SAMMed3DLib.files.image_file import given_path

from ..data.datasets import DEFAULT_PATIENT_PATTERN, Case, Dataset, DatasetError, ask, find_datasets
from ..data.splits import FILE_NAME, read_split, split_cases, unused_folds
from .evaluation_config import CLASSICS, EvaluationConfig


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
