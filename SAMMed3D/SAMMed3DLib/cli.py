"""The command line ``sammed3d``: from a CT to nodules, measurements and reports, and the models' own commands.

Results go to standard output, progress to standard error. Exit codes: 0 done, 2 input that cannot be used (one message
that names the cure), 130 interrupted. Modules that need PyTorch are imported by the commands: ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .commandline.findings_cli import add_compare, add_report, run_compare, run_report
from .commandline.prompts import add_prompt_options, join_negative_values
from .commandline.segment_all import add_segment_all, run_segment_all
from .commandline.terminal import Terminal, ending_cleanly
from .commandline.weights_cli import ERRORS as WEIGHTS_ERRORS
from .commandline.weights_cli import add_weights_command
from .torch_setup.loading import wait_shortly

if TYPE_CHECKING:
    from .inference import SamPredictor3D

#: Commands of the training package, which is found when one is called, and parses their options; and what they do.
HANDED_OVER = {
    "evaluate": "evaluate a checkpoint with simulated clicks on labelled data",
    "train": "fine-tune a checkpoint on labelled data",
    "check": "list what is wrong with labelled data",
}
_TRAINING_PACKAGE = "SAMMed3DTrainingLib"

EXAMPLES = """examples:
  sammed3d demo                                             nodules in a synthetic chest, nothing else needed
  sammed3d demo CT.nii.gz --labels nodules.nii.gz           one click into each reference nodule, with Dice
  sammed3d segment CT.nii.gz --point -45.2,10,-300 --out nodule.seg.nrrd --preview nodule.png
  sammed3d segment-all CT.nii.gz --out nodules.seg.nrrd --table nodules.csv
  sammed3d report CT_FOLDER --segmentation nodules.seg.nrrd --out report
  sammed3d compare CURRENT_FOLDER PRIOR_FOLDER --out follow-up
  sammed3d segment DICOM_FOLDER --point -45,10,-300 --point -45,22,-300,0 --nodule --point 61,-8,-250
  sammed3d evaluate -tdp DATA -cp CHECKPOINT -vp RESULTS -nc 5    DATA: imagesTs and labelsTs, as nnU-Net has them
  sammed3d check DATA                                       what is wrong with a data set, before training
  sammed3d train --task_name MINE --data DATA               fine-tune the bundled model
  sammed3d weights download sam_med3d_turbo                 another model; then: --checkpoint THE_PATH_IT_PRINTS
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code; wrong options end in argparse's exit with code 2."""
    if sys.stderr is None:  # closed by whoever started this
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stderr.write("sammed3d: error: standard output is closed: send it to a file or a terminal\n")
        return 2
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without the superscript 3 is no reason to fail
    wait_shortly()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in HANDED_OVER:
        options = argparse.Namespace(run=_hand_over, command=words[0], arguments=words[1:])
    else:
        options = _parser().parse_args(join_negative_values(words))
    terminal = Terminal()
    try:
        with ending_cleanly(), terminal.warnings_as_notes():
            code = options.run(options, terminal)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # whoever read the results has read enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # files have errors of their own: this is standard output, or a system out of order
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        place = "standard output" if error.filename is None else error.filename
        terminal.note(f"sammed3d: error: {place} cannot be used: {error.strerror or error}; send the results elsewhere")
        return 2
    except KeyboardInterrupt as error:
        terminal.note("sammed3d: interrupted")
        return getattr(error, "code", 130)
    except WEIGHTS_ERRORS as error:
        terminal.note(f"sammed3d: error: {error}")
        return 2
    except (ValueError, MemoryError, ImportError) as error:
        message = _cure(error)
        if message is None:
            raise
        terminal.note(f"sammed3d: error: {message}")
        return 2


