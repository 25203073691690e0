"""Roll calls and votes between threads, over a store in memory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch import distributed as dist

from adperception.optim.agreement import Present, RollCalls, Verdict, Votes, fingerprint, name_workers


def together(functions: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result(timeout=10) for future in [threads.submit(function) for function in functions]]


def test_names() -> None:
    assert [name_workers(ids) for ids in ((), (2,), (0, 3))] == ["no worker", "worker 2", "workers 0, 3"]


def test_fingerprints() -> None:
    assert fingerprint((0, 1)) == fingerprint([0, 1])
    assert len({fingerprint(ids) for ids in ((0, 1), (0, 2), (0, 1, 2), (12,), (1, 2))}) == 5
    assert len(fingerprint(range(10_000))) < 20


def test_everybody_gets_all_notes() -> None:
    store, workers = dist.HashStore(), (1, 4, 10)
    notes = {1: [math.inf, 0.1], 4: {"loss": 5e-324, "text": 'a "b" ü'}, 10: -0.0}
    calls = [RollCalls(store, "r", worker, workers) for worker in workers]

    def hold(call: RollCalls, worker: int) -> Present:
        call.hold({"first": worker}, 5.0, "round 0")
        return call.hold(notes[worker], 5.0, "round 1")

    first, *others = together([lambda c=c, w=w: hold(c, w) for c, w in zip(calls, workers, strict=True)])
    assert others == [first, first]
    assert list(first.notes) == [1, 4, 10]
    assert first.notes == notes
    assert math.copysign(1.0, first.notes[10]) == -1.0
    assert abs(first.decided_at - time.time()) < 10.0


def test_missing_worker_is_named_then_left_out_and_finds_out(caplog: pytest.LogCaptureFixture) -> None:
    store = dist.HashStore()
    calls = [RollCalls(store, "r", worker, range(3)) for worker in range(3)]
    together([lambda c=c: c.hold(0, 5.0, "round 0") for c in calls])
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        one, two = together([lambda w=w: calls[w].hold(w, 0.4, "round 1") for w in (0, 2)])
    assert 0.4 <= time.monotonic() - start < 0.8
    assert one == two
    assert one.notes == {0: 0, 2: 2}  # what worker 1 said in round 0 is not taken for its note in round 1
    assert [record.message for record in caplog.records] == ["waiting for worker 1 in round 1 since 0.2 s"] * 2
    start = time.monotonic()
    assert calls[1].hold(1, 0.4, "round 1") == one
    assert time.monotonic() - start < 0.1


def test_last_one_arrives_while_others_give_up() -> None:
    for _ in range(20):
        store = dist.HashStore()
        calls = [RollCalls(store, "r", worker, range(2)) for worker in range(2)]

        def late(call: RollCalls) -> Present:
            time.sleep(0.02)
            return call.hold(1, 1.0, "round 0")

        one, two = together([lambda c=calls: c[0].hold(0, 0.02, "round 0"), lambda c=calls: late(c[1])])
        assert one == two
        assert 0 in one.notes


def test_all_agree_many_times_and_leave_no_keys() -> None:
    store = dist.HashStore()
    counts = []

    def rounds(worker: int, count: int, calls: RollCalls, votes: Votes) -> None:
        for _ in range(count):
            calls.hold(worker, 5.0, "")
            assert votes.agree(5.0) == Verdict(True)

    sides = [(RollCalls(store, "r", worker, range(3)), Votes(store, "v", worker, 3)) for worker in range(3)]
    for count in (5, 200):
        together([lambda w=w, n=count: rounds(w, n, *sides[w]) for w in range(3)])
        counts.append(store.num_keys())
    assert counts[0] == counts[1] <= 3 + 2 + 4


def test_refusal_reaches_waiting_workers_at_once() -> None:
    store = dist.HashStore()
    votes = [Votes(store, "v", worker, 3) for worker in range(3)]

    def refuse() -> Verdict:
        time.sleep(0.1)
        return votes[2].refuse("no memory", leaves=True)

    start = time.monotonic()
    found = together([lambda: votes[0].agree(5.0), lambda: votes[1].agree(5.0), refuse])
    assert found == [Verdict(False, "worker 2: no memory", leaver=2)] * 3
    assert time.monotonic() - start < 1.0


def test_vote_that_somebody_does_not_come_to() -> None:
    store = dist.HashStore()
    votes = [Votes(store, "v", worker, 3) for worker in range(3)]
    one, two = together([lambda: votes[0].agree(0.2), lambda: votes[1].agree(0.4)])
    assert one == two == Verdict(False, "worker 0: not all of 3 workers got to the end within 0.2 s")
    # The third completes the count, but the decision has been made.
    assert votes[2].agree(5.0) == one


def test_refusal_after_the_decision_does_not_count() -> None:
    store = dist.HashStore()
    assert Votes(store, "v", 0, 1).agree(1.0) == Verdict(True)
    assert Votes(store, "v", 1, 1).refuse("too late") == Verdict(True)
