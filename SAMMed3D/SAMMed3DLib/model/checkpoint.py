"""Checkpoints: safe and lean loading of the public files and our own, atomic saving.

Nothing stored in a file is ever run: only tensors, plain values and ``argparse.Namespace`` (which the public files
carry) are unpickled. The file is mapped, and the weights are copied out of it a few at a time, each time through a
fresh mapping: so optimizer states are never read, weights and their mapped pages are never both in memory, and
afterwards the file may be replaced or removed.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import os
import pickle
import re
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .precision import resolve_device, resolve_precision
from .profile import PROFILES, PreprocessingProfile, profile_by_name
from .registry import PATCH, default_profile, skeleton
from .sam import Sam3D
from .sizes import ALIASES, VIT_SIZES, model_names

FORMAT = "sammed3d"
FORMAT_VERSION = 1
# Weights are copied out of the mapped file in groups of this share of them, or of as many bytes.
GROUP_SHARE = 0.05
GROUP_BYTES = 8 << 20
# No checkpoint takes so long to write.
_OLD_SECONDS = 3600.0
# A ViT with this tensor was made for boxes.
# What zipfile makes of damaged archives.
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError, LookupError)
BOX_KEY = "prompt_encoder.point_embeddings.3.weight"


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message says what to do."""


def load_model(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    profile: str | PreprocessingProfile | None = None,
) -> Sam3D:
    """A trained network, ready for inference (evaluation mode, no gradients).

    Args:
        path: a file of :func:`save_checkpoint`, a public SAM-Med3D checkpoint, or a bare state dict in one of their
            layouts; ``module.`` prefixes are removed. The network is recognized by its tensors.
        device: "cpu", "cuda", "cuda:1" or "mps".
        precision: "fp32", "bf16", "fp16" or "auto" (the fastest that the device really has).
        profile: what its input looks like, a name or a value; by default what the file says, else that of the public
            weights (or of the LIDC fork, when the file's training options name it).

    Raises:
        CheckpointError: not a checkpoint, damaged, unsafe, of an unknown network, or with missing or foreign weights.
        DeviceError: a device or number format that is not there.
        ValueError: unknown precision or profile name.
    """
    resolved = resolve_device(device)
    precision = resolve_precision(precision, resolved)
    named = profile_by_name(profile) if isinstance(profile, str) else None
    given = None if isinstance(profile, str) else profile
    file = Path(path)
    _check_file(file)
    payload = _unpickle(file)
    weights = _state_dict(payload, file)
    architecture = _architecture(payload, weights, file)
    if payload.get("format") == FORMAT:
        _check_sums(file)
    boxes = BOX_KEY in weights
    if named is not None and architecture in VIT_SIZES:  # a named rule holds for every size, with or without boxes
        named = dataclasses.replace(named, crop_size=default_profile(architecture).crop_size, boxes=boxes)
    chosen = _profile(named or given, payload, boxes, architecture, file)
    try:
        model = skeleton(architecture, chosen, boxes=boxes)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error
    check_layout(model, architecture, weights, file)
    names = {name: tensor.nbytes for name, tensor in weights.items()}
    del payload, weights  # and with them the mapping
    model.load_state_dict(_copied(file, names, resolved), strict=True, assign=True)
    model.requires_grad_(False).eval()
    model.set_precision(precision)
    return model


def read_weights(path: str | os.PathLike[str], keys: Sequence[str] = ("model_state_dict",)) -> dict[str, Tensor]:
    """The tensors of a checkpoint, mapped from its file, without ``module.`` prefixes; nothing in it is run.

    Args:
        path: a file of ``torch.save``: weights by name, or a dict that holds them under one of ``keys``.
        keys: tried in turn.

    Raises:
        CheckpointError: not a checkpoint, damaged, unsafe, or without weights.
    """
    file = Path(path)
    _check_file(file)
    return _state_dict(_unpickle(file), file, keys)


