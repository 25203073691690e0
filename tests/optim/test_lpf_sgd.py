from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from adperception.optim.lpf_sgd import LPFSGD


def test_schedule_of_gamma() -> None:
    optimizer = LPFSGD(SGD([nn.Parameter(torch.ones(1))], lr=0.1), total_steps=4)
    seen = []
    for _ in range(6):
        seen.append(optimizer.gamma)
        optimizer.step(lambda: 0.0)
    # At t/T = 1/4 the cosine gives (1 - sqrt(1/2)) / 2 of the growth.
    quarter = 5e-4 * (1 + 14 * (1 - math.sqrt(0.5)) / 2)
    assert seen == pytest.approx([5e-4, quarter, 0.004, 0.008 - quarter, 0.0075, 0.0075], abs=1e-12)
    assert seen[1] == pytest.approx(0.001525, abs=5e-7)


def test_noise_is_relative_to_each_output_filter() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(50, 3, 10, dtype=torch.float64)
    with torch.no_grad():
        convolution.weight *= torch.tensor([1.0, 10.0, 0.0]).view(3, 1, 1, 1)
        convolution.bias.copy_(torch.tensor([3.0, 0.0, 4.0]))
    scalar = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))
    base = SGD([*convolution.parameters(), scalar], lr=0.1)
    optimizer = LPFSGD(base, total_steps=10, micro_batches=400, gamma0=0.01)
    before = [p.detach().clone() for p in (convolution.weight, convolution.bias, scalar)]
    moves: list[list[Tensor]] = [[], [], []]

    def closure() -> float:
        for k, parameter in enumerate((convolution.weight, convolution.bias, scalar)):
            moves[k].append(parameter.detach() - before[k])
        return 0.0

    optimizer.step(closure)
    weight, bias, number = (torch.stack(move) for move in moves)
    norms = before[0].flatten(1).norm(dim=1)
    assert weight.std(dim=(0, 2, 3, 4)).tolist() == pytest.approx((0.01 * norms).tolist(), rel=0.01)
    assert weight[:, 0].mean().abs() < 1e-4 * norms[0]
    # 1-D: the norm of the whole tensor, 5, in elements of value 0 too.
    assert bias.std(dim=0).tolist() == pytest.approx([0.05] * 3, rel=0.12)
    assert number.std().item() == pytest.approx(0.02, rel=0.12)
    # Micro-batches have noise of their own.
    assert not torch.equal(weight[0], weight[1])
    for parameter, value in zip((convolution.weight, convolution.bias, scalar), before, strict=True):
        assert torch.equal(parameter.detach(), value)


def test_the_gradient_is_that_of_the_convolved_loss() -> None:
    """Convolving sin(k x) with N(0, s^2) multiplies it, and its gradient, by exp(-k^2 s^2 / 2)."""
    k, deviation, count = 5.0, 0.2, 20_000
    x = nn.Parameter(torch.ones(count, 1, dtype=torch.float64))  # independent filters of norm 1
    optimizer = LPFSGD(SGD([x], lr=0.0), total_steps=10, micro_batches=2, gamma0=deviation)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.sin(k * x).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert x.grad is not None
    factor = x.grad.mean().item() / (k * math.cos(k))
    assert math.exp(-(k**2) * deviation**2 / 2) == pytest.approx(0.6065307, abs=5e-8)
    spread = x.grad.std().item() / abs(k * math.cos(k)) / math.sqrt(count)
    assert factor == pytest.approx(0.6065307, abs=4 * spread)
    assert spread < 0.02


def averaging(net: nn.Module, optimizer: Optimizer, parts: list[Tensor], whole: bool) -> Callable[[], Any]:
    """One micro-batch per call, or the mean over all of them in one."""
    left = iter(parts)

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = [net(part).square().mean() for part in (parts if whole else [next(left)])]
        loss = torch.stack(losses).sum() / len(losses)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_without_noise_it_is_the_base_optimizer(micro_batches: int) -> None:
    """Bitwise with one micro-batch, or with a power of two and an accumulation of the same order."""
    results = []
    for wrapped in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer: Optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        if wrapped:
            optimizer = LPFSGD(optimizer, total_steps=5, micro_batches=micro_batches, gamma0=0.0)
        for _ in range(3):
            parts = list(torch.randn(4, 8, 3).tensor_split(micro_batches))
            if wrapped:
                optimizer.step(averaging(net, optimizer, parts, whole=False))
                continue
            optimizer.zero_grad()
            for part in parts:
                (net(part).square().mean() / micro_batches).backward()
            optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*results)


def test_gradients_are_averaged_over_all_micro_batches() -> None:
    """One that has no gradient in some of them counts as zero there; its gradients survive zero_grad in either form."""
    a, b, never = (nn.Parameter(torch.ones(1)) for _ in range(3))
    optimizer = LPFSGD(SGD([a, b, never], lr=1.0, weight_decay=0.5), total_steps=5, micro_batches=4, gamma0=0.0)
    calls = iter(range(4))

    def closure() -> Tensor:
        call = next(calls)
        optimizer.zero_grad(set_to_none=call % 2 == 0)
        loss = (call + 1) * a.sum() + (8 * b.sum() if call == 0 else 0)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert a.item() == 1 - (10 / 4 + 0.5)
    assert b.item() == 1 - (8 / 4 + 0.5)
    assert never.item() == 1
    assert loss.item() == (10 + 8) / 4


def test_too_few_micro_batches() -> None:
    net = nn.Linear(3, 1)
    optimizer = LPFSGD(SGD(net.parameters(), lr=0.1), total_steps=5, micro_batches=8)
    before = net.weight.detach().clone()
    parts = list(torch.ones(10, 3).chunk(8))  # gives five
    with pytest.raises(ValueError, match="micro-batch 5 of 8"):
        optimizer.step(averaging(net, optimizer, parts, whole=False))
    assert torch.equal(net.weight.detach(), before)
    assert optimizer.steps_done == 0


def test_seeds_differ_and_repeat() -> None:
    ends = []
    for seed in (0, 0, 1):
        x = nn.Parameter(torch.ones(4))
        optimizer = LPFSGD(SGD([x], lr=0.1), total_steps=5, gamma0=0.1, seed=seed)

        def closure(x: nn.Parameter = x, optimizer: Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = x.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        ends.append(x.detach().clone())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    "options", [{"total_steps": 0}, {"micro_batches": 0}, {"gamma0": -1.0}, {"growth": math.nan}], ids=str
)
def test_impossible_options(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"LPFSGD: {name}.*got {options[name]}"):
        LPFSGD(SGD([nn.Parameter(torch.ones(1))], lr=0.1), **{"total_steps": 10, **options})
