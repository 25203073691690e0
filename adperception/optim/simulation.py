"""Any number of workers in one process: the same strategies, driven in turn, with a clock if one is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adperception.optim.collectives import (
    AllReduce,
    Broadcast,
    Commit,
    Mix,
    Request,
    Requests,
    RollCall,
    TakeTicket,
)
from adperception.optim.mixing import add_up

__all__ = ["Compute", "Cost", "SimulatedWorker", "Simulation"]


@dataclass(frozen=True)
class Compute:
    """What a simulated training loop may yield beside requests: this worker computes for so long.

    Attributes:
        seconds: on its clock.
    """

    seconds: float


class Cost(Protocol):
    """Seconds and sent bytes of a request, for a simulation with a clock."""

    def seconds(self, request: Request, workers: int) -> float:
        """How long it takes once everybody is there."""

    def bytes_sent(self, request: Request, workers: int, worker_id: int) -> float:
        """Payload that this worker sends."""


@dataclass
class SimulatedWorker:
    """The communicator to give to the ``SyncOptimizer`` of one simulated worker.

    Attributes:
        worker_id: which one.
        members: worker ids that are left.
        clock: seconds of computing, waiting and communicating so far.
        waited: seconds of it spent waiting for others.
        communicated: seconds of it spent in communication.
        bytes_sent: payload sent so far.
    """

    worker_id: int
    members: tuple[int, ...]
    clock: float = 0.0
    waited: float = 0.0
    communicated: float = 0.0
    bytes_sent: float = 0.0
    is_simulated: bool = True

    def run(self, requests: Requests) -> Any:
        """Not possible for one worker alone.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "a simulated worker communicates together with the others: collect the generators of all of them, "
            "simulation.run([sync.stepping(loss=loss) for sync, loss in ...])."
        )


class Simulation:
    """Carries out the requests of all workers in one process.

    ``run`` takes one generator per worker, e.g. ``SyncOptimizer.stepping``, or a whole training loop that says
    ``yield from sync.stepping(...)`` and, with a clock, ``yield Compute(seconds)``. Of the workers that can go on, the
    one with the earliest clock does, so faster workers get more tickets. Sums are taken in ascending worker id.

    Args:
        workers: number of workers.
        cost: of communication; ``None``: none.

    Attributes:
        communicators: one per worker.
    """

    def __init__(self, workers: int, cost: Cost | None = None) -> None:
        members = tuple(range(workers))
        self.communicators = [SimulatedWorker(worker_id, members) for worker_id in members]
        self._cost = cost
        self._tickets = 0

    def run(self, generators: Sequence[Requests]) -> list[Any]:
        """Drive the generators of all workers to their ends; what they return.

        Raises:
            RuntimeError: if some wait for others that have ended or ask for something else.
        """
        workers = self.communicators
        if len(generators) != len(workers):
            raise ValueError(f"{len(generators)} generators for {len(workers)} workers; give one for each.")
        results: list[Any] = [None] * len(workers)
        answers: dict[int, Any] = dict.fromkeys(range(len(workers)))
        waiting: dict[int, Request] = {}
        running = set(answers)
        while running:
            if answers:
                worker_id = min(answers, key=lambda w: (workers[w].clock, w))
                answer = answers.pop(worker_id)
                try:
                    request = generators[worker_id].send(answer)
                except StopIteration as end:
                    results[worker_id] = end.value
                    running.discard(worker_id)
                    continue
                if isinstance(request, Compute):
                    workers[worker_id].clock += request.seconds
                    answers[worker_id] = None
                elif isinstance(request, TakeTicket):
                    answers[worker_id] = self._tickets
                    self._tickets += 1
                else:
                    waiting[worker_id] = request
            elif len(waiting) == len(workers):
                answers = self._carry_out(waiting)
                waiting = {}
            else:
                missing = sorted(set(range(len(workers))) - set(waiting))
                raise RuntimeError(f"workers {sorted(waiting)} wait for {missing}, which ended before them.")
        return results

    def _carry_out(self, requests: dict[int, Request]) -> dict[int, Any]:
        ordered = [requests[w] for w in sorted(requests)]
        kinds = {type(request) for request in ordered}
        if len(kinds) > 1:
            raise RuntimeError(f"the workers ask for different things: {sorted(kind.__name__ for kind in kinds)}.")
        self._spend_time(ordered)
        return dict(enumerate(_ANSWERS[kinds.pop()](ordered)))

    def _spend_time(self, requests: list[Request]) -> None:
        start = max(worker.clock for worker in self.communicators)
        count = len(requests)
        cost = self._cost
        seconds = 0.0 if cost is None else max(cost.seconds(request, count) for request in requests)
        for worker, request in zip(self.communicators, requests, strict=True):
            worker.waited += start - worker.clock
            worker.communicated += seconds
            worker.clock = start + seconds
            if cost is not None:
                worker.bytes_sent += cost.bytes_sent(request, count, worker.worker_id)


def _roll_call(requests: Sequence[RollCall]) -> list[Any]:
    notes = {worker_id: request.note for worker_id, request in enumerate(requests)}
    return [notes for _ in requests]


def _all_reduce(requests: Sequence[AllReduce]) -> list[Any]:
    total = requests[0].tensor.clone()
    for request in requests[1:]:
        total += request.tensor
    for request in requests:
        request.tensor.copy_(total)
    return [request.tensor for request in requests]


def _broadcast(requests: Sequence[Broadcast]) -> list[Any]:
    for request in requests:
        request.tensor.copy_(requests[request.root].tensor)
    return [request.tensor for request in requests]


def _mix(requests: Sequence[Mix]) -> list[Any]:
    for worker_id, request in enumerate(requests):
        for neighbour in request.neighbours:
            if worker_id not in requests[neighbour].neighbours:
                raise RuntimeError(f"worker {worker_id} mixes with {neighbour}, but {neighbour} does not mix with it.")
    for request in requests:
        received = [requests[neighbour].source for neighbour in request.neighbours]
        add_up(request.out, request.source, request.own_weight, received, request.weights)
    return [request.out for request in requests]


_ANSWERS: dict[type, Callable[[Any], list[Any]]] = {
    RollCall: _roll_call,
    AllReduce: _all_reduce,
    Broadcast: _broadcast,
    Mix: _mix,
    Commit: lambda requests: [None] * len(requests),
}