def save_checkpoint(model: Sam3D, path: str | os.PathLike[str], *, half: bool = False) -> None:
    """Write weights, network name and profile; the file appears whole or not at all.

    The weights go to a temporary file in the same folder, which then takes the place of ``path``; when anything fails
    it is removed and an older ``path`` stays as it was.

    Args:
        model: any :class:`Sam3D`.
        path: where to.
        half: store float16, in half the space (each weight to 3 digits); loading gives float32 again.

    Raises:
        ValueError: a model whose weights were rounded to bf16 or fp16, load it with precision="fp32" to save it; with
            ``half``, a weight beyond the range of float16.
        OSError: the folder is missing or not writable, or the disk is full.
    """
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    rounded = [name for name, tensor in state.items() if tensor.is_floating_point() and tensor.dtype != torch.float32]
    if rounded:
        raise ValueError(f"the weights of this model are rounded to {model.precision}: load it in fp32 to save it")
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        beyond = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
        if beyond:
            raise ValueError(f"{beyond[0]} does not fit float16: save it in full")
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "architecture": model.name,
        "profile": model.profile.to_dict(),
        "model_state_dict": state,
    }
    try:
        for old in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
            if time.time() - old.stat().st_mtime > _OLD_SECONDS:  # of a run that was killed as it saved
                old.unlink(missing_ok=True)
        with temporary.open("xb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except RuntimeError as error:  # how PyTorch reports a short write
        raise OSError(f"cannot write {target} (is the disk full?): {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_file(file: Path) -> None:
    """What can be said without unpickling. Raises CheckpointError."""
    try:
        if not file.is_file():
            raise CheckpointError(f"{file} is not a file: check the path, or download the checkpoint")
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    if zipfile.is_zipfile(file):
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except _ZIP_ERRORS as error:
            raise CheckpointError(f"{file} is damaged: download it again") from error
        if not any(member.filename.endswith("/data.pkl") for member in members):
            raise CheckpointError(
                f"{file} is a zip archive but not a PyTorch checkpoint: unpack it and choose the .pth file inside"
            )
        # Weights are mapped from the file as they lie there.
        if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
            raise CheckpointError(
                f"{file} was packed again after PyTorch wrote it: take the original file, or save it "
                "again with torch.save"
            )
        return
    text = start.lstrip().lower()
    if not start:
        reason = "is empty: download it again"
    elif start.startswith(b"PK"):
        reason = f"is incomplete ({size} bytes): download it again"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        reason = "is a web page, not a checkpoint: open the link in a browser, and download the file it leads to"
    elif text.startswith(b"version https://git-lfs"):
        reason = "is a Git LFS pointer, not the checkpoint: run 'git lfs pull', or download the file itself"
    elif start.startswith(b"\x80"):
        reason = "is a bare pickle, which could run anything: save it again with torch.save of PyTorch 1.6 or later"
    else:
        reason = "is not a PyTorch checkpoint: choose a .pth file of SAM-Med3D or of this project"
    raise CheckpointError(f"{file} {reason}")


def _unpickle(file: Path) -> Any:
    """The file's content with its tensors mapped. Raises CheckpointError."""
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds more than weights and plain values, which could run code; nothing of it was run. Save its "
            f"'model_state_dict' alone, from a source you trust.{_named_global(error)}"
        ) from error
    except (
        RuntimeError,
        OSError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        MemoryError,
        ImportError,
        RecursionError,
    ) as error:
        raise CheckpointError(f"{file} is damaged or not a checkpoint: download it again") from error


def _check_sums(file: Path) -> None:
    """Our own files carry a checksum for every tensor, which PyTorch does not look at. Raises CheckpointError."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"{file} is damaged: copy it again") from error
    if damaged is not None:
        raise CheckpointError(f"{file} is damaged ({damaged} has changed since it was written): copy it again")


def _harmless() -> list[Any]:
    """What public checkpoints carry beside tensors: their options, and losses that may be numpy numbers."""
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [argparse.Namespace, scalar, np.dtype, *{type(np.dtype(kind)) for kind in "fdlqiB?"}]
    if torch.__version__ >= "2.6":  # numpy moved the module between its versions 1 and 2
        allowed += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return allowed


def _named_global(error: Exception) -> str:
    """What was refused, in words of our own: PyTorch's advice is to run the file after all."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f" (It asks for {found.group(1)}.)" if found else ""


def _state_dict(payload: Any, file: Path, keys: Sequence[str] = ("model_state_dict",)) -> dict[str, Tensor]:
    """The weights without ``module.`` prefixes. Raises CheckpointError."""
    found = None
    if isinstance(payload, Mapping):
        found = next((payload[key] for key in keys if key in payload), payload)
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(
            f"{file} has no weights ('model_state_dict'): choose a checkpoint of SAM-Med3D or of this project"
        )
    weights = {str(name).removeprefix("module."): value for name, value in found.items()}
    foreign = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if foreign:
        raise CheckpointError(
            f"{file} holds {foreign[0]!r} where weights are expected: choose a checkpoint of "
            "SAM-Med3D or of this project"
        )
    other = [
        name
        for name, value in weights.items()
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu"
    ]
    if other:
        raise CheckpointError(
            f"{file} holds {other[0]} as {weights[other[0]].dtype}, {weights[other[0]].layout}: "
            "weights must be plain real numbers, save them as float32"
        )
    return weights


def _architecture(payload: Mapping[str, Any], weights: Mapping[str, Tensor], file: Path) -> str:
    """Registry name. Raises CheckpointError."""
    if payload.get("format") == FORMAT:
        version, name = payload.get("format_version"), payload.get("architecture")
        if type(version) is not int or version != FORMAT_VERSION:
            raise CheckpointError(
                f"{file} has format version {version}, this program knows {FORMAT_VERSION}: update the program"
            )
        if not isinstance(name, str) or name not in model_names():
            raise CheckpointError(
                f"{file} is of the unknown architecture {name!r}; known are "
                f"{', '.join(model_names())}: update this program, or choose another checkpoint"
            )
        return ALIASES.get(name, name)
    if "prompt_encoder.gaussian_matrix" in weights:
        return "nodule" if "mask_decoder.middle.conv1.weight" in weights else "nodule_light"
    positions = weights.get("image_encoder.pos_embed")
    shape = None if positions is None else tuple(positions.shape)
    for name, size in VIT_SIZES.items():
        grid = size.image_size // PATCH
        if shape == (1, grid, grid, grid, size.dim):
            return name
    raise CheckpointError(
        f"{file} is of an unknown architecture (position embedding {shape}): choose a checkpoint of SAM-Med3D "
        f"({', '.join(VIT_SIZES)}) or of this project"
    )


def _profile(
    asked: PreprocessingProfile | None, payload: Mapping[str, Any], boxes: bool, architecture: str, file: Path
) -> PreprocessingProfile:
    """The profile asked for, else the stored one, else that of the public weights or of the fork."""
    if asked is not None:
        return asked
    stored = payload.get("profile") if payload.get("format") == FORMAT else None
    if stored is not None:
        try:
            return PreprocessingProfile.from_dict(stored)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{file}: {error}; name a profile, for example sam_med3d") from error
    default = default_profile(architecture)
    task = str(getattr(payload.get("args"), "task_name", ""))
    if architecture in VIT_SIZES and ("lidc" in task.lower() or "lidc" in file.stem.lower()):
        default = dataclasses.replace(PROFILES["lidc_fork"], crop_size=default.crop_size)
    return default if not boxes else dataclasses.replace(default, boxes=True)


def check_layout(model: nn.Module, network: str, weights: Mapping[str, Tensor], file: Path) -> None:
    """Raises CheckpointError unless the names and shapes of weights agree exactly with a network's."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    problems = [
        *_some("missing", sorted(expected.keys() - given.keys())),
        *_some("unexpected", sorted(given.keys() - expected.keys())),
        *_some(
            "wrong shape",
            [
                f"{name} {given[name]}, not {shape}"
                for name, shape in expected.items()
                if name in given and given[name] != shape
            ],
        ),
        *_some(
            "no real numbers",
            [
                f"{name} {weights[name].dtype}"
                for name, tensor in model.state_dict().items()
                if name in weights and tensor.is_floating_point() and not weights[name].is_floating_point()
            ],
        ),
    ]
    if problems:
        raise CheckpointError(
            f"{file} does not fit {network} ({'; '.join(problems)}): it is of another network or "
            "incomplete, choose another checkpoint"
        )


def _some(title: str, items: list[str]) -> list[str]:
    shown = ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
    return [f"{title}: {shown}"] if items else []


def _copied(file: Path, sizes: Mapping[str, int], device: torch.device) -> dict[str, Tensor]:
    """Float32 copies of the tensors named in ``sizes`` (name: bytes) on the device."""
    budget = max(GROUP_BYTES, int(GROUP_SHARE * sum(sizes.values())))
    copies: dict[str, Tensor] = {}
    for group in _groups(sizes, budget):
        weights = _state_dict(_unpickle(file), file)
        for name in group:
            dtype = torch.float32 if weights[name].is_floating_point() else weights[name].dtype
            copies[name] = weights[name].to(device, dtype, copy=True)
            # NaN and infinity survive the sum, which needs no memory beside the weights
            if dtype == torch.float32 and not torch.isfinite(copies[name].sum()):
                raise CheckpointError(
                    f"{file} holds NaN or infinite numbers in {name}: it is damaged, or its training "
                    "failed; take another checkpoint"
                )
        del weights
    if not any(bool(tensor.any()) for tensor in copies.values() if tensor.is_floating_point() and tensor.ndim > 1):
        raise CheckpointError(f"{file} holds zeros only: it was never trained or is damaged; take another checkpoint")
    return copies


def _groups(sizes: Mapping[str, int], budget: int) -> Iterator[list[str]]:
    """Names in order, in groups of at most ``budget`` bytes or of one name."""
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        if group and total + size > budget:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    if group:
        yield group
