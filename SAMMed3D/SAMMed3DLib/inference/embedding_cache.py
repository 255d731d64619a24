"""A cache of image embeddings with a bound of memory; the least recently used are dropped first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import torch
from torch import Tensor


class EmbeddingCache:
    """Least-recently-used cache of embeddings.

    The key must hold everything that an embedding depends on: image, crop, place of the intensity statistics and
    network (:class:`SamPredictor3D` makes such keys). One cache may serve several predictors.

    Args:
        max_bytes: bound of the sum of all stored tensors; an embedding larger than that is not stored at all.
        half: keep float32 embeddings as float16, which halves the memory and changes logits by about 1e-3.
    """

    def __init__(self, max_bytes: int = 256 * 2**20, half: bool = False) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative: {max_bytes}")
        self.max_bytes = int(max_bytes)
        self.half = half
        self.bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Tensor, torch.dtype]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def get(self, key: Hashable) -> Tensor | None:
        """The embedding in the type it was stored with, or None; it becomes the most recently used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        tensor, dtype = entry
        return tensor.to(dtype)

    def put(self, key: Hashable, embedding: Tensor) -> None:
        """Store an embedding, dropping the least recently used ones until it fits."""
        stored = embedding.detach()
        if self.half and stored.dtype == torch.float32:
            stored = stored.half()
        self._drop(key)
        size = _bytes_of(stored)
        if size > self.max_bytes:
            return
        while self.bytes + size > self.max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = (stored, embedding.dtype)
        self.bytes += size

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= _bytes_of(entry[0])


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
