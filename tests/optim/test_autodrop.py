from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from adperception.optim.autodrop import AutoDrop, AutoDropRecord
from adperception.optim.nesterov import NesterovMomentum
from adperception.optim.sam import SAM


def walk(scheduler: AutoDrop, positions: list[tuple[float, ...]]) -> list[AutoDropRecord]:
    return [scheduler.step(torch.tensor(position, dtype=torch.float64)) for position in positions]


def scheduler_of(size: int, **options: Any) -> tuple[AutoDrop, nn.Parameter, Optimizer]:
    parameter = nn.Parameter(torch.zeros(size, dtype=torch.float64))
    optimizer = SGD([parameter], lr=0.1, momentum=0.9)
    return AutoDrop(optimizer, **options), parameter, optimizer


def test_angles_by_hand() -> None:
    scheduler, _, _ = scheduler_of(2)
    records = walk(scheduler, [(0, 0), (1, 0), (1, 1), (0, 1), (-1, 2)])
    assert [math.isnan(r.angle) for r in records] == [True, True, False, False, False]
    assert [r.angle for r in records[2:]] == pytest.approx([90, 90, 45], abs=1e-12)
    assert math.isnan(records[2].change)
    assert [r.change for r in records[3:]] == pytest.approx([0, 45], abs=1e-12)
    assert [r.saturated for r in records] == [False, False, False, True, True]
    assert [r.epoch for r in records] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 30.0, 179.9999, 180.0])
def test_small_and_flat_angles_are_exact_in_single_precision(degrees: float) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    scheduler = AutoDrop(SGD([parameter], lr=0.1))
    turn = math.radians(degrees)
    scheduler.step(torch.tensor([-1.0, 0.0]))
    scheduler.step(torch.tensor([0.0, 0.0]))
    record = scheduler.step(torch.tensor([math.cos(turn), math.sin(turn)]))
    assert record.angle == pytest.approx(degrees, abs=2e-5)


def test_threshold_grows_with_every_drop_up_to_its_cap() -> None:
    scheduler, _, optimizer = scheduler_of(1, extra_epochs=1, average=False)
    # Always straight on: saturated in every epoch from the fourth on.
    records = walk(scheduler, [(float(i),) for i in range(8)])
    assert [r.dropped for r in records] == [False] * 3 + [True] * 5
    assert [r.threshold for r in records[3:]] == pytest.approx([0.01, 0.05, 0.25, 1.0, 1.0], abs=1e-12)
    assert [r.learning_rates[0] for r in records[3:]] == pytest.approx([0.02, 0.004, 8e-4, 1.6e-4, 1e-4], abs=1e-12)
    assert scheduler.get_last_lr() == [optimizer.param_groups[0]["lr"]]


def test_the_saturated_epoch_is_the_first_of_the_average() -> None:
    """Latched, it stays so whatever the angle does; weights are 1, 2, 3."""
    scheduler, parameter, optimizer = scheduler_of(1, extra_epochs=3)
    records = walk(scheduler, [(-2.0,), (-1.0,), (0.0,), (1.0,), (2.0,)])
    assert [r.saturated for r in records] == [False, False, False, True, True]
    assert not any(r.dropped for r in records)
    assert parameter.item() == 0
    (record,) = walk(scheduler, [(4.0,)])
    assert record.dropped
    assert parameter.item() == pytest.approx(17 / 6, abs=1e-12)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_after_an_average_directions_begin_at_it() -> None:
    """The jump to the average is no direction: two more epochs until there is an angle, three until one changed."""
    scheduler, parameter, _ = scheduler_of(2, extra_epochs=1)
    walk(scheduler, [(0, 0), (1, 0), (2, 0), (3, 0)])
    assert parameter.tolist() == [3, 0]
    records = walk(scheduler, [(3, 1), (2, 1), (2, 0)])
    assert math.isnan(records[0].angle)
    assert records[1].angle == pytest.approx(90)
    assert [r.saturated for r in records] == [False, False, True]


def test_without_the_average_parameters_and_momentum_stay() -> None:
    scheduler, parameter, optimizer = scheduler_of(1, extra_epochs=1, average=False)
    optimizer.state[parameter]["momentum_buffer"] = torch.tensor([5.0], dtype=torch.float64)
    walk(scheduler, [(float(i),) for i in range(4)])
    assert parameter.item() == 0
    assert optimizer.state[parameter]["momentum_buffer"].item() == 5
    assert "average" not in scheduler.state_dict()["vectors"]


@pytest.mark.parametrize("reset", [True, False])
def test_momentum_at_a_loaded_average(reset: bool) -> None:
    for make, name in ((SGD, "momentum_buffer"), (Adam, "exp_avg"), (NesterovMomentum, "momentum_buffer")):
        parameter = nn.Parameter(torch.zeros(1))
        optimizer = make([parameter], lr=0.1)
        optimizer.state[parameter][name] = torch.tensor([5.0])
        optimizer.state[parameter]["exp_avg_sq"] = torch.tensor([7.0])
        scheduler = AutoDrop(optimizer, extra_epochs=1, reset_momentum=reset)
        for i in range(4):
            scheduler.step(torch.tensor([float(i)]))
        assert parameter.item() == 3
        assert optimizer.state[parameter][name].item() == (0 if reset else 5)
        assert optimizer.state[parameter]["exp_avg_sq"].item() == 7


