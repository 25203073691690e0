from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adperception.optim import (
    ALDSGD,
    DPPF,
    DPSGD,
    EASGD,
    LGRAWA,
    LSGD,
    MATCHA,
    MGRAWA,
    SAM,
    DataParallel,
    DiLoCo,
    EverySamples,
    EverySteps,
    LocalSGD,
    NesterovMomentum,
    PostLocalSGD,
    Simulation,
    SlowMo,
    Strategy,
    SyncOptimizer,
    Ticket,
    Trigger,
)

from toy_workers import ToyWorkers, near

OFF = [
    EASGD(pull=0),
    EASGD(pull=0, order="joint"),
    LSGD(pull=0, proximal=0),
    LSGD(pull=0, proximal=0, groups=2, local_pull=0, local_proximal=0),
    LSGD(pull=0, proximal=0, order="joint"),
    MGRAWA(pull=0, proximal=0),
    LGRAWA(pull=0, proximal=0),
    LGRAWA(pull=0, proximal=0, norm_source="online"),
    DPPF(pull=0, push=0),
]
ALL: list[Strategy] = [
    EASGD(), EASGD(order="joint"), LSGD(), LSGD(order="joint"), LSGD(groups=2, global_every=2), MGRAWA(), LGRAWA(),
    MGRAWA(norm_source="online"), LGRAWA(norm_source="online"), DPSGD(), DPSGD(order="joint"), MATCHA(), ALDSGD(),
    ALDSGD(order="joint"), LocalSGD(), PostLocalSGD(local_from_step=3), SlowMo(), DiLoCo(), DPPF(push=0.01),
    DataParallel(),
]  # fmt: skip


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.1), nn.Linear(7, 3))


def batch(worker: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * worker + step)
    return torch.randn(8, 5, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)


class Team:
    """Workers that train a small network with batch norm on data of their own, in a simulation."""

    def __init__(
        self,
        strategy: Strategy,
        workers: int = 4,
        trigger: Trigger | None = None,
        make: Callable[[Any], torch.optim.Optimizer] = sgd,
        **options: Any,
    ) -> None:
        self.simulation = Simulation(workers)
        self.models = [network() for _ in range(workers)]
        self.done = 0
        self.losses: list[list[float]] = [[] for _ in range(workers)]
        self.syncs = [
            SyncOptimizer(
                make(model.parameters()),
                strategy,
                trigger or EverySteps(2),
                model=model,
                communicator=communicator,
                probe=self.probe,
                **options,
            )
            for model, communicator in zip(self.models, self.simulation.communicators, strict=True)
        ]
        self.simulation.run([sync.starting() for sync in self.syncs])

    def probe(self, model: nn.Module) -> Tensor:
        x, y = batch(99, 0)
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss.detach()

    def loss(self, worker: int, step: int) -> Tensor:
        torch.manual_seed(worker * 77 + step)  # of the dropout
        x, y = batch(worker, step)
        loss = nn.functional.cross_entropy(self.models[worker](x), y)
        self.syncs[worker].zero_grad()
        loss.backward()
        self.losses[worker].append(float(loss.detach()))
        return loss.detach()

    def train(self, steps: int) -> None:
        for _ in range(steps):
            losses = [self.loss(worker, self.done) for worker in range(len(self.models))]
            self.simulation.run([sync.stepping(loss=loss) for sync, loss in zip(self.syncs, losses, strict=True)])
            self.done += 1

    def parameters(self) -> list[list[Tensor]]:
        return [[p.detach().clone() for p in model.parameters()] for model in self.models]


