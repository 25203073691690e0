"""What a request sends over the network."""

from __future__ import annotations

from collections.abc import Sequence

from adperception.optim.collectives import AllReduce, Broadcast, Mix, Request

__all__ = ["sent_bytes"]


def sent_bytes(request: Request, worker_id: int, members: Sequence[int]) -> int:
    """Bytes of tensors that one worker sends for a request, by the algorithms of gloo; roll calls and commits are 0.

    - All-reduce: a ring of reduce-scatter and all-gather (gloo ``allreduce.cc``): each of n workers sends ``2 (n-1)/n``
      of the tensor. Summed over the workers this is exact; one worker's part is exact up to a segment of the ring.
    - Broadcast: a binomial tree (gloo ``broadcast.cc``). With v the distance from the root in rank order, modulo n, the
      worker sends the whole tensor to every ``v + 2^i < n`` with ``2^i > v``: ``n - 1`` tensors over all workers.
    - Mix: the whole tensor to each neighbour.

    Args:
        request: what is communicated.
        worker_id: the worker that sends.
        members: all worker ids, in ascending order.
    """
    if isinstance(request, AllReduce):
        size = request.tensor.numel() * request.tensor.element_size()
        return round(2 * (len(members) - 1) / len(members) * size)
    if isinstance(request, Broadcast):
        group = list(members if request.among is None else request.among)
        distance = (group.index(worker_id) - group.index(request.root)) % len(group)
        powers = [1 << i for i in range(len(group).bit_length())]
        sends = sum(power > distance and distance + power < len(group) for power in powers)
        return sends * request.tensor.numel() * request.tensor.element_size()
    if isinstance(request, Mix):
        return len(request.neighbours) * request.source.numel() * request.source.element_size()
    return 0
