"""Weighted sums with neighbours over point-to-point messages, in chunks, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from adperception.optim.collectives import Mix

__all__ = ["CHUNK_ELEMENTS", "add_up", "mix_over_gloo", "mix_over_nccl"]

CHUNK_ELEMENTS = 1 << 20
"""Elements per message. Two chunks per neighbour are in memory at a time."""


def add_up(
    out: Tensor, source: Tensor, own_weight: float, received: Sequence[Tensor], weights: tuple[float, ...]
) -> None:
    """``out = own_weight * source + sum_j weights[j] * received[j]``, from left to right; all (n,).

    Values with weight 0 are left out, even if they are not finite. In float32 and float64 an element has the same bits
    whichever part of a tensor it is computed in.
    """
    if own_weight == 0:
        out.zero_()
    else:
        torch.mul(source, own_weight, out=out)
    for values, weight in zip(received, weights, strict=True):
        if weight != 0:
            out.add_(values, alpha=weight)


def mix_over_gloo(group: Any, ranks: Mapping[int, int], request: Mix, timeout: timedelta) -> None:
    """Carry out a ``Mix``. While one chunk is added up, the next is on its way.

    gloo sends from and receives to the CPU's memory only; chunks of tensors on a GPU are copied.

    Args:
        group: a ``ProcessGroupGloo``.
        ranks: rank in the group by worker id.
        request: what to send and to add up.
        timeout: for each message.

    Raises:
        RuntimeError: a message was not sent or received in time, or a neighbour is gone.
    """
    source, out, peers = request.source, request.out, [ranks[other] for other in request.neighbours]
    sources, outs = torch.split(source, CHUNK_ELEMENTS), torch.split(out, CHUNK_ELEMENTS)
    buffers = [[torch.empty(len(sources[0]), dtype=source.dtype) for _ in peers] for _ in sources[:2]]
    in_flight: list[list[Any]] = []
    for i in range(len(sources) + 1):
        if i < len(sources):
            chunk = sources[i].cpu()
            received = [buffer[: len(chunk)] for buffer in buffers[i % 2]]
            works = [group.recv([buffer], peer, i) for buffer, peer in zip(received, peers, strict=True)]
            works += [group.send([chunk], peer, i) for peer in peers]
            in_flight.append([works, received, chunk])
        if i > 0:
            works, received, _ = in_flight.pop(0)
            for work in works:
                work.wait(timeout)
            add_up(
                outs[i - 1], sources[i - 1], request.own_weight, [r.to(out.device) for r in received], request.weights
            )


def mix_over_nccl(group: Any, ranks: Mapping[int, int], request: Mix, timeout: timedelta, own_rank: int) -> None:
    """Carry out a ``Mix`` on a GPU, one neighbour after the other; of two workers the lower rank sends first.

    Everybody goes through its neighbours in ascending order, so that no cycle of workers can wait for each other.

    Args:
        group: a ``ProcessGroupNCCL``.
        ranks: rank in the group by worker id.
        request: what to send and to add up.
        timeout: for each message.
        own_rank: rank of this worker in the group.
    """
    sources, outs = torch.split(request.source, CHUNK_ELEMENTS), torch.split(request.out, CHUNK_ELEMENTS)
    for chunk, out in zip(sources, outs, strict=True):
        received = {other: torch.empty_like(chunk) for other in sorted(request.neighbours)}
        for other, buffer in received.items():
            peer = ranks[other]
            if own_rank < peer:
                group.send([chunk], peer, 0).wait(timeout)
                group.recv([buffer], peer, 0).wait(timeout)
            else:
                group.recv([buffer], peer, 0).wait(timeout)
                group.send([chunk], peer, 0).wait(timeout)
        add_up(out, chunk, request.own_weight, [received[other] for other in request.neighbours], request.weights)