def test_every_group_is_dropped_and_none_is_raised() -> None:
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    groups = [{"params": [a]}, {"params": [b], "lr": 1e-5}, {"params": [c], "lr": torch.tensor(1.0)}]
    optimizer = SGD(groups, lr=0.1, foreach=False)
    scheduler = AutoDrop(optimizer, drop=0.5, extra_epochs=1, min_lr=1e-4)
    for i in range(4):
        record = scheduler.step(torch.full((3,), float(i)))
    assert record.learning_rates == pytest.approx((0.05, 1e-5, 0.5))
    assert isinstance(optimizer.param_groups[2]["lr"], Tensor)


def test_standing_still_is_not_saturation() -> None:
    scheduler, _, _ = scheduler_of(2, extra_epochs=1)
    records = walk(scheduler, [(1, 1)] * 6)
    assert all(math.isnan(r.angle) for r in records)
    assert not any(r.dropped for r in records)


def test_drops_when_descent_turns_into_bouncing() -> None:
    """In a noisy valley: straight on at first, back and forth at the end, where the average lies nearer to the floor.

    The optimizer's own parameters, through a wrapper.
    """
    torch.manual_seed(0)
    x = nn.Parameter(torch.full((2000,), 30.0))
    optimizer = SAM(SGD([x], lr=0.6), rho=0.0)
    scheduler = AutoDrop(optimizer, threshold=1.0, extra_epochs=20)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (0.5 * (x + torch.randn(2000)) ** 2).sum()
        loss.backward()
        return loss

    records: list[AutoDropRecord] = []
    sizes = []
    while not (records and records[-1].dropped):
        assert len(records) < 80
        optimizer.step(closure)
        sizes.append(x.square().mean().item())
        records.append(scheduler.step())
    first = next(r for r in records if r.saturated)
    assert len(records) == first.epoch + 19
    assert first.angle > 80  # bouncing, not the straight descent (0 degrees)
    assert sizes[first.epoch - 1] < 1
    assert x.square().mean().item() < 0.3 * sizes[-1]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.12)


@pytest.mark.parametrize("saved_after", [2, 5, 6, 9])
def test_resume_is_bit_equal(saved_after: int) -> None:
    """At any moment: before the first angle, while averaging, after a drop; in another dtype than the position's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator).cumsum(0)

    def make() -> tuple[AutoDrop, nn.Parameter, Optimizer]:
        parameter = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
        optimizer = SGD([parameter], lr=0.1)
        return AutoDrop(optimizer, threshold=60.0, max_threshold=90.0, extra_epochs=3), parameter, optimizer

    straight, parameter, optimizer = make()
    records = [straight.step(position) for position in x[:saved_after]]
    file = io.BytesIO()
    torch.save([parameter.detach(), optimizer.state_dict(), straight.state_dict()], file)
    records = [straight.step(position) for position in x[saved_after:]]
    assert sum(r.dropped for r in records) >= 2

    resumed, other, optimizer = make()
    file.seek(0)
    value, state, schedule = torch.load(file)
    with torch.no_grad():
        other.copy_(value)
    optimizer.load_state_dict(state)
    resumed.load_state_dict(schedule)
    again = [resumed.step(position) for position in x[saved_after:]]
    assert repr(again) == repr(records)  # NaN is not equal to itself
    assert torch.equal(parameter, other)


def test_frozen_parameters_are_no_part_of_it_and_added_ones_restart_it() -> None:
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    optimizer = SGD(net.parameters(), lr=0.1)
    scheduler = AutoDrop(optimizer, extra_epochs=1)
    for i in range(3):
        record = scheduler.step(torch.tensor([1.0, 1.0]) * i)
    assert record.angle == pytest.approx(0, abs=1e-4)
    net.bias.requires_grad_(True)
    records = [scheduler.step(torch.tensor([1.0, 1.0, 1.0]) * i) for i in range(4)]
    assert [math.isnan(r.angle) for r in records] == [True, True, False, False]
    assert net.weight.tolist() == [[3, 3]]
    assert net.bias.tolist() == [3]


def test_vectors_of_another_size() -> None:
    scheduler, _, _ = scheduler_of(2)
    with pytest.raises(ValueError, match=r"2 parameters.*got the shape \(3,\)"):
        scheduler.step(torch.zeros(3))
    other, _, _ = scheduler_of(3)
    scheduler.step()
    with pytest.raises(ValueError, match="saved position is of 2 parameters, here are 3"):
        other.load_state_dict(scheduler.state_dict())


def test_the_given_vector_is_neither_kept_nor_changed() -> None:
    scheduler, _, _ = scheduler_of(2, extra_epochs=1)
    consensus = torch.zeros(2, dtype=torch.float64)
    for i in range(4):
        consensus.fill_(i)
        record = scheduler.step(consensus)
    assert record.dropped
    assert consensus.tolist() == [3, 3]


@pytest.mark.parametrize(
    "options",
    [{"drop": 1.0}, {"threshold": 0.0}, {"extra_epochs": 0}, {"min_lr": -1.0}, {"max_threshold": 0.001}],
    ids=str,
)
def test_impossible_options(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"AutoDrop: .*{name}.*{options[name]}"):
        scheduler_of(1, **options)


def test_it_needs_an_optimizer() -> None:
    with pytest.raises(TypeError, match="got Linear"):
        AutoDrop(nn.Linear(1, 1))
