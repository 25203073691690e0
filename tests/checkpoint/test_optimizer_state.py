from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer


def model(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))


def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    network(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_continues_bit_equal(kind: str) -> None:
    def make(network: nn.Module) -> torch.optim.Optimizer:
        if kind == "adamw":
            return torch.optim.AdamW(network.parameters(), lr=0.1, betas=(0.9, 0.99))
        return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    whole, part = model(), model()
    first, second = make(whole), make(part)
    for seed in range(3):
        step(whole, first, seed)
        step(part, second, seed)
    tensors, state = flatten_optimizer(second, part)
    assert all("/" in name and not name.startswith("0/") for name in tensors)
    resumed = make(part)
    restore_optimizer(resumed, part, tensors, json.loads(json.dumps(state)))
    assert resumed.state_dict()["param_groups"] == second.state_dict()["param_groups"]
    for seed in range(3, 6):
        step(whole, first, seed)
        step(part, resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), part.parameters(), strict=True))


def test_other_parameters_are_refused() -> None:
    one, other = model(), nn.Sequential(nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(one.parameters())
    tensors, state = flatten_optimizer(optimizer, one)
    with pytest.raises(CheckpointError, match=r"differ in \['1.bias', '1.weight'\]"):
        restore_optimizer(torch.optim.AdamW(other.parameters()), other, tensors, state)
