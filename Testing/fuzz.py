"""Hostile input by the hundred: every one is accepted or refused with one clear message, whatever is done to it.

    python Testing/fuzz.py readers|checkpoints|options [SEED] [COUNT]

Inputs start as valid files and command lines, and are damaged at random places: bytes flipped, runs of bytes replaced,
cut or doubled, numbers of text headers replaced by absurd ones. Prints one JSON object: how many inputs there were, how
many were accepted and refused, and whatever else happened, which fails. A hang ends the process with a traceback.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gzip
import io
import json
import os
import random
import re
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

HANG_SECONDS = 240
ABSURD = (
    "0",
    "-1",
    "nan",
    "inf",
    "-inf",
    "1e38",
    "1e-38",
    "99999999999",
    "4294967296",
    "-2147483649",
    "",
    "x",
    "(",
    '"',
    "0 0 0",
    "1 2",
    "\\u0663",
    "None",
    "~",
    "../..",
    "%s",
    "LIST",
    "/dev/zero",
    "/dev/null",
)
SHAPE = (7, 9, 11)


class Refused(Exception):
    """An input was refused as it should be."""


def damaged(content: bytes, dice: random.Random, header: int) -> bytes:
    """The content with one to four damages, most of them in the first ``header`` bytes."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        if not data:
            break
        at = dice.randrange(min(len(data), header) if dice.random() < 0.7 else len(data))
        kind = dice.randrange(7)
        if kind == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[at : at + dice.choice((1, 2, 4, 8))] = dice.randbytes(dice.choice((1, 2, 4, 8)))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + dice.randint(1, 40)]
        elif kind == 4:
            data[at:at] = data[at : at + dice.randint(1, 40)]
        elif kind == 5:
            data[at : at + 4] = dice.choice(
                (
                    b"\x00" * 4,
                    b"\xff" * 4,
                    b"\x7f\xff\xff\xff",
                    b"\xff\xff\xff\x7f",
                    b"\x00\x00\x80\x7f",
                    b"\x00\x00\xc0\x7f",
                    b"\x80\x00\x00\x00",
                )
            )
        else:
            numbers = list(re.finditer(rb"-?\d[\d.e+-]*", bytes(data[: min(len(data), header)])))
            if numbers:
                found = dice.choice(numbers)
                data[found.start() : found.end()] = dice.choice(ABSURD).encode()
    return bytes(data)


# -- readers ----------------------------------------------------------------------------------------------------------


def volumes(folder: Path) -> Iterator[tuple[str, bytes, int]]:
    """Valid files of every kind: ending, content, length of the header."""
    rng = np.random.default_rng(3)
    array = rng.normal(-500, 400, SHAPE).astype(np.int16)
    affine = np.diag([-0.8, -0.9, 1.5, 1.0])
    for dtype in (np.int16, np.float32):
        nibabel.Nifti1Image(array.T.astype(dtype), affine).to_filename(folder / "a.nii")
        plain = (folder / "a.nii").read_bytes()
        yield "nii", plain, 348
        yield "nii.gz", gzip.compress(plain, mtime=0), 40
    nibabel.Nifti2Image(array.T, affine).to_filename(folder / "b.nii")
    yield "nii", (folder / "b.nii").read_bytes(), 540
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.9, 1.5))
    for ending in ("nrrd", "mha"):
        for packed in (False, True):
            sitk.WriteImage(image, str(folder / f"c.{ending}"), useCompression=packed)
            content = (folder / f"c.{ending}").read_bytes()
            yield ending, content, content.find(b"\n\n") if ending == "nrrd" else content.find(b"LOCAL")
    from files.dicom_files import enhanced, write_slices

    positions = [(0.0, 0.0, 2.0 * k) for k in range(SHAPE[0])]
    write_slices(folder / "dicom", array, positions, series="1.2.3")
    yield "dicom", (folder / "dicom" / "IM003.dcm").read_bytes(), 900
    data = enhanced(array, positions)
    data.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    yield "dcm", (folder / "enhanced.dcm").read_bytes(), 3000


def fuzz_readers(dice: random.Random, folder: Path) -> Callable[[int], None]:
    from SAMMed3DLib.files.volume_io import read_labels, read_volume
    from SAMMed3DLib.inference.errors import InputError

    (folder / "seeds").mkdir()
    seeds = list(volumes(folder / "seeds"))

    def one(number: int) -> None:
        ending, content, header = dice.choice(seeds)
        spoiled = damaged(content, dice, header)
        if ending == "nii.gz" and dice.random() < 0.5:  # damage below a packing that is whole
            spoiled = gzip.compress(damaged(gzip.decompress(content), dice, 348), 1)
        path = folder / f"input.{ending}"
        if ending == "dicom":
            path = folder / "seeds" / "dicom"
            (path / "IM003.dcm").write_bytes(spoiled)
        else:
            path.write_bytes(spoiled)
        try:
            volume = (read_labels if dice.random() < 0.2 else read_volume)(path)
        except InputError as error:
            raise Refused(str(error)) from error
        if volume.array_kji.ndim != 3 or not np.isfinite(volume.ijk_to_ras).all():
            raise AssertionError(f"{volume.array_kji.shape}, {volume.ijk_to_ras}")

    return one


# -- checkpoints ------------------------------------------------------------------------------------------------------


