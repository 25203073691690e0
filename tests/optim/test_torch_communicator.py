from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from adperception.optim.collectives import AllReduce, Broadcast, Commit, Mix, Note, Requests, RollCall, RoundFailedError
from adperception.optim.communication_errors import (
    CommunicatorError,
    ExcludedError,
    StoreLostError,
    WorkersLostError,
)
from adperception.optim.torch_communicator import TorchCommunicator

from faults import Fault, Faulty, Kill, NotANumber, Outcome, Place, Raise, Slow, WorkerPool

pytestmark = [pytest.mark.multi_process, pytest.mark.timeout(40)]


@pytest.fixture(scope="module")
def pool() -> WorkerPool:
    return WorkerPool()


def returned(outcomes: list[Outcome]) -> list[Any]:
    """What all workers returned; none of them failed, and all of them exited cleanly."""
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    assert [outcome.exit_code for outcome in outcomes] == [0] * len(outcomes)
    return [outcome.returned for outcome in outcomes]


def sum_round(value: float, elements: int = 5, loss: float = 0.0) -> Requests:
    """One round: the sum over the workers, by worker id and value."""
    notes = yield RollCall(Note(loss=loss))
    tensor = yield AllReduce(torch.full((elements,), value, dtype=torch.float64))
    yield Commit()
    return list(notes), float(tensor[-1])


# What requests answer


def all_requests(place: Place) -> dict[str, Any]:
    communicator = place.communicator(round_timeout_seconds=3.0)
    me, n = place.worker_id, place.workers
    big = 2_100_001

    def requests() -> Requests:
        generator = torch.Generator().manual_seed(me)
        notes = yield RollCall(
            Note(loss=[float("nan"), 0.1, float("-inf"), 1e-320][me], steps=me, tell={"stop": me == 1})
        )
        sums = []
        for size in (1, 2, 7, 1001, 300_001):
            summed = yield AllReduce(torch.randn(size, generator=generator))
            sums.append(summed)
        one = yield Broadcast(torch.full((1001,), float(me)), root=n - 1)
        part = None
        if n == 4:
            pair = (0, 2) if me in (0, 2) else (1, 3)
            part = yield Broadcast(torch.full((3,), float(me)), root=pair[1], among=pair)
        source = torch.randn(big, generator=torch.Generator().manual_seed(me))
        neighbours = tuple(other for other in range(n) if other != me)[::-1]
        mixed = yield Mix(source, torch.empty_like(source), 0.3, neighbours, tuple(0.1 * (j + 1) for j in neighbours))
        yield Commit()
        again = yield AllReduce(torch.tensor([1.0]))
        yield Commit()
        return notes, sums, one, part, mixed, again

    notes, sums, one, part, mixed, again = communicator.run(requests())
    source, *others = (torch.randn(big, generator=torch.Generator().manual_seed(j)) for j in [me, *reversed(range(n))])
    expected = source * 0.3
    for j, other in zip(reversed(range(n)), others, strict=True):
        if j != me:
            expected.add_(other, alpha=0.1 * (j + 1))
    return {
        "notes": notes,
        "sums": [tensor.numpy().tobytes() for tensor in sums],
        "small": sums[2].tolist(),
        "broadcast": set(one.tolist()),
        "part": part if part is None else part.tolist(),
        "mixed": bool(torch.equal(mixed.view(torch.int32), expected.view(torch.int32))),
        "again": again.tolist(),
        "bytes": communicator.bytes_sent,
        "rounds": (communicator.rounds_committed, communicator.rounds_aborted),
        "seconds": (communicator.last_round_seconds, communicator.total_round_seconds),
    }


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_requests(pool: WorkerPool, workers: int) -> None:
    found = returned(pool.run(all_requests, workers))
    expected = torch.zeros(7)
    for seed in range(workers):
        generator = torch.Generator().manual_seed(seed)
        expected += [torch.randn(size, generator=generator) for size in (1, 2, 7)][-1]
    for me, values in enumerate(found):
        losses = [note.loss for note in values["notes"].values()]
        assert list(values["notes"]) == list(range(workers))
        assert losses[0] != losses[0]
        assert losses[1:] == [0.1, float("-inf"), 1e-320][: workers - 1]
        assert [note.steps for note in values["notes"].values()] == list(range(workers))
        assert [note.tell for note in values["notes"].values()] == [{"stop": worker == 1} for worker in range(workers)]
        assert values["sums"] == found[0]["sums"]  # the same bits on all
        torch.testing.assert_close(torch.tensor(values["small"]), expected)
        assert values["broadcast"] == {float(workers - 1)}
        assert values["part"] == ([2.0 if me in (0, 2) else 3.0] * 3 if workers == 4 else None)
        assert values["mixed"]
        assert values["again"] == [workers]
        assert values["rounds"] == (1, 0)
        assert 0 < values["seconds"][0] == values["seconds"][1]
    elements = 1 + 2 + 7 + 1001 + 300_001 + 1
    tree, pairs = (workers - 1) * 1001 * 4, 2 * 3 * 4 * (workers == 4)
    mixes = workers * (workers - 1) * 2_100_001 * 4
    total = sum(values["bytes"] for values in found)
    assert total == pytest.approx(2 * (workers - 1) * elements * 4 + tree + pairs + mixes, abs=workers * 6)


