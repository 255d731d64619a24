"""``sammed3d report`` and ``sammed3d compare``: findings of one scan, and of a prior's nodules, as documents."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..inference.errors import InputError
from .terminal import Terminal, aligned

if TYPE_CHECKING:
    from ..files.volume_io import Volume
    from ..finding.lungs import LungMask
    from ..report.findings import Findings, Nodule, Scan
    from ..report.measuring import MeasuredScan, Segment

#: Not in every run; those of an earlier one would say something else than the other documents, or name the patient.
_DICOM = ("segmentation.dcm", "measurements.dcm")


def add_report(commands: argparse._SubParsersAction, add_model_options: Callable) -> argparse.ArgumentParser:
    """Adds ``report``'s options."""
    about = "measure a scan's nodules: page, PDF, table, JSON, DICOM SEG and SR"
    parser = commands.add_parser("report", help=about, description=about, allow_abbrev=False)
    parser.add_argument("ct", metavar="SCAN", help="NIfTI, NRRD or MetaImage file, or a DICOM series folder")
    parser.add_argument(
        "--segmentation",
        metavar="F",
        help="its nodules, a label map or .seg.nrrd (default: all nodules are looked for)",
    )
    _add_shared(parser, add_model_options)
    return parser


def add_compare(commands: argparse._SubParsersAction, add_model_options: Callable) -> argparse.ArgumentParser:
    """Adds ``compare``'s options."""
    about = "compare a scan's nodules with a prior's: matched, new, gone, growth, doubling time"
    parser = commands.add_parser("compare", help=about, description=about, allow_abbrev=False)
    parser.add_argument("ct", metavar="CURRENT", help="NIfTI, NRRD or MetaImage file, or a DICOM series folder")
    parser.add_argument("prior", metavar="PRIOR", help="the same of an earlier date")
    parser.add_argument(
        "--segmentations",
        nargs=2,
        metavar=("A", "B"),
        help="nodules of CURRENT and of PRIOR (default: all nodules are looked for)",
    )
    parser.add_argument(
        "--pair",
        action="append",
        type=_pair,
        default=[],
        metavar="A=B",
        help="label A of CURRENT is label B of PRIOR; may be given several times",
    )
    parser.add_argument("--prior-date", type=_date, metavar="YYYY-MM-DD", help="where the prior's file has none")
    parser.add_argument("--same-patient", action="store_true", help="go on although names or IDs differ")
    parser.add_argument("--swap", action="store_true", help="PRIOR is the newer one")
    _add_shared(parser, add_model_options)
    return parser


def _add_shared(parser: argparse.ArgumentParser, add_model_options: Callable) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the documents go; made if needed")
    parser.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help="where the scan's file has none")
    parser.add_argument(
        "--brock",
        action="append",
        type=_brock,
        default=[],
        metavar="LABEL:AGE:SEX[:WORD]",
        help="the Brock model for a nodule: sex f or m; words family, emphysema, spiculated, upper "
        "(upper lobe); may be given several times",
    )
    parser.add_argument(
        "--no-names", action="store_true", help="leave the patient's name and ID out, and DICOM files, which need them"
    )
    add_model_options(parser)


def run_report(options: argparse.Namespace, terminal: Terminal, load_predictor: Callable) -> int:
    """Runs ``report``; returns the exit code. Raises InputError."""
    _check_place(options.out)
    (measured,) = _measure([(options.ct, options.segmentation, options.date)], terminal, load_predictor)
    _write(options, terminal, measured, None, measured.findings)
    return 0


