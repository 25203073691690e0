from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adperception.optim.collectives import AllReduce, Broadcast, Commit, Mix, Note, RollCall, TakeTicket
from adperception.optim.simulation import Simulation
from adperception.optim.time_model import CommunicationTime, Link, Observation

# 8 Mbit/s, of which payload gets 80 %: 100 kB take 0.125 s. A step: 1 ms of software and 2 ms on the way.
MODEL = CommunicationTime(Link(8e6, 2e-3), step_seconds=1e-3, goodput=0.8, request_seconds=1e-3)
NBYTES = 100_000


@pytest.mark.parametrize(
    ("workers", "expected"),
    [(1, 0.0), (2, 2 * 0.003 + 0.125), (4, 6 * 0.003 + 1.5 * 0.125), (64, 126 * 0.003 + 2 * 63 / 64 * 0.125)],
)
def test_all_reduce(workers: int, expected: float) -> None:
    assert MODEL.all_reduce(NBYTES, workers) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("workers", "steps", "payloads"),
    [
        (1, 0, 0),
        (2, 1, 1),
        (3, 1, 2),  # the root serves two at once
        (4, 2, 3),  # and the first of them a third worker
        (5, 2, 4),  # three children of the root; then rank 1 serves rank 3
        (8, 3, 6),  # 3 + 2 + 1
        (64, 6, 21),
        (256, 8, 36),
    ],
)
def test_broadcast(workers: int, steps: int, payloads: int) -> None:
    assert MODEL.broadcast(NBYTES, workers) == pytest.approx(steps * 0.003 + payloads * 0.125, rel=1e-12)


def test_mix() -> None:
    assert MODEL.mix(NBYTES, 0) == 0
    assert MODEL.mix(NBYTES, 3) == pytest.approx(0.003 + 3 * 0.125, rel=1e-12)


def test_control_messages() -> None:
    """A round trip takes 2 * 2 ms and 1 ms in the store."""
    assert MODEL.roll_call(4) == pytest.approx(7 * 5e-3 + 4e-3, rel=1e-12)
    assert MODEL.commit(4) == pytest.approx(3 * 5e-3 + 4e-3, rel=1e-12)


def test_cost_of_requests() -> None:
    tensor = torch.zeros(NBYTES // 4)
    assert MODEL.seconds(AllReduce(tensor), 4) == MODEL.all_reduce(NBYTES, 4)
    assert MODEL.seconds(Broadcast(tensor, 0), 4) == MODEL.broadcast(NBYTES, 4)
    assert MODEL.seconds(Broadcast(tensor, 0, among=(0, 1)), 4) == MODEL.broadcast(NBYTES, 2)
    assert MODEL.seconds(Mix(tensor, torch.empty_like(tensor), 0.5, (1,), (0.5,)), 4) == MODEL.mix(NBYTES, 1)
    assert MODEL.seconds(RollCall(Note()), 4) == MODEL.roll_call(4)
    assert MODEL.seconds(Commit(), 4) == MODEL.commit(4)
    assert MODEL.seconds(TakeTicket(), 4) == pytest.approx(6e-3, rel=1e-12)


def test_simulation_spends_its_time() -> None:
    tensors = [torch.full((NBYTES // 4,), float(i)) for i in range(4)]
    simulation = Simulation(4, MODEL)
    simulation.run([iter_of(AllReduce(tensor)) for tensor in tensors])
    for worker in simulation.communicators:
        assert worker.clock == pytest.approx(MODEL.all_reduce(NBYTES, 4), rel=1e-12)
    assert sum(worker.bytes_sent for worker in simulation.communicators) == 6 * NBYTES


def iter_of(request: AllReduce):  # type: ignore[no-untyped-def]
    yield request


def test_calibration_finds_the_constants_of_a_network() -> None:
    seen = [
        Observation("all_reduce", NBYTES, 2, MODEL.all_reduce(NBYTES, 2)),
        Observation("all_reduce", NBYTES, 4, MODEL.all_reduce(NBYTES, 4)),
        Observation("broadcast", NBYTES, 4, MODEL.broadcast(NBYTES, 4)),
        Observation("mix", NBYTES, 2, MODEL.mix(NBYTES, 2)),
    ]
    found = CommunicationTime(MODEL.link).calibrated(seen)
    assert found.step_seconds == pytest.approx(1e-3, rel=1e-9)
    assert found.goodput == pytest.approx(0.8, rel=1e-9)
    assert found.link == MODEL.link


def test_calibration_stays_possible() -> None:
    """Faster than the link: no time is left for steps, and payload gets all of it."""
    fast = replace(MODEL, step_seconds=0.0, goodput=1.0)
    seen = [Observation("all_reduce", NBYTES, n, 0.9 * fast.all_reduce(NBYTES, n)) for n in (2, 4)]
    found = CommunicationTime(MODEL.link).calibrated(seen)
    assert (found.step_seconds, found.goodput) == (0.0, 1.0)


def test_calibration_refuses_what_says_nothing() -> None:
    with pytest.raises(ValueError, match="at least one with more than one worker"):
        MODEL.calibrated([])
    with pytest.raises(ValueError, match="took no time"):
        MODEL.calibrated([Observation("mix", 4, 1, 0.0)])
    with pytest.raises(ValueError, match="'reduce' is none of all_reduce, broadcast, mix"):
        MODEL.calibrated([Observation("reduce", 4, 2, 1.0)])


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="bandwidth_bits_per_second: 0"):
        Link(0)
    with pytest.raises(ValueError, match="latency_seconds: -1"):
        Link(1e9, -1)
    with pytest.raises(ValueError, match="step_seconds: -1"):
        replace(MODEL, step_seconds=-1)
    with pytest.raises(ValueError, match="goodput: 0"):
        replace(MODEL, goodput=0)
    with pytest.raises(ValueError, match="workers: 0"):
        MODEL.all_reduce(NBYTES, 0)
    with pytest.raises(ValueError, match="workers: 0"):
        MODEL.commit(0)
    with pytest.raises(ValueError, match="got 4 and -1"):
        MODEL.mix(4, -1)
