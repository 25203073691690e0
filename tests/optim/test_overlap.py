"""Rounds in the background: exact, resumable, and really at the same time."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from adperception.optim import DPSGD, EASGD, LSGD, MATCHA, EverySteps, LocalSGD, Simulation, Strategy, SyncOptimizer
from adperception.optim.collectives import Requests
from adperception.optim.consensus import consensus
from adperception.optim.worker import Worker

from faults import Place, WorkerPool

STRATEGIES: list[Strategy] = [EASGD(order="joint"), DPSGD(order="joint"), MATCHA(order="joint", budget=0.6)]


def made(place: Place, strategy: Strategy, name: str, overlap: bool) -> tuple[nn.Module, SyncOptimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    communicator = place.communicator(round_timeout_seconds=10.0, name=name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return model, SyncOptimizer(
        optimizer, strategy, EverySteps(2), model=model, communicator=communicator, overlap=overlap
    )


def train(place: Place, model: nn.Module, sync: SyncOptimizer, steps: range) -> list[float]:
    for step in steps:
        generator = torch.Generator().manual_seed(100 * place.worker_id + step)
        sync.zero_grad()
        loss = model(torch.randn(4, 6, generator=generator, dtype=torch.float64)).square().mean()
        loss.backward()
        sync.step(loss=loss.detach())
    sync.wait()
    return torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


def compare(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for strategy in STRATEGIES:
        for overlap in (False, True):
            model, sync = made(place, strategy, f"{strategy}{overlap}", overlap)
            found[f"{strategy} {overlap}"] = train(place, model, sync, range(7)), sync.worker.rounds
        model, sync = made(place, strategy, f"{strategy} first", True)
        train(place, model, sync, range(3))  # the round of step 4 is on its way
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        with consensus(sync, model):
            assert not torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), before)
        saved = copy.deepcopy((model.state_dict(), sync.state_dict()))
        model, sync = made(place, strategy, f"{strategy} second", True)
        model.load_state_dict(saved[0])
        sync.load_state_dict(saved[1])
        found[f"{strategy} resumed"] = train(place, model, sync, range(3, 7)), sync.worker.rounds
    return found


@pytest.mark.multi_process
def test_the_same_bits_as_without() -> None:
    outcomes = WorkerPool().run(compare, 3, timeout_seconds=60)
    for outcome in outcomes:
        assert outcome.error == ""
        for strategy in STRATEGIES:
            plain, overlapped, resumed = (outcome.returned[f"{strategy} {way}"] for way in (False, True, "resumed"))
            # The overlapped run has communicated for a last round, which belongs to a step that is not made.
            assert plain == (overlapped[0], overlapped[1] - 1)
            assert resumed == overlapped


@dataclass(frozen=True)
class Slow(EASGD):
    """Takes 0.1 s for communication."""

    def round(self, worker: Worker) -> Requests:
        time.sleep(0.1)
        yield from super().round(worker)


def at_once(place: Place) -> tuple[float, float]:
    """Seconds of six steps whose gradient takes 0.1 s, with a round in every other one, apart and at the same time."""
    seconds = []
    for overlap in (False, True):
        model, sync = made(place, Slow(order="joint"), f"time {overlap}", overlap)
        start = time.perf_counter()
        for _ in range(6):
            time.sleep(0.1)
            sync.zero_grad()
            model(torch.ones(1, 6).double()).sum().backward()
            sync.step()
        sync.wait()
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]


@pytest.mark.multi_process
def test_communication_and_computation_at_the_same_time() -> None:
    outcomes = WorkerPool().run(at_once, 2, timeout_seconds=60)
    for outcome in outcomes:
        assert outcome.error == ""
        apart, together = outcome.returned
        # Three rounds of 0.1 s disappear behind the gradients.
        assert together < apart - 0.1


def test_only_for_joint_rounds() -> None:
    model, communicator = nn.Linear(2, 2), Simulation(2).communicators[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for strategy in (LocalSGD(), LSGD()):
        with pytest.raises(ValueError, match=r'overlap=True needs rounds .*: set order="joint"'):
            SyncOptimizer(optimizer, strategy, communicator=communicator, overlap=True)
