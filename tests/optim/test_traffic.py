from __future__ import annotations

import math

import pytest
import torch

from adperception.optim.collectives import AllReduce, Broadcast, Commit, Mix, Note, RollCall
from adperception.optim.traffic import sent_bytes

FLOATS = torch.zeros(1200)


def test_all_reduce() -> None:
    assert sent_bytes(AllReduce(FLOATS), 0, (0, 1)) == 4800
    assert [sent_bytes(AllReduce(FLOATS), worker, (0, 2, 5, 7)) for worker in (0, 2, 5, 7)] == [7200] * 4
    assert sent_bytes(AllReduce(FLOATS.double()), 0, (0, 1, 2)) == 12_800
    assert sent_bytes(AllReduce(FLOATS), 3, (3,)) == 0


def rounds_of_a_tree(n: int) -> dict[int, int]:
    """Sends of a binomial tree by distance from the root: in each round all that have the values double."""
    sends, have = dict.fromkeys(range(n), 0), 1
    while have < n:
        for sender in range(min(have, n - have)):
            sends[sender] += 1
        have *= 2
    return sends


@pytest.mark.parametrize("n", range(1, 18))
def test_broadcast(n: int) -> None:
    members = tuple(range(10, 10 + n))
    for root in {members[0], members[-1], members[n // 2]}:
        sends = [sent_bytes(Broadcast(FLOATS, root), worker, members) // 4800 for worker in members]
        assert sum(sends) == n - 1
        assert sends[root - 10] == math.ceil(math.log2(n))
        tree = rounds_of_a_tree(n)
        assert sends == [tree[(worker - root) % n] for worker in members]


def test_broadcast_among_some() -> None:
    request = Broadcast(FLOATS, root=5, among=(2, 5))
    assert sent_bytes(request, 5, (0, 2, 5, 7)) == 4800
    assert sent_bytes(request, 2, (0, 2, 5, 7)) == 0


def test_mix_and_the_rest() -> None:
    assert sent_bytes(Mix(FLOATS, FLOATS, 0.5, (1, 2, 3), (0.1, 0.2, 0.2)), 0, (0, 1, 2, 3)) == 14_400
    assert sent_bytes(Mix(FLOATS, FLOATS, 1.0), 0, (0, 1)) == 0
    assert sent_bytes(RollCall(Note()), 0, (0, 1)) == sent_bytes(Commit(), 0, (0, 1)) == 0
