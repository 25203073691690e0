from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from adperception.compression.channel_labels import FIXED, label_channels
from adperception.compression.resize import parameter_count
from adperception.compression.structured_pruning import MINIMUM_CHANNELS, prune_channels, select_channels

from toy_networks import NETWORKS, Concat, Mixed, Shared, Skip, Toy, Volume, trained


def zeroed(model: Toy, parameters: int) -> Toy:
    """A copy of ``model`` whose layers read the channels that pruning would remove with zero weights."""
    other = copy.deepcopy(model)
    labels = label_channels(model, lambda: model.compute(model.example()))
    state = other.state_dict()
    for (name, dimension), kept in select_channels(model, labels, parameters).items():
        if name in labels.outputs and dimension != labels.outputs[name]:
            gone = [i for i in range(state[name].shape[dimension]) if i not in kept]
            state[name].index_fill_(dimension, torch.tensor(gone), 0.0)
    return other


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_pruned_network_computes_what_the_whole_one_does_without_these_channels(
    network: type[Toy], share: float
) -> None:
    model = trained(network)
    total = parameter_count(model)
    target = round((1 - share) * total)
    expected = zeroed(model, target).compute(model.example())
    before = model.compute(model.example())
    prune_channels(model, lambda: model.compute(model.example()), target)
    found = model.compute(model.example())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, before, atol=1e-3)
    assert 0.8 * target < parameter_count(model) <= target
    model.train()(model.example()).total.backward()  # gradients have the new shapes


@pytest.mark.parametrize(
    ("network", "tied"),
    [
        (Skip, [("first.0.weight", 0), ("second.0.weight", 0), ("second.0.weight", 1), ("third.0.weight", 1)]),
        (Shared, [("first.0.weight", 0), ("block.0.weight", 0), ("block.0.weight", 1), ("out.weight", 1)]),
        (Concat, [("coarse.0.weight", 0), ("up.weight", 0), ("head.weight", 1)]),
        (Volume, [("fold.0.weight", 0), ("depthwise.weight", 0), ("pooled.weight", 1), ("gate.weight", 1)]),
    ],
)
def test_which_channels_stand_or_fall_together(network: type[Toy], tied: list[tuple[str, int]]) -> None:
    model = trained(network)
    labels = label_channels(model, lambda: model.compute(model.example()))
    first, *others = [labels.axes[axis] for axis in tied]
    assert len(set(first)) == len(first)
    assert FIXED not in first
    for other in others:
        assert other == first


def test_concatenated_and_folded_channels_belong_to_where_they_come_from() -> None:
    model = trained(Concat)
    axes = label_channels(model, lambda: model.compute(model.example())).axes
    assert axes["merge.0.weight", 1] == axes["up.weight", 1] + axes["fine.0.weight", 0]
    model = trained(Volume)
    axes = label_channels(model, lambda: model.compute(model.example())).axes
    folded = [label for label in axes["wide.weight", 0] for _ in range(3)]
    assert axes["fold.0.weight", 1] == axes["volume.0.weight", 0] + folded
    assert axes["out.weight", 1] == axes["fold.0.weight", 0] + axes["pooled.weight", 0]


def test_outputs_inputs_and_mixed_channels_stay() -> None:
    model = trained(Mixed)
    axes = label_channels(model, lambda: model.compute(model.example())).axes
    for name in ("soft.0.weight", "added.0.weight", "out.weight"):
        assert set(axes[name, 0]) == {FIXED}
    assert FIXED not in axes["free.0.weight", 0]


def test_weakest_first_relative_to_its_layer() -> None:
    model = trained(Concat)
    with torch.no_grad():
        model.coarse[0].weight *= 100  # a layer of large weights is no better for it
        model.coarse[0].weight[3] *= 0.01
        model.fine[0].weight[7] *= 0.001
    labels = label_channels(model, lambda: model.compute(model.example()))
    kept = select_channels(model, labels, parameter_count(model) - 1)
    assert kept["fine.0.weight", 0] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    kept = select_channels(model, labels, parameter_count(model) - 240)
    assert 3 not in kept["coarse.0.weight", 0]


@pytest.mark.parametrize("network", [Skip, Concat, Volume])
def test_never_fewer_than_four_channels(network: type[Toy]) -> None:
    model = trained(network)
    total = parameter_count(model)
    for layer in model.modules():  # one layer is as weak as can be
        if isinstance(layer, nn.Conv2d) and layer.out_channels > 4:
            nn.init.constant_(layer.weight, 1e-6)
            break
    with pytest.raises(ValueError, match=r"of its [\d,]+ parameters at least [\d,]+ are needed with 4 channels"):
        prune_channels(model, lambda: model.compute(model.example()), 10)
    assert parameter_count(model) == total  # untouched
    for target in range(total, 0, -max(1, total // 40)):
        try:
            prune_channels(model, lambda: model.compute(model.example()), target)
        except ValueError:
            break
    assert parameter_count(model) < 0.5 * total
    layers = [
        m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)) and m is not getattr(model, "gate", 0)
    ]
    assert min(m.out_channels for m in layers if m is not model.out) == MINIMUM_CHANNELS


def test_layers_know_their_new_widths_and_modules_under_two_names_stay_one() -> None:
    model = trained(Shared)
    prune_channels(model, lambda: model.compute(model.example()), round(0.7 * parameter_count(model)))
    assert model.alias is model.block
    shapes = model.pruning.shapes
    assert shapes["alias.0.weight"] == shapes["block.0.weight"] == tuple(model.block[0].weight.shape)
    width = model.block[0].out_channels
    assert model.block[0].weight.shape[:2] == (width, width)
    assert model.block[1].num_features == width == len(model.block[1].running_var)
    assert model.out.in_channels == width
    assert "unused.0.weight" not in shapes
