"""Pruning of the real networks in a tiny geometry."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from adperception.compression.channel_labels import FIXED, label_channels
from adperception.compression.resize import parameter_count
from adperception.compression.structured_pruning import prune_channels, select_channels
from adperception.engine.radar_graph import RadarGraph, radar_graph
from adperception.registry import MODELS, build

CELLS = (16, 16, 8)
SECTIONS: dict[str, dict[str, Any]] = {
    "ERASENet": dict(
        type="ERASENet", cube_shape=CELLS, moments=2, normalization="carrada_tvt", score_threshold=0.0, lift=True
    ),
    "TMVANet": dict(type="TMVANet", normalization="carrada_tvt"),
    "MVNet": dict(type="MVNet", normalization="carrada_tvt"),
}


def network(name: str) -> RadarGraph:
    torch.manual_seed(0)
    graph = radar_graph(build(MODELS, SECTIONS[name])).eval()
    with torch.no_grad():
        for module in graph.modules():  # no two channels alike, as after training
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_var.uniform_(0.5, 2.0)
                module.running_mean.normal_(std=0.1)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.1)
    return graph


@pytest.mark.parametrize("name", SECTIONS)
def test_a_pruned_network_is_the_whole_one_without_some_channels(name: str) -> None:
    graph = network(name)
    model, inputs = graph.model, graph.example(CELLS, 0)
    target = round(0.6 * parameter_count(model))
    labels = label_channels(model, lambda: graph(*inputs))
    reference = copy.deepcopy(graph)
    state = reference.model.state_dict()
    for (tensor, dimension), kept in select_channels(model, labels, target).items():
        if tensor in labels.outputs and dimension != labels.outputs[tensor]:
            gone = sorted(set(range(state[tensor].shape[dimension])) - set(kept))
            state[tensor].index_fill_(dimension, torch.tensor(gone), 0.0)
    prune_channels(model, lambda: graph(*inputs), target)
    assert 0.99 * target < parameter_count(model) <= target
    with torch.no_grad():
        for found, expected in zip(graph(*inputs), reference(*inputs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SECTIONS)
def test_only_inputs_and_outputs_are_fixed(name: str) -> None:
    graph = network(name)
    inputs = graph.example(CELLS, 0)
    labels = label_channels(graph.model, lambda: graph(*inputs))
    fixed = {
        tensor for (tensor, dim), found in labels.axes.items() if dim == labels.outputs.get(tensor) and FIXED in found
    }
    assert (
        fixed
        == {
            "ERASENet": {
                *(f"detector.{part}.1.weight" for part in ("heatmap", "offset")),
                *(f"segmenter.{view}.classify.weight" for view in ("range_doppler", "range_angle")),
                "segmenter.class_head.weight",
            },
            "TMVANet": {"rd_final.weight", "ra_final.weight"},
            "MVNet": {"rd_final.weight", "ra_final.weight"},
        }[name]
    )


def test_blocks_without_work_stay_and_shared_ones_are_pruned_once() -> None:
    graph = network("MVNet")
    model, inputs = graph.model, graph.example(CELLS, 0)
    idle = model.ra_double_conv_block1.block[0]
    prune_channels(model, lambda: graph(*inputs), round(0.7 * parameter_count(model)))
    assert tuple(idle.weight.shape) == (128, 3, 3, 3)
    assert not idle.weight.requires_grad
    shared = model.rd_double_conv_block1.block
    assert shared[3].in_channels == shared[0].out_channels < 128
