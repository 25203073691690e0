"""What all optimizers that need a closure have in common."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, SequentialLR, StepLR

from adperception.optim.entropy_sgd import EntropySGD
from adperception.optim.lpf_sgd import LPFSGD
from adperception.optim.nesterov import NesterovMomentum
from adperception.optim.sam import SAM

WRAPPERS: dict[str, Callable[[Optimizer], Optimizer]] = {
    "SAM": lambda base: SAM(base, rho=0.1),
    "LPFSGD": lambda base: LPFSGD(base, total_steps=20, micro_batches=3, gamma0=0.02, growth=3.0),
    "EntropySGD": lambda base: EntropySGD(base, inner_steps=3, noise=0.01),
}
MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    **{name: (lambda p, wrap=wrap: wrap(SGD(p, lr=0.05, momentum=0.9))) for name, wrap in WRAPPERS.items()},
    "SAM of AdamW": lambda p: SAM(AdamW(p, lr=0.03), rho=0.1),
    "NesterovMomentum": lambda p: NesterovMomentum(p, lr=0.05, weight_decay=0.01),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.unused = nn.Linear(2, 2)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x)))
        return out


def make_net() -> Net:
    torch.manual_seed(0)
    return Net()


def train(net: nn.Module, optimizer: Optimizer, steps: range) -> list[float]:
    """One seeded batch per step, whatever the optimizer makes of it."""
    losses = []
    for step in steps:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = (net(x) - x.sum(1, keepdim=True)).square().mean()
            loss.backward()
            return loss

        losses.append(float(optimizer.step(closure)))
    return losses


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@every_maker
def test_learns(make: Callable[[Any], Optimizer]) -> None:
    net = make_net()
    losses = train(net, make(net.parameters()), range(40))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@every_maker
def test_without_a_closure_the_error_names_the_optimizer(make: Callable[[Any], Optimizer]) -> None:
    optimizer = make(make_net().parameters())
    with pytest.raises(ValueError, match=f"{type(optimizer).__name__}.step\\(\\) needs a closure"):
        optimizer.step()


@every_maker
def test_resume_is_bit_equal(make: Callable[[Any], Optimizer]) -> None:
    """Saved in the middle, through a file and torch's weights-only reader, with an LR scheduler."""
    straight = make_net()
    optimizer = make(straight.parameters())
    scheduler = CosineAnnealingLR(optimizer, 10)
    train(straight, optimizer, range(4))
    scheduler.step()
    file = io.BytesIO()
    torch.save([straight.state_dict(), optimizer.state_dict(), scheduler.state_dict()], file)
    train(straight, optimizer, range(4, 9))

    resumed = make_net()
    optimizer = make(resumed.parameters())
    scheduler = CosineAnnealingLR(optimizer, 10)
    train(resumed, optimizer, range(2))
    file.seek(0)
    weights, state, schedule = torch.load(file)
    resumed.load_state_dict(weights)
    optimizer.load_state_dict(state)
    scheduler.load_state_dict(schedule)
    assert optimizer.param_groups[0]["lr"] == schedule["_last_lr"][0]
    train(resumed, optimizer, range(4, 9))
    assert same(straight, resumed)


@every_maker
def test_a_copy_goes_on_as_the_original_does(make: Callable[[Any], Optimizer]) -> None:
    net = make_net()
    optimizer = make(net.parameters())
    StepLR(optimizer, 1)  # binds optimizer.step
    train(net, optimizer, range(3))
    other, other_optimizer = copy.deepcopy((net, optimizer))
    train(net, optimizer, range(3, 6))
    train(other, other_optimizer, range(3, 6))
    assert same(net, other)
    assert not same(net, make_net())


@every_maker
def test_parameters_without_gradient_are_left_alone(make: Callable[[Any], Optimizer]) -> None:
    """Unused ones, frozen ones, and ones that had a gradient before."""
    net = make_net()
    net.first.bias.requires_grad_(False)
    optimizer = make(net.parameters())
    train(net, optimizer, range(3))
    assert torch.equal(net.unused.weight, make_net().unused.weight)
    assert torch.equal(net.first.bias, make_net().first.bias)
    assert net.unused.weight not in optimizer.state
    assert net.unused.weight.grad is None

    net.first.weight.requires_grad_(False)
    before = net.first.weight.clone()
    train(net, optimizer, range(3, 5))
    assert torch.equal(net.first.weight, before)


@every_maker
def test_no_parameter_with_a_gradient_at_all(make: Callable[[Any], Optimizer]) -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = make([parameter])
    assert optimizer.step(lambda: 1.5) == 1.5
    assert parameter.tolist() == [1, 1]


