"""LocalSGD, SlowMo, DiLoCo, DPPF, DataParallel and PostLocalSGD against numbers worked out by hand and each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from adperception.optim.data_parallel import DataParallel, PostLocalSGD
from adperception.optim.diloco import DiLoCo
from adperception.optim.dppf import DPPF
from adperception.optim.local_sgd import LocalSGD
from adperception.optim.slow_mo import SlowMo
from adperception.optim.strategy import Strategy
from adperception.optim.triggers import EverySteps

from toy_workers import ToyWorkers, near


def put(workers: ToyWorkers, *values: float) -> None:
    workers.put(torch.tensor(values, dtype=torch.float64)[:, None])


def test_diloco() -> None:
    workers = ToyWorkers(DiLoCo(), [[1.0], [1.0]], lr=0.0, center=[1.0])
    put(workers, 0.8, 0.6)
    near(workers.step(), [0.601] * 2)
    put(workers, 0.501, 0.301)
    near(workers.step(), [0.1649] * 2)


def test_diloco_is_torch_nesterov_on_the_mean_displacement() -> None:
    outer = nn.Parameter(torch.randn(6, dtype=torch.float64))
    optimizer = torch.optim.SGD([outer], lr=0.7, momentum=0.9, nesterov=True)
    workers = ToyWorkers(DiLoCo(), [outer.tolist()] * 3, lr=0.0, center=outer.tolist())
    for _ in range(4):
        ends = outer.detach() + 0.1 * torch.randn(3, 6, dtype=torch.float64)
        outer.grad = outer.detach() - ends.mean(0)
        optimizer.step()
        workers.put(ends)
        near(workers.step(), outer.detach().expand(3, 6))


def test_slow_mo() -> None:
    workers = ToyWorkers(SlowMo(momentum=0.5), [[1.0], [1.0]], lr=0.1, center=[1.0], function=lambda x: 0 * x.sum())
    put(workers, 0.6, 0.8)
    near(workers.step(), [0.7] * 2)
    assert float(workers.syncs[0].worker.state["slow_momentum"][0]) == pytest.approx(3.0)
    put(workers, 0.5, 0.5)
    near(workers.step(), [0.35] * 2)
    assert float(workers.syncs[0].worker.state["slow_momentum"][0]) == pytest.approx(3.5)


def test_dppf_settles_at_push_over_pull() -> None:
    workers = ToyWorkers(DPPF(pull=0.5, push=0.5), [[0.0], [4.0]], lr=0.0)
    for distance in (1.5, 1.25, 1.125, 1.0625, 1.03125, 1.015625):
        near((workers.step()[0] - 2).abs(), [distance])
    assert torch.isfinite(ToyWorkers(DPPF(pull=0.5, push=0.5), [[2.0], [2.0]], lr=0.0).step()).all()


@pytest.mark.parametrize("same", [DiLoCo(outer_lr=1, momentum=0), SlowMo(momentum=0, slow_lr=1), DPPF(pull=1, push=0)])
def test_degenerate_options_are_local_sgd(same: Strategy) -> None:
    starts = [[1.0, 2.0]] * 3
    found = [
        ToyWorkers(strategy, starts, lambda x: (x - 3).pow(4).sum(), lr=0.01, trigger=EverySteps(2), center=[1.0, 2.0])
        for strategy in (same, LocalSGD())
    ]
    shift = torch.randn(3, 2, dtype=torch.float64)
    for workers in found:
        workers.put(workers.x + shift)
    near(found[0].step(7), found[1].step(7))


def momentum(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)


@pytest.mark.parametrize("strategy", [LocalSGD(), PostLocalSGD(local_from_step=3)])
def test_averaging_every_step_is_data_parallel(strategy: Strategy) -> None:
    """With equal starts and a linear optimizer; each worker has a target of its own."""
    runs = []
    for chosen in (strategy, DataParallel()):
        workers = ToyWorkers(chosen, [[0.5, -0.5]] * 4, optimizer=momentum, trigger=EverySteps(1), center=[0.5, -0.5])
        targets = torch.arange(8, dtype=torch.float64).view(4, 2)
        for _ in range(6):
            generators = []
            for model, sync, target in zip(workers.models, workers.syncs, targets, strict=True):
                sync.zero_grad()
                (torch.cat([p.flatten() for p in model]) - target).square().sum().backward()
                generators.append(sync.stepping())
            workers.simulation.run(generators)
        runs.append(workers.x)
    near(runs[0], runs[1], 1e-14)


def test_gradient_that_only_some_workers_have() -> None:
    workers = ToyWorkers(DataParallel(), [[1.0, 1.0]] * 2, tensors=2, lr=1.0, center=[1.0, 1.0])
    generators = []
    for number, (model, sync) in enumerate(zip(workers.models, workers.syncs, strict=True)):
        sync.zero_grad()
        model[0].grad = torch.tensor([0.5]).double()
        if number == 0:
            model[1].grad = torch.tensor([0.5]).double()
        generators.append(sync.stepping())
    workers.simulation.run(generators)
    near(workers.x, [[0.5, 0.75]] * 2)


def test_a_gradient_that_is_not_finite_is_left_out_of_the_mean() -> None:
    """Also by a worker that leaves the step out itself: it goes on as the others do."""
    for strategy in (DataParallel(), PostLocalSGD()):
        workers = ToyWorkers(strategy, [[1.0]] * 3, lr=1.0, center=[1.0], trigger=EverySteps(9))
        for skips in (False, True):
            generators = []
            for number, (model, sync) in enumerate(zip(workers.models, workers.syncs, strict=True)):
                model[0].grad = torch.tensor([math.nan if number == 1 else 0.5 * number]).double()
                if skips and number == 1:
                    sync.found_inf = torch.ones(())  # type: ignore[attr-defined]
                generators.append(sync.stepping())
            workers.simulation.run(generators)
            near(workers.x, [[0.0 if skips else 0.5]] * 3)
        assert [sync.left_out for sync in workers.syncs] == [{1: 2}] * 3
        assert workers.syncs[0].sync_state()[1]["left_out"] == {"1": 2}
        for model in workers.models:
            model[0].grad = torch.tensor([math.nan]).double()
        workers.simulation.run([sync.stepping() for sync in workers.syncs])
        assert workers.x.isnan().all()
        assert workers.syncs[0].left_out == {0: 1, 1: 3, 2: 1}


def test_gradients_are_unscaled_before_they_are_averaged() -> None:
    workers = ToyWorkers(DataParallel(), [[1.0]] * 2, lr=1.0, center=[1.0])
    for scale, model, sync in zip((2.0, 4.0), workers.models, workers.syncs, strict=True):
        model[0].grad = torch.tensor([0.5 * scale]).double()
        sync.found_inf, sync.grad_scale = torch.zeros(()), torch.tensor(scale)  # type: ignore[attr-defined]
    workers.simulation.run([sync.stepping() for sync in workers.syncs])
    near(workers.x, [[0.5]] * 2)


def test_closures_cannot_be_averaged() -> None:
    workers = ToyWorkers(DataParallel(), [[1.0]] * 2)
    with pytest.raises(
        ValueError, match="DataParallel averages gradients before the step, so it cannot take a closure"
    ):
        workers.step(closures=True)


def test_post_local_sgd_goes_apart_after_its_start() -> None:
    workers = ToyWorkers(PostLocalSGD(local_from_step=2), [[1.0], [1.0]], trigger=EverySteps(4), center=[1.0])

    def step() -> float:
        generators = []
        for number, (model, sync) in enumerate(zip(workers.models, workers.syncs, strict=True)):
            sync.zero_grad()
            (model[0] - number).square().sum().backward()
            generators.append(sync.stepping())
        workers.simulation.run(generators)
        return float(workers.x.std())

    assert [step() == 0 for _ in range(4)] == [True, True, False, True]


def test_options_are_checked() -> None:
    for wrong in (lambda: SlowMo(slow_lr=0), lambda: DiLoCo(momentum=1.5), lambda: DPPF(push=-1)):
        with pytest.raises(ValueError, match="must be"):
            wrong()
    with pytest.raises(ValueError, match="EverySteps: steps=0 must be 1 or more"):
        EverySteps(0)
