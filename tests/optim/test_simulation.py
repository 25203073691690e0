from __future__ import annotations

import pytest
import torch

from adperception.optim import (
    LSGD,
    AllReduce,
    Broadcast,
    Commit,
    Compute,
    EverySteps,
    LocalSGD,
    Mix,
    RollCall,
    Simulation,
    Ticket,
)
from adperception.optim.collectives import Note, Request, Requests

from toy_workers import ToyWorkers


def loop(workers: ToyWorkers, number: int, steps: int, seconds: float) -> Requests:
    """A training loop that ends with the run: workers with tickets stop together, right after a round."""
    sync, model = workers.syncs[number], workers.models[number]
    while sync.worker.rounds < steps:
        yield Compute(seconds)
        sync.zero_grad()
        loss = workers.loss(model)
        loss.backward()
        yield from sync.stepping(loss=loss.detach())


def ticketed(seconds: list[float], trigger: Ticket) -> ToyWorkers:
    workers = ToyWorkers(LSGD(pull=0.3), [[1.0 + n, 2.0 - n] for n in range(len(seconds))], trigger=trigger)
    workers.simulation.run([loop(workers, n, 5, s) for n, s in enumerate(seconds)])
    return workers


def test_faster_workers_train_more_between_rounds() -> None:
    workers = ticketed([1.0, 1.0, 3.0], Ticket(4))
    log = workers.syncs[0].ticket_log
    assert len(log) == 5 * 12
    counts = [log.count(number) for number in range(3)]
    assert counts == [sync.worker.steps for sync in workers.syncs]
    assert sum(counts) == 60
    assert counts[0] > 1.8 * counts[2]
    assert workers.syncs[1].ticket_log == log


def test_a_replayed_log_gives_the_same_bits() -> None:
    first = ticketed([1.0, 2.1, 0.7], Ticket(3))
    log = tuple(first.syncs[0].ticket_log)
    second = ticketed([1.0, 1.0, 1.0], Ticket(3, replay=log))
    assert torch.equal(first.x, second.x)
    assert second.syncs[2].ticket_log == list(log)
    assert not torch.equal(first.x, ticketed([1.0, 1.0, 1.0], Ticket(3)).x)


def test_saving_with_tickets_is_possible_right_after_a_round_only() -> None:
    workers = ToyWorkers(LocalSGD(), [[1.0], [2.0]], trigger=Ticket(2))
    workers.step()
    with pytest.raises(RuntimeError, match="can be saved right after a round only, and this worker has done 1 local"):
        workers.syncs[0].state_dict()


def test_all_workers_can_save_after_every_round() -> None:
    workers = ToyWorkers(LocalSGD(), [[1.0], [2.0], [3.0]], trigger=Ticket(2))
    saved: list[list[int]] = [[], [], []]
    for sync, found in zip(workers.syncs, saved, strict=True):
        sync.after_round = lambda sync=sync, found=found: found.append(sync.state_dict()["values"]["rounds"])
    workers.simulation.run([loop(workers, n, 4, s) for n, s in enumerate([1.0, 1.0, 3.0])])
    assert saved == [[1, 2, 3, 4]] * 3


class Costs:
    def seconds(self, request: Request, workers: int) -> float:
        return 10.0 if isinstance(request, AllReduce) else 0.0

    def bytes_sent(self, request: Request, workers: int, worker_id: int) -> float:
        return float(request.tensor.numel()) if isinstance(request, AllReduce) else 0.0


def test_clock_and_bytes() -> None:
    simulation = Simulation(2, Costs())

    def work(seconds: float) -> Requests:
        yield Compute(seconds)
        return float((yield AllReduce(torch.ones(3)))[0])

    assert simulation.run([work(1.0), work(4.0)]) == [2.0, 2.0]
    assert [c.clock for c in simulation.communicators] == [14.0, 14.0]
    assert [c.waited for c in simulation.communicators] == [3.0, 0.0]
    assert [c.communicated for c in simulation.communicators] == [10.0, 10.0]
    assert [c.bytes_sent for c in simulation.communicators] == [3.0, 3.0]


def test_requests() -> None:
    simulation = Simulation(3)

    def work(me: int) -> Requests:
        notes = yield RollCall(Note(loss=float(me)))
        assert [note.loss for note in notes.values()] == [0.0, 1.0, 2.0]
        total = yield AllReduce(torch.tensor([1.0 + me]))
        chosen = yield Broadcast(torch.tensor([float(me)]), 2)
        part = yield Broadcast(torch.tensor([float(me)]), 0 if me < 2 else 2, (0, 1) if me < 2 else (2,))
        x, out = torch.tensor([float(me)]), torch.empty(1)
        mixed = yield Mix(x, out, 0.5, ((1,), (0, 2), (1,))[me], ((0.5,), (0.25, 0.25), (0.5,))[me])
        yield Commit()
        return [float(total), float(chosen), float(part), float(mixed)]

    assert simulation.run([work(me) for me in range(3)]) == [[6, 2, 0, 0.5], [6, 2, 0, 1.0], [6, 2, 2, 1.5]]


def test_zero_weights_keep_bad_values_out() -> None:
    simulation = Simulation(2)

    def work(me: int) -> Requests:
        x = torch.tensor([torch.nan if me else 4.0])
        out = yield Mix(x, torch.full((1,), torch.nan), 0.0 if me else 1.0, (1 - me,), (0.5 if me else 0.0,))
        return float(out)

    assert simulation.run([work(0), work(1)]) == [4.0, 2.0]


def test_workers_that_go_apart_are_an_error() -> None:
    simulation = Simulation(2)

    def ask(request: Request | None) -> Requests:
        if request is not None:
            yield request

    with pytest.raises(RuntimeError, match=r"workers \[0\] wait for \[1\], which ended before them"):
        simulation.run([ask(Commit()), ask(None)])
    with pytest.raises(RuntimeError, match="ask for different things"):
        Simulation(2).run([ask(Commit()), ask(AllReduce(torch.ones(1)))])
    x = torch.ones(1)
    with pytest.raises(RuntimeError, match="worker 0 mixes with 1, but 1 does not mix with it"):
        Simulation(2).run([ask(Mix(x, torch.empty(1), 0.5, (1,), (0.5,))), ask(Mix(x, torch.empty(1), 1.0))])
    with pytest.raises(RuntimeError, match="a simulated worker communicates together with the others"):
        simulation.communicators[0].run(ask(None))
    with pytest.raises(ValueError, match="1 generators for 2 workers"):
        simulation.run([ask(None)])


def test_many_workers() -> None:
    workers = ToyWorkers(LocalSGD(), [[float(n)] for n in range(256)], trigger=EverySteps(2), lr=0.0)
    assert (workers.step(2) == 127.5).all()
