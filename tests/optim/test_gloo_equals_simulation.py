"""Every strategy in 2, 3 and 4 processes over gloo against the same run in one process, in float64."""

from __future__ import annotations

import copy
import time
from typing import Any

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
    CompleteSchedule,
    ConsensusSwap,
    DataParallel,
    DiLoCo,
    EverySamples,
    EverySteps,
    FixedSchedule,
    Graph,
    LocalSGD,
    NesterovMomentum,
    PostLocalSGD,
    RingSchedule,
    RotatingSchedule,
    Simulation,
    SlowMo,
    Strategy,
    SyncOptimizer,
    Ticket,
    Trigger,
)
from adperception.optim.collectives import Requests

from faults import Outcome, Place, WorkerPool, kill_at_step

pytestmark = [pytest.mark.multi_process, pytest.mark.timeout(100)]

STEPS = 6


@pytest.fixture(scope="module")
def pool() -> WorkerPool:
    return WorkerPool()


def strategies(workers: int) -> dict[str, Strategy]:
    """By ``repr``; those with groups and graphs are for so many workers."""
    path = FixedSchedule(Graph.path(range(workers)))
    rotation = RotatingSchedule((RingSchedule(), path, CompleteSchedule()))
    chosen: list[Strategy] = [
        *(EASGD(), EASGD(order="joint"), EASGD(divide_pull_by_workers=False, pull=0.2), EASGD(center="mean")),
        *(LSGD(), LSGD(order="joint"), LSGD(loss_window=2, pull_scaled_by_lr=True), LSGD(leader_metric="probe_loss")),
        *(MGRAWA(), MGRAWA(norm="l2", proximal=0), MGRAWA(norm_source="online"), MGRAWA(reset_norms=True)),
        *(LGRAWA(), LGRAWA(norm_source="online"), LGRAWA(norm_exponent=2.0)),
        *(DPSGD(), DPSGD(order="joint"), DPSGD(CompleteSchedule()), DPSGD(path), DPSGD(rotation)),
        *(MATCHA(), MATCHA(order="joint", budget=0.7), MATCHA(Graph.complete(range(workers)), seed=3)),
        *(ALDSGD(), ALDSGD(order="joint"), ALDSGD(rotation, leader_includes_self=False), ALDSGD(leaders_every=2)),
        *(LocalSGD(), PostLocalSGD(local_from_step=3), DataParallel()),
        *(SlowMo(), DiLoCo(), DPPF(), DPPF(push=0.01)),
    ]
    if workers != 3:
        chosen.append(LSGD(groups=2, global_every=2))
    if workers == 4:
        chosen += [LSGD(groups=2, global_every=3, order="joint"), LSGD(groups=4, global_every=2)]
    return {repr(strategy): strategy for strategy in chosen}


class Trainee:
    """A small network in float64 that one worker trains on data of its own."""

    def __init__(self, strategy: Strategy, communicator: Any, trigger: Trigger | None = None, local: str = "") -> None:
        self.worker_id = communicator.worker_id
        torch.manual_seed(5)
        layers = nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)
        self.model = nn.Sequential(*layers).double()
        parameters = list(self.model.parameters())
        self.closures = bool(local)
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)
        if local == "SAM":
            optimizer = SAM(optimizer, rho=0.05)
        elif local == "Nesterov":
            optimizer = NesterovMomentum(parameters, lr=0.1, momentum=0.9)
        self.sync = SyncOptimizer(
            optimizer,
            strategy,
            trigger or EverySteps(2),
            model=self.model,
            communicator=communicator,
            probe=lambda model: self.loss(999),
            check_replicas_every=1,
        )
        self.swap = ConsensusSwap(self.sync, self.model)

    def loss(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.worker_id + step)
        x = torch.randn(8, 5, generator=generator, dtype=torch.float64)
        loss = nn.functional.cross_entropy(self.model(x), torch.randint(0, 3, (8,), generator=generator))
        loss.backward()
        return loss.detach()

    def stepping(self) -> Requests:
        """One step, as a generator of requests."""

        def closure() -> Tensor:
            self.sync.zero_grad()
            return self.loss(step)

        step = self.sync.worker.steps
        if self.closures:
            yield from self.sync.stepping(closure)
        else:
            yield from self.sync.stepping(loss=closure())

    def found(self) -> dict[str, Tensor]:
        """Everything that the worker holds."""
        return copy.deepcopy({**self.model.state_dict(), **self.sync.worker.state})


CASES: list[tuple[str, Trigger | None, str]] = [
    (repr(EASGD(order="joint")), None, "Nesterov"),  # EAMSGD
    (repr(LSGD()), None, "SAM"),
    (repr(LGRAWA()), EverySamples(30, batch_size=8), ""),
]


def cases(workers: int) -> list[tuple[Strategy, Trigger | None, str]]:
    known = strategies(workers)
    return [(strategy, None, "") for strategy in known.values()] + [(known[n], t, o) for n, t, o in CASES]


def all_strategies(place: Place) -> list[tuple[dict[str, bytes], dict[str, bytes], int]]:
    """For each case: what a worker holds at the end and in the consensus, as bytes, and its rounds."""
    store, results = place.store(), []
    for number, (strategy, trigger, local) in enumerate(cases(place.workers)):
        communicator = place.communicator(store=store, name=str(number), round_timeout_seconds=20.0)
        trainee = Trainee(strategy, communicator, trigger, local)
        for _ in range(STEPS):
            communicator.run(trainee.stepping())
        own = trainee.found()
        communicator.run(trainee.swap.entering())
        results.append((as_bytes(own), as_bytes(trainee.found()), trainee.sync.worker.rounds))
    return results


