"""Radar networks in onnxruntime, as exported and with eight-bit integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adperception.checkpoint.save import write_tensors
from adperception.compression.quantization import quantize_onnx
from adperception.config import load_config
from adperception.engine.export import export_dense_part, export_radar_model, onnx_session, run_onnx
from adperception.engine.quantization_study import OnnxRadarModel, run_quantization
from adperception.engine.radar_graph import radar_graph
from adperception.registry import MODELS, build
from adperception.structures import RadarBatch

import toy_radar

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CELLS = toy_radar.TOY_GRID.shape


def batch(frames: int, moments: int) -> RadarBatch:
    return RadarBatch.from_frames([toy_radar.toy_frame(number, moments, 0) for number in range(frames)])


def model(**section: Any) -> Any:
    torch.manual_seed(1)
    made = build(MODELS, {"normalization": "carrada_tvt", **section}).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2.0)
    return made


def test_erase_net_whole(tmp_path: Path) -> None:
    network = model(type="ERASENet", cube_shape=CELLS, moments=2, score_threshold=0.05)
    graph = radar_graph(network)
    frames = [graph.inputs(batch(4, 2))[0][i : i + 1] for i in range(4)]
    report = export_radar_model(network.train(), tmp_path / "e.onnx", CELLS, [(frame,) for frame in frames])
    assert network.training
    assert report.inputs == {"cubes": (1, 2, *CELLS)}
    assert set(report.outputs) == {"range_doppler", "range_angle", "cells", "scores"}
    assert report.outputs["scores"].largest > 0.01  # there were candidates
    assert report.outputs["range_doppler"].largest > 0  # and pixels
    assert "0 % of the classes differ" in str(report)
    # And what the file gives is what predict says.
    runnable, expected = OnnxRadarModel(graph, tmp_path / "e.onnx"), network.eval().predict(batch(4, 2))
    for found, wanted in zip(runnable.predict(batch(4, 2)), expected, strict=True):
        np.testing.assert_array_equal(found.masks.range_doppler, wanted.masks.range_doppler)
        np.testing.assert_array_equal(found.masks.range_angle, wanted.masks.range_angle)
        np.testing.assert_allclose(found.objects.cells, wanted.objects.cells, atol=1e-3)
        np.testing.assert_array_equal(found.objects.class_ids, wanted.objects.class_ids)
        np.testing.assert_allclose(found.objects.scores, wanted.objects.scores, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be trained"):
        runnable(batch(1, 2))


def test_zero_padding_before_a_max_pooling_is_not_merged(tmp_path: Path) -> None:
    """onnxruntime would pad with minus infinity instead: seen where all features at the last column are negative."""
    network = model(type="TMVANet")
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.constant_(module.bias, -1.0)
    report = export_radar_model(network, tmp_path / "t.onnx", (16, 16, 4))
    assert set(report.inputs) == {"range_doppler", "range_angle", "angle_doppler"}
    assert all(found.difference < 1e-5 * found.largest for found in report.outputs.values())


def test_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "mv_net.py"
    path.write_text(
        'model = dict(type="MVNet", moments=2, normalization="carrada_tvt")\n'
        'train_dataset = dict(type="ToyRadarFrames", frames=6, moments=2)\n'
        'val_dataset = dict(type="ToyRadarFrames", frames=3, moments=2, seed=1)\n'
        'optimizer = dict(type="Adam", lr=0.001)\ntrain = dict(steps=1, batch_size=2)\n'
        'evaluations = [dict(type="RadarSegmentation")]\n'
    )
    network = model(type="MVNet", moments=2, class_weights="carrada")
    write_tensors(tmp_path / "w.safetensors", network.state_dict())
    report = run_quantization(load_config(path), [tmp_path / "w.safetensors"], tmp_path / "q", calibration=4)
    assert report == (tmp_path / "q/results.md").read_text()
    assert "| eight-bit integers |" in report
    (record,) = json.loads((tmp_path / "q/results.json").read_text())["networks"]
    assert record["quantised_layers"] == record["layers"] - 4  # transposed convolutions stay
    sizes = {name: variant["mebibytes"] for name, variant in record["variants"].items()}
    assert sizes["int8"] < 0.4 * sizes["float32"]
    graph = radar_graph(network)
    inputs = tuple(values[:1] for values in graph.inputs(batch(1, 2)))
    exact, coarse = (run_onnx(onnx_session(tmp_path / f"q/network_0/{n}.onnx"), inputs) for n in ("float32", "int8"))
    for ours, theirs in zip(exact, coarse, strict=True):
        error = np.abs(ours - theirs).max() / np.abs(ours).max()
        assert 1e-6 < error < 0.1
    empty = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.save(empty, str(tmp_path / "empty.onnx"))
    with pytest.raises(ValueError, match="holds no convolution or linear layer"):
        quantize_onnx(tmp_path / "empty.onnx", tmp_path / "r.onnx", [])


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"phases=\[1, 0, 0\] has no segmenter"):
        radar_graph(model(type="ERASENet", cube_shape=CELLS, phases=[1.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match="ToyRadarModel is not one of the radar models"):
        export_radar_model(build(MODELS, {"type": "ToyRadarModel"}), tmp_path / "t.onnx", CELLS)
    with pytest.raises(ValueError, match="has no dense part"):
        export_dense_part(nn.Linear(2, 2), tmp_path / "t.onnx")
    graph = radar_graph(model(type="MVNet", moments=3))
    with pytest.raises(ValueError, match="does not have 3 moments of range_doppler"):
        graph.inputs(batch(1, 2))
