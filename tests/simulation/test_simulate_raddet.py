from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adperception.config import load_config
from adperception.datasets import RADDet
from adperception.registry import EVALUATIONS, MODELS, build
from adperception.simulation.radar_labels import InstanceLabel, label_instance
from adperception.simulation.simulate_raddet import SimulateRADDet, boxes_of
from adperception.structures import CARRADA_GRID
from adperception.zoo import config_directory

FRAMES = 12


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raddet")
    return SimulateRADDet(root, frames=FRAMES, seed=3, splits={"train": 0.75, "test": 0.25}, radar="carrada_small")()


def label(rows: list[int], azimuths: list[int], dopplers: list[int]) -> InstanceLabel:
    """Range bins counted from near."""
    return label_instance(1, 3, (np.array(rows), np.array(azimuths), np.array(dopplers)), CARRADA_GRID)


def test_the_dataset_reads_what_is_written(tree: Path) -> None:
    train, test = RADDet(tree, "train_and_validation"), RADDet(tree, "test")
    assert (len(train), len(test)) == (9, 3)
    assert train.grid.shape == (64, 64, 16)
    stored = np.load(tree / "train/RAD/part1" / f"{train.frame_ids[0].split('/')[-1]}.npy")
    assert stored.dtype == np.complex64
    np.testing.assert_array_equal(train.read(0).cubes[0], np.abs(stored))
    with pytest.raises(ValueError, match="Use moments=1"):
        RADDet(tree, "test", moments=2)


def test_an_echo_stands_out_in_every_box(tree: Path) -> None:
    """Inside a box there is a cell far above the noise (|X|^2 of about 3,280), and the class is one of three."""
    ratios = []
    for split in ("train_and_validation", "test"):
        dataset = RADDet(tree, split)
        for index in range(len(dataset)):
            frame = dataset.read(index)
            assert frame.objects is not None
            assert 1 <= len(frame.objects) <= 2
            assert set(frame.objects.class_ids) <= {1, 2, 3}
            for cell, size in zip(frame.objects.cells, frame.objects.sizes, strict=True):
                first = np.ceil(cell - size / 2 - 1e-3).astype(int)
                last = np.floor(cell + size / 2 + 1e-3).astype(int)
                axes = [np.arange(a, b + 1) % n for a, b, n in zip(first, last, (10**9, 64, 16), strict=True)]
                inside = frame.cubes[0][np.ix_(*axes)]
                ratios.append(inside.max() ** 2 / 3280)
    assert min(ratios) > 5
    assert np.median(ratios) > 30


def test_boxes_enclose_the_detections() -> None:
    box, _ = boxes_of(label([10, 12], [100, 130], [30, 36]), CARRADA_GRID)
    np.testing.assert_array_equal(box, [244, 115, 33, 3, 31, 7])


def test_boxes_wrap_along_doppler() -> None:
    box, _ = boxes_of(label([10, 10, 11], [100, 100, 101], [62, 1, 63]), CARRADA_GRID)
    np.testing.assert_array_equal(box[[2, 5]], [63.5, 4])
    box, _ = boxes_of(label([10, 10], [100, 100], [63, 2]), CARRADA_GRID)
    np.testing.assert_array_equal(box[[2, 5]], [0.5, 4])


def test_the_cartesian_box_is_where_the_object_is() -> None:
    column = round(float(CARRADA_GRID.azimuth_column(30.0)))
    _, cartesian = boxes_of(label([100, 100], [column, column], [32, 33]), CARRADA_GRID)
    np.testing.assert_allclose(cartesian, [255 - 100 * np.cos(np.pi / 6), 255 + 50, 1, 1], atol=0.6)


def test_same_seed_same_bytes_for_any_number_of_processes(tree: Path, tmp_path: Path) -> None:
    again = SimulateRADDet(
        tmp_path / "again", FRAMES, 3, workers=2, splits={"train": 0.75, "test": 0.25}, radar="carrada_small"
    )()
    files = sorted(p.relative_to(tree) for p in tree.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((tree / f).read_bytes() == (again / f).read_bytes() for f in files)
    labels = [json.loads((tree / f).read_text()) for f in files if f.parts[1:2] == ("gt",)]
    assert len({json.dumps(content) for content in labels}) == FRAMES


def test_the_detector_trains_on_it_and_is_evaluated(tree: Path) -> None:
    """The config of the reduced geometry, a few steps: six classes, no masks, both evaluations side by side."""
    values = load_config(config_directory() / "erase_net/erase_net_raddet_tiny.py").values
    dataset = RADDet(tree, "train_and_validation")
    torch.manual_seed(0)
    model = build(MODELS, values["model"])
    model.before_training([dataset.read(i) for i in range(len(dataset))])
    batch = model.collate(training=True)([dataset.read(i) for i in range(4)])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    totals = []
    for _ in range(6):
        losses = model(batch, torch.Generator())
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < 0.7 * totals[0]
    names: list[str] = []
    for section in values["evaluations"]:
        evaluation = build(EVALUATIONS, section)
        evaluation.bind(dataset)
        metrics = evaluation(model, [batch], device=torch.device("cpu"), step=6)
        evaluation.report(metrics)
        names += metrics
    assert len(set(names)) == len(names)


def test_senseless_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="may only name train, test"):
        SimulateRADDet(tmp_path, splits={"val": 1.0})
    with pytest.raises(ValueError, match="no radar preset"):
        SimulateRADDet(tmp_path, radar="mine")