def run_compare(options: argparse.Namespace, terminal: Terminal, load_predictor: Callable) -> int:
    """Runs ``compare``; returns the exit code. Raises InputError."""
    from ..report.follow_up import follow_up, register, scan_extent
    from ..report.scan_facts import check_scans

    _check_place(options.out)
    if Path(options.ct).exists() and Path(options.prior).exists() and Path(options.ct).samefile(options.prior):
        raise InputError("both scans are the same file or folder: give the prior of another date")
    given = [
        (options.ct, (options.segmentations or (None, None))[0], options.date),
        (options.prior, (options.segmentations or (None, None))[1], options.prior_date),
    ]
    cure = "leave --swap out" if options.swap else "swap them, or give --swap"
    now, then = _measure(
        given[::-1] if options.swap else given,
        terminal,
        load_predictor,
        lambda current, prior: _ask(check_scans(current, prior, cure), options.same_patient),
    )
    dates = ["--prior-date", "--date"] if options.swap else ["--date", "--prior-date"]
    for which, measured, option in (("current", now, dates[0]), ("prior", then, dates[1])):
        if measured.findings.scan.date is None:
            terminal.note(f"note: the {which} scan has no date, so no doubling time can be told: give {option}")
    scans = [(measured.array_kji, measured.ijk_to_ras) for measured in (now, then)]
    with terminal.step("registering the prior with the current scan"):
        registration = register(scans[0], scans[1], (now.lungs, then.lungs))
    if registration.prior_to_current is None:
        terminal.note(f"note: {registration.message}: --pair A=B, labels of the current and of the prior scan")
    if registration.doubt:
        terminal.note(f"note: {registration.doubt}")
    pairs = [pair[::-1] for pair in options.pair] if options.swap else options.pair
    by_hand = [(_labelled(now, a, "current").tracking_uid, _labelled(then, b, "prior").tracking_uid) for a, b in pairs]
    extents = (scan_extent(*scans[0]), scan_extent(*scans[1]))
    findings = follow_up(now.findings, then.findings, registration, by_hand, extents)
    _write(options, terminal, now, then, findings)
    return 0


def _ask(questions: Sequence[str], answered: bool) -> None:
    """Raises InputError where the user has to confirm something; the message names the option."""
    if questions and not answered:
        raise InputError(f"{'; '.join(questions)}. If both scans are of one patient all the same, give --same-patient")


def _measure(
    given: Sequence[tuple[str, str | None, str | None]],
    terminal: Terminal,
    load_predictor: Callable,
    check: Callable[[Scan, Scan], None] | None = None,
) -> list[MeasuredScan]:
    """Reads scans and their nodules, or finds them, and measures them; several scans at once, one a core.

    Args:
        given: scan, segmentation or None, date or None.
        terminal: for progress.
        load_predictor: gives the predictor, where nodules must be found.
        check: of the first and second scan, before the long work.
    """
    from ..finding.lungs import find_lungs
    from ..report.measuring import MeasuredScan, measure_scan
    from ..report.scan_facts import check_copy, check_modality, scan_of

    with ThreadPoolExecutor(2) as pool:
        with terminal.step("reading"), warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            volumes = list(pool.map(_read, given))
        notes = [str(each.message) for each in remarks if "SAMMed3DLib" in each.filename]
        for note in dict.fromkeys(notes):
            terminal.note(f"note: {note}")
        if len(volumes) == 2:
            check_copy(volumes[0][0].array_kji, volumes[1][0].array_kji)
        bare = [
            _dated(scan_of(volume.array_kji, volume.ijk_to_ras, volume.name, volume.header_file), date)
            for (volume, _), (_, _, date) in zip(volumes, given, strict=True)
        ]
        for scan in bare:
            check_modality(scan)
        if check is not None:
            check(bare[0], bare[1])
        with terminal.step("finding the lungs"):
            lungs = list(pool.map(lambda each: find_lungs(each[0].array_kji, each[0].ijk_to_ras), volumes))
    measured = []
    predictor = None
    for (volume, segments), mask, (_, _, date) in zip(volumes, lungs, given, strict=True):
        model = "from the segmentation's file"
        if segments is None:
            if predictor is None:
                with terminal.step("loading the model"):
                    predictor = load_predictor()
            segments, model = _found(volume, mask, predictor, terminal), "found by SAMMed3D"
        facts = scan_of(
            volume.array_kji,
            volume.ijk_to_ras,
            volume.name,
            volume.header_file,
            mask,
            [note for note in notes if str(volume.path) in note or volume.path.name in note],
        )
        with terminal.step(f"measuring {len(segments)} nodule{'s' * (len(segments) != 1)}"):
            findings = measure_scan(_dated(facts, date), volume.array_kji, volume.ijk_to_ras, segments, mask, model)
        for nodule in findings.nodules:
            for remark in nodule.remarks:
                terminal.note(f"note: {volume.name}, {nodule.name}: {remark}")
        measured.append(MeasuredScan(volume.array_kji, volume.ijk_to_ras, volume.path, mask, tuple(segments), findings))
    return measured


def _dated(scan: Scan, date: str | None) -> Scan:
    return scan if date is None else dataclasses.replace(scan, date=date)


