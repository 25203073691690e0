"""Mixing over stand-ins for process groups: what is sent in which order, and what is added up."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import Tensor

from adperception.optim import mixing
from adperception.optim.collectives import Mix

TIMEOUT = timedelta(seconds=3)


class Work:
    def __init__(self, wait: Any) -> None:
        self.wait = wait


class MailGroup:
    """Like gloo: sending copies at once, receiving waits for the message with the tag."""

    def __init__(self, rank: int, mail: dict[tuple[int, int, int], queue.Queue[Tensor]], waiting: list[int]) -> None:
        self.rank, self.mail, self.waiting = rank, mail, waiting

    def send(self, tensors: list[Tensor], peer: int, tag: int) -> Work:
        self.mail.setdefault((self.rank, peer, tag), queue.Queue()).put(tensors[0].clone())
        return Work(lambda timeout: None)

    def recv(self, tensors: list[Tensor], peer: int, tag: int) -> Work:
        box = self.mail.setdefault((peer, self.rank, tag), queue.Queue())
        self.waiting.append(tensors[0].data_ptr())
        return Work(lambda timeout: tensors[0].copy_(box.get(timeout=timeout.total_seconds())))


class MeetingGroup:
    """Like NCCL at its strictest: neither side goes on before the other has come."""

    def __init__(self, rank: int, mail: dict[tuple[int, int], Any], lock: threading.Lock) -> None:
        self.rank, self.mail, self.lock = rank, mail, lock

    def _meet(self, pair: tuple[int, int]) -> tuple[queue.Queue[Tensor], queue.Queue[int]]:
        with self.lock:
            return self.mail.setdefault(pair, (queue.Queue(), queue.Queue()))  # type: ignore[no-any-return]

    def send(self, tensors: list[Tensor], peer: int, tag: int) -> Work:
        values, taken = self._meet((self.rank, peer))
        values.put(tensors[0].clone())
        return Work(lambda timeout: taken.get(timeout=timeout.total_seconds()))

    def recv(self, tensors: list[Tensor], peer: int, tag: int) -> Work:
        values, taken = self._meet((peer, self.rank))

        def wait(timeout: timedelta) -> None:
            tensors[0].copy_(values.get(timeout=timeout.total_seconds()))
            taken.put(0)

        return Work(wait)


GRAPHS = {
    "ring": {0: (3, 1), 1: (2, 0), 2: (1, 3), 3: (0, 2)},
    "complete": {0: (1, 2, 3), 1: (3, 2, 0), 2: (0, 3, 1), 3: (2, 1, 0)},
    "star": {0: (3, 2, 1), 1: (0,), 2: (0,), 3: (0,)},
}


def expected(sources: list[Tensor], request: Mix) -> Tensor:
    out = sources[0].new_tensor([0.0]).expand_as(request.source) + request.source * request.own_weight
    for other, weight in zip(request.neighbours, request.weights, strict=True):
        out = out.add(sources[other], alpha=weight)
    return out


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("backend", ["gloo", "nccl"])
@pytest.mark.parametrize(("elements", "chunk"), [(11, 4), (12, 4), (3, 4), (1, 1)])
def test_weighted_sums(monkeypatch: pytest.MonkeyPatch, graph: str, backend: str, elements: int, chunk: int) -> None:
    monkeypatch.setattr(mixing, "CHUNK_ELEMENTS", chunk)
    sources = [torch.randn(elements, dtype=torch.float64) for _ in range(4)]
    requests = [
        Mix(
            sources[w],
            torch.full_like(sources[w], 7.0),
            0.4,
            GRAPHS[graph][w],
            (0.1, 0.2, 0.3)[: len(GRAPHS[graph][w])],
        )
        for w in range(4)
    ]
    ranks = {worker: worker for worker in range(4)}
    mail: Any = {}
    lock = threading.Lock()

    def run(worker: int) -> list[int]:
        waiting: list[int] = []
        if backend == "gloo":
            mixing.mix_over_gloo(MailGroup(worker, mail, waiting), ranks, requests[worker], TIMEOUT)
        else:
            group = MeetingGroup(worker, mail, lock)
            mixing.mix_over_nccl(group, ranks, requests[worker], TIMEOUT, own_rank=worker)
        return waiting

    with ThreadPoolExecutor(4) as threads:
        waiting = list(threads.map(run, range(4)))
    for worker, request in enumerate(requests):
        assert torch.equal(request.out, expected(sources, request))
        if backend == "gloo":  # two buffers per neighbour, however many chunks
            assert len(set(waiting[worker])) <= 2 * len(request.neighbours)


def test_order_of_additions() -> None:
    """Left to right: in another order the small terms would not be lost."""
    source, big = torch.tensor([1.0]), torch.tensor([2.0**24])
    out = torch.empty(1)
    mixing.add_up(out, source, 1.0, [big, -big, source], (1.0, 1.0, 1.0))
    assert out.item() == 1.0
    mixing.add_up(out, source, 1.0, [source, big, -big], (1.0, 1.0, 1.0))
    assert out.item() == 2.0
    mixing.add_up(out, big, 1.0, [source, -big, source], (1.0, 1.0, 1.0))
    assert out.item() == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_at_every_place(dtype: torch.dtype) -> None:
    """Vectorised parts and remainders of a tensor round alike, so chunks may begin and end anywhere."""
    source, other = torch.randn(2, 1037, dtype=torch.float64).to(dtype)
    whole = torch.empty_like(source)
    mixing.add_up(whole, source, 0.3, [other], (0.7,))
    for size in (1, 7, 64):
        parts = torch.empty_like(source)
        for start in range(0, 1037, size):
            part = slice(start, start + size)
            mixing.add_up(parts[part], source[part], 0.3, [other[part]], (0.7,))
        assert torch.equal(parts, whole)
