from __future__ import annotations

import pytest
import torch

from SAMMed3DLib.inference import EmbeddingCache


def test_the_bound_holds_and_the_least_recently_used_goes():
    cache = EmbeddingCache(max_bytes=3 * 400)
    for name in "abc":
        cache.put(name, torch.full((100,), float(ord(name))))
    assert cache.bytes == 1200
    assert cache.get("a")[0] == ord("a")  # b is now the oldest
    cache.put("d", torch.zeros(100))
    assert "b" not in cache and all(name in cache for name in "acd")
    assert cache.bytes == 1200 and len(cache) == 3


def test_replacing_an_entry_does_not_count_it_twice():
    cache = EmbeddingCache(max_bytes=1000)
    cache.put("a", torch.zeros(100))
    cache.put("a", torch.ones(200))
    assert cache.bytes == 800 and cache.get("a").sum() == 200


def test_an_embedding_larger_than_the_bound_drops_nothing():
    cache = EmbeddingCache(max_bytes=500)
    cache.put("small", torch.zeros(100))
    cache.put("large", torch.zeros(1000))
    assert "small" in cache and "large" not in cache
    nothing = EmbeddingCache(max_bytes=0)
    nothing.put("a", torch.zeros(1))
    assert len(nothing) == 0 and nothing.get("a") is None


def test_an_embedding_comes_back_as_it_was():
    cache = EmbeddingCache()
    embedding = torch.linspace(-1, 1, 100, requires_grad=True)
    cache.put("a", embedding)
    assert cache.bytes == 400
    assert cache.get("a").dtype == torch.float32 and not cache.get("a").requires_grad
    assert torch.equal(cache.get("a"), embedding)
    cache.clear()
    assert cache.bytes == 0 and len(cache) == 0


def test_a_negative_bound_is_refused():
    with pytest.raises(ValueError, match="negative"):
        EmbeddingCache(-1)