def fuzz_checkpoints(dice: random.Random, folder: Path) -> Callable[[int], None]:
    import torch

    from SAMMed3DLib.model import CheckpointError, load_model
    from SAMMed3DLib.weights import default_checkpoint

    torch.set_num_threads(1)
    whole = default_checkpoint().read_bytes()
    content = torch.load(io.BytesIO(whole), weights_only=True)
    names = sorted(content["model_state_dict"])
    path = folder / "model.pth"

    def spoiled_content() -> dict:
        weights, profile = dict(content["model_state_dict"]), dict(content["profile"])
        spoiled = {**content, "model_state_dict": weights, "profile": profile}
        name, kind = dice.choice(names), dice.randrange(8)
        if kind == 0:
            weights[name] = weights[name].to(dice.choice((torch.complex64, torch.int32, torch.bool, torch.uint8)))
        elif kind == 1:
            weights[name] = torch.full_like(weights[name], dice.choice((float("nan"), float("inf"))))
        elif kind == 2:
            spoiled["model_state_dict"] = {key: torch.zeros_like(value) for key, value in weights.items()}
        elif kind == 3:
            profile[dice.choice(sorted(profile))] = dice.choice(
                (None, -1, 0, float("nan"), 1e300, "x", [], [1, 2], [[1]], {}, True, 10**30, [-1, -1, -1], [10**6] * 3)
            )
        elif kind == 4:
            spoiled[dice.choice(sorted(spoiled))] = dice.choice((None, 7, "x", [], {}, torch.zeros(3)))
        elif kind == 5:
            weights[name] = dice.choice((None, 3, "x", torch.zeros(2, 3), weights[name].to_sparse()))
        elif kind == 6:
            del weights[name]
        else:
            weights[f"extra.{name}"] = weights[name]
        return spoiled

    def one(number: int) -> None:
        if dice.random() < 0.5:
            torch.save(spoiled_content(), path)
        elif dice.random() < 0.3:  # packed again
            with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
                for member in old.infolist():
                    new.writestr(member.filename, old.read(member))
        else:
            end = dice.random() < 0.5  # a zip archive's directory is at its end
            path.write_bytes(damaged(whole[::-1], dice, 4000)[::-1] if end else damaged(whole, dice, 4000))
        try:
            model = load_model(path)
        except CheckpointError as error:
            raise Refused(str(error)) from error
        if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
            raise AssertionError("weights that are not finite were accepted")

    return one


# -- options ----------------------------------------------------------------------------------------------------------

WORDS = (
    "segment",
    "segment-all",
    "demo",
    "evaluate",
    "weights",
    "models",
    "profiles",
    "list",
    "path",
    "download",
    "remove",
    "--point",
    "--box",
    "--nodule",
    "--lps",
    "--ijk",
    "--out",
    "--preview",
    "--json",
    "--checkpoint",
    "--model",
    "--profile",
    "--device",
    "--precision",
    "--labels",
    "--seed",
    "--table",
    "--sensitivity",
    "--min-diameter",
    "--max-diameter",
    "--whole-volume",
    "--folder",
    "-tdp",
    "-cp",
    "-vp",
    "-nc",
    "--version",
    "--help",
    "-h",
    "--",
    "1,2,3",
    "-1,2,3,0",
    "1,2,3,4,5,6",
    "nan,1,2",
    "1e999,0,0",
    ",",
    "0.5",
    "-0",
    "9" * 400,
    "cpu",
    "cuda:99",
    "nodule",
    "a.nii.gz",
    "~nobody-of-that-name/x",
    "/dev/null",
    "\udc80",
    "ä",
    "a\nb",
)


def fuzz_options(dice: random.Random, folder: Path) -> Callable[[int], None]:
    from SAMMed3DLib import cli

    os.chdir(folder)
    refusals = re.compile(r"error: .+")

    def one(number: int) -> None:
        words = [dice.choice(WORDS + ABSURD) for _ in range(dice.randint(0, 7))]
        if words and dice.random() < 0.8:
            words[0] = dice.choice(WORDS[:7])
        if words[:1] == ["demo"] and not any(word.endswith("nii.gz") for word in words):
            words.insert(1, "missing.nii.gz")  # without a CT a whole chest would be made
        if words[:2] == ["weights", "download"]:
            words[1] = "path"
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main(words)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        told = err.getvalue()
        if code == 2 and refusals.search(told) and "Traceback" not in told:
            raise Refused(told)
        if code != 0:
            raise AssertionError(f"{words}: exit code {code}, {told[-300:]!r}")

    return one


def main(arguments: list[str]) -> int:
    """Runs one kind of fuzzing. Returns 0 where every input was accepted or refused."""
    kind, seed, count = arguments[0], int(arguments[1]), int(arguments[2])
    dice, others = random.Random(seed), {}
    accepted = refused = 0
    makers = {"readers": fuzz_readers, "checkpoints": fuzz_checkpoints, "options": fuzz_options}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = makers[kind](dice, Path(name))
        for number in range(count):
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            try:
                one(number)
                accepted += 1
            except Refused as error:
                if not str(error).strip():
                    others[number] = "a refusal without a word"
                refused += 1
            except BaseException:
                others[number] = traceback.format_exc()[-700:]
            faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps({"inputs": count, "accepted": accepted, "refused": refused, "others": others}) + "\n")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
