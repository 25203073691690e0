"""data_tools/once.py on simulated sequences."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from adperception.simulation.simulate_once import SimulateOnce
from data_tools import once


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    splits = {"train": 0.5, "raw_small": 0.5}
    return SimulateOnce(tmp_path / "tree", frames=8, sequence_frames=2, columns=200, splits=splits)()


def sequences(root: Path, split: str) -> list[str]:
    return (root / f"ImageSets/{split}.txt").read_text().split()


def test_check_counts_frames_and_boxes(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert once.main(["check", str(tree)]) == 0
    out = capsys.readouterr().out
    assert "split train: 2 of 2 sequences are whole" in out
    assert "frames: 2 (2 labelled)" in out
    assert once.main(["check", str(tree), "--split", "raw_small"]) == 0
    assert "4 frames, not annotated" in capsys.readouterr().out


def test_check_names_every_problem_and_goes_on(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sequences(tree, "train")
    labels = tree / f"data/{first}/{first}.json"
    labels.write_text(labels.read_text()[:300])
    cloud = min((tree / f"data/{second}/lidar_roof").glob("*.bin"))
    points = np.fromfile(cloud, dtype="<f4")
    points[:3] = np.nan
    points.tofile(cloud)
    assert once.main(["check", str(tree), "--split", "all"]) == 1
    out = capsys.readouterr().out
    assert f"ERROR: {labels}:1: not readable as JSON" in out
    assert "split all: 3 of 4 sequences are whole" in out
    assert f"note: {second}/{cloud.stem}: 1 of" in out


def test_boxes_in_other_axes_show(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for sequence in sequences(tree, "train"):  # clouds turned to other axes, boxes not
        for cloud in (tree / f"data/{sequence}/lidar_roof").glob("*.bin"):
            points = np.fromfile(cloud, dtype="<f4").reshape(-1, 4)
            points[:, 0] *= -1
            points.tofile(cloud)
    assert once.main(["check", str(tree)]) == 1
    assert "Boxes and points are probably in different frames" in capsys.readouterr().out


def test_prepare_sorts_sequences_by_their_annotations(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {split: sequences(tree, split) for split in ("train", "raw_small")}
    assert once.main(["prepare", str(tree)]) == 0
    assert "has splits already: raw_small, train" in capsys.readouterr().out
    shutil.rmtree(tree / "ImageSets")
    assert once.main(["prepare", str(tree)]) == 0
    assert {split: sequences(tree, split) for split in expected} == expected


def test_a_missing_tree_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert once.main(["check", str(tmp_path)]) == 1
    assert "data does not exist" in capsys.readouterr().err
