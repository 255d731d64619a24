from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from SAMMed3DLib.worker.click_trail import ClickStep, ClickTrails, clicks_in_order

A, B, C = ((0.0, 0.0, 0.0), 1), ((1.0, 0.0, 0.0), 0), ((2.0, 0.0, 0.0), 1)


def step(size=8):
    prediction = SimpleNamespace(mask=np.zeros(size, np.uint8), logits=np.zeros(2, np.uint8), parts=(1,))
    return ClickStep(prediction, prediction.mask, (0, 0, 0))


def test_the_first_positive_click_leads_where_there_is_no_mask():
    points, labels = [B[0], A[0], C[0]], [0, 1, 1]
    assert clicks_in_order(points, labels, first_positive=True) == [A, B, C]
    assert clicks_in_order(points, labels, first_positive=False) == [B, A, C]
    assert clicks_in_order(points[:1], labels[:1], first_positive=True) == [B]
    assert clicks_in_order([], [], first_positive=True) == []


def test_a_trail_keeps_the_steps_that_the_clicks_begin_with():
    trail = ClickTrails().of("nodule", None)
    steps = [step(), step(), step()]
    for click, one in zip((A, B, C), steps, strict=True):
        trail.add(click, one)
    assert trail.keep([A, B]) == 2 and trail.steps == steps  # a redo may follow
    assert trail.keep([A, B, C]) == 3
    assert trail.keep([A, C, B]) == 1 and trail.steps == steps[:1] and trail.clicks == [A]


def test_another_start_mask_begins_anew():
    trails, start = ClickTrails(), object()
    trails.of("nodule", None).add(A, step())
    assert trails.of("nodule", None).clicks == [A]
    assert trails.of("nodule", start).clicks == []
    trails.of("nodule", start).add(A, step())
    assert trails.of("nodule", start).clicks == [A] and len(trails) == 1


def test_the_least_recently_used_trails_are_forgotten():
    trails = ClickTrails(max_bytes=50)
    for name in ("first", "second", "third"):
        trails.of(name, None).add(A, step(16))
    trails.of("first", None)
    trails.trim()
    assert trails.of("first", None).clicks == [A] and trails.of("third", None).clicks == [A]
    assert trails.of("second", None).clicks == []
    large = ClickTrails(max_bytes=1)
    large.of("only", None).add(A, step(100))
    large.trim()
    assert large.of("only", None).clicks == [A]
