from __future__ import annotations

import pytest
import torch

from adperception.optim.collectives import AllReduce, Broadcast, Commit, Mix, Note, RollCall
from adperception.optim.traffic import all_reduce_bytes, broadcast_bytes, broadcast_tree, mix_bytes, sent_bytes


def test_all_reduce_of_equal_chunks() -> None:
    assert all_reduce_bytes(4000, 2) == (4000, 4000)
    assert all_reduce_bytes(4_800_000, 3) == (6_400_000,) * 3  # 2 * 2 / 3
    assert all_reduce_bytes(4_800_000, 4) == (7_200_000,) * 4  # 2 * 3 / 4
    assert all_reduce_bytes(4000, 1) == (0,)


def test_all_reduce_of_a_few_elements() -> None:
    """3 floats for 4 workers: segments of 1 float, 2 to a chunk, so chunks of 8, 4, 0 and 0 bytes.

    Rank r sends all but chunk r, then all but chunk r - 1: 24 - 8 - 0, 24 - 4 - 8, 24 - 0 - 4, 24 - 0 - 0.
    """
    assert all_reduce_bytes(12, 4) == (16, 12, 20, 24)


@pytest.mark.parametrize("workers", [2, 3, 4, 7, 64])
@pytest.mark.parametrize("elements", [1, 3, 1000, 351_946, 25_557_032])
def test_all_reduce_sums_up_exactly(workers: int, elements: int) -> None:
    sent = all_reduce_bytes(4 * elements, workers)
    assert sum(sent) == 2 * (workers - 1) * 4 * elements
    mean = sum(sent) / workers
    # gloo rounds a chunk up by less than an element per segment.
    segments = max(4 * elements / 2**20, 2 * workers) + workers
    assert max(abs(s - mean) for s in sent) <= 2 * 4 * segments


def test_broadcast_goes_down_a_binomial_tree() -> None:
    assert broadcast_tree(1) == ((),)
    assert broadcast_tree(2) == ((1,), ())
    assert broadcast_tree(4) == ((1, 2), (3,), (), ())
    assert broadcast_tree(6) == ((1, 2, 4), (3, 5), (), (), (), ())
    assert broadcast_tree(8) == ((1, 2, 4), (3, 5), (6,), (7,), (), (), (), ())


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 16, 37])
def test_everybody_but_the_root_is_served_once(workers: int) -> None:
    served = [child for children in broadcast_tree(workers) for child in children]
    assert sorted(served) == list(range(1, workers))


def test_broadcast_bytes() -> None:
    assert broadcast_bytes(10, 4) == (20, 10, 0, 0)
    assert broadcast_bytes(10, 4, root=3) == (10, 0, 0, 20)
    assert sum(broadcast_bytes(10, 37, root=5)) == 36 * 10


def test_mix_bytes() -> None:
    assert mix_bytes(10, 3) == 30
    assert mix_bytes(10, 0) == 0


def test_sent_bytes_of_requests() -> None:
    """Workers 1, 4 and 6 are left of more; worker ids are not ranks."""
    members = (1, 4, 6)
    tensor = torch.zeros(600)  # 2400 bytes
    assert [sent_bytes(AllReduce(tensor), w, members) for w in members] == [3200] * 3
    assert [sent_bytes(AllReduce(tensor.double()), w, members) for w in members] == [6400] * 3
    assert [sent_bytes(Broadcast(tensor, root=4), w, members) for w in members] == [0, 4800, 0]
    assert [sent_bytes(Broadcast(tensor, 6, among=(1, 6)), w, members) for w in (1, 6)] == [0, 2400]
    assert sent_bytes(Mix(tensor, torch.empty(600), 0.5, (4, 6), (0.25, 0.25)), 1, members) == 4800
    assert sent_bytes(RollCall(Note()), 1, members) == sent_bytes(Commit(), 1, members) == 0


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="nbytes: -4 is negative"):
        all_reduce_bytes(-4, 2)
    with pytest.raises(ValueError, match="workers: 0"):
        broadcast_bytes(4, 0)
    with pytest.raises(ValueError, match="nbytes: 6 is no multiple of element_bytes=4"):
        all_reduce_bytes(6, 2)
    with pytest.raises(ValueError, match="root: 3 is no rank among 3 workers"):
        broadcast_bytes(4, 3, root=3)
    with pytest.raises(ValueError, match="got 4 and -1"):
        mix_bytes(4, -1)
