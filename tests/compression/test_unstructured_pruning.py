from __future__ import annotations

import pytest
import torch

from adperception.compression.resize import parameter_count, zero_count
from adperception.compression.unstructured_pruning import prune_weights

from toy_networks import Skip, trained


def test_the_smallest_weights_of_all_layers_become_zero() -> None:
    model = trained(Skip)
    layers = (model.first[0], model.second[0], model.third[0], model.out)
    weights = torch.cat([layer.weight.flatten() for layer in layers])
    total = parameter_count(model)
    limit = weights.abs().sort().values[500]
    prune_weights(model, total - 500)
    assert zero_count(model) == 500
    pruned = torch.cat([layer.weight.flatten() for layer in layers])
    assert torch.equal(pruned, torch.where(weights.abs() < limit, 0.0, weights))
    assert set(model.pruning.masked) == {"first.0.weight", "second.0.weight", "third.0.weight", "out.weight"}


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_zeros_stay_zeros_in_training_and_the_rest_moves(optimizer: type[torch.optim.Optimizer]) -> None:
    model = trained(Skip).train()
    prune_weights(model, parameter_count(model) // 2)
    before = {name: value.clone() for name, value in model.named_parameters()}
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    training = optimizer(model.parameters(), lr=0.01, weight_decay=0.1, **options)
    for _ in range(3):
        training.zero_grad()
        model(model.example()).total.backward()
        training.step()
    for name in model.pruning.masked:
        after = dict(model.named_parameters())[name]
        assert torch.equal(after == 0, before[name] == 0)
        assert not torch.equal(after, before[name])


def test_pruning_again_keeps_the_old_zeros() -> None:
    model = trained(Skip)
    total = parameter_count(model)
    prune_weights(model, total - 300)
    first = {name: value == 0 for name, value in model.named_parameters()}
    prune_weights(model, total - 900)
    assert zero_count(model) == 900
    assert all(bool((value == 0)[first[name]].all()) for name, value in model.named_parameters())


def test_more_than_there_is() -> None:
    model = trained(Skip)
    with pytest.raises(ValueError, match=r"are weights that can be pruned, but [\d,]+ were to go"):
        prune_weights(model, 3)
