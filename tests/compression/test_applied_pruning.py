from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.load import load_weights
from adperception.checkpoint.save import write_tensors
from adperception.compression.resize import parameter_count
from adperception.compression.structured_pruning import prune_channels
from adperception.compression.unstructured_pruning import prune_weights
from adperception.models.base import Pruning

from toy_networks import NETWORKS, Shared, Skip, Toy, trained


def pruned(network: type[Toy]) -> Toy:
    model = trained(network)
    prune_channels(model, lambda: model.compute(model.example()), round(0.7 * parameter_count(model)))
    return model


def write(path: Path, model: Toy, **changes: Any) -> Path:
    write_tensors(path, model.state_dict(), {"pruning": {**model.pruning.to_dict(), **changes}})
    return path


@pytest.mark.parametrize("network", NETWORKS)
def test_pruned_weights_make_a_new_model_as_small(network: type[Toy], tmp_path: Path) -> None:
    model = pruned(network)
    other = network()
    report = load_weights(other, write(tmp_path / "w.safetensors", model))
    assert len(report.loaded) == report.total == len(model.state_dict())
    assert torch.equal(other.eval().compute(model.example()), model.compute(model.example()))
    assert other.pruning == model.pruning
    # And once more: pruned further, stored, loaded.
    prune_channels(other, lambda: other.compute(other.example()), round(0.9 * parameter_count(other)))
    third = network()
    load_weights(third, write(tmp_path / "again.safetensors", other))
    assert torch.equal(third.eval().compute(model.example()), other.compute(model.example()))
    # Weights that are already of this shape are taken again.
    load_weights(third, tmp_path / "again.safetensors")


def test_masks_travel_as_zeros(tmp_path: Path) -> None:
    model = trained(Skip)
    prune_weights(model, parameter_count(model) // 2)
    other = Skip()
    load_weights(other, write(tmp_path / "w.safetensors", model))
    optimizer = torch.optim.Adam(other.parameters(), lr=0.1)
    other.train()(model.example()).total.backward()
    optimizer.step()
    assert torch.equal(other.second[0].weight == 0, model.second[0].weight == 0)


def test_what_does_not_fit_leaves_the_model_alone(tmp_path: Path) -> None:
    model = pruned(Shared)
    path = tmp_path / "w.safetensors"
    other = Shared()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    wider = {**model.pruning.to_dict()["shapes"], "first.0.weight": [7, 3, 3, 3]}
    with pytest.raises(CheckpointError, match=r"first\.0\.weight: file \(\d, 3, 3, 3\), model \(7, 3, 3, 3\)"):
        load_weights(other, write(path, model, shapes=wider))
    with pytest.raises(CheckpointError, match="tensors have another shape"):  # the file does not say that it is pruned
        load_weights(other, write(path, model, shapes={}))
    with pytest.raises(CheckpointError, match=r"has no weight gone\.weight, whose zeros"):
        load_weights(other, write(path, model, masked=["gone.weight"]))
    with pytest.raises(CheckpointError, match=r"has no tensor gone\.weight"):
        load_weights(other, write(path, model, shapes={**model.pruning.shapes, "gone.weight": [1]}))
    whole = write(path, trained(Shared))
    with pytest.raises(CheckpointError, match="tensors have another shape"):
        load_weights(pruned(Shared), whole)
    assert other.pruning == Pruning()
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_tensor_cannot_grow(tmp_path: Path) -> None:
    model = trained(Skip)
    model.pruning = Pruning(shapes={"first.0.weight": (13, 3, 3, 3)})
    state = {**model.state_dict(), "first.0.weight": torch.zeros(13, 3, 3, 3)}
    write_tensors(tmp_path / "w.safetensors", state, {"pruning": model.pruning.to_dict()})
    with pytest.raises(CheckpointError, match=r"has the shape \(12, 3, 3, 3\), which cannot be pruned to \(13, 3"):
        load_weights(Skip(), tmp_path / "w.safetensors")