def _read(given: tuple[str, str | None, str | None]) -> tuple[Volume, list[Segment] | None]:
    """A scan, and its nodules where there is a segmentation."""
    from ..files.segmentation_io import on_grid, read_segment_names
    from ..files.volume_io import read_labels, read_volume
    from ..inference.validation import check_image
    from ..report.measuring import segments_of

    volume = read_volume(given[0])
    check_image(volume.array_kji)
    if given[1] is None:
        return volume, None
    labels = read_labels(given[1])
    names, uids = read_segment_names(labels.path)
    return volume, segments_of(on_grid(labels, volume.array_kji.shape, volume.ijk_to_ras), names, uids)


def _found(volume: Volume, lungs: LungMask, predictor, terminal: Terminal) -> list[Segment]:  # noqa: ANN001
    """All nodules that ``segment-all`` shows; the largest is number 1."""
    from ..inference import SamAutomaticMaskGenerator3D
    from ..report.measuring import Segment
    from .segment_all import percent

    predictor.set_image(volume.array_kji, volume.ijk_to_ras)
    generator = SamAutomaticMaskGenerator3D(predictor, lungs=lungs if lungs.found else "auto")
    with terminal.step(f"finding nodules in {volume.name}"):
        records = [each for each in generator.generate(percent(terminal)) if each["shown_from"] <= 0.5]
    if generator.message:
        terminal.note(f"note: {generator.message}")
    records.sort(key=lambda record: -record["measurements"].volume_mm3)
    with terminal.step("asking how sure the volumes are"):
        predictions = [predictor.with_volume_range(record["prediction"]) for record in records]
    return [Segment(label, f"nodule {label}", prediction) for label, prediction in enumerate(predictions, start=1)]


def _labelled(measured: MeasuredScan, label: int, which: str) -> Nodule:
    nodule = next((each for each in measured.findings.nodules if each.label == label), None)
    if nodule is None:
        there = ", ".join(str(each.label) for each in measured.findings.nodules) or "none"
        raise InputError(f"the {which} scan has no nodule with label {label}; it has: {there}")
    return nodule


def _write(
    options: argparse.Namespace, terminal: Terminal, now: MeasuredScan, then: MeasuredScan | None, findings: Findings
) -> None:
    """All documents, made in a folder of their own and then moved to their place, so that none is left half done."""
    from ..files.output_files import temporary_folder
    from ..files.segmentation_io import write_segmentation
    from ..inference.geometry import label_map
    from ..report import document
    from ..report.findings import without_names, write_findings
    from ..report.pictures import pictures_of

    findings = _with_brock(findings, options.brock)
    full = findings  # DICOM files are of the patient of their CT
    if options.no_names:
        findings = without_names(findings)
    out: Path = options.out
    is_new = not out.exists()
    try:
        out.mkdir(exist_ok=True)
        with temporary_folder(out) as folder:
            with terminal.step("drawing"):
                pictures = pictures_of(findings, now, then)
            with terminal.step(f"writing into {out}"):
                write_findings(folder / "findings.json", findings)
                document.write_text(folder / "findings.txt", findings)
                document.write_csv(folder / "findings.csv", findings)
                document.write_html(folder / "report.html", findings, pictures)
                document.write_pdf(folder / "report.pdf", findings, pictures)
                for name, measured, nodules in (
                    ("segmentation.seg.nrrd", now, findings.nodules),
                    ("prior.seg.nrrd", then, findings.follow_up.prior_nodules if findings.follow_up else ()),
                ):
                    if measured is not None:
                        write_segmentation(
                            folder / name,
                            label_map({each.label: each.block for each in measured.segments}, measured.array_kji.shape),
                            measured.ijk_to_ras,
                            {each.label: each.name for each in nodules},
                            {each.label: each.tracking_uid for each in nodules},
                        )
            if not options.no_names:
                _write_dicom(folder, terminal, now, full)
            folders = [file.name for file in folder.iterdir() if (out / file.name).is_dir()]
            if folders:  # before anything is moved: all of the documents are new, or none
                raise InputError(f"{out / min(folders)} is a folder; move it away, or choose another --out")
            stale = [out / name for name in _DICOM if (out / name).exists() and not (folder / name).exists()]
            for file in stale:
                file.unlink()
            for file in sorted(folder.iterdir()):
                file.replace(out / file.name)
    except OSError as error:
        raise InputError(f"{out} could not be written: {error.strerror or error}; choose another folder") from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it is empty after an error only
                out.rmdir()
    if stale:
        terminal.note(f"note: {' and '.join(file.name for file in stale)} of an earlier run removed from {out}")
    sys.stdout.write(f"{_summary(findings)}\n")
    terminal.note(document.DISCLAIMER)


