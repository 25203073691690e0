from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from adperception.optim.nesterov import NesterovMomentum


def half_square(x: Tensor, optimizer: torch.optim.Optimizer, seen: list[float] | None = None) -> Tensor:
    if seen is not None:
        seen.append(x.item())
    optimizer.zero_grad()
    loss = 0.5 * x.square().sum()
    loss.backward()
    return loss


def test_the_gradient_is_taken_at_the_look_ahead() -> None:
    x = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = NesterovMomentum([x], lr=0.1, momentum=0.5)
    seen: list[float] = []
    values = []
    for _ in range(3):
        optimizer.step(lambda: half_square(x, optimizer, seen))
        values.append(x.item())
    # v = -0.1, x = 0.9; ahead at 0.85: v = -0.135, x = 0.765; ahead at 0.6975: v = -0.13725, x = 0.62775.
    assert seen == pytest.approx([1, 0.85, 0.6975], abs=1e-12)
    assert values == pytest.approx([0.9, 0.765, 0.62775], abs=1e-12)
    assert optimizer.state[x]["momentum_buffer"].item() == pytest.approx(-0.13725, abs=1e-12)


def test_eamsgd_by_hand() -> None:
    """Two workers of EAMSGD, gradient and pull from the same point; the pull leaves v alone."""
    workers = [nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (1.0, 3.0)]
    optimizers = [NesterovMomentum([x], lr=0.1, momentum=0.9) for x in workers]
    centre = torch.tensor(0.0, dtype=torch.float64)
    rounds = []
    for _ in range(2):
        old = [x.detach().clone() for x in workers]
        for x, optimizer, before in zip(workers, optimizers, old, strict=True):
            optimizer.step(lambda x=x, optimizer=optimizer: half_square(x, optimizer))
            with torch.no_grad():
                x -= 0.4 * (before - centre)
        centre = 0.2 * centre + 0.8 * torch.stack(old).mean()
        v = [o.state[x]["momentum_buffer"].item() for o, x in zip(optimizers, workers, strict=True)]
        rounds.append([*(x.item() for x in workers), *v, centre.item()])
    assert rounds[0] == pytest.approx([0.5, 1.5, -0.1, -0.3, 1.6], abs=1e-12)
    assert rounds[1] == pytest.approx([0.809, 1.147, -0.131, -0.393, 1.12], abs=1e-12)


def test_alone_its_look_ahead_is_what_torch_keeps() -> None:
    """torch's parameters are x + momentum v of the same trajectory, while nothing else moves them."""
    one, other = (nn.Parameter(torch.tensor(1.0, dtype=torch.float64)) for _ in range(2))
    ours = NesterovMomentum([one], lr=0.1, momentum=0.9)
    theirs = SGD([other], lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(20):
        ours.step(lambda: half_square(one, ours))
        theirs.step(lambda: half_square(other, theirs))
        ahead = one + 0.9 * ours.state[one]["momentum_buffer"]
        assert ahead.item() == pytest.approx(other.item(), abs=1e-12)


def test_weight_decay_is_part_of_the_gradient_at_the_look_ahead() -> None:
    """With f = 0, weight decay 1 is f = x^2 / 2."""
    one, other = (nn.Parameter(torch.tensor(1.0, dtype=torch.float64)) for _ in range(2))
    decayed = NesterovMomentum([one], lr=0.1, momentum=0.9, weight_decay=1.0)
    plain = NesterovMomentum([other], lr=0.1, momentum=0.9)

    def zero() -> float:
        one.grad = torch.zeros_like(one)
        return 0.0

    for _ in range(4):
        decayed.step(zero)
        plain.step(lambda: half_square(other, plain))
    assert one.item() == pytest.approx(other.item(), abs=1e-12)


def test_a_parameter_that_gets_no_gradient_keeps_its_value_and_its_momentum() -> None:
    x = nn.Parameter(torch.tensor(1.0))
    optimizer = NesterovMomentum([x], lr=0.1)
    optimizer.step(lambda: half_square(x, optimizer))
    value, v = x.item(), optimizer.state[x]["momentum_buffer"].item()
    optimizer.zero_grad()
    optimizer.step(lambda: 0.0)
    assert (x.item(), optimizer.state[x]["momentum_buffer"].item()) == (value, v)


@pytest.mark.parametrize("options", [{"lr": -0.1}, {"momentum": 1.0}, {"weight_decay": float("nan")}], ids=str)
def test_impossible_options(options: dict[str, Any]) -> None:
    (name,) = options
    x = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=f"NesterovMomentum: {name}.*got {options[name]}"):
        NesterovMomentum([x], **{"lr": 0.1, **options})
    optimizer = NesterovMomentum([x], lr=0.1)
    with pytest.raises(ValueError, match=f"NesterovMomentum: {name}.*got {options[name]}"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], **options})
