from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import distributed as dist

from adperception.optim.collectives import Mix
from adperception.optim.process_groups import ProcessGroups

CPU = torch.device("cpu")


def each(members: tuple[int, ...], function: Callable[[ProcessGroups, int], Any]) -> list[Any]:
    """What a function returns for the groups of each member, each in a thread."""
    store = dist.HashStore()

    def run(worker: int) -> Any:
        groups = ProcessGroups(store, "g", worker, members, timeout_seconds=1.0)
        return function(groups, worker)

    with ThreadPoolExecutor(len(members)) as threads:
        return list(threads.map(run, members))


def test_worker_ids_are_not_ranks() -> None:
    def collectives(groups: ProcessGroups, worker: int) -> list[float]:
        one, two, out = torch.full((3, 5), float(worker))
        groups.all_reduce(one)
        groups.broadcast(two, 7, None)
        others = tuple(other for other in (2, 7, 9) if other != worker)
        groups.mix(Mix(torch.full((5,), float(worker)), out, 1.0, others, (1.0, 1.0)))
        return [one[4].item(), two[4].item(), out[4].item()]

    assert each((2, 7, 9), collectives) == [[18.0, 7.0, 18.0]] * 3


def test_groups_of_some_members_are_built_once() -> None:
    def pairs(groups: ProcessGroups, worker: int) -> tuple[bool, list[float], bool]:
        pair = (1, 2) if worker in (1, 2) else (0, 3)
        before = groups.has(pair, CPU)
        groups.add(pair, CPU)
        values = []
        for root in pair:
            tensor = torch.tensor([float(worker)])
            groups.broadcast(tensor, root, pair)
            values.append(tensor.item())
        return before, values, groups.has(pair, CPU)

    inner, outer = (False, [1.0, 2.0], True), (False, [0.0, 3.0], True)
    assert each((0, 1, 2, 3), pairs) == [outer, inner, inner, outer]


def test_absent_member() -> None:
    start = time.monotonic()
    with pytest.raises(RuntimeError):
        ProcessGroups(dist.HashStore(), "g", 0, (0, 1), timeout_seconds=0.3)
    assert time.monotonic() - start < 3.0


def test_silent_member() -> None:
    def only_one_sums(groups: ProcessGroups, worker: int) -> float:
        start = time.monotonic()
        if worker == 0:
            with pytest.raises(RuntimeError):
                groups.all_reduce(torch.zeros(3))
        else:
            time.sleep(1.3)
        return time.monotonic() - start

    assert 0.9 < each((0, 1), only_one_sums)[0] < 1.3
