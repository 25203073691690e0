from __future__ import annotations

import numpy as np
import pytest

from adperception.structures import Boxes3D, Detections


def test_select_keeps_boxes_names_and_scores_together():
    boxes = Boxes3D(np.arange(21, dtype=np.float32).reshape(3, 7), ("a", "b", "c"))
    detections = Detections(boxes, np.array([0.1, 0.2, 0.3], dtype=np.float32))
    chosen = detections.select([2, 0])
    assert chosen.boxes.names == ("c", "a")
    np.testing.assert_array_equal(chosen.scores, np.array([0.3, 0.1], dtype=np.float32))
    assert len(detections.select(detections.scores > 0.5)) == 0
    assert len(detections.select([])) == 0
    assert len(Detections.empty()) == 0


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"0 boxes but scores of shape \(2,\)"):
        Detections(Boxes3D.empty(), np.zeros(2, dtype=np.float32))
