"""The file of radar predictions: what goes in comes out, damage is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.evaluation.radar_predictions import RadarPredictions, RadarPredictionWriter
from adperception.models.radar.base import CARRADA_CLASSES, RadarPrediction
from adperception.structures import RadarGrid, RadarMasks, RadarObjects

GRID = RadarGrid(16, 24, 8)


def prediction(number: int) -> RadarPrediction:
    rng = np.random.default_rng(number)
    masks = RadarMasks(rng.integers(0, 4, (16, 8), dtype=np.uint8), rng.integers(0, 4, (16, 24), dtype=np.uint8))
    objects = RadarObjects(
        rng.random((number, 3), dtype=np.float32),
        rng.random((number, 3), dtype=np.float32),
        rng.integers(1, 4, number),
        rng.random(number, dtype=np.float32),
    )
    return RadarPrediction(masks, objects)


def write(path: Path, *predictions: RadarPrediction) -> Path:
    with RadarPredictionWriter(path, CARRADA_CLASSES, GRID) as writer:
        for number, found in enumerate(predictions):
            writer.add(f"a/b/{number:06d}", found)
    return path


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    first, second = prediction(0), prediction(3)
    only_masks, only_objects = RadarPrediction(first.masks), RadarPrediction(objects=second.objects)
    stored = RadarPredictions(write(tmp_path / "p.npz", first, second, only_masks, only_objects))
    assert list(stored) == [f"a/b/{number:06d}" for number in range(4)]
    assert stored.class_names == CARRADA_CLASSES
    assert stored.grid == GRID
    again = stored["a/b/000001"]
    assert again.masks is not None
    assert again.objects is not None
    assert second.masks is not None
    assert second.objects is not None
    assert np.array_equal(again.masks.range_doppler, second.masks.range_doppler)
    assert np.array_equal(again.masks.range_angle, second.masks.range_angle)
    for name in ("cells", "sizes", "class_ids", "scores"):
        assert np.array_equal(getattr(again.objects, name), getattr(second.objects, name))
    none = stored["a/b/000000"].objects
    assert none is not None
    assert len(none) == 0
    assert stored["a/b/000002"].objects is None
    assert stored["a/b/000003"].masks is None
    with np.load(tmp_path / "p.npz", allow_pickle=False) as plain:
        assert plain["a/b/000001/range_angle"].dtype == np.uint8


def test_a_failure_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = write(tmp_path / "p.npz", prediction(1))
    with pytest.raises(ValueError, match="neither masks nor objects"):
        write(path, prediction(2), RadarPrediction())
    assert list(RadarPredictions(path)) == ["a/b/000000"]
    assert [p.name for p in tmp_path.iterdir()] == ["p.npz"]


def test_refusals(tmp_path: Path) -> None:
    found = prediction(1)
    assert found.objects is not None
    found.objects.scores[0] = np.nan
    with pytest.raises(ValueError, match="frame a/b/000000: a predicted object has a number that is not finite"):
        write(tmp_path / "p.npz", found)
    with RadarPredictionWriter(tmp_path / "twice.npz", CARRADA_CLASSES, GRID) as writer:
        writer.add("a", prediction(1))
        with pytest.raises(ValueError, match="frame a comes twice"):
            writer.add("a", prediction(1))
    with pytest.raises(FileNotFoundError):
        RadarPredictions(tmp_path / "p.npz")


def test_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "p.npz", prediction(1), prediction(2))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"p.npz: not a file of radar predictions \(BadZipFile"):
        RadarPredictions(path)
    at = whole.index(b"a/b/000001/range_angle") + 60
    path.write_bytes(whole[:at] + bytes(20) + whole[at + 20 :])
    with pytest.raises(ValueError, match="range_angle of frame a/b/000001 cannot be read"):
        RadarPredictions(path)["a/b/000001"]
    np.savez(path, range_doppler=np.zeros(3))
    with pytest.raises(ValueError, match=r"not a file of radar predictions \(KeyError"):
        RadarPredictions(path)
    np.savez(path, description=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="not a file of radar predictions"):
        RadarPredictions(path)
    with RadarPredictionWriter(path, CARRADA_CLASSES, RadarGrid(8, 8, 8)) as writer:
        writer.add("a", prediction(1))
    with pytest.raises(ValueError, match=r"range_doppler of frame a is uint8 \(16, 8\), the grid says uint8 \(8, 8\)"):
        RadarPredictions(path)["a"]
