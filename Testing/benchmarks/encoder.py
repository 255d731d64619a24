"""The image encoder of ``vit_b_ori`` on this CPU, beside the same network with padded windows, the GEMM floor and the
compact ``nodule`` net.

    python Testing/benchmarks/encoder.py [--rounds 3] [--threads N]

Everything is timed in turns in one run, so that the ratios hold on a machine that others use too; medians are printed,
as a Markdown table. Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("SAMMed3D", "Testing", "Testing/benchmarks")]

from targets import print_targets  # noqa: E402

from model.padded_reference import padded_encode  # noqa: E402
from SAMMed3DLib.model import Sam3D, build_model  # noqa: E402
from SAMMed3DLib.model.linear import MIN_ROWS, _has_onednn_linear, _onednn_linear, linear  # noqa: E402
from SAMMed3DLib.model.precision import cpu_bf16_is_fast  # noqa: E402

NAME = "vit_b_ori"
# Multiply-adds of one encoding without padding, times two.
ENCODER_GFLOP = 104.6
GEMM = (512, 768, 3072)
TARGET_SPEEDUP, TARGET_FLOOR, TARGET_BF16, TARGET_CLICK, TARGET_MEMORY = 10.0, 2.0, 1.4, 0.1, 150.0
TARGET_NODULE = 0.2
OURS_PER_ROUND = 5
# Diameter of the nodule that a click finds, in cells of the low-resolution mask: what the zoom aims at.
NODULE_CELLS = 8


def seconds(function: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def gemm_calls(dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """The benchmark's matrix product by each library that this PyTorch has."""
    rows, inner, columns = GEMM
    x, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    calls: dict[str, Callable[[], object]] = {"PyTorch's choice": lambda: F.linear(x, weight)}
    if _has_onednn_linear():
        calls["oneDNN"] = lambda: _onednn_linear(x, weight, None, "none")
    return calls


