"""``sammed3d demo``: one click into every nodule of a CT with references, or of a synthetic chest."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..files.output_files import check_folder
from ..files.segmentation_io import write_segmentation
from ..files.volume_io import Volume, read_labels, read_volume, write_volume
from ..inference import InputError, SamPredictor3D
from ..inference.geometry import label_map, transform_points, voxel_spacing
from ..inference.mask_regions import most_interior_voxel
from .preview import write_picture
from .prompts import NodulePrompt
from .segmenting import check_prompt, segment_nodules, table, write_csv
from .terminal import Terminal

#: What every demo writes into its folder.
OUTPUTS = ("segmentation.seg.nrrd", "nodules.csv", "preview.png")


@dataclass(frozen=True)
class Scene:
    """A CT, where to click, and the reference (labels [k, j, i] on the CT's grid) if there is one."""

    volume: Volume
    prompts: list[NodulePrompt]
    labels: list[int]
    names: list[str]
    reference: NDArray | None = None


def run_demo(options: argparse.Namespace, terminal: Terminal, load: Callable[[], SamPredictor3D]) -> int:
    """Segments, prints the table and writes segmentation.seg.nrrd, nodules.csv and preview.png into ``options.out``.

    Raises:
        InputError and the errors of ``load``: as for ``sammed3d segment``.
    """
    _check_options(options)
    folder: Path = options.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made: {error.strerror}; choose another with --out") from error
    check_folder(folder)
    for path in (folder / name for name in OUTPUTS if options.labels is not None):
        if path.exists() and path.resolve() == options.labels.resolve():
            raise InputError(f"{path} is the reference itself, and would be overwritten: choose another --out FOLDER")
    with terminal.step("loading the model"):
        predictor = load()
    scene = _scene(options, terminal)
    with terminal.step("segmenting"):
        results = segment_nodules(
            predictor, scene.volume, scene.prompts, scene.names, scene.reference, scene.labels, terminal.count
        )
    print(table(results))

    with terminal.step("writing the results"):
        matrix, names = scene.volume.ijk_to_ras, dict(zip(scene.labels, scene.names, strict=True))
        labels = label_map({each.label: each.prediction for each in results}, scene.volume.array_kji.shape)
        written = [folder / name for name in OUTPUTS]
        write_segmentation(written[0], labels, matrix, names)
        write_csv(written[1], results)
        write_picture(written[2], scene.volume, results, scene.reference)
        if options.ct is None and scene.reference is not None:
            written += [folder / "ct.nii.gz", folder / "reference.seg.nrrd"]
            write_volume(written[3], scene.volume)
            write_segmentation(written[4], scene.reference, matrix, names)
    print(f"\nwritten to {folder}: {', '.join(path.name for path in written)}")
    return 0


def _check_options(options: argparse.Namespace) -> None:
    """Raises InputError for options that do not go together."""
    if options.ct is None:
        if options.nodules or options.labels:
            raise InputError("--point, --box and --labels belong to a CT: name it, 'sammed3d demo CT --point R,A,S'")
        return
    if options.labels is None and not options.nodules:
        raise InputError(f"say where the nodules of {options.ct} are: --labels FILE, or --point R,A,S")
    if options.labels is not None and options.nodules:
        raise InputError("give either --labels or --point and --box, not both")
    for number, prompt in enumerate(options.nodules or [], start=1):
        check_prompt(prompt, number)


def _scene(options: argparse.Namespace, terminal: Terminal) -> Scene:
    if options.ct is None:
        return _phantom(options.seed, terminal)
    with terminal.step("reading the CT"):
        volume = read_volume(options.ct)
        reference = None if options.labels is None else _on_grid(read_labels(options.labels), volume)
    if reference is not None:
        return _clicked(volume, reference, {})
    prompts = [prompt.in_ras(options.convention, volume.ijk_to_ras) for prompt in options.nodules]
    labels = list(range(1, len(prompts) + 1))
    return Scene(volume, prompts, labels, [f"nodule {label}" for label in labels])


def _phantom(seed: int, terminal: Terminal) -> Scene:
    from ..synthesis.phantom import chest_phantom

    with terminal.step("making a synthetic chest with nodules of real shapes"):
        phantom = chest_phantom(seed)
    volume = Volume(phantom.array_kji, phantom.ijk_to_ras, f"Chest phantom {seed}", Path("phantom"))
    names = {
        int(nodule["label"]): f"{nodule['kind']} {float(nodule['diameter_mm']):.0f} mm".replace("_", " ")
        for nodule in phantom.nodules
    }
    return _clicked(volume, phantom.labels_kji, names)


def _clicked(volume: Volume, reference: NDArray, names: dict[int, str]) -> Scene:
    """One click into the most interior voxel of each label."""
    blocks = ndimage.find_objects(reference)
    labels = [number for number, block in enumerate(blocks, start=1) if block is not None]
    if not labels:
        raise InputError("the reference has no label above 0: there is no nodule to click")
    i_mm, j_mm, k_mm = (float(length) for length in voxel_spacing(volume.ijk_to_ras))
    prompts = []
    for label in labels:
        block = blocks[label - 1]
        inside = most_interior_voxel(reference[block] == label, (k_mm, j_mm, i_mm))
        kji = [index + part.start for index, part in zip(inside, block, strict=True)]
        r, a, s = (float(value) for value in transform_points(volume.ijk_to_ras, kji[::-1]))
        prompts.append(NodulePrompt(((r, a, s),), (True,)))
    return Scene(volume, prompts, labels, [names.get(label, f"nodule {label}") for label in labels], reference)


def _on_grid(labels: Volume, volume: Volume) -> NDArray:
    """A label map on the voxels of the CT: as it is where the grids agree, else the nearest label."""
    same = labels.array_kji.shape == volume.array_kji.shape
    if same and np.allclose(labels.ijk_to_ras, volume.ijk_to_ras, atol=1e-3):
        return labels.array_kji
    to_labels = np.linalg.inv(labels.ijk_to_ras) @ volume.ijk_to_ras
    flip = np.eye(4)[[2, 1, 0, 3]]  # (i, j, k) to (k, j, i)
    return ndimage.affine_transform(
        labels.array_kji, flip @ to_labels @ flip, output_shape=volume.array_kji.shape, order=0, mode="constant"
    )