def plain(worker: int, steps: int, make: Callable[[Any], torch.optim.Optimizer] = sgd) -> list[Tensor]:
    model = network()
    optimizer = make(model.parameters())
    for step in range(steps):
        torch.manual_seed(worker * 77 + step)
        x, y = batch(worker, step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("strategy", OFF, ids=repr)
def test_a_strategy_turned_off_is_the_plain_optimizer_to_the_bit(strategy: Strategy) -> None:
    team = Team(strategy)
    team.train(5)
    assert team.syncs[0].worker.rounds == 2
    for worker, found in enumerate(team.parameters()):
        assert_same(found, plain(worker, 5))


@pytest.mark.parametrize(
    "strategy", [DPSGD(), ALDSGD(), MATCHA(), LocalSGD(), SlowMo(), DiLoCo(), PostLocalSGD(local_from_step=0)], ids=repr
)
def test_a_strategy_without_strength_is_off_before_its_first_round(strategy: Strategy) -> None:
    """Those whose rounds cannot be turned off by an option: between rounds they are the plain optimizer."""
    team = Team(strategy, trigger=EverySteps(10))
    team.train(5)
    for worker, found in enumerate(team.parameters()):
        assert_same(found, plain(worker, 5))


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_single_worker(strategy: Strategy) -> None:
    with pytest.raises(ValueError, match=f"{strategy.name} needs at least two workers, but there is 1"):
        Team(strategy, workers=1)
    if isinstance(strategy, LSGD) and strategy.groups > 1:
        return
    team = Team(strategy, workers=1, allow_single_worker=True)
    team.train(5)
    same = [torch.equal(a, b) for a, b in zip(team.parameters()[0], plain(0, 5), strict=True)]
    assert all(same) is not isinstance(strategy, EASGD)


@pytest.mark.parametrize("strategy", ALL, ids=repr)
@pytest.mark.parametrize("stop", [3, 4])
def test_resume_is_equal_to_the_bit(strategy: Strategy, stop: int) -> None:
    whole = Team(strategy)
    whole.train(8)
    first = Team(strategy)
    first.train(stop)
    saved = [copy.deepcopy((m.state_dict(), s.state_dict())) for m, s in zip(first.models, first.syncs, strict=True)]
    again = Team(strategy)
    for model, sync, (weights, state) in zip(again.models, again.syncs, saved, strict=True):
        model.load_state_dict(weights)
        sync.load_state_dict(state)
    again.done = stop
    again.train(8 - stop)
    for model, other in zip(again.models, whole.models, strict=True):
        for (name, value), expected in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(value, expected), name
    assert again.syncs[0].worker.rounds == whole.syncs[0].worker.rounds


def test_state_of_another_run_is_refused() -> None:
    team = Team(EASGD())
    team.train(2)
    states = [sync.state_dict() for sync in team.syncs]
    with pytest.raises(ValueError, match=r"is of EASGD as worker 1 of \[0, 1, 2, 3\]; this is EASGD as worker 0"):
        Team(EASGD()).syncs[0].load_state_dict(states[1])
    with pytest.raises(ValueError, match=r"the saved state is of EASGD .* this is LSGD"):
        Team(LSGD()).syncs[0].load_state_dict(states[0])
    with pytest.raises(ValueError, match=r"as worker 0 of \[0, 1\]\. Resume with the same strategy and workers"):
        Team(EASGD(), workers=2).syncs[0].load_state_dict(states[0])


def test_replicated_state_is_the_same_everywhere_and_compared() -> None:
    for strategy in ALL:
        team = Team(strategy, check_replicas_every=1)
        team.train(6)
        for name in strategy.replicated:
            if name in team.syncs[0].worker.state:
                assert all(torch.equal(s.worker.state[name], team.syncs[0].worker.state[name]) for s in team.syncs)
    team = Team(EASGD(), check_replicas_every=2)
    team.train(2)
    team.syncs[2].worker.state["center"][3] += 1e-6
    with pytest.raises(RuntimeError, match=r"should hold alike \(center\) differs on worker \[2\] in round 2"):
        team.train(2)


def test_workers_must_be_alike() -> None:
    simulation = Simulation(2)
    local, elastic = (LocalSGD(), LocalSGD()), (EASGD(), EASGD(pull=0.1))
    for models, strategies, message in (
        ((nn.Linear(3, 2), nn.Linear(3, 4)), local, "worker 0 trains 2 tensors with .* elements, worker 1"),
        ((nn.Linear(3, 2), nn.Linear(3, 2)), elastic, r"worker 0 uses EASGD\(pull=0.43.*worker 1 EASGD\(pull=0.1"),
    ):
        syncs = [
            SyncOptimizer(sgd(m.parameters()), s, model=m, communicator=c)
            for m, s, c in zip(models, strategies, simulation.communicators, strict=True)
        ]
        with pytest.raises(ValueError, match=message):
            simulation.run([sync.starting() for sync in syncs])


def test_all_start_from_the_first_worker() -> None:
    simulation = Simulation(3)
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
        models[-1][1].running_mean.fill_(seed)
    expected = copy.deepcopy(models[0].state_dict())
    syncs = [
        SyncOptimizer(sgd(m.parameters()), LocalSGD(), model=m, communicator=c)
        for m, c in zip(models, simulation.communicators, strict=True)
    ]
    simulation.run([sync.starting() for sync in syncs])
    for model in models:
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_scheduler_clipping_and_accumulation() -> None:
    team = Team(LocalSGD(), workers=2, trigger=EverySteps(100))
    schedulers = [torch.optim.lr_scheduler.StepLR(sync, 2, 0.1) for sync in team.syncs]
    model = network()
    optimizer = sgd(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
    for step in range(4):
        for net, opt in ((team.models[0], team.syncs[0]), (team.models[1], team.syncs[1]), (model, optimizer)):
            opt.zero_grad()
            for part in range(2):  # accumulated
                torch.manual_seed(step)
                x, y = batch(part, step)
                nn.functional.cross_entropy(net(x), y).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        team.simulation.run([sync.stepping() for sync in team.syncs])
        optimizer.step()
        for each in (*schedulers, scheduler):
            each.step()
    assert team.syncs[0].worker.steps == 4
    assert team.syncs[0].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] != 0.1
    assert_same(team.parameters()[0], [p.detach() for p in model.parameters()])


def test_a_step_counts_once_with_many_closures() -> None:
    workers = ToyWorkers(
        LSGD(pull=0.5, proximal=0),
        [[1.0], [2.0]],
        trigger=EverySteps(2),
        optimizer=lambda p: SAM(torch.optim.SGD(p, lr=0.1), rho=0.1),
    )
    workers.step(4, closures=True)
    assert [(s.worker.steps, s.worker.rounds) for s in workers.syncs] == [(4, 2)] * 2


def test_eamsgd() -> None:
    """Nesterov momentum with look-ahead, pulled jointly: two rounds by hand."""
    strategy = EASGD(pull=0.8, order="joint")
    workers = ToyWorkers(strategy, [[1.0], [3.0]], optimizer=lambda p: NesterovMomentum(p, lr=0.1, momentum=0.9))
    near(workers.step(closures=True), [[0.5], [1.5]])
    near(workers.syncs[0].worker.state["center"][:1], [1.6])
    near(workers.step(closures=True), [[0.809], [1.147]])
    near(workers.syncs[0].worker.state["center"][:1], [1.12])


@pytest.mark.parametrize("strategy", [LSGD(), LGRAWA(norm_source="online"), EASGD()], ids=repr)
def test_grad_scaler_keeps_workers_in_step(strategy: Strategy) -> None:
    """A worker that skips an update because of infinities still counts the step, and joins the round."""
    workers = ToyWorkers(strategy, [[1.0], [2.0]], trigger=EverySteps(2), center=[1.5])
    scalers = [torch.amp.GradScaler("cpu", init_scale=64.0) for _ in workers.syncs]
    for step in range(4):
        generators = []
        for number, (model, sync, scaler) in enumerate(zip(workers.models, workers.syncs, scalers, strict=True)):
            sync.zero_grad()
            loss = workers.loss(model)
            scaler.scale(loss).backward()
            if step == 1 and number == 1:
                model[0].grad.fill_(torch.inf)
            # What GradScaler.step does, but for the call of step, which a simulation makes.
            calls: list[Any] = []

            def note(*arguments: Any, sync: Any = sync, calls: list[Any] = calls, **options: Any) -> None:
                calls.append((sync.found_inf, sync.grad_scale))

            sync.step = note  # type: ignore[method-assign]
            scaler.step(sync)
            del sync.step
            sync.found_inf, sync.grad_scale = calls[0]  # type: ignore[attr-defined]
            generators.append(sync.stepping(loss=loss.detach()))
        workers.simulation.run(generators)
        for sync, scaler in zip(workers.syncs, scalers, strict=True):
            del sync.found_inf, sync.grad_scale  # type: ignore[attr-defined]
            scaler.update()
    assert [s.worker.rounds for s in workers.syncs] == [2, 2]
    assert [s.skipped_steps for s in workers.syncs] == [0, 1]
    assert scalers[1].get_scale() == 32.0
    assert torch.isfinite(workers.x).all()


def test_grad_scaler_equals_training_without_it() -> None:
    team = Team(LocalSGD(), workers=1, allow_single_worker=True)
    sync, model, scaler = team.syncs[0], team.models[0], torch.amp.GradScaler("cpu", init_scale=1024.0)
    sync._communicator.run = lambda requests: team.simulation.run([requests])[0]  # type: ignore[method-assign]
    for step in range(3):
        torch.manual_seed(step)
        x, y = batch(0, step)
        sync.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
        scaler.step(sync)
        scaler.update()
    for found, expected in zip(team.parameters()[0], plain(0, 3), strict=True):
        torch.testing.assert_close(found, expected)


def test_bfloat16_parameters_are_mixed_in_float32() -> None:
    simulation = Simulation(2)
    models = [nn.Linear(4, 4).bfloat16() for _ in range(2)]
    syncs = [
        SyncOptimizer(sgd(m.parameters()), LocalSGD(), EverySteps(1), model=m, communicator=c)
        for m, c in zip(models, simulation.communicators, strict=True)
    ]
    simulation.run([sync.starting() for sync in syncs])
    assert syncs[0].worker.vector.dtype == torch.float32
    with torch.no_grad():
        for value, model in enumerate(models):
            model.weight.fill_(1.0 + value)
    for model in models:
        model.weight.grad = torch.zeros_like(model.weight)
    simulation.run([sync.stepping() for sync in syncs])
    assert all((model.weight == 1.5).all() and model.weight.dtype == torch.bfloat16 for model in models)


def test_tied_and_frozen_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.frozen = nn.Linear(2, 2).requires_grad_(False)
            self.second.weight = self.first.weight

    simulation = Simulation(2)
    models = [Tied() for _ in range(2)]
    frozen = [model.frozen.weight.clone() for model in models]
    syncs = [
        SyncOptimizer(sgd(m.parameters()), LocalSGD(), EverySteps(1), model=m, communicator=c)
        for m, c in zip(models, simulation.communicators, strict=True)
    ]
    simulation.run([sync.starting() for sync in syncs])
    assert [s.name for s in syncs[0].worker.params.segments] == ["first.weight", "first.bias", "second.bias"]
    with torch.no_grad():
        models[1].first.weight += 2
    simulation.run([sync.stepping() for sync in syncs])
    torch.testing.assert_close(models[0].second.weight, models[1].first.weight)
    assert models[0].second.weight is models[0].first.weight
    assert all(torch.equal(model.frozen.weight, weight) for model, weight in zip(models, frozen, strict=True))


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_parameters_added_and_unfrozen_later(strategy: Strategy) -> None:
    team = Team(strategy, trigger=EverySteps(1))
    team.train(3)
    before = [s.worker.state["center"].clone() for s in team.syncs] if "center" in team.syncs[0].worker.state else []
    extra = [nn.Parameter(torch.full((3,), float(number))) for number in range(4)]
    for sync, parameter in zip(team.syncs, extra, strict=True):
        sync.optimizer.add_param_group({"params": [parameter]})
    with pytest.raises(RuntimeError, match='parameter "group 1, parameter 0" requires a gradient but takes no part'):
        team.train(1)
    team = Team(strategy, trigger=EverySteps(1))
    team.train(3)
    for sync, parameter in zip(team.syncs, extra, strict=True):
        sync.optimizer.add_param_group({"params": [parameter]})
    team.simulation.run([sync.adopting() for sync in team.syncs])
    assert all((parameter == 0).all() for parameter in extra)
    for old, sync in zip(before, team.syncs, strict=False):
        assert torch.equal(sync.worker.state["center"][: old.numel()], old)
    team.train(3)
    assert team.syncs[0].worker.rounds == 6


def test_parameters_with_other_memory_are_noticed() -> None:
    team = Team(LocalSGD(), trigger=EverySteps(1))
    team.models[1][0].weight.data = team.models[1][0].weight.data.clone()
    with pytest.raises(RuntimeError, match=r'parameter "0\.weight" got other memory after SyncOptimizer was made'):
        team.train(1)


def test_channels_last_parameters_keep_their_memory_order() -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    expected = model.weight.detach().clone()
    communicator = Simulation(1).communicators[0]
    sync = SyncOptimizer(
        sgd(model.parameters()), LocalSGD(), model=model, communicator=communicator, allow_single_worker=True
    )
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(model.weight, expected)
    assert sync.worker.params.segments[1].offset % 16 == 0


def test_probe_leaves_no_trace() -> None:
    """Random generators, batch-norm statistics, gradients and modes; the probe here uses all of them."""
    team = Team(MGRAWA(), trigger=EverySteps(1))

    def probe(model: nn.Module) -> Tensor:
        torch.rand(3)
        random.random()
        np.random.rand()  # noqa: NPY002
        model.eval()
        model.train()
        return Team.probe(team, model)

    for sync in team.syncs:
        sync.worker.probe = probe
    losses = [team.loss(worker, 0) for worker in range(4)]
    gradients = [p.grad.clone() for p in team.models[0].parameters() if p.grad is not None]
    buffers = [b.clone() for b in team.models[0].buffers()]
    team.models[0][3].eval()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    team.simulation.run([sync.stepping(loss=loss) for sync, loss in zip(team.syncs, losses, strict=True)])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert_same([p.grad for p in team.models[0].parameters() if p.grad is not None], gradients)
    assert_same(list(team.models[0].buffers()), buffers)
    assert not team.models[0][3].training
    assert team.models[0][1].training


def test_probe_without_gradient_is_an_error() -> None:
    team = Team(MGRAWA(), trigger=EverySteps(1))
    for sync in team.syncs:
        sync.worker.probe = lambda model: None
    with pytest.raises(RuntimeError, match="the probe left no gradient"):
        team.train(1)


def test_election_by_the_probe() -> None:
    probes = 0

    def probe(model: nn.Module) -> float:
        nonlocal probes
        probes += 1
        model[0].square().sum().backward()
        return float(model[0].detach().square().sum())

    strategy = LSGD(pull=1.0, proximal=0, leader_metric="probe_loss")
    workers = ToyWorkers(strategy, [[3.0], [1.0], [2.0]], lr=0.0, probe=probe)
    assert probes == 0
    near(workers.step(losses=[0.0, 9.0, 9.0]), [[1.0]] * 3)
    assert probes == 3


@pytest.mark.parametrize("strategy", ALL, ids=repr)
def test_a_worker_that_is_not_finite_is_left_out_and_restarts(strategy: Strategy) -> None:
    team = Team(strategy, trigger=EverySteps(1))
    team.train(4)
    with torch.no_grad():
        team.models[1][0].weight[0, 0] = torch.nan
    if isinstance(strategy, (MATCHA, LSGD)):
        team.train(6)  # a matching or an election of all may be some rounds away
    team.train(1)
    for model in team.models:
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert all(set(sync.left_out) == {1} for sync in team.syncs)
    assert team.syncs[0].left_out == team.syncs[3].left_out


def test_every_samples() -> None:
    trigger = EverySamples(100, batch_size=8)
    assert [step for step in range(1, 11) if trigger.is_due(step, 4)] == [4, 7, 10]
    with pytest.raises(ValueError, match="EverySamples: samples=0"):
        EverySamples(0, 8)


@pytest.mark.parametrize(
    ("group", "workers", "expected"), [(4, 4, "LLLLDDDDLLLLDDDD"), (12, 3, "L" * 12 + "DDD" + "L")]
)
def test_tickets(group: int, workers: int, expected: str) -> None:
    trigger = Ticket(group // workers)
    assert "".join("L" if trigger.is_local(n, workers) else "D" for n in range(len(expected))) == expected


def test_memory_is_the_methods_own_state_and_one_scratch_copy() -> None:
    own = {"EASGD": 1, "LSGD": 1, "MGRAWA": 1, "LGRAWA": 1, "SlowMo": 2, "DiLoCo": 2}
    for strategy in ALL:
        team = Team(strategy)
        team.train(2)
        size = team.syncs[0].worker.vector.numel() * 4
        memory = team.syncs[0].memory_bytes
        expected = own.get(strategy.name, 0)
        if isinstance(strategy, LSGD) and strategy.groups > 1:
            expected = 2
        assert expected * size <= memory["state"] <= expected * size + 200
        assert memory["scratch"] <= size + 4 * 6
