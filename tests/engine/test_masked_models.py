"""What models change after a step, where the device leaves the step out."""

from __future__ import annotations

import copy

import pytest
import torch

from adperception import zoo
from adperception.engine.host_reads import HostReads
from adperception.models.base import TrainableModel


def moved(name: str) -> tuple[TrainableModel, TrainableModel]:
    """A small zoo model whose trained part has moved, and a copy."""
    torch.manual_seed(0)
    model = zoo.create_model(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return model, copy.deepcopy(model)


def changed(one: TrainableModel, other: TrainableModel) -> list[str]:
    states = (one.state_dict(), other.state_dict())
    # Normalisation is NaN until it has seen frames.
    pairs = [(name, value, states[1][name]) for name, value in states[0].items()]
    return [name for name, *both in pairs if not torch.allclose(*both, rtol=0, atol=0, equal_nan=True)]


@pytest.mark.parametrize("name", ["ad_l_jepa_tiny", "erase_net_tiny"])
def test_a_step_that_was_left_out_changes_nothing(name: str) -> None:
    model, before = moved(name)
    with HostReads(cuda=False) as reads:
        model.after_optimizer_step(3, 10, torch.zeros((), dtype=torch.bool, device=torch.device("cpu")))
    assert reads.places == []
    assert changed(model, before) == []


@pytest.mark.parametrize("name", ["ad_l_jepa_tiny", "erase_net_tiny"])
def test_a_step_that_was_made_changes_the_same_bits_either_way(name: str) -> None:
    (model, before), (other, _) = moved(name), moved(name)
    model.after_optimizer_step(3, 10)
    other.after_optimizer_step(3, 10, torch.tensor(True))
    assert changed(model, other) == []
    assert changed(model, before)
