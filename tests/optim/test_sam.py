from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from adperception.optim.sam import SAM


def quadratic(x: Tensor, optimizer: Optimizer, seen: list[Tensor] | None = None) -> Tensor:
    """f = (x1^2 + 4 x2^2) / 2, as a closure's body."""
    optimizer.zero_grad()
    if seen is not None:
        seen.append(x.detach().clone())
    loss = 0.5 * (x[0] ** 2 + 4 * x[1] ** 2)
    loss.backward()
    return loss


def test_one_step_by_hand() -> None:
    x = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = SAM(SGD([x], lr=0.1), rho=0.1)
    seen: list[Tensor] = []
    loss = optimizer.step(lambda: quadratic(x, optimizer, seen))

    # The gradient is (1, 4), its norm sqrt(17).
    e = 0.1 * torch.tensor([1.0, 4.0], dtype=torch.float64) / 17**0.5
    gradient = torch.tensor([1.0, 4.0], dtype=torch.float64) * (1 + e)
    assert torch.allclose(seen[1], 1 + e, atol=1e-12, rtol=0)
    assert x.grad is not None
    assert torch.allclose(x.grad, gradient, atol=1e-12, rtol=0)
    assert torch.allclose(x.detach(), 1 - 0.1 * gradient, atol=1e-12, rtol=0)
    assert loss.item() == 2.5
    assert not loss.requires_grad
    printed = torch.tensor([0.8975746437, 0.5611943], dtype=torch.float64)
    assert torch.allclose(x.detach(), printed, atol=5e-11, rtol=0)


def test_the_norm_is_over_all_groups_and_leaves_out_weight_decay() -> None:
    a = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    b = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = SAM(SGD([{"params": [a]}, {"params": [b]}], lr=0.0, weight_decay=0.5), rho=1.0)
    points = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        points.append((a.item(), b.item()))
        loss = (3 * a + 4 * b).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert points == [(1, 1), pytest.approx((1.6, 1.8), abs=1e-12)]
    assert (a.item(), b.item()) == (1, 1)


def test_without_radius_it_is_the_base_optimizer() -> None:
    results = []
    for wrapped in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer: Optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
        if wrapped:
            optimizer = SAM(optimizer, rho=0.0)

        def closure(net: nn.Module = net, optimizer: Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = net(torch.ones(4, 3)).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        results.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*results)


def test_a_stationary_point_is_not_left() -> None:
    x = nn.Parameter(torch.zeros(2))
    optimizer = SAM(SGD([x], lr=0.1), rho=10.0)
    optimizer.step(lambda: quadratic(x, optimizer))
    assert x.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    x = nn.Parameter(torch.ones(2, dtype=dtype))
    optimizer = SAM(SGD([x], lr=0.1), rho=0.1)
    optimizer.step(lambda: quadratic(x, optimizer))
    assert torch.allclose(x.detach().float(), torch.tensor([0.8976, 0.5612]), atol=0.01)


def test_the_first_pass_has_a_context_of_its_own() -> None:
    x = nn.Parameter(torch.ones(2))
    log: list[str] = []

    @contextmanager
    def no_sync() -> Iterator[None]:
        log.append("enter")
        yield
        log.append("leave")

    optimizer = SAM(SGD([x], lr=0.1), first_pass=no_sync)

    def closure() -> Tensor:
        log.append("pass")
        return quadratic(x, optimizer)

    optimizer.step(closure)
    assert log == ["enter", "pass", "leave", "pass"]


def test_leaves_a_valley_narrower_than_its_radius() -> None:
    """The parabola around 0 has a dip of width 0.15 at 2: it holds SGD, and not SAM of radius 0.5."""

    def loss_of(x: Tensor) -> Tensor:
        return (0.05 * x**2 - 0.5 * torch.exp(-(((x - 2) / 0.15) ** 2))).sum()

    ends = {}
    for rho in (0.0, 0.5):
        x = nn.Parameter(torch.tensor([2.1]))
        optimizer = SAM(SGD([x], lr=0.02), rho=rho)

        def closure(x: nn.Parameter = x, optimizer: Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(x)
            loss.backward()
            return loss

        for _ in range(800):
            optimizer.step(closure)
        ends[rho] = x.item()
    assert abs(ends[0.0] - 2) < 0.05
    assert ends[0.5] < 1.6


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_impossible_radii(rho: float) -> None:
    with pytest.raises(ValueError, match=f"got {rho}"):
        SAM(SGD([nn.Parameter(torch.ones(1))], lr=0.1), rho=rho)