# Failures, with survivors that regroup


def rounds_with_faults(place: Place, faults: list[Fault], rounds: int, elements: int, kind: str) -> dict[str, Any]:
    """Run rounds, go on after failed ones; sums by round, and how long a failure blocked this worker."""
    communicator = Faulty(place.communicator(round_timeout_seconds=1.0, on_failure="regroup"), faults)
    value = 10.0**place.worker_id
    results: list[Any] = []
    longest = 0.0

    def broadcast_round() -> Requests:
        notes = yield RollCall(Note())
        tensor = yield Broadcast(torch.full((elements,), value), root=min(notes))
        yield Commit()
        return list(notes), float(tensor[-1])

    for _ in range(rounds):
        start = time.monotonic()
        try:
            round_ = broadcast_round() if kind == "broadcast" else sum_round(value, elements)
            results.append(communicator.run(round_))
        except RoundFailedError as error:
            results.append(str(error))
        longest = max(longest, time.monotonic() - start)
    return {
        "results": results,
        "longest": longest,
        "members": communicator.members,
        "lost": [(lost.worker_id, lost.round_number) for lost in communicator.workers_lost],
        "rounds": (communicator.rounds_committed, communicator.rounds_aborted),
    }


def survivors(outcomes: list[Outcome], killed: int) -> list[dict[str, Any]]:
    assert outcomes[killed].exit_code == -9
    return returned([outcome for worker, outcome in enumerate(outcomes) if worker != killed])


@pytest.mark.parametrize(
    ("where", "kind", "killed"),
    [
        ("at arrival", "sum", 1),
        ("before collective", "sum", 0),
        ("in collective", "sum", 2),
        ("in collective", "broadcast", 2),
        ("in collective", "broadcast", 0),
        ("between vote and decision", "sum", 1),
    ],
)
def test_survivors_of_a_kill_go_on(pool: WorkerPool, where: Any, kind: str, killed: int) -> None:
    elements = 10_000_000 if where == "in collective" else 5
    faults = [Kill(killed, 1, where)]
    outcomes = pool.run(rounds_with_faults, 3, (faults, 3, elements, kind))
    left = [worker for worker in range(3) if worker != killed]
    for found in survivors(outcomes, killed):
        full, short = (111.0, 111.0 - 10.0**killed) if kind == "sum" else (1.0, 10.0 ** left[0])
        first, second, third = found["results"]
        assert first == ([0, 1, 2], full)
        if where == "at arrival":
            assert second == (left, short)
            assert found["rounds"] == (3, 0)
        else:
            assert "round 1 failed and was undone" in second
            assert f"orker {killed} lost" in second
            assert found["rounds"] == (2, 1)
        assert third == (left, short)
        assert found["members"] == tuple(left)
        assert found["lost"] == [(killed, 1)]
        assert found["longest"] < 3.0


def test_second_death_while_regrouping(pool: WorkerPool) -> None:
    faults = [Kill(0, 1, "in collective"), Kill(1, 1, "connecting")]
    outcomes = pool.run(rounds_with_faults, 4, (faults, 3, 10_000_000, "sum"))
    assert [outcome.exit_code for outcome in outcomes[:2]] == [-9, -9]
    for found in returned(outcomes[2:]):
        assert found["results"][2] == ([2, 3], 1100.0)
        assert sorted(found["lost"]) == [(0, 1), (1, 1)]
        assert found["longest"] < 3.0


def test_last_worker_goes_on_alone(pool: WorkerPool) -> None:
    outcomes = pool.run(rounds_with_faults, 2, ([Kill(0, 1, "before collective")], 4, 5, "sum"))
    (found,) = survivors(outcomes, 0)
    assert found["results"][2:] == [([1], 10.0), ([1], 10.0)]
    assert found["members"] == (1,)


