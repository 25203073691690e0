"""Membership between threads: what ends an epoch, and who is in the next one."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import distributed as dist

from adperception.optim.collectives import RoundFailedError
from adperception.optim.communication_errors import (
    CommunicatorError,
    ExcludedError,
    StoreLostError,
    WorkersLostError,
)
from adperception.optim.membership import Membership


def workers(
    count: int, function: Callable[[Membership, int], Any], *, regroups: bool = True, store: Any = None
) -> list[Any]:
    """What a function returns for each of some workers that have started, each in a thread."""
    shared = store or dist.HashStore()

    def run(worker: int) -> Any:
        membership = Membership(shared, "m", worker, range(count), round_timeout_seconds=0.5, regroups=regroups)
        membership.start(5.0, {})
        return function(membership, worker)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def test_rounds() -> None:
    def rounds(membership: Membership, worker: int) -> list[Any]:
        found = []
        for i in range(3):
            found.append(membership.roll_call([worker, i]))
            membership.agree()
        return found

    assert workers(3, rounds) == [[{w: [w, i] for w in range(3)} for i in range(3)]] * 3


def test_failed_round_ends_for_all_and_nobody_is_lost() -> None:
    def rounds(membership: Membership, worker: int) -> tuple[str, Any]:
        membership.roll_call(None)
        end = membership.agree if worker != 1 else lambda: membership.fail("out of cheese", time.monotonic())
        with pytest.raises(RoundFailedError) as caught:
            end()
        notes = membership.roll_call(worker)
        membership.agree()
        tensor = torch.ones(1)
        membership.groups(None, tensor.device).all_reduce(tensor)
        return str(caught.value), {**notes, "sum": tensor.item(), "lost": membership.lost}

    for message, found in workers(3, rounds):
        assert message.startswith("round 0 failed and was undone (worker 1: out of cheese). No worker lost; going on")
        assert found == {0: 0, 1: 1, 2: 2, "sum": 3.0, "lost": []}


def test_worker_that_leaves_is_not_waited_for() -> None:
    def rounds(membership: Membership, worker: int) -> Any:
        membership.roll_call(None)
        if worker == 2:
            membership.leave("Crash: of its own")
            return str(membership.ended)
        start = time.monotonic()
        with pytest.raises(RoundFailedError, match="Crash: of its own"):
            membership.agree()
        return time.monotonic() - start, membership.members, [lost.worker_id for lost in membership.lost]

    *others, leaver = workers(3, rounds)
    assert leaver == "worker 2 left the others in round 0 (Crash: of its own)"
    for seconds, members, lost in others:
        assert (members, lost) == ((0, 1), [2])
        assert seconds < 0.4


def test_late_worker_is_excluded_by_a_regroup() -> None:
    def rounds(membership: Membership, worker: int) -> Any:
        membership.roll_call(None)
        if worker == 2:  # in a computation of its own while the others wait for it to vote
            time.sleep(1.6)
        try:
            membership.agree()
        except RoundFailedError:
            return membership.members
        except ExcludedError as error:
            return str(error)
        return None

    one, two, late = workers(3, rounds)
    assert one == two == (0, 1)
    assert late.startswith("worker 2 came to round 0 0.")


def test_two_workers_lose_each_other_without_regrouping() -> None:
    def rounds(membership: Membership, worker: int) -> str:
        membership.roll_call(None)
        if worker == 1:
            return ""
        with pytest.raises(WorkersLostError) as caught:
            membership.agree()
        assert membership.ended is caught.value
        return str(caught.value)

    message = workers(2, rounds, regroups=False)[0]
    assert message.startswith(
        "round 0 failed: worker 0: not all of 2 workers got to the end within 0.5 s; worker 1 did"
    )
    assert 'on_failure="regroup"' in message


def test_options_have_to_agree() -> None:
    store = dist.HashStore()

    def start(worker: int) -> str:
        membership = Membership(store, "m", worker, (0, 1), round_timeout_seconds=1.0, regroups=False)
        with pytest.raises(ValueError, match="give all workers the same") as caught:
            membership.start(5.0, {"speed": worker})
        return str(caught.value)

    with ThreadPoolExecutor(2) as threads:
        message, _ = threads.map(start, range(2))
    assert message.startswith("worker 1 has {'speed': 1}, worker 0 has {'speed': 0}")


class BrokenStore(dist.Store):
    """A store whose connection breaks."""

    def add(self, key: str, amount: int) -> int:
        raise dist.DistNetworkError("Broken pipe")


def test_broken_store() -> None:
    store = BrokenStore()
    membership = Membership(store, "m", 0, (0, 1), round_timeout_seconds=1.0, regroups=True)
    with pytest.raises(StoreLostError, match=r"worker 0 lost the store in the start \(Broken pipe\)"):
        membership.start(5.0, {})
    assert isinstance(membership.ended, CommunicatorError)


def test_alone_needs_no_store() -> None:
    store = BrokenStore()
    membership = Membership(store, "m", 4, (4,), round_timeout_seconds=1.0, regroups=False)
    membership.start(5.0, {})
    assert membership.roll_call("note") == {4: "note"}
    membership.agree()
    assert membership.alone
