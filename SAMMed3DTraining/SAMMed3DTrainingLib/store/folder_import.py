"""Pairs of image and label files into a data set: any format that can be read, one value for each nodule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .dataset_writer import DatasetWriter
from .errors import StoreError
from .export_case import ExportCase, image_source
from .file_pairs import FilePair, find_pairs
from .nifti_file import LARGEST_NODULE_MM, value_problem
from .stepwise_export import MakeCase, PlannedCase, StepwiseExport

__all__ = ["FilePair", "find_pairs", "folder_import", "read_pair"]


def folder_import(pairs: Sequence[FilePair], writer: DatasetWriter) -> StepwiseExport:
    """What reads and writes the pairs without problems, one after the other, on the worker thread.

    Args:
        pairs: of :func:`find_pairs`.
        writer: the data set.
    """
    usable = [pair for pair in pairs if not pair.problem]
    return StepwiseExport([PlannedCase(pair.name, _reader(pair, writer)) for pair in usable], writer)


def read_pair(pair: FilePair) -> ExportCase:
    """A pair of files as case. A label map on another grid is put onto the image's; takes seconds.

    Every value and in it every connected component is a nodule, numbered in this order; none is left out.

    Raises:
        StoreError: a file cannot be read, it is no CT, or there is no nodule in it.
    """
    # These load PyTorch and nibabel, which the application's start need not wait for.
    from SAMMed3DLib.files.volume_io import read_labels, read_volume
    from SAMMed3DLib.inference.errors import InputError

    from ..data.datasets import geometry_mismatch
    from ..data.instances import split_instances

    if pair.problem or pair.image is None or pair.label is None:
        raise StoreError(pair.problem or "an image and its label map are needed")
    try:
        image, label = read_volume(pair.image), read_labels(pair.label)
    except InputError as error:
        raise StoreError(str(error)) from error
    problem = value_problem(image.array_kji)
    if problem:
        raise StoreError(f"{pair.image}: {problem}")
    shape, values = image.array_kji.shape, label.array_kji
    if geometry_mismatch(shape, image.ijk_to_ras, values.shape, label.ijk_to_ras):
        values = on_grid(values, label.ijk_to_ras, shape, image.ijk_to_ras)
        if not values.any():
            raise StoreError(f"{pair.label} has no voxel within {pair.image.name}: does it belong to another image?")
    nodules = split_instances(values, image.ijk_to_ras)
    if not nodules:
        raise StoreError(f"{pair.label} is empty: it has no nodule")
    large = [nodule for nodule in nodules if nodule.diameter_mm > LARGEST_NODULE_MM]
    if large:
        raise StoreError(
            f"{pair.label}: value {large[0].value} is {large[0].diameter_mm:.0f} mm large, no nodule; keep nodules only"
        )
    labels = np.zeros(shape, dtype=np.uint16)
    for number, nodule in enumerate(nodules, start=1):
        labels[nodule.slices_kji][nodule.mask] = number
    names = {number: f"Nodule {number}" for number in range(1, len(nodules) + 1)}
    source = image_source(image.array_kji)
    return ExportCase(pair.name, "", image.array_kji, image.ijk_to_ras, labels, names, source)


def on_grid(labels_kji: NDArray, ijk_to_ras: NDArray, shape: Sequence[int], target: NDArray) -> NDArray:
    """A label map on another grid, each voxel with the value at its middle.

    Args:
        labels_kji: (K, J, I) whole numbers.
        ijk_to_ras: (4, 4) of the labels.
        shape: of the other grid, (K, J, I).
        target: (4, 4) of the other grid.
    """
    from scipy import ndimage

    step = np.linalg.solve(ijk_to_ras, target)
    back, start = step[:3, :3][::-1, ::-1], step[:3, 3][::-1]
    # "constant" would leave out the outer half of the voxels at the edge.
    return ndimage.affine_transform(labels_kji, back, start, tuple(shape), order=0, mode="grid-constant", cval=0)


def _reader(pair: FilePair, writer: DatasetWriter) -> Callable[[], Iterator[MakeCase]]:
    def make() -> ExportCase:
        case = read_pair(pair)
        twin = next((other for other in writer.cases() if other.source == case.source), None)
        if twin is not None and twin.name != case.name:
            raise StoreError(f"the data set holds this image already, as case {twin.name}")
        return case

    return lambda: iter([make])