def _cure(error: Exception) -> str | None:
    """What to tell the user about an error of theirs; None for one of ours."""
    if isinstance(error, MemoryError):
        return "out of memory: close other programs, or crop the volume to the lungs"
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        return f"{package} is not installed: pip install {package}" if package not in ("", "SAMMed3DLib") else None
    from .inference import InputError
    from .model import CheckpointError, DeviceError

    return str(error) if isinstance(error, (InputError, CheckpointError, DeviceError)) else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sammed3d",
        description="From a click on a nodule in a CT to its mask in 3D.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sammed3d {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    segment = commands.add_parser("segment", help="segment nodules from clicks or boxes", allow_abbrev=False)
    segment.add_argument("ct", metavar="CT", help="NIfTI, NRRD or MetaImage file, or a DICOM series folder")
    add_prompt_options(segment)
    _add_model_options(segment)
    results = segment.add_argument_group("results")
    results.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="label map or Slicer segmentation (.nii.gz, .nii, .nrrd, .mha; .seg.nrrd); nodule n has label n",
    )
    results.add_argument("--preview", type=Path, metavar="FILE.png", help="picture of slices with contours")
    results.add_argument("--json", action="store_true", help="print JSON instead of the table")
    segment.set_defaults(run=_segment)

    add_segment_all(commands, _add_model_options).set_defaults(run=_with_model(run_segment_all))

    add_report(commands, _add_model_options).set_defaults(run=_with_model(run_report))
    add_compare(commands, _add_model_options).set_defaults(run=_with_model(run_compare))

    demo = commands.add_parser("demo", help="see it work, on your CT or on a synthetic chest", allow_abbrev=False)
    demo.add_argument("ct", metavar="CT", nargs="?", help="a CT; without one a synthetic chest phantom is made")
    demo.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="reference label map: each label is clicked once in its most interior voxel, and the Dice is given",
    )
    add_prompt_options(demo)
    _add_model_options(demo)
    demo.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        default=Path("sammed3d-demo"),
        help="where the results go (default: %(default)s)",
    )
    demo.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of the synthetic chest (default: %(default)s)"
    )
    demo.set_defaults(run=_demo)

    for name, about in HANDED_OVER.items():
        commands.add_parser(name, help=about, add_help=False)
    add_weights_command(commands).set_defaults(run=_weights)
    commands.add_parser("models", help="list the networks").set_defaults(run=_models)
    commands.add_parser("profiles", help="list the preprocessing profiles").set_defaults(run=_profiles)
    for command in commands.choices.values():
        command.add_argument("--version", action="version", version=f"sammed3d {__version__}", help=argparse.SUPPRESS)
    return parser


def _hand_over(options: argparse.Namespace, terminal: Terminal) -> int:
    """Runs a command of the training package. Raises InputError where that is not installed."""
    from .inference import InputError

    try:
        commands = importlib.import_module(f"{_TRAINING_PACKAGE}.commands")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != _TRAINING_PACKAGE:
            raise
        raise InputError(
            f"{options.command} is part of {_TRAINING_PACKAGE}, which is not installed here: install the whole package "
            "(pip install . in a checkout), or run SAMMed3DTraining/train.py and test.py"
        ) from error
    return getattr(commands, options.command)(options.arguments, f"sammed3d {options.command}")


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 upward")
    return int(text)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="weights of SAM-Med3D or of this package (default: the bundled nodule model)",
    )
    which.add_argument(
        "--model",
        metavar="NAME",
        help="a network by name: 'nodule' and 'nodule_light' are the bundled one; the others "
        "come without weights, to try their speed (see 'sammed3d models')",
    )
    group.add_argument(
        "--profile",
        metavar="NAME",
        help="preprocessing, where the checkpoint does not say it (see 'sammed3d profiles')",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    group.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="of the image encoder (default: %(default)s)",
    )


