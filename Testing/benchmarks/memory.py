"""Peak memory of ``sammed3d segment`` over the size of its volume, side by side with another checkout.

    python Testing/benchmarks/memory.py [--other CHECKOUT] [--shape 512 512 300] [--formats nii nii.gz nrrd mha dicom]

Each run is a process of its own, which segments one nodule and writes a .seg.nrrd. What is above the model is its peak
less that of the same command on a volume of 64 x 64 x 24 voxels. Exit code 1 when the target is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "Testing" / "benchmarks")]

from files.dicom_files import write_slices  # noqa: E402

#: Peak above the model, in sizes of the voxels.
TARGET = 1.3
SMALL = (64, 64, 24)
CODE = """
import sys
sys.path[:0] = [{sammed3d!r}, {benchmarks!r}]
from SAMMed3DLib.cli import main
assert main(["segment", {ct!r}, "--ijk", "--point", {point!r}, "--out", {out!r}]) == 0
from segment_all import peak_mb
print("PEAK", peak_mb())
"""


def write(folder: Path, kind: str, shape_ijk: Sequence[int]) -> Path:
    """A noisy lung with one ball in the middle, as the kind of file asked for."""
    i, j, k = shape_ijk
    array = np.random.default_rng(0).integers(-900, -800, (k, j, i), dtype=np.int16)
    center = tuple(slice(n // 2 - 6, n // 2 + 6) for n in array.shape)
    grid = np.indices((12, 12, 12)) - 5.5
    array[center][(grid**2).sum(axis=0) < 30.0] = 40
    path = folder / f"{i}-{j}-{k}.{kind}"
    if kind == "dicom":
        write_slices(path, array, [(0.0, 0.0, float(n)) for n in range(k)])
    elif kind.startswith("nii"):
        nibabel.Nifti1Image(array.T, np.diag([-0.7, -0.7, 1.0, 1.0])).to_filename(path)
    else:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.7, 0.7, 1.0))
        sitk.WriteImage(image, str(path), useCompression=kind.endswith("z"))
    return path


def peak(checkout: Path, ct: Path, shape_ijk: Sequence[int]) -> float:
    """The most memory that the command ever held, MB."""
    code = CODE.format(
        sammed3d=str(checkout / "SAMMed3D"),
        benchmarks=str(ROOT / "Testing" / "benchmarks"),
        ct=str(ct),
        point=",".join(str(length // 2) for length in shape_ijk),
        out=str(ct.parent / "out.seg.nrrd"),
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    return float(run.stdout.rpartition("PEAK ")[2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, metavar="CHECKOUT", help="the state before, for the comparison")
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300), metavar=("I", "J", "K"))
    parser.add_argument("--formats", nargs="+", default=("nii", "nii.gz", "nrrd", "mha", "dicom"))
    options = parser.parse_args(arguments)
    checkouts = [each for each in (options.other, ROOT) if each is not None]
    voxels = 2.0 * np.prod(options.shape) / 2**20
    print(f"{' x '.join(map(str, options.shape))} voxels of 16 bits are {voxels:.0f} MB\n")
    print("| file | " + " | ".join("this" if each == ROOT else str(each) for each in checkouts) + " |")
    print("|---|" + "---|" * len(checkouts))
    reached = True
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        small = write(folder, "nii", SMALL)
        base = {each: peak(each, small, SMALL) for each in checkouts}
        for kind in options.formats:
            ct = write(folder, kind, options.shape)
            cells = []
            for each in checkouts:
                most = peak(each, ct, options.shape)
                share = (most - base[each]) / voxels
                cells.append(f"{most:.0f} MB, {share:.2f} x above the model's {base[each]:.0f} MB")
                reached = reached and (each != ROOT or share <= TARGET)
            print(f"| .{kind} | {' | '.join(cells)} |", flush=True)
    print(f"\ntarget {TARGET} x: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