def as_bytes(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.double().contiguous().numpy().tobytes() for name, tensor in tensors.items()}


def simulated(workers: int, case: tuple[Strategy, Trigger | None, str]) -> tuple[list[Any], list[Any], int]:
    strategy, trigger, local = case
    simulation = Simulation(workers)
    trainees = [Trainee(strategy, communicator, trigger, local) for communicator in simulation.communicators]
    simulation.run([trainee.sync.starting() for trainee in trainees])
    for _ in range(STEPS):
        simulation.run([trainee.stepping() for trainee in trainees])
    own = [trainee.found() for trainee in trainees]
    simulation.run([trainee.swap.entering() for trainee in trainees])
    return own, [trainee.found() for trainee in trainees], trainees[0].sync.worker.rounds


def returned(outcomes: list[Outcome]) -> list[Any]:
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    return [outcome.returned for outcome in outcomes]


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_processes_equal_the_simulation(pool: WorkerPool, workers: int) -> None:
    found = returned(pool.run(all_strategies, workers, timeout_seconds=80.0))
    for number, case in enumerate(cases(workers)):
        *expected, rounds = simulated(workers, case)
        assert {each[number][2] for each in found} == {rounds}
        assert rounds >= 3
        for held in (0, 1):
            for worker in range(workers):
                values = found[worker][number][held]
                assert values.keys() == expected[held][worker].keys()
                for name, tensor in expected[held][worker].items():
                    value = torch.frombuffer(bytearray(values[name]), dtype=torch.float64).view(tensor.shape)
                    difference = (value - tensor).abs().max()
                    assert difference <= 1e-12, (case, held, worker, name, float(difference))
            shared = [*case[0].replicated, *(["0.weight", "1.running_var"] if held else [])]
            for name in shared:
                assert len({each[number][held].get(name) for each in found}) == 1, (case, name)


# Tickets


def train_with_tickets(trainee: Trainee, rounds: int, seconds: float = 0.0) -> dict[int, Any]:
    """Until so many rounds are done; what can be saved after each of them."""
    sync, saved = trainee.sync, {}

    def save() -> None:
        saved[sync.worker.rounds] = copy.deepcopy((trainee.model.state_dict(), sync.state_dict()))

    sync.after_round = save
    while sync.worker.rounds < rounds:
        sync.communicator.run(trainee.stepping())
        time.sleep(seconds)
    return saved


def tickets(place: Place, strategy: Strategy) -> Any:
    def communicator(name: str) -> Any:
        return place.communicator(name=name, round_timeout_seconds=20.0)

    first = Trainee(strategy, communicator("first"), Ticket(4))
    saved = train_with_tickets(first, 5, 0.004 * place.worker_id)
    trigger = Ticket(4, replay=tuple(first.sync.ticket_log))
    again = Trainee(strategy, communicator("again"), trigger)
    train_with_tickets(again, 5)
    resumed = Trainee(strategy, communicator("resumed"), trigger)
    weights, state = saved[2]
    resumed.model.load_state_dict(weights)
    resumed.sync.load_state_dict(state)
    train_with_tickets(resumed, 5)
    ends = [as_bytes(trainee.found()) for trainee in (first, again, resumed)]
    logs = [trainee.sync.ticket_log for trainee in (first, again, resumed)]
    return first.sync.worker.steps, logs, ends[0] == ends[1], ends[0] == ends[2]


@pytest.mark.parametrize("strategy", [LSGD(), EASGD(), LGRAWA(norm_source="online"), DPSGD()], ids=repr)
def test_tickets_are_logged_and_replayed_to_the_bit(pool: WorkerPool, strategy: Strategy) -> None:
    """Faster workers do more steps; the log leads to the same bits again, from the start and from a checkpoint."""
    steps, logs, replayed, resumed = zip(
        *returned(pool.run(tickets, 3, (strategy,), timeout_seconds=60.0)), strict=True
    )
    log = logs[0][0]
    assert all(each == log for three in logs for each in three)
    assert len(log) == 5 * 12
    assert [log.count(worker) for worker in range(3)] == list(steps)
    assert steps[0] > steps[2]
    assert replayed == resumed == (True,) * 3


def tickets_and_a_kill(place: Place) -> tuple[tuple[int, ...], int, bytes]:
    communicator = place.communicator(round_timeout_seconds=1.0, on_failure="regroup")
    trainee = Trainee(EASGD(), communicator, Ticket(4))
    while trainee.sync.worker.rounds < 6:
        kill_at_step(trainee.sync.worker.steps, 6, place.worker_id, 1)
        communicator.run(trainee.stepping())
    return communicator.members, trainee.sync.worker.steps, as_bytes(trainee.found())["center"]


def test_tickets_go_on_without_a_worker_that_was_killed(pool: WorkerPool) -> None:
    outcomes = pool.run(tickets_and_a_kill, 3, timeout_seconds=30.0)
    assert outcomes[1].exit_code == -9
    first, second = returned([outcomes[0], outcomes[2]])
    assert first[0] == second[0] == (0, 2)
    assert first[2] == second[2]
    assert first[1] + second[1] >= 6 * 8
