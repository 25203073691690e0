from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from adperception.optim.entropy_sgd import EntropySGD


def half_square(x: Tensor, optimizer: Optimizer, seen: list[float] | None = None) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        if seen is not None:
            seen.append(x.flatten()[0].item())
        optimizer.zero_grad()
        loss = 0.5 * x.square().sum()
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize(("scaled", "expected"), [(False, 0.9935), (True, 0.99675)])
def test_one_step_by_hand(scaled: bool, expected: float) -> None:
    x = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = EntropySGD(SGD([x], lr=0.1), inner_steps=2, noise=0.0, outer_scaled_by_gamma=scaled)
    seen: list[float] = []
    loss = optimizer.step(half_square(x, optimizer, seen))
    # x' goes 1, 0.9, 0.9 - 0.1 (0.9 - 0.5 * 0.1) = 0.815; mu 1, 0.975, 0.935.
    assert seen == pytest.approx([1, 0.9], abs=1e-12)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(0.065 * (0.5 if scaled else 1), abs=1e-12)
    assert x.item() == pytest.approx(expected, abs=1e-12)
    assert loss.item() == 0.5


def test_one_inner_step_without_memory_is_gradient_descent() -> None:
    """mu = x - lr' g(x), so the outer gradient is lr' g(x)."""
    one, other = (nn.Parameter(torch.tensor([1.0, -3.0], dtype=torch.float64)) for _ in range(2))
    optimizer = EntropySGD(SGD([one], lr=2.0, momentum=0.9), inner_steps=1, inner_lr=0.05, noise=0.0, mean_decay=0.0)
    plain = SGD([other], lr=0.1, momentum=0.9)
    for _ in range(5):
        optimizer.step(half_square(one, optimizer))
        plain.step(half_square(other, plain))
    assert torch.allclose(one, other, atol=1e-14, rtol=0)


def test_inner_weight_decay_acts_on_the_inner_point() -> None:
    x = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = EntropySGD(SGD([x], lr=1.0), inner_steps=2, noise=0.0, mean_decay=0.0, inner_weight_decay=1.0)
    optimizer.step(half_square(x, optimizer))
    # x' goes 1, 0.8, 0.8 - 0.1 (0.8 + 0.8 - 0.5 * 0.2) = 0.65; the outer step of rate 1 goes there.
    assert x.item() == pytest.approx(0.65, abs=1e-12)


def test_gamma_grows_up_to_its_cap() -> None:
    optimizer = EntropySGD(
        SGD([nn.Parameter(torch.ones(1))], lr=0.1), inner_steps=1, gamma0=0.5, gamma_growth=0.5, gamma_max=1.5
    )
    seen = []
    for _ in range(5):
        seen.append(optimizer.gamma)
        optimizer.step(lambda: 0.0)
    assert seen == [0.5, 0.75, 1.125, 1.5, 1.5]
    optimizer.steps_done = 10**9  # the power would overflow
    assert optimizer.gamma == 1.5


def test_size_of_the_noise() -> None:
    x = nn.Parameter(torch.zeros(100_000, dtype=torch.float64))
    optimizer = EntropySGD(SGD([x], lr=1.0), inner_steps=1, inner_lr=0.08, noise=0.5, mean_decay=0.0)
    optimizer.step(half_square(x, optimizer))
    assert x.std().item() == pytest.approx(0.5 * math.sqrt(2 * 0.08), rel=0.02)
    assert x.mean().item() == pytest.approx(0, abs=0.005)


def test_the_noise_explores_the_local_gibbs_measure() -> None:
    """Around x the inner points settle at variance noise^2 / (curvature + gamma), the Langevin equation's."""
    x = nn.Parameter(torch.zeros(20_000, dtype=torch.float64))
    optimizer = EntropySGD(
        SGD([x], lr=1.0), inner_steps=200, inner_lr=0.02, noise=1.0, gamma0=3.0, gamma_max=3.0, mean_decay=0.0
    )
    optimizer.step(half_square(x, optimizer))
    # With a finite step the variance is 1 / (4 (1 - 4 * 0.02 / 2)).
    assert x.var().item() == pytest.approx(1 / (4 * 0.96), rel=0.03)


def test_a_gradient_in_some_inner_steps_only() -> None:
    always, sometimes = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = EntropySGD(SGD([always, sometimes], lr=1.0), inner_steps=3, noise=0.0, mean_decay=0.0)
    calls = iter(range(3))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = always.sum() + (sometimes.sum() if next(calls) == 0 else 0)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert sometimes.item() == pytest.approx(0.9)
    assert always.item() == pytest.approx(1 - 0.1 - 0.095 - 0.09025)


@pytest.mark.parametrize(
    "options",
    [
        {"inner_steps": 0},
        {"inner_lr": 0.0},
        {"noise": -1.0},
        {"gamma_growth": math.inf},
        {"gamma0": 0.0},
        {"gamma_max": 0.1},
        {"mean_decay": 1.0},
        {"inner_weight_decay": -0.1},
    ],
    ids=str,
)
def test_impossible_options(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"EntropySGD: .*{name}.*{options[name]}"):
        EntropySGD(SGD([nn.Parameter(torch.ones(1))], lr=0.1), **options)
