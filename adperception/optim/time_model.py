"""How long collectives take on links of a given bandwidth and latency: for plans of runs that cannot be tried.

Every worker has a full-duplex link of its own to a switch that is never the bottleneck. The formulas follow the
algorithms of gloo; two constants, calibrated once on any network, stand for headers and for the work around a message.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from adperception.optim.collectives import AllReduce, Broadcast, Commit, Mix, Request, RollCall
from adperception.optim.traffic import broadcast_tree, sent_bytes

__all__ = ["CommunicationTime", "Link", "Observation"]


@dataclass(frozen=True)
class Link:
    """What joins a worker to the switch.

    Attributes:
        bandwidth_bits_per_second: in either direction, both at the same time.
        latency_seconds: from worker to worker, one way.

    Raises:
        ValueError: a bandwidth that is not positive, a negative latency.
    """

    bandwidth_bits_per_second: float
    latency_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.bandwidth_bits_per_second < math.inf:
            value = self.bandwidth_bits_per_second
            raise ValueError(f"bandwidth_bits_per_second: {value} is not a positive number; 1 Gbit/s is 1e9")
        if not 0 <= self.latency_seconds < math.inf:
            raise ValueError(f"latency_seconds: {self.latency_seconds} is no duration; 0.1 ms is 1e-4")


@dataclass(frozen=True)
class Observation:
    """A collective that was timed, for a calibration.

    Attributes:
        collective: ``"all_reduce"``, ``"broadcast"`` or ``"mix"``.
        nbytes: of the tensor.
        peers: number of workers; for ``"mix"``, number of neighbours.
        seconds: from when the last worker began to when the last one ended.
    """

    collective: str
    nbytes: int
    peers: int
    seconds: float


@dataclass(frozen=True)
class CommunicationTime:
    """Seconds that a collective takes, from when the last worker begins to when the last one ends.

    ``seconds = steps * (step_seconds + latency) + 8 * bytes on the busiest path / (goodput * bandwidth)``.

    The defaults are for plans, see docs/communication_time.md. It is a ``Cost`` for ``Simulation``.

    Attributes:
        link: of every worker.
        step_seconds: of software per step, a step being messages that leave at once and wait for nothing else.
        goodput: part of the bandwidth that payload gets; 0.94 on Ethernet with frames of 1500 bytes, the rest being
            headers (1448 bytes of payload in 1538 on the wire).
        request_seconds: of software for one request to the store; it answers one after the other.

    Raises:
        ValueError: a negative duration, a goodput that is not positive.
    """

    link: Link
    step_seconds: float = 1e-4
    goodput: float = 0.94
    request_seconds: float = 1e-4

    def __post_init__(self) -> None:
        for name, value in (("step_seconds", self.step_seconds), ("request_seconds", self.request_seconds)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: {value} is no duration")
        if not 0 < self.goodput < math.inf:
            raise ValueError(f"goodput: {self.goodput} is not positive")

    def all_reduce(self, nbytes: int, workers: int) -> float:
        """Ring: ``2 (n - 1)`` steps, each with an n-th of the tensor on every link."""
        return self._seconds(*_all_reduce_cost(nbytes, workers))

    def broadcast(self, nbytes: int, workers: int) -> float:
        """Binomial tree, as gloo runs it: a worker that has the whole tensor sends it to all its children at once.

        They share its link, so ``k`` children have it after ``k * nbytes``. For ``n = 2^d`` workers the last one has it
        after ``d (d + 1) / 2 * nbytes``, not ``d * nbytes`` as in a tree that serves one child after the other.
        """
        return self._seconds(*_broadcast_cost(nbytes, workers))

    def mix(self, nbytes: int, neighbours: int) -> float:
        """One step; all neighbours share the link. In a round, the worker with the most neighbours counts."""
        return self._seconds(*_mix_cost(nbytes, neighbours))

    def roll_call(self, workers: int) -> float:
        """Through the store: the worker that comes last says so, reads the n notes and decides, the others read that.

        These are ``n + 3`` round trips one after the other; in the last one the store has n workers to answer.
        """
        return self._store(workers + 3, workers)

    def commit(self, workers: int) -> float:
        """Through the store: the worker that comes last says so and decides, the others read that: 3 round trips."""
        return self._store(3, workers)

    def seconds(self, request: Request, workers: int) -> float:
        """Of a request among so many workers; a broadcast in groups counts once, for its own group."""
        if isinstance(request, AllReduce):
            return self.all_reduce(request.tensor.numel() * request.tensor.element_size(), workers)
        if isinstance(request, Broadcast):
            peers = workers if request.among is None else len(request.among)
            return self.broadcast(request.tensor.numel() * request.tensor.element_size(), peers)
        if isinstance(request, Mix):
            return self.mix(request.source.numel() * request.source.element_size(), len(request.neighbours))
        if isinstance(request, RollCall):
            return self.roll_call(workers)
        if isinstance(request, Commit):
            return self.commit(workers)
        return self._store(1, 1)

    def bytes_sent(self, request: Request, workers: int, worker_id: int) -> int:
        """By one worker of those with the ids 0 to ``workers - 1``, see ``sent_bytes``."""
        return sent_bytes(request, worker_id, range(workers))

    def calibrated(self, observations: Iterable[Observation]) -> CommunicationTime:
        """This model with ``step_seconds`` and ``goodput`` fitted to what was timed on its link.

        Least squares of the relative errors, within ``step_seconds >= 0`` and ``goodput <= 1``. Small tensors on a
        fast link tell most: on a slow one, steps vanish beside the transfer.

        Raises:
            ValueError: no observation, one that took no time, or an unknown collective.
        """
        rows = []
        for seen in observations:
            if seen.collective not in _COSTS:
                raise ValueError(f"collective: {seen.collective!r} is none of {', '.join(_COSTS)}")
            if not 0 < seen.seconds < math.inf:
                raise ValueError(f"seconds: {seen} took no time")
            steps, nbytes = _COSTS[seen.collective](seen.nbytes, seen.peers)
            transfer = 8 * nbytes / self.link.bandwidth_bits_per_second
            rest = 1 - steps * self.link.latency_seconds / seen.seconds
            rows.append((steps / seen.seconds, transfer / seen.seconds, rest))
        if not any(transfer for _, transfer, _ in rows):
            raise ValueError("observations: at least one with more than one worker and more than zero bytes is needed")
        ss, st, tt = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
        sy, ty = (sum(row[i] * row[2] for row in rows) for i in (0, 1))
        determinant = ss * tt - st * st
        step = max((sy * tt - ty * st) / determinant, 0.0) if determinant > 1e-9 * ss * tt else 0.0
        slowness = (ty - step * st) / tt
        if slowness < 1:
            step, slowness = max((sy - st) / ss, 0.0), 1.0
        return replace(self, step_seconds=step, goodput=1 / slowness)

    def _seconds(self, steps: int, nbytes: float) -> float:
        rate = self.goodput * self.link.bandwidth_bits_per_second
        return steps * (self.step_seconds + self.link.latency_seconds) + 8 * nbytes / rate

    def _store(self, round_trips: int, workers: int) -> float:
        if workers < 1:
            raise ValueError(f"workers: {workers}; at least 1 takes part")
        return round_trips * (2 * self.link.latency_seconds + self.request_seconds) + workers * self.request_seconds


def _all_reduce_cost(nbytes: int, workers: int) -> tuple[int, float]:
    """Steps one after the other, and bytes that pass the busiest link."""
    _check(nbytes, workers)
    return 2 * (workers - 1), 2 * (workers - 1) / workers * nbytes


def _broadcast_cost(nbytes: int, workers: int) -> tuple[int, float]:
    """Steps to the worker that is served last, and bytes that pass the links on its way up to then."""
    _check(nbytes, workers)
    steps, payloads = [0] * workers, [0] * workers
    for rank, children in enumerate(broadcast_tree(workers)):
        for child in children:
            steps[child] = steps[rank] + 1
            payloads[child] = payloads[rank] + len(children)
    last = max(range(workers), key=lambda rank: (payloads[rank], steps[rank]))
    return steps[last], float(payloads[last] * nbytes)


def _mix_cost(nbytes: int, neighbours: int) -> tuple[int, float]:
    if nbytes < 0 or neighbours < 0:
        raise ValueError(f"nbytes and neighbours cannot be negative, got {nbytes} and {neighbours}")
    return min(neighbours, 1), float(neighbours * nbytes)


def _check(nbytes: int, workers: int) -> None:
    if nbytes < 0:
        raise ValueError(f"nbytes: {nbytes} is negative")
    if workers < 1:
        raise ValueError(f"workers: {workers}; at least 1 takes part")


_COSTS = {"all_reduce": _all_reduce_cost, "broadcast": _broadcast_cost, "mix": _mix_cost}
