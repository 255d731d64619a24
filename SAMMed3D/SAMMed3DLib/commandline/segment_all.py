"""``sammed3d segment-all``: all nodules of a CT at once, as a segmentation and a table; many CTs: :mod:`.cohort`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..inference.errors import InputError
from ..inference.nodule_table import CLICKED, MEASURED, rounded, shown, table_text, titles
from ..weights.catalog import DETECTOR
from ..weights.store import WeightsStore
from .task_queue import Workers
from .terminal import Terminal, aligned

if TYPE_CHECKING:
    from ..files.volume_io import Volume
    from ..finding.lungs import LungMask
    from ..inference import SamPredictor3D

COLUMNS = ("label", "name", "score", "predicted_iou", "stability_score", *CLICKED, *MEASURED)
NOTE = "Not a medical device: what is listed may be no nodule, and nodules may be missing."


def add_segment_all(commands: argparse._SubParsersAction, add_model_options: Callable) -> argparse.ArgumentParser:
    """Adds the command's options."""
    about = "find and segment all nodules of a CT, or of all CTs in a folder or a list"
    parser = commands.add_parser("segment-all", help=about, description=about, allow_abbrev=False)
    parser.add_argument(
        "ct",
        metavar="CT",
        help="NIfTI, NRRD or MetaImage file, or a DICOM series folder; many CTs: a folder around them, or a .csv file "
        "whose column 'path' names them, with --out DIR",
    )
    add_model_options(parser)
    search = parser.add_argument_group("search")
    search.add_argument(
        "--sensitivity",
        type=_share,
        default=0.5,
        metavar="0..1",
        help="fewer (0) or more (1), with fewer or more false ones among them (default: %(default)s)",
    )
    search.add_argument(
        "--min-diameter",
        type=_millimeters,
        default=3.0,
        metavar="MM",
        help="smallest nodule, diameter of the sphere of its volume (default: %(default)s)",
    )
    search.add_argument(
        "--max-diameter", type=_millimeters, default=60.0, metavar="MM", help="largest nodule (default: %(default)s)"
    )
    search.add_argument("--whole-volume", action="store_true", help="search outside of the lungs too")
    search.add_argument(
        "--thorough",
        action="store_true",
        help=f"ask {DETECTOR.title} too, a minute or several on a CPU: 'sammed3d weights download {DETECTOR.name}'",
    )
    search.add_argument(
        "--detector", type=Path, metavar="FILE", help="its weights (models/model.pt), where they were not downloaded"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--out",
        type=Path,
        metavar="FILE|DIR",
        help="label map or Slicer segmentation "
        "(.nii.gz, .nii, .nrrd, .mha; .seg.nrrd); nodule n, the n-th likeliest, has label n. Of many CTs: a folder for "
        "all results; what is in it already is not done again",
    )
    results.add_argument("--table", type=Path, metavar="FILE.csv", help="measurements and scores of all nodules")
    results.add_argument("--json", action="store_true", help="print JSON instead of the table")
    many = parser.add_argument_group("many CTs")
    many.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, each with a model and one CT in memory; with --slurm: jobs "
        "(default: %(default)s)",
    )
    many.add_argument(
        "--threads", type=int, metavar="N", help="of each process (default: the cores, divided among the processes)"
    )
    many.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, such as tcp://10.0.0.1:8786")
    many.add_argument(
        "--slurm", action="store_true", help="workers are Slurm jobs, as ~/.config/dask/jobqueue.yaml describes them"
    )
    return parser


@dataclass(frozen=True)
class Search:
    """What is looked for: see the options of the same names; ``detector`` is the file of a detector of record."""

    sensitivity: float
    min_diameter_mm: float
    max_diameter_mm: float
    whole_volume: bool
    detector: str | None = None


@dataclass(frozen=True, eq=False)
class SearchResult:
    """All nodules of a volume.

    Attributes:
        records: of the generator, the likeliest first.
        ranking: what their score means.
        message: what users should know; "" if nothing.
        lungs: None where the whole volume was searched.
        clicked: how many places were clicked.
        tflop: what the networks spent, in 10^12 operations; None where that is not known.
    """

    records: list[dict[str, Any]]
    ranking: str
    message: str
    lungs: LungMask | None
    clicked: int = 0
    tflop: float | None = None


def find_nodules(
    predictor: SamPredictor3D, volume: Volume, search: Search, progress: Callable[[int, int], None] | None = None
) -> SearchResult:
    """Finds and segments all nodules of a volume; the predictor keeps it. Raises InputError and CheckpointError."""
    from ..inference import SamAutomaticMaskGenerator3D

    thorough: dict[str, Any] = {}
    if search.detector is not None:
        from ..finding.detectors import RetinaNetDetector
        from ..model.retina_net import load_retina_net

        network = load_retina_net(search.detector, str(predictor.model.device))  # type: ignore[attr-defined]
        thorough = {"detector": RetinaNetDetector(network)}
    predictor.set_image(volume.array_kji, volume.ijk_to_ras)
    generator = SamAutomaticMaskGenerator3D(
        predictor,
        min_diameter_mm=search.min_diameter_mm,
        max_diameter_mm=search.max_diameter_mm,
        lungs="whole_volume" if search.whole_volume else "auto",
        **thorough,
    )
    records = [each for each in generator.generate(progress) if each["shown_from"] <= search.sensitivity]
    lungs, clicked, tflop = generator.lungs_found, generator.clicked, generator.tflop
    return SearchResult(records, generator.ranking, generator.message, lungs, clicked, tflop)


