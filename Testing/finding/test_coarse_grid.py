from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from SAMMed3DLib.finding.coarse_grid import in_threads, pool_volume
from SAMMed3DLib.inference.errors import PredictionCancelled


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_keep_their_order_and_the_caller_is_told_in_its_own_thread(threads):
    tellers, told, workers = set(), [], set()

    def work(item, step):
        workers.add(threading.get_ident())
        time.sleep(0.01 * (5 - item))
        step()
        return item * item

    def tell(steps):
        tellers.add(threading.get_ident())
        told.append(steps)

    assert in_threads(work, range(5), tell) == [0, 1, 4, 9, 16]
    assert told == sorted(told) and told[-1] == 5 and tellers == {threading.get_ident()}
    assert (threading.get_ident() in workers) == (threads == 1)


def test_nothing_to_do_is_done_at_once(threads):
    assert in_threads(lambda item, step: item, []) == []


def test_cancelling_stops_all_at_their_next_step(threads):
    done = []

    def work(item, step):
        for _ in range(200):
            time.sleep(0.002)
            step()
        done.append(item)

    def tell(steps):
        raise PredictionCancelled("stop")

    with pytest.raises(PredictionCancelled, match="stop"):
        in_threads(work, range(6), tell)
    assert done == []


def test_an_error_of_one_is_that_of_all(threads):
    def work(item, step):
        if item == 2:
            raise ValueError("the third")
        return item

    with pytest.raises(ValueError, match="the third"):
        in_threads(work, range(4))


def test_means_are_the_same_however_many_threads_take_them(threads, monkeypatch):
    monkeypatch.setattr("SAMMed3DLib.finding.coarse_grid._CHUNK_VOXELS", 500)
    array = np.random.default_rng(0).integers(-1100, 400, (13, 10, 9)).astype(np.int16)
    shares = []
    pooled = pool_volume(array, np.array((3, 2, 2)), -1024.0, 300.0, shares.append)
    wanted = np.clip(array[:12, :, :8], -1024, 300).reshape(4, 3, 5, 2, 4, 2).mean(axis=(1, 3, 5))
    assert np.allclose(pooled, wanted, atol=1e-3) and shares[-1] == 1.0 and shares == sorted(shares)