def _write_dicom(folder: Path, terminal: Terminal, measured: MeasuredScan, findings: Findings) -> None:
    """DICOM SEG and SR, where they can be made; else a note that says what is missing."""
    from ..report import dicom_objects

    if not findings.nodules:
        terminal.note("note: there are no nodules, so no DICOM SEG and SR are written")
        return
    try:
        with terminal.step("writing DICOM SEG and SR"):
            dicom_objects.write_seg_and_sr(
                folder / _DICOM[0], folder / _DICOM[1], findings, measured.segments, measured
            )
    except InputError as error:
        terminal.note(f"note: no DICOM SEG and SR: {error}")


def _with_brock(findings: Findings, asked: Sequence[tuple[int, dict[str, bool | float]]]) -> Findings:
    """The findings with the Brock model's answers as remarks."""
    from ..report.rules import Patient, brock_remark

    nodules = list(findings.nodules)
    for label, words in asked:
        place = next((number for number, each in enumerate(nodules) if each.label == label), None)
        if place is None:
            raise InputError(f"--brock: the scan has no nodule with label {label}")
        remark = brock_remark(nodules[place], Patient(**words), len(nodules))  # type: ignore[arg-type]
        nodules[place] = dataclasses.replace(nodules[place], remarks=(*nodules[place].remarks, remark))
    return dataclasses.replace(findings, nodules=tuple(nodules))


def _summary(findings: Findings) -> str:
    """The table on the terminal."""
    from ..inference.nodule_table import whole
    from ..report import document

    if findings.follow_up is None:
        if not findings.nodules:
            return "no nodules"
        lines = [["nodule", "type", "side", "volume mm³", "mean mm", "Lung-RADS size"]]
        for nodule in findings.nodules:
            lines.append(
                [
                    document.name_text(nodule.name),
                    nodule.type,
                    nodule.place.side or "-",
                    document.volume_text(nodule)[:-1].replace(" mm³", "") + ")",
                    f"{nodule.mean_diameter_mm:.1f}",
                    document.lung_rads_text(findings, nodule),
                ]
            )
        return aligned(lines)
    if not findings.follow_up.pairs:
        return "no nodules at either date"
    lines = [["nodule", "course", "volume mm³", "change %", "growth"]]
    for pair in findings.follow_up.pairs:
        shown = findings.nodule(pair.current_uid) or findings.prior_nodule(pair.prior_uid)
        assert shown is not None
        change = "-" if pair.volume is None else document.change_text(pair.volume).replace(" %", "")
        growth = document.doubling_text(pair) if pair.status == "matched" else "-"
        lines.append([document.pair_name(findings, pair), pair.status, whole(shown.volume_mm3), change, growth])
    return aligned(lines)


def _check_place(out: Path) -> None:
    """Makes sure that the folder can be written or made. Raises InputError."""
    from ..files.output_files import check_folder

    try:
        exists = out.exists()
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}; choose another name or folder") from error
    check_folder(out if exists else out.parent)


def _pair(text: str) -> tuple[int, int]:
    a, _, b = text.partition("=")
    if not (a.isascii() and a.isdigit() and b.isascii() and b.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pair of labels such as 3=1")
    return int(a), int(b)


def _date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2024-05-31") from error


def _brock(text: str) -> tuple[int, dict[str, bool | float]]:
    from ..report.rules import BROCK_WORDS

    label, age, sex, *words = [*text.split(":"), "", ""][: max(3, text.count(":") + 1)]
    wrong = [word for word in words if word not in BROCK_WORDS]
    try:
        years = float(age)
    except ValueError:
        years = -1.0
    if not (label.isascii() and label.isdigit()) or years < 0 or sex not in ("f", "m") or wrong:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not LABEL:AGE:SEX and words of {', '.join(BROCK_WORDS)}, such as 1:62:f:upper"
        )
    return int(label), {
        "age": years,
        "female": sex == "f",
        **{field: word in words for word, field in BROCK_WORDS.items()},
    }