def _segment(options: argparse.Namespace, terminal: Terminal) -> int:
    from .commandline.segmenting import as_dict, check_prompt, segment_nodules, table
    from .files.output_files import check_apart, check_writable
    from .files.segmentation_io import WRITABLE, write_segmentation
    from .files.volume_io import read_volume
    from .inference import InputError
    from .inference.geometry import label_map

    prompts = options.nodules or []
    if not prompts:
        raise InputError("no nodule was named: give --point R,A,S or --box R0,A0,S0,R1,A1,S1")
    for number, prompt in enumerate(prompts, start=1):
        check_prompt(prompt, number)
    if options.out is not None:
        check_writable(options.out, WRITABLE)
    if options.preview is not None:
        check_writable(options.preview, (".png",))

    with terminal.step("reading the CT") as reading:
        volume = read_volume(options.ct)
    check_apart(volume.path, options.out, options.preview)
    with terminal.step("loading the model") as loading:
        predictor = _predictor(options)
    prompts = [prompt.in_ras(options.convention, volume.ijk_to_ras) for prompt in prompts]
    with terminal.step("segmenting"):
        results = segment_nodules(predictor, volume, prompts, progress=terminal.count)

    if options.out is not None:
        with terminal.step(f"writing {options.out}"):
            names = {result.label: result.name for result in results}
            labels = label_map({result.label: result.prediction for result in results}, volume.array_kji.shape)
            write_segmentation(options.out, labels, volume.ijk_to_ras, names)
    if options.preview is not None:
        from .commandline.preview import write_picture

        with terminal.step(f"drawing {options.preview}"):
            write_picture(options.preview, volume, results)
    if options.json:
        seconds = {"read": round(reading.seconds, 3), "load": round(loading.seconds, 3)}
        print(
            json.dumps(
                {"ct": str(options.ct), "seconds": seconds, "nodules": [as_dict(each) for each in results]},
                indent=2,
                allow_nan=False,
            )
        )
    else:
        print(table(results))
    return 0


def _demo(options: argparse.Namespace, terminal: Terminal) -> int:
    from .commandline.demo import run_demo

    return run_demo(options, terminal, lambda: _predictor(options))


def _with_model(run: Callable[..., int]) -> Callable[[argparse.Namespace, Terminal], int]:
    """A command that loads the model when it needs one: with segmentations none is needed."""
    return lambda options, terminal: run(options, terminal, lambda: _predictor(options))


def _predictor(options: argparse.Namespace) -> SamPredictor3D:
    from .commandline.segmenting import load_predictor

    return load_predictor(options.checkpoint, options.model, options.profile, options.device, options.precision)


def _weights(options: argparse.Namespace, terminal: Terminal) -> int:
    for line in options.lines(options, terminal):
        print(line)
    return 0


def _models(options: argparse.Namespace, terminal: Terminal) -> int:
    from .model import model_names
    from .model.sizes import ALIASES, BUNDLED_NETWORK
    from .weights import default_checkpoint

    try:
        path = default_checkpoint()
        bundled = f"bundled: {path} ({path.stat().st_size / 2**20:.1f} MiB)"
    except FileNotFoundError:
        bundled = "bundled model missing: install again"
    for name in model_names():
        about = f"SAM-Med3D's name for {ALIASES[name]}" if name in ALIASES else "give its weights with --checkpoint"
        print(f"{name:12} {bundled if name == BUNDLED_NETWORK else about}")
    return 0


def _profiles(options: argparse.Namespace, terminal: Terminal) -> int:
    from .model import PROFILES

    for name, profile in sorted(PROFILES.items()):
        spacing = "the volume's own voxels" if profile.spacing_mm is None else f"{profile.spacing_mm:g} mm"
        windows = ", ".join(f"{low:g}..{high:g} HU" for low, high in profile.windows_hu)
        print(
            f"{name:18} {' x '.join(str(size) for size in profile.crop_size)} voxels, {spacing}; "
            f"{windows or 'z-score over HU > 0'}; {profile.prompt_rule} click{'s' * (profile.prompt_rule == 'all')}"
            f"{', boxes' * profile.boxes}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
