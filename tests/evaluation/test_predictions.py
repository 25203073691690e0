from __future__ import annotations

import numpy as np
import pytest

from adperception.evaluation.predictions import read_predictions, write_predictions
from adperception.structures import Boxes3D, Detections


def some_detections(seed: int, count: int) -> Detections:
    rng = np.random.default_rng(seed)
    boxes = rng.normal(size=(count, 7)).astype(np.float32) * 30
    return Detections(Boxes3D(boxes, ("Car",) * count), rng.uniform(size=count).astype(np.float32))


def test_read_back_to_the_bit(tmp_path):
    written = {"a/1": some_detections(0, 50), "2": Detections.empty(), "3": some_detections(1, 1)}
    path = tmp_path / "deep/predictions.jsonl"
    write_predictions(path, written)
    read = read_predictions(path)
    assert list(read) == list(written)
    for name, detections in written.items():
        np.testing.assert_array_equal(read[name].boxes.boxes, detections.boxes.boxes)
        np.testing.assert_array_equal(read[name].scores, detections.scores)
        assert read[name].boxes.names == detections.boxes.names
        assert read[name].boxes.boxes.shape == (len(detections), 7)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"frame_id": "1", "names": ["Car"], "scores": [1], "boxes": [[1, 2, 3]]}', "predictions.jsonl:2"),
        ('{"frame_id": "1", "names": [], "boxes": []}', "KeyError: 'scores'"),
        ('{"frame_id": "1", "names": ["Car"], "scores": [0.5], "boxes": []}', "0 boxes but 1 class names"),
        ('{"frame_id": "1", "na', "predictions.jsonl:2"),
        ('{"frame_id": "0", "names": [], "scores": [], "boxes": []}', "frame 0 is there twice"),
        ('{"frame_id": "1", "names": ["a"], "scores": [NaN], "boxes": [[1,2,3,4,5,6,7]]}', "not finite"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, reason):
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"frame_id": "0", "names": [], "scores": [], "boxes": []}\n' + line + "\n")
    with pytest.raises(ValueError, match=reason):
        read_predictions(path)


def test_a_non_finite_box_is_not_written(tmp_path):
    bad = Detections(Boxes3D(np.full((1, 7), np.nan, dtype=np.float32), ("Car",)), np.ones(1, dtype=np.float32))
    with pytest.raises(ValueError, match="must give finite boxes"):
        write_predictions(tmp_path / "p.jsonl", {"1": bad})
    assert not (tmp_path / "p.jsonl").exists()
