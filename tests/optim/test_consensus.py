from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adperception.optim import (
    DPSGD,
    EASGD,
    LSGD,
    ConsensusSwap,
    EverySteps,
    LocalSGD,
    RoundFailedError,
    Simulation,
    Strategy,
    SyncOptimizer,
)
from adperception.optim.collectives import Requests


class Twin(nn.Module):
    """Like AD-L-JEPA: an encoder, a moving average of it with batch norm of its own, a frozen token."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.token = nn.Parameter(torch.full((3,), 0.1), requires_grad=False)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.online(x * self.scale + self.token).square().mean() + self.target(x).detach().mean()


def team(strategy: Strategy, workers: int = 3) -> tuple[Simulation, list[Twin], list[SyncOptimizer]]:
    simulation = Simulation(workers)
    models = [Twin() for _ in range(workers)]
    syncs = [
        SyncOptimizer(torch.optim.SGD(m.parameters(), 0.1), strategy, EverySteps(4), model=m, communicator=c)
        for m, c in zip(models, simulation.communicators, strict=True)
    ]
    simulation.run([sync.starting() for sync in syncs])
    for step in range(5):
        losses = []
        for number, (model, sync) in enumerate(zip(models, syncs, strict=True)):
            sync.zero_grad()
            torch.manual_seed(10 * number + step)
            loss = model(torch.randn(6, 3) + 3 * number)
            loss.backward()
            losses.append(loss.detach())
        simulation.run([sync.stepping(loss=loss) for sync, loss in zip(syncs, losses, strict=True)])
        for model in models:
            for mine, other in zip(model.target.parameters(), model.online.parameters(), strict=True):
                mine.mul_(0.9).add_(other.detach(), alpha=0.1)
    return simulation, models, syncs


def swap(
    simulation: Simulation, models: list[Twin], syncs: list[SyncOptimizer], recalibrate: Any = None
) -> list[ConsensusSwap]:
    swaps = [ConsensusSwap(s, m, recalibrate) for s, m in zip(syncs, models, strict=True)]
    simulation.run([each.entering() for each in swaps])
    return swaps


@pytest.mark.parametrize("strategy", [LocalSGD(), LSGD(), EASGD(), DPSGD()], ids=repr)
def test_consensus_goes_in_and_out(strategy: Strategy) -> None:
    simulation, models, syncs = team(strategy)
    own = [copy.deepcopy(model.state_dict()) for model in models]
    swaps = swap(simulation, models, syncs)
    for name, value in models[0].state_dict().items():
        assert all(torch.equal(value, model.state_dict()[name]) for model in models) or "num_batches" in name
    expected = torch.stack([state["target.0.weight"].double() for state in own]).mean(0).float()
    torch.testing.assert_close(models[0].target[0].weight, expected)
    assert torch.equal(models[0].token, own[0]["token"])  # equal everywhere, so exactly what it was
    mean = torch.stack([state["online.0.weight"] for state in own]).mean(0)
    center = syncs[0].worker.state.get("center")
    if center is not None:
        params = syncs[0].worker.params
        mean = dict(zip((s.name for s in params.segments), params.views(center), strict=True))["online.0.weight"]
    torch.testing.assert_close(models[0].online[0].weight.detach(), mean)
    with pytest.raises(RuntimeError, match="the consensus model is swapped in"):
        simulation.run([sync.stepping(loss=0.0) for sync in syncs])
    for each in swaps:
        each.leave()
    for model, state in zip(models, own, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_pooled_statistics() -> None:
    """Two workers, means 0 and 2, variances 1: together mean 1 and variance 2, where a naive mean says 1."""
    simulation, models, syncs = team(LocalSGD(), workers=2)
    for number, model in enumerate(models):
        model.online[1].running_mean.fill_(2.0 * number)  # type: ignore[operator, union-attr]
        model.online[1].running_var.fill_(1.0)  # type: ignore[operator, union-attr]
        model.online[1].num_batches_tracked.fill_(number)  # type: ignore[operator, union-attr]
    swap(simulation, models, syncs)
    for number, model in enumerate(models):
        assert torch.equal(model.online[1].running_mean, torch.ones(4))  # type: ignore[arg-type]
        assert torch.equal(model.online[1].running_var, torch.full((4,), 2.0))  # type: ignore[arg-type]
        assert int(model.online[1].num_batches_tracked) == number  # type: ignore[arg-type]


def test_recalibrated_statistics_are_those_of_all_data_under_the_consensus() -> None:
    simulation, models, syncs = team(LocalSGD(), workers=2)
    data = [torch.randn(64, 3) + 2 * number for number in range(2)]
    modes = [[m.training for m in model.modules()] for model in models]

    def recalibrate(model: nn.Module) -> None:
        assert model.online[1].training  # type: ignore[index, union-attr]
        assert not model.online[0].training  # type: ignore[index, union-attr]
        model(data[models.index(model)])  # type: ignore[arg-type]

    swap(simulation, models, syncs, recalibrate)
    with torch.no_grad():
        for encoder, shift in (("online", models[0].token), ("target", torch.zeros(3))):
            features = getattr(models[0], encoder)[0](torch.cat(data) + shift)
            norm = getattr(models[1], encoder)[1]
            torch.testing.assert_close(norm.running_mean, features.mean(0))
            torch.testing.assert_close(norm.running_var, features.var(0), rtol=0.02, atol=0)
            assert norm.momentum == 0.1
    assert [[m.training for m in model.modules()] for model in models] == modes


def test_workers_that_are_not_finite_are_left_out() -> None:
    simulation, models, syncs = team(LocalSGD())
    with torch.no_grad():
        models[1].online[0].weight.fill_(torch.nan)  # type: ignore[operator, union-attr]
        models[1].target[0].weight.fill_(torch.nan)  # type: ignore[operator, union-attr]
    swap(simulation, models, syncs)
    for model in models:
        assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_swap_that_fails_leaves_everything_as_it_was() -> None:
    """Wherever a collective or a vote fails because a worker is lost; the next attempt works."""
    simulation, models, syncs = team(LocalSGD())
    own = [copy.deepcopy(model.state_dict()) for model in models]
    reached = 0

    def failing(requests: Requests, at: int) -> Requests:
        nonlocal reached
        request = next(requests)
        try:
            for _ in range(at):
                request = requests.send((yield request))
        except StopIteration:
            return
        reached = max(reached, at)
        with pytest.raises(RoundFailedError):
            requests.throw(RoundFailedError("lost"))

    for at in range(10):
        swaps = [ConsensusSwap(sync, model) for sync, model in zip(syncs, models, strict=True)]
        simulation.run([failing(each.entering(), at) for each in swaps])
        if reached < at:
            break
        for model, state in zip(models, own, strict=True):
            assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items()), at
    assert reached == 5
    assert not torch.equal(models[0].online[0].weight, own[0]["online.0.weight"])