def test_own_error_of_a_worker_fails_the_round_at_once(pool: WorkerPool) -> None:
    outcomes = pool.run(rounds_with_faults, 3, ([Raise(2, 1)], 3, 5, "sum"))
    assert outcomes[2].error == "ArithmeticError: injected into worker 2 in round 1"
    for found in returned(outcomes[:2]):
        assert "worker 2: ArithmeticError: injected" in found["results"][1]
        assert found["results"][2] == ([0, 1], 11.0)
        assert found["lost"] == [(2, 1)]
        # Its collective waits for the worker that left; regrouping then waits for nobody.
        assert found["longest"] < 1.5


def test_not_a_number_is_just_a_value(pool: WorkerPool) -> None:
    for found in returned(pool.run(rounds_with_faults, 2, ([NotANumber(0, 1)], 3, 5, "sum"))):
        assert found["results"][1][1] != found["results"][1][1]
        assert found["results"][2] == ([0, 1], 11.0)


def slow_worker(place: Place) -> dict[str, Any]:
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("adperception.optim").addHandler(handler)
    communicator = place.communicator(round_timeout_seconds=1.0, on_failure="regroup")
    # The first time it is only late, the second time too late.
    faulty = Faulty(communicator, [Slow(2, 1, 0.8), Slow(2, 2, 1.4)])
    results = []
    try:
        results = [faulty.run(sum_round(10.0**place.worker_id)) for _ in range(4)]
    except CommunicatorError as error:
        with pytest.raises(ExcludedError):
            faulty.run(sum_round(1.0))
        return {"error": f"{type(error).__name__}: {error}"}
    return {"results": results, "warnings": records}


def test_slow_worker_is_named_and_then_excluded(pool: WorkerPool) -> None:
    *others, slow = returned(pool.run(slow_worker, 3))
    assert re.match(r"ExcludedError: worker 2 came to round 2 0\.[2-9] s after the others", slow["error"])
    for found in others:
        assert found["results"] == [([0, 1, 2], 111.0)] * 2 + [([0, 1], 11.0)] * 2
        assert [line.partition(" since")[0] for line in found["warnings"]] == [
            "waiting for worker 2 in round 1",
            "waiting for worker 2 in round 2",
            "round 2: going on without worker 2 (not there after 1 s)",
        ]


# Failures that end the run


def until_error(place: Place, faults: list[Fault]) -> tuple[str, float]:
    communicator = Faulty(place.communicator(round_timeout_seconds=1.0, on_failure="raise"), faults)
    communicator.run(sum_round(1.0))
    start = time.monotonic()
    with pytest.raises(CommunicatorError) as caught:
        communicator.run(sum_round(1.0, 10_000_000))
    with pytest.raises(WorkersLostError):
        communicator.run(sum_round(1.0))
    return f"{type(caught.value).__name__}: {caught.value}", time.monotonic() - start


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Kill(1, 1, "at arrival"),
            "WorkersLostError: worker 1 not there after 1 s in round 1. Start all workers again",
        ),
        (Kill(1, 1, "in collective"), "WorkersLostError: round 1 failed: .*; worker 1 did not answer afterwards"),
    ],
)
def test_lost_worker_is_an_error_by_default(pool: WorkerPool, fault: Kill, message: str) -> None:
    outcomes = pool.run(until_error, 3, ([fault],))
    for error, seconds in returned([outcomes[0], outcomes[2]]):
        assert re.match(message, error)
        assert seconds < 3.0


