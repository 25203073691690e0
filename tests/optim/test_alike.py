from __future__ import annotations

import pytest
import torch

from adperception.optim import EASGD, EverySteps, LocalSGD, Simulation, SyncOptimizer
from adperception.optim.alike import checksums, compare_replicas
from adperception.optim.collectives import Note
from adperception.optim.communication_errors import ReplicasDifferError


def made(strategy: EASGD | LocalSGD) -> SyncOptimizer:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    communicator = Simulation(1).communicators[0]
    sync = SyncOptimizer(optimizer, strategy, EverySteps(2), communicator=communicator, allow_single_worker=True)
    strategy.start(sync.worker)
    return sync


def test_checksums_are_told_in_every_so_many_rounds() -> None:
    sync = made(EASGD())
    told = []
    for rounds in range(6):
        sync.worker.rounds = rounds
        told.append(bool(checksums(sync.worker, sync.strategy, every=3)))
    assert told == [False, False, True, False, False, True]
    assert checksums(sync.worker, sync.strategy, every=0) == {}
    local = made(LocalSGD())
    assert checksums(local.worker, local.strategy, every=1) == {}


def test_workers_that_differ_from_most_are_named() -> None:
    sync = made(EASGD())
    sync.worker.rounds = 2
    own = checksums(sync.worker, sync.strategy, every=3)
    sync.worker.notes = {member: Note(tell=own) for member in (0, 1, 4)}
    compare_replicas(sync.worker, sync.strategy)
    sync.worker.state["center"][0] += 1e-6
    sync.worker.notes[4] = Note(tell=checksums(sync.worker, sync.strategy, every=3))
    with pytest.raises(ReplicasDifferError, match=r"EASGD: .*\(center\) differs on worker \[4\] in round 3"):
        compare_replicas(sync.worker, sync.strategy)
