"""A cache of image embeddings with a bound of memory; the least recently used are dropped first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from torch import Tensor


class EmbeddingCache:
    """Least-recently-used cache of embeddings.

    The key must hold everything that an embedding depends on: image, crop, place of the intensity statistics and
    network (:class:`SamPredictor3D` makes such keys). One cache may serve several predictors.

    Args:
        max_bytes: bound of the sum of all stored tensors; an embedding larger than that is not stored at all.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative: {max_bytes}")
        self.max_bytes = int(max_bytes)
        self.bytes = 0
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def get(self, key: Hashable) -> Tensor | None:
        """Returns the embedding, or None; it becomes the most recently used."""
        embedding = self._entries.get(key)
        if embedding is not None:
            self._entries.move_to_end(key)
        return embedding

    def put(self, key: Hashable, embedding: Tensor) -> None:
        """Stores an embedding, dropping the least recently used ones until it fits."""
        stored = embedding.detach()
        self._drop(key)
        size = _bytes_of(stored)
        if size > self.max_bytes:
            return
        while self.bytes + size > self.max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = stored
        self.bytes += size

    def clear(self) -> None:
        """Drops all embeddings."""
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= _bytes_of(entry)


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
