"""Trains the classifier that tells nodules from other places that the blob filter names.

    python -m Research.classifier_fitting --work_dir DIR [--shared ../shared] [--without 0 1] [--steps 3000]

Nodules are painted into the lungs of the backgrounds that training may use and into synthetic chests, and real ones of
training patients are put there; everything else that the blob filter names in them is false. ``nodule_classifier.pth``
is trained on all of them, ``nodule_classifier_without_N.pth`` on all but background N: those judge what they have not
seen when the score is fitted (:mod:`.score_fitting`). Nothing of the held-out background and of kept-back patients
enters.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from SAMMed3DLib.files.output_files import whole_file
from SAMMed3DLib.model.nodule_classifier import NoduleClassifier
from SAMMed3DLib.model.precision import resolve_precision
from SAMMed3DLib.weights import CLASSIFIER

from .classifier_crops import Crops, collect, views
from .ranking_fitting import painting_parser

logger = logging.getLogger(__name__)

STEPS, HALF_BATCH = 3000, 16
ROUNDS = 60
"""Of scans with nodules of each background: :func:`.classifier_crops.collect`."""
PEAK_LR, WEIGHT_DECAY = 4e-3, 0.03
_SURE = 0.98
"""Smoothed label of the truth, since no label is certain."""
_REPORT_EVERY = 250


def train(crops: Sequence[Crops], steps: int, seed: int = 0) -> NoduleClassifier:
    """Trains a classifier on so many batches, half nodules and half others, each set of crops equally often."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = NoduleClassifier()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs lack it
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps, pct_start=0.15)
    bf16 = resolve_precision("auto", torch.device("cpu")) == "bf16"
    chosen = [[np.flatnonzero(each.is_nodule == truth) for each in crops] for truth in (True, False)]
    losses, started = [], time.perf_counter()
    for step in range(steps):
        pairs = [
            (crops[which], int(rng.choice(of_truth[which])))
            for of_truth in chosen
            for which in rng.choice(len(crops), HALF_BATCH)
        ]
        hu = views(np.stack([each.hu[row] for each, row in pairs]), rng)
        spacing = torch.tensor([each.spacing_mm[row] for each, row in pairs]).float()
        truth = torch.tensor([each.is_nodule[row] for each, row in pairs]).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            odds = network(hu, spacing)
        loss = F.binary_cross_entropy_with_logits(odds.float(), truth * (2 * _SURE - 1) + 1 - _SURE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % _REPORT_EVERY == 0:
            mean, spent = np.mean(losses[-_REPORT_EVERY:]), time.perf_counter() - started
            logger.info("step %d of %d: loss %.3f, %.0f s", step + 1, steps, mean, spent)
    return network.eval()


@torch.inference_mode()
def separation(network: NoduleClassifier, crops: Crops) -> float:
    """Computes the area under the ROC curve: how often a nodule is judged likelier than something else."""
    odds = np.concatenate(
        [
            network(views(crops.hu[start : start + 64]), torch.from_numpy(crops.spacing_mm[start : start + 64]).float())
            for start in range(0, len(crops.hu), 64)
        ]
    )
    others = np.sort(odds[~crops.is_nodule])
    return float(np.mean(np.searchsorted(others, odds[crops.is_nodule]) / len(others)))


def save(network: NoduleClassifier, file: Path) -> None:
    """Saves the weights in float16; the file appears whole or not at all."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    with whole_file(file) as part:
        torch.save({"model_state_dict": state}, part)


def without(folder: Path, number: int) -> Path:
    """Returns the path of the classifier that has not seen a background."""
    return folder / f"{Path(CLASSIFIER).stem}_without_{number}.pth"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the classifiers asked for; returns the exit code."""
    parser = painting_parser(__doc__)
    parser.set_defaults(rounds=ROUNDS)
    parser.add_argument("--work_dir", type=Path, required=True, help="for crops and weights")
    parser.add_argument(
        "--without",
        type=int,
        nargs="*",
        help="backgrounds to leave out, one at a time; -1: none; default: none, then each",
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    of_backgrounds, procedural = collect(options.shared, options.cache, options.work_dir, options.rounds)
    counts = [int(each.is_nodule.sum()) for each in (*of_backgrounds, procedural)]
    sys.stdout.write(
        f"{sum(counts)} nodules and {sum(len(c.hu) for c in (*of_backgrounds, procedural)) - sum(counts)} "
        "other places\n"
    )
    for number in range(-1, len(of_backgrounds)) if options.without is None else options.without:
        seen = [each for other, each in enumerate(of_backgrounds) if other != number]
        network = train([*seen, procedural], options.steps, number + 1)
        if number < 0:
            save(network, options.work_dir / Path(CLASSIFIER).name)
            continue
        save(network, without(options.work_dir, number))
        sys.stdout.write(
            f"background {number}, never seen: a nodule is judged likelier than something else in "
            f"{separation(network, of_backgrounds[number]):.3f} of all pairs\n"
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
