from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats.once_json import boxes_from_once, from_once, read_sequence, to_once

CAR = [1.0, 2.0, 0.5, 4.0, 1.8, 1.5, 0.3]


def sequence(folder: Path, *frames: dict) -> Path:
    path = folder / "000076.json"
    path.write_text(json.dumps({"meta_info": {}, "calib": {}, "frames": list(frames)}))
    return path


def test_frames_are_sorted_and_empty_is_not_unlabelled(tmp_path: Path) -> None:
    path = sequence(
        tmp_path,
        {"frame_id": "30"},
        {"frame_id": "20", "annos": {"names": [], "boxes_3d": []}},
        {"frame_id": "10", "annos": {"names": ["Car"], "boxes_3d": [CAR], "num_points_in_gt": [17]}},
        {"frame_id": "40", "annos": {"name": ["Bus"], "boxes_3d": [CAR]}},  # as the documentation writes it
    )
    first, second, third, fourth = read_sequence(path)
    assert [f.frame_id for f in (first, second, third, fourth)] == ["10", "20", "30", "40"]
    assert first.names == ("Car",)
    assert (first.points.tolist(), fourth.points.tolist()) == ([17], [-1])
    np.testing.assert_allclose(first.boxes, [CAR])
    assert second.names == ()
    assert second.boxes is not None
    assert second.boxes.shape == (0, 7)
    assert third.boxes is third.names is None
    assert fourth.names == ("Bus",)


def test_axes_left_back_up_become_forward_left_up() -> None:
    ahead, left = np.array([[0.0, -10, 1]]), np.array([[3.0, 0, -2]])
    np.testing.assert_array_equal(from_once(ahead), [[10, 0, 1]])
    np.testing.assert_array_equal(from_once(left), [[0, 3, -2]])
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.testing.assert_array_equal(to_once(from_once(points)), points)


def test_boxes_turn_with_their_points() -> None:
    # Ten metres ahead, driving ahead: along ONCE's -y, so its yaw is -90 degrees there and 0 here.
    np.testing.assert_allclose(
        boxes_from_once(np.array([[0, -10, 0, 4, 2, 1.5, -np.pi / 2]]))[0], [10, 0, 0, 4, 2, 1.5, 0], atol=1e-6
    )
    boxes = np.random.default_rng(1).uniform(-3, 3, (20, 7)).astype(np.float32)
    turned = boxes_from_once(boxes)
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.zeros(20)], axis=1)
    expected = from_once(heading)
    np.testing.assert_allclose(np.cos(turned[:, 6]), expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(np.sin(turned[:, 6]), expected[:, 1], atol=1e-6)
    np.testing.assert_allclose(boxes_from_once(turned, inverse=True), boxes, atol=1e-6)


def test_cut_off_text_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "000076.json"
    path.write_text('{"frames": [\n  {"frame_id": "10"},\n  {"frame_i')
    with pytest.raises(ValueError, match=r"000076\.json:3: not readable as JSON .*copy it again"):
        read_sequence(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"000076\.json: not a text file"):
        read_sequence(path)
    with pytest.raises(FileNotFoundError, match=r"000077\.json does not exist"):
        read_sequence(tmp_path / "000077.json")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([{"pose": []}], "entry 1 of frames has no frame_id"),
        ([{"frame_id": 5, "annos": {"names": ["Car"], "boxes_3d": []}}], "frame 5: .* 1 names and 0 boxes"),
        ([{"frame_id": 5, "annos": {"boxes_3d": []}}], "no names and 0 boxes"),
        ([{"frame_id": 5, "annos": {"names": ["Car"], "boxes_3d": [CAR[:6]]}}], "box 1 of 1 reads .*7 finite"),
        ([{"frame_id": 5, "annos": {"names": ["Car"], "boxes_3d": [[*CAR[:3], -4, 1, 1, 0]]}}], "positive sizes"),
        ([{"frame_id": 5, "annos": {"names": ["Car"], "boxes_3d": [[None] * 7]}}], "box 1 of 1"),
    ],
)
def test_frames_of_another_form_are_refused(tmp_path: Path, frames: list[dict], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_sequence(sequence(tmp_path, *frames))
    assert "000076.json" in str(error.value)


def test_another_json_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r'no list "frames"\. This is no sequence file of ONCE'):
        read_sequence(path)