def rounds_until_the_store_is_lost(place: Place, pid: int, how: int) -> tuple[str, float]:
    communicator = place.communicator(round_timeout_seconds=1.0, on_failure="regroup")
    begin = time.monotonic()

    def rounds() -> None:
        nonlocal begin
        for i in range(100):
            communicator.run(sum_round(1.0))
            begin = time.monotonic()
            if i == 2 and place.worker_id == 0:
                os.kill(pid, how)

    with pytest.raises(StoreLostError) as caught:
        rounds()
    return str(caught.value), time.monotonic() - begin


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_store_is_an_error(pool: WorkerPool, repository: Path, how: int) -> None:
    command = [sys.executable, repository / "tools" / "store.py", "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(re.search(r":(\d+)\.", process.stdout.readline())[1])  # type: ignore[index]
        outcomes = pool.run(rounds_until_the_store_is_lost, 2, (process.pid, how), port=port)
        process.kill()
    for error, seconds in returned(outcomes):
        assert "lost the store in round" in error
        assert "tools/store.py" in error
        assert seconds < 3.0


# Stores, groups and names


def many_rounds(place: Place) -> tuple[list[int], float]:
    communicator = place.communicator(round_timeout_seconds=5.0)
    store = place.store()
    keys = []
    for rounds in (10, 300):
        for _ in range(rounds):
            communicator.run(empty_round())
        time.sleep(0.2)
        keys.append(store.num_keys())
    return keys, communicator.total_round_seconds


def empty_round() -> Requests:
    yield RollCall(Note())
    yield Commit()


def test_store_does_not_grow(pool: WorkerPool) -> None:
    for keys, _ in returned(pool.run(many_rounds, 3)):
        assert keys[1] <= keys[0] + 4  # the others may be a round ahead or behind


def side_by_side(place: Place) -> Any:
    one = place.communicator(round_timeout_seconds=3.0)
    two = place.communicator(round_timeout_seconds=3.0)
    other = place.communicator(round_timeout_seconds=3.0, name="other")
    return [c.run(sum_round(v))[1] for v, c in ((1.0, one), (10.0, two), (100.0, other), (2.0, one))]


def test_communicators_side_by_side(pool: WorkerPool) -> None:
    assert returned(pool.run(side_by_side, 2)) == [[2.0, 20.0, 200.0, 4.0]] * 2


def over_torch_distributed(place: Place) -> Any:
    with pytest.raises(RuntimeError, match="init_process_group"):
        TorchCommunicator()
    dist.init_process_group("gloo", store=place.store(), rank=place.worker_id, world_size=place.workers)
    world = TorchCommunicator(round_timeout_seconds=3.0)
    results = [world.run(sum_round(10.0**place.worker_id))]
    pair = dist.new_group([0, 2])
    if place.worker_id == 1:
        with pytest.raises(ValueError, match="not in the group"):
            TorchCommunicator(pair)
    else:
        part = TorchCommunicator(pair, round_timeout_seconds=3.0)
        results.append(part.run(sum_round(10.0**place.worker_id)))
        assert (part.worker_id, part.members) == (place.worker_id, (0, 2))
    total = torch.ones(1)
    dist.all_reduce(total)  # the user's own group still works
    dist.destroy_process_group()
    return [*results, float(total)]


def test_groups_of_torch_distributed(pool: WorkerPool) -> None:
    whole, pair = ([0, 1, 2], 111.0), ([0, 2], 101.0)
    assert returned(pool.run(over_torch_distributed, 3)) == [[whole, pair, 3.0], [whole, 3.0], [whole, pair, 3.0]]


def differing_options(place: Place) -> None:
    place.communicator(round_timeout_seconds=1.0 + place.worker_id)


def test_differing_options(pool: WorkerPool) -> None:
    outcomes = pool.run(differing_options, 2)
    assert "worker 1 has {'on_failure': 'raise', 'round_timeout_seconds': 2.0}, worker 0 has" in outcomes[0].error
    assert outcomes[1].error.startswith("ValueError")


def same_worker_id_twice(place: Place) -> None:
    store = place.store()
    TorchCommunicator(store=store, worker_id=0, workers=2, round_timeout_seconds=1.0, start_timeout_seconds=0.5)


def test_workers_that_do_not_start_and_ids_used_twice(pool: WorkerPool) -> None:
    errors = sorted(outcome.error for outcome in pool.run(same_worker_id_twice, 2))
    assert errors[0].startswith("ValueError: worker_id=0 is already there")
    assert errors[1].startswith("WorkersLostError: worker 1 did not start within 0.5 s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"round_timeout_seconds": 0.0}, "round_timeout_seconds=0.0"),
        ({"start_timeout_seconds": float("inf")}, "start_timeout_seconds=inf"),
        ({"on_failure": "ignore"}, "on_failure='ignore'"),
        ({"backend": "mpi"}, "backend='mpi'"),
        ({"backend": "nccl", "on_failure": "regroup"}, 'needs backend="gloo"'),
        ({"worker_id": None}, "needs worker_id= and workers="),
        ({"worker_id": 3}, r"worker_id=3 is not one of the workers \(0,\)"),
        ({"store": None}, "store of your own"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TorchCommunicator(**{"store": dist.HashStore(), "worker_id": 0, "workers": 1, **options})


def test_single_worker_needs_nobody() -> None:
    communicator = TorchCommunicator(store=dist.HashStore(), worker_id=0, workers=1)

    def requests() -> Requests:
        notes = yield RollCall(Note(steps=3))
        tensor = yield AllReduce(torch.ones(3))
        yield Broadcast(tensor, root=0)
        mixed = yield Mix(tensor, torch.empty(3), 0.5)
        yield Commit()
        return notes, mixed.tolist()

    assert communicator.run(requests()) == ({0: Note(steps=3)}, [0.5, 0.5, 0.5])
    assert communicator.bytes_sent == 0


def test_collective_outside_of_a_round() -> None:
    def requests() -> Requests:
        yield AllReduce(torch.ones(3))

    communicator = TorchCommunicator(store=dist.HashStore(), worker_id=0, workers=1)
    with pytest.raises(RuntimeError, match="AllReduce outside of a round"):
        communicator.run(requests())