@every_maker
def test_an_exception_in_the_closure_leaves_the_parameters_as_they_were(make: Callable[[Any], Optimizer]) -> None:
    net = make_net()
    optimizer = make(net.parameters())
    train(net, optimizer, range(2))
    before = copy.deepcopy(net)
    calls = 0

    def closure() -> float:
        nonlocal calls
        calls += 1
        if calls == 2 or isinstance(optimizer, NesterovMomentum):
            raise KeyboardInterrupt
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert same(net, before)


@every_maker
def test_parameter_groups_and_added_ones(make: Callable[[Any], Optimizer]) -> None:
    net = make_net()
    optimizer = make([{"params": [net.first.weight], "lr": 0.0}, {"params": list(net.last.parameters())}])
    train(net, optimizer, range(2))
    assert torch.equal(net.first.weight, make_net().first.weight)
    assert not torch.equal(net.last.weight, make_net().last.weight)
    assert torch.equal(net.first.bias, make_net().first.bias)
    optimizer.add_param_group({"params": [net.first.bias], "lr": 0.2})
    train(net, optimizer, range(2, 4))
    assert not torch.equal(net.first.bias, make_net().first.bias)
    assert len(optimizer.param_groups) == len(optimizer.state_dict()["param_groups"]) == 3


@every_maker
@pytest.mark.filterwarnings("error")
def test_learning_rate_schedulers(make: Callable[[Any], Optimizer]) -> None:
    net = make_net()
    optimizer = make(net.parameters())
    first = optimizer.param_groups[0]["lr"]
    warm_up = StepLR(optimizer, 1, gamma=0.5)
    scheduler = SequentialLR(optimizer, [warm_up, StepLR(optimizer, 1, gamma=0.1)], milestones=[2])
    rates = []
    for step in range(3):
        train(net, optimizer, range(step, step + 1))
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"] / first)
    assert rates == pytest.approx([0.5, 1, 0.1], rel=1e-6)


@every_wrapper
def test_a_scheduler_of_the_base_is_one_of_the_wrapper(wrap: Callable[[Optimizer], Optimizer]) -> None:
    net = make_net()
    base = SGD(net.parameters(), lr=0.1, momentum=0.9)
    optimizer = wrap(base)
    OneCycleLR(base, max_lr=1.0, total_steps=10)
    assert optimizer.param_groups is base.param_groups
    assert optimizer.state is base.state
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.04)
    base.load_state_dict(base.state_dict())  # makes new groups
    assert optimizer.param_groups is base.param_groups


@every_wrapper
def test_hooks_run_once_per_step_and_once_per_state_dict(wrap: Callable[[Optimizer], Optimizer]) -> None:
    net = make_net()
    optimizer = wrap(SGD(net.parameters(), lr=0.1))
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_pre_hook(lambda *_: seen.append("save"))
    optimizer.register_load_state_dict_post_hook(lambda *_: seen.append("load"))
    train(net, optimizer, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after", "save", "load"]


@every_wrapper
def test_gradients_are_zeroed_as_the_base_does(wrap: Callable[[Optimizer], Optimizer]) -> None:
    net = make_net()
    optimizer = wrap(SGD(net.parameters(), lr=0.1))
    train(net, optimizer, range(1))
    optimizer.zero_grad(set_to_none=False)
    assert net.last.weight.grad is not None
    assert net.last.weight.grad.count_nonzero() == 0
    optimizer.zero_grad()
    assert net.last.weight.grad is None


@every_wrapper
def test_only_plain_optimizers_are_wrapped(wrap: Callable[[Any], Optimizer]) -> None:
    net = make_net()
    with pytest.raises(TypeError, match="cannot wrap SAM"):
        wrap(SAM(SGD(net.parameters(), lr=0.1)))
    with pytest.raises(TypeError, match="not a list"):
        wrap(list(net.parameters()))


@pytest.mark.parametrize("name", ["LPFSGD", "EntropySGD"])
def test_the_state_of_another_optimizer_is_refused(name: str) -> None:
    net = make_net()
    base = SGD(net.parameters(), lr=0.1)
    optimizer = WRAPPERS[name](base)
    with pytest.raises(ValueError, match=f"no entry '{name}'"):
        optimizer.load_state_dict(base.state_dict())


@every_maker
def test_no_value_is_read_back_per_step(make: Callable[[Any], Optimizer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a number from a tensor waits for the device."""
    net = make_net()
    optimizer = make(net.parameters())

    def refuse(*_: object) -> None:
        raise AssertionError("a tensor's value was read")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = net(torch.ones(2, 3)).square().mean()
        loss.backward()
        return loss

    if "AdamW" not in repr(getattr(optimizer, "base", None)):  # its step counter lies on the CPU
        for method in ("item", "__float__", "__bool__", "tolist"):
            monkeypatch.setattr(Tensor, method, refuse)
    optimizer.step(closure)