def run_segment_all(options: argparse.Namespace, terminal: Terminal, load_predictor: Callable) -> int:
    """Runs the command; returns the exit code.

    Raises:
        InputError: the CT cannot be read, or the results cannot be written.
    """
    from ..files.image_file import given_path
    from ..files.output_files import check_apart, check_writable, write_text_whole
    from ..files.segmentation_io import WRITABLE, write_segmentation
    from ..files.volume_io import read_volume
    from ..inference.geometry import label_map

    sizes = options.min_diameter, options.max_diameter
    search = Search(options.sensitivity, *sizes, options.whole_volume, _detector_file(options))
    if search.min_diameter_mm >= search.max_diameter_mm:
        raise InputError(f"--min-diameter {search.min_diameter_mm:g} must be below --max-diameter")
    workers = Workers(options.workers, options.threads, options.scheduler, options.slurm)
    if _are_many(options.ct, options.out, WRITABLE):
        from .cohort import run_cohort

        return run_cohort(options, search, workers, terminal)
    if workers != Workers():
        raise InputError("--workers, --threads, --scheduler and --slurm are for many CTs: give a folder and --out DIR")
    if not given_path(options.ct).exists():  # before a word about --out: it may be the folder of many CTs
        raise InputError(f"{options.ct} does not exist; check the path")
    for path, endings in ((options.out, WRITABLE), (options.table, (".csv",))):
        if path is not None:
            check_writable(path, endings)
    with terminal.step("reading the CT") as reading:
        volume = read_volume(options.ct)
    check_apart(volume.path, options.out, options.table)
    with terminal.step("loading the model") as loading:
        predictor = load_predictor()
    with terminal.step("finding nodules") as finding:
        found = find_nodules(predictor, volume, search, percent(terminal))
    if found.tflop is not None:
        terminal.note(f"{found.clicked} places clicked, {found.tflop:.1f} TFLOP")
    if found.message:
        terminal.note(f"note: {found.message}")
    rows = [nodule_row(number, record) for number, record in enumerate(found.records, start=1)]

    if options.out is not None:
        with terminal.step(f"writing {options.out}"):
            masks = {number: record["prediction"] for number, record in enumerate(found.records, start=1)}
            labels = label_map(masks, volume.array_kji.shape)
            names = {row["label"]: row["name"] for row in rows}
            write_segmentation(options.out, labels, volume.ijk_to_ras, names)
    if options.table is not None:
        with terminal.step(f"writing {options.table}"):
            write_text_whole(options.table, table_text(rows, COLUMNS))
    if options.json:
        seconds = {"read": reading.seconds, "load": loading.seconds, "find": finding.seconds}
        text = json.dumps(
            {
                "ct": str(options.ct),
                "ranking": found.ranking,
                "message": found.message,
                "note": NOTE,
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
                "tflop": None if found.tflop is None else round(found.tflop, 3),
                "nodules": rows,
            },
            indent=2,
            allow_nan=False,
        )
    else:
        text = _table(rows, found.ranking)
    sys.stdout.write(f"{text}\n")
    if not options.json:
        terminal.note(NOTE)
    return 0


def _are_many(source: str, out: Path | None, endings: tuple[str, ...]) -> bool:
    """Whether CTs are to be looked for: in a list always, in a folder where the results get a folder, too."""
    if source.lower().endswith(".csv"):
        if out is None:
            raise InputError("the results of many CTs need a folder: give --out DIR")
        return True
    return out is not None and Path(source).expanduser().is_dir() and not out.name.lower().endswith(endings)


def _detector_file(options: argparse.Namespace) -> str | None:
    """The file of the detector that the options ask for. Raises InputError."""
    if options.detector is not None and not options.thorough:
        raise InputError("--detector is for --thorough: give both, or neither")
    if not options.thorough:
        return None
    entry = WeightsStore().detector()
    file = options.detector or (entry.path if entry.installed else None)
    if file is None:
        raise InputError(
            f"the thorough search needs {entry.title} ({entry.size_bytes / 1e6:.0f} MB, {entry.license}): "
            f"'sammed3d weights download {entry.name}', or name its file with --detector"
        )
    return str(file)


def nodule_row(label: int, record: dict[str, Any]) -> dict[str, Any]:
    """Plain numbers and strings of one nodule."""
    values = record["measurements"].to_dict()
    return rounded(
        {
            "label": label,
            "name": f"nodule {label}",
            **{key: record[key] for key in ("score", "predicted_iou", "stability_score")},
            **dict(zip(CLICKED, record["point_coords"][0], strict=True)),
            **{key: values[key] for key in MEASURED},
        }
    )


def _table(rows: Sequence[dict[str, Any]], ranking: str) -> str:
    """An aligned table, the likeliest nodule first."""
    if not rows:
        return "no nodules found"
    keys = ("volume_mm3", "volume_low_mm3", "volume_high_mm3", "long_axis_mm", "short_axis_mm", "mean_hu")
    lines = [["nodule", ranking, *titles(*keys), "R, A, S mm"]]
    for row in rows:
        place = ", ".join(shown(axis, row[axis]) for axis in CLICKED)
        lines.append([row["name"], *(shown(key, row[key]) for key in ("score", *keys)), place])
    return "\n".join([aligned(lines), *(f"{row['name']}: {row['note']}" for row in rows if row["note"])])


def percent(terminal: Terminal) -> Callable[[int, int], None]:
    """Tells every tenth, with the time that is left."""
    begun, told = time.perf_counter(), [0]

    def progress(done: int, total: int) -> None:
        share = done / total
        if int(10 * share) > told[0] and share < 1.0:
            told[0] = int(10 * share)
            left = (time.perf_counter() - begun) * (1.0 - share) / share
            terminal.part(f"{10 * told[0]} % (about {left:.0f} s left)")

    return progress


def _share(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _millimeters(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < 1000.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length in millimeters")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
