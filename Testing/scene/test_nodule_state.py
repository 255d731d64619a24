from __future__ import annotations

import json

import numpy as np
import pytest

from SAMMed3DLib.scene.mask_block import EMPTY_BLOCK, MaskBlock
from SAMMed3DLib.scene.nodule_state import SegmentRecord, digest


def test_the_digest_tells_masks_and_places_apart():
    mask = np.ones((2, 3, 4), np.uint8)
    other = mask.copy()
    other[1, 1, 1] = 0
    blocks = [
        MaskBlock(mask, (1, 2, 3)),
        MaskBlock(mask, (1, 2, 4)),
        MaskBlock(other, (1, 2, 3)),
        MaskBlock(mask.reshape(3, 2, 4), (1, 2, 3)),
    ]
    assert len({digest(block) for block in blocks}) == 4
    assert digest(MaskBlock(mask.copy(), (1, 2, 3))) == digest(blocks[0])
    assert digest(EMPTY_BLOCK) == digest(MaskBlock(np.zeros((2, 2, 2), np.uint8), (5, 5, 5))) == ""


def test_a_record_survives_json():
    record = SegmentRecord({"volume_mm3": 1.5, "mean_hu": None}, "def", "abc", 3, True, 0.25, True)
    assert SegmentRecord.fromDict(json.loads(json.dumps(record.toDict()))) == record


@pytest.mark.parametrize("values", [None, {}, {"measurements": "x", "clicks": "y", "probability": "z"}])
def test_what_cannot_be_read_is_left_out(values):
    assert SegmentRecord.fromDict(values) == SegmentRecord()


def test_measurements_of_older_scenes_are_of_what_was_written_last():
    old = {"measurements": {"volume_mm3": 5.0}, "mask": "abc", "clicks": 1}
    assert SegmentRecord.fromDict(old).measured == "abc"
    assert SegmentRecord.fromDict({"measurements": {}, "mask": "abc"}).measured == ""