class NoduleAnswer:
    """The model with its decoder's work done in full but answered with a nodule: untrained weights fill the volume."""

    def __init__(self, model: Sam3D) -> None:
        self.model, self.profile, self.device = model, model.profile, model.device
        d, h, w = (torch.arange(size) - size / 2 for size in model.low_res_size)
        distance = (d[:, None, None].square() + h[:, None].square() + w.square()).sqrt()
        self.logits = 2 * (NODULE_CELLS / 2 - distance)[None, None]

    def encode(self, crop: torch.Tensor) -> torch.Tensor:
        """As the model."""
        return self.model.encode(crop)

    def decode(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The time of the model, the mask of a nodule in the middle of the crop."""
        logits, iou = self.model.decode(*args, **kwargs)
        return self.logits.expand_as(logits).clone(), iou


def click_calls(model: Sam3D) -> tuple[Callable[[], object], Callable[[], object]]:
    """A click on an encoded crop: the networks alone, and from a point in the volume to its voxels."""
    from SAMMed3DLib.inference import SamPredictor3D

    embedding = model.encode(torch.randn(1, 1, *model.profile.crop_size))
    coords, labels, mask = torch.full((1, 1, 3), 64.0), torch.ones(1, 1), torch.zeros(1, 1, *model.low_res_size)
    rng = np.random.default_rng(0)
    volume = rng.normal(-800, 60, (128, 256, 256)).astype(np.float32)
    k, j, i = np.ogrid[:128, :256, :256]
    volume[((k - 64) / 6.0) ** 2 + ((j - 128) / 12.0) ** 2 + ((i - 128) / 12.0) ** 2 < 1] = 40
    matrix = np.diag([0.7, 0.7, 1.5, 1.0])
    predictor = SamPredictor3D(NoduleAnswer(model))
    predictor.set_image(volume, matrix)
    point = np.array([[128 * 0.7, 128 * 0.7, 64 * 1.5]])
    first = predictor.predict(point, [1])
    points = np.concatenate([point, point + [4.0, 0.0, 0.0]])
    predictor.predict(points, [1, 1], previous=first)
    return (
        lambda: model.decode(embedding, coords, labels, mask=mask),
        lambda: predictor.predict(points, [1, 1], previous=first),
    )


def nodule_calls(precisions: Sequence[str]) -> dict[str, Callable[[], object]]:
    """The compact net: encoding a crop in each precision, and decoding a click in fp32."""
    nets = {precision: build_model("nodule", precision=precision) for precision in precisions}
    profile = nets["fp32"].profile
    image = torch.rand(1, profile.channels, *profile.crop_size)
    embedding, point, label = nets["fp32"].encode(image), torch.full((1, 1, 3), 32.0), torch.ones(1, 1)
    calls: dict[str, Callable[[], object]] = {
        precision: (lambda net=net: net.encode(image)) for precision, net in nets.items()
    }
    return calls | {"decode": lambda: nets["fp32"].decode(embedding, point, label)}


def peak_memory(kind: str, threads: int) -> float | None:
    """MB above the loaded model while it encodes, in a process of its own; None where /proc does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    run = subprocess.run(
        [sys.executable, __file__, "--memory", kind, "--threads", str(threads)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(run.stdout)


def measure_memory(kind: str) -> float:
    """The work of the process that :func:`peak_memory` starts."""
    model = build_model(NAME, precision="fp32" if kind == "padded" else kind)
    image = torch.randn(1, 1, *model.profile.crop_size)
    linear(torch.ones(MIN_ROWS, 16), torch.ones(16, 16), None)  # the measurement of the libraries is no part of it
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(2):
        _encode(model, image, kind)
    return (_status("VmHWM") - before) / 1e3


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + ":"))


def _encode(model: Sam3D, image: torch.Tensor, kind: str) -> object:
    if kind != "padded":
        return model.encode(image)
    with torch.no_grad():
        return padded_encode(model.image_encoder, image)


def machine(threads: int) -> str:
    """One line about where this ran."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{name or platform.processor() or platform.machine()}, {os.cpu_count()} cores, {threads} threads, "
        f"PyTorch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}){load}"
    )


def run(rounds: int) -> dict[str, list[float]]:
    """Seconds of every candidate, taken in turns."""
    torch.manual_seed(0)
    models = {"fp32": build_model(NAME)}
    if cpu_bf16_is_fast():
        models["bf16"] = build_model(NAME, precision="bf16")
    image = torch.randn(1, 1, *models["fp32"].profile.crop_size)
    decode, click = click_calls(models["fp32"])
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "padded": (lambda: _encode(models["fp32"], image, "padded"), 1)
    }
    for kind, model in models.items():
        calls[kind] = (lambda model=model: model.encode(image), OURS_PER_ROUND)
        dtype = torch.float32 if kind == "fp32" else torch.bfloat16
        for library, call in gemm_calls(dtype).items():
            calls[f"{kind} GEMM, {library}"] = (call, 2 * OURS_PER_ROUND)
    calls["decode"] = (decode, 2 * OURS_PER_ROUND)
    calls["click"] = (click, 2 * OURS_PER_ROUND)
    calls |= {f"nodule {kind}": (call, 2 * OURS_PER_ROUND) for kind, call in nodule_calls(list(models)).items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for name, (call, repeats) in calls.items():
                if name != "padded":
                    call()
                times[name] += [seconds(call) for _ in range(repeats)]
    return times


def report(times: dict[str, list[float]], memory: dict[str, float | None], threads: int) -> bool:
    """Print the tables; whether every target is reached."""
    median = {name: statistics.median(values) for name, values in times.items()}
    gflop = 2 * GEMM[0] * GEMM[1] * GEMM[2] / 1e9
    print(f"\n{machine(threads)}\n\n| matrix product {GEMM[0]}x{GEMM[1]} by {GEMM[1]}x{GEMM[2]} | ms | GFLOP/s |")
    print("|---|---|---|")
    floors: dict[str, float] = {}
    for name, value in median.items():
        kind, _, library = name.partition(" GEMM, ")
        if library:
            print(f"| {kind}, {library} | {1e3 * value:.2f} | {gflop / value:.0f} |")
            floors[kind] = min(floors.get(kind, float("inf")), value / gflop * ENCODER_GFLOP)
    print("\n| one crop of 128^3 | ms | against padded | against its GEMM floor | MB above the weights |")
    print("|---|---|---|---|---|")
    for kind, label in (("padded", "padded windows, fp32"), ("fp32", "ours, fp32"), ("bf16", "ours, bf16")):
        if kind in median:
            floor = floors[kind if kind in floors else "fp32"]
            used = memory.get(kind)
            print(
                f"| {label} | {1e3 * median[kind]:.0f} | {median['padded'] / median[kind]:.1f}x | "
                f"{median[kind] / floor:.2f}x of {1e3 * floor:.0f} | {'?' if used is None else f'{used:.0f}'} |"
            )
    print(f"| decode one click | {1e3 * median['decode']:.1f} | | | |")
    print(f"| click on a cached crop, point to voxels | {1e3 * median['click']:.1f} | | | |")
    print("\n| compact nodule net, crop of 64^3 | ms | of vit_b_ori's fp32 encoding |\n|---|---|---|")
    for name, value in median.items():
        kind, _, work = name.partition(" ")
        if kind == "nodule":
            label = "decode one click, fp32" if work == "decode" else f"encode, {work}"
            print(f"| {label} | {1e3 * value:.1f} | {value / median['fp32']:.2f} |")
    checks = [
        ("nodule's fp32 encoding against vit_b_ori's", median["nodule fp32"] / median["fp32"], "<=", TARGET_NODULE),
        ("fp32 against padded windows", median["padded"] / median["fp32"], ">=", TARGET_SPEEDUP),
        ("fp32 against the GEMM floor", median["fp32"] / floors["fp32"], "<=", TARGET_FLOOR),
        ("a click against the fp32 encoding", median["click"] / median["fp32"], "<=", TARGET_CLICK),
    ]
    if "bf16" in median:
        checks.append(("bf16 against fp32", median["fp32"] / median["bf16"], ">=", TARGET_BF16))
    checks += [
        (f"MB above the weights, {kind}", used, "<=", TARGET_MEMORY)
        for kind, used in memory.items()
        if used is not None and kind != "padded"
    ]
    return print_targets(checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all candidates (a padded encoding each)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", choices=("padded", "fp32", "bf16"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.memory:
        print(measure_memory(options.memory))
        return 0
    times = run(options.rounds)
    memory = {kind: peak_memory(kind, options.threads) for kind in ("padded", "fp32", "bf16") if kind in times}
    return 0 if report(times, memory, options.threads) else 1


if __name__ == "__main__":
    raise SystemExit(main())
