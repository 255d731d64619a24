"""Samples whose embeddings are computed once, for an encoder that does not change: a step costs a fraction then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from SAMMed3DLib.model.sam import Sam3D

from ..data.nodule_samples import Sample

Key = tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Stored:
    """A sample without its crop, the truth as bits, and its embedding in half precision."""

    sample: Sample
    truth_shape: tuple[int, ...]
    embedding: Tensor


class EmbeddingBank:
    """Embeddings and truths of samples by key, as many as a bound of memory allows.

    Args:
        model: whose encoder is frozen.
        budget_bytes: memory for the bank.
    """

    def __init__(self, model: Sam3D, budget_bytes: float) -> None:
        self._model = model
        self._budget = budget_bytes
        self._stored: dict[Key, _Stored] = {}
        self.bytes = 0

    def __len__(self) -> int:
        """Number of samples that are kept."""
        return len(self._stored)

    def __contains__(self, key: Key) -> bool:
        return key in self._stored

    @property
    def is_full(self) -> bool:
        """Whether the next samples of the same size would go beyond the bound."""
        return bool(self._stored) and self.bytes * (1 + 1 / len(self._stored)) > self._budget

    def fill(
        self,
        batches: Iterable[tuple[Sequence[Key], Sequence[Sample]]],
        progress: Callable[[int], bool | None] | None = None,
    ) -> None:
        """Encodes batches of samples until there are no more, the bound is reached, or ``progress`` returns False.

        Args:
            batches: keys and samples.
            progress: called with the number of samples that are kept.
        """
        for keys, samples in batches:
            crops = torch.from_numpy(np.stack([sample.crop for sample in samples]))
            embeddings = self._model.encode(crops).half().cpu()
            for key, sample, embedding in zip(keys, samples, embeddings, strict=True):
                bits = np.packbits(sample.truth)
                kept = Sample(
                    np.empty(0, np.float32), bits, sample.click, sample.spacing_mm, sample.kind, sample.diameter_mm
                )
                self._stored[key] = _Stored(kept, sample.truth.shape, embedding.clone())
                self.bytes += bits.nbytes + embedding.numel() * embedding.element_size()
            if self.is_full or (progress is not None and progress(len(self._stored)) is False):
                return

    def batch(self, keys: Sequence[Key]) -> tuple[list[Sample], Tensor]:
        """Samples (with empty crops) and their embeddings (B, ...), float32, on the model's device.

        Raises:
            KeyError: a key that is not kept.
        """
        stored = [self._stored[key] for key in keys]
        samples = []
        for item in stored:
            bits = np.unpackbits(item.sample.truth, count=int(np.prod(item.truth_shape)))
            old = item.sample
            samples.append(
                Sample(
                    old.crop, bits.reshape(item.truth_shape) > 0, old.click, old.spacing_mm, old.kind, old.diameter_mm
                )
            )
        return samples, torch.stack([item.embedding for item in stored]).to(self._model.device).float()
