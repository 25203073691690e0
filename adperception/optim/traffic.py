"""Payload bytes that collectives send, after the algorithms that gloo runs.

Ring all-reduce, binomial-tree broadcast, direct sends between neighbours. Sums over the ranks hold for any algorithm
that sends nothing in vain; how they are spread over the ranks is gloo's. Headers, acknowledgements and control messages
are not in them. A rank here is a position among the workers that take part.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adperception.optim.collectives import AllReduce, Broadcast, Mix, Request

__all__ = ["all_reduce_bytes", "broadcast_bytes", "broadcast_tree", "mix_bytes", "sent_bytes"]

_LARGEST_SEGMENT_BYTES = 1 << 20


def sent_bytes(request: Request, worker_id: int, members: Sequence[int]) -> int:
    """Bytes of tensors that one worker sends for a request; roll calls and commits are 0.

    Args:
        request: what is communicated.
        worker_id: the worker that sends.
        members: all worker ids, in ascending order.
    """
    if isinstance(request, AllReduce):
        element_bytes = request.tensor.element_size()
        return all_reduce_bytes(_size(request.tensor), len(members), element_bytes)[members.index(worker_id)]
    if isinstance(request, Broadcast):
        group = members if request.among is None else request.among
        root = group.index(request.root)
        return broadcast_bytes(_size(request.tensor), len(group), root)[group.index(worker_id)]
    if isinstance(request, Mix):
        return mix_bytes(_size(request.source), len(request.neighbours))
    return 0


def all_reduce_bytes(nbytes: int, workers: int, element_bytes: int = 4) -> tuple[int, ...]:
    """Bytes that each rank sends in a ring all-reduce: ``2 (n - 1) / n * nbytes`` each, up to rounding.

    The tensor is cut into n chunks. In the first half a rank sends every chunk on but its own (which it received last,
    summed up), in the second every chunk but its predecessor's. Both halves together send ``2 (n - 1) * nbytes``
    exactly. gloo rounds chunks up to whole segments (two or more to a chunk, of at most 1 MiB), so that the last chunks
    of a small tensor are smaller or empty.

    Args:
        nbytes: of the tensor.
        workers: n, how many take part.
        element_bytes: of one element; chunks are not cut inside elements.

    Raises:
        ValueError: a negative size, no workers, or a size that is no multiple of ``element_bytes``.
    """
    _check(nbytes, workers)
    if element_bytes < 1 or nbytes % element_bytes:
        raise ValueError(f"nbytes: {nbytes} is no multiple of element_bytes={element_bytes}")
    if workers == 1:
        return (0,)
    segments = max(-(-nbytes // _LARGEST_SEGMENT_BYTES), 2 * workers)
    segments_per_chunk = -(-segments // workers)
    elements = nbytes // element_bytes
    chunk = segments_per_chunk * element_bytes * -(-elements // (segments_per_chunk * workers))
    chunks = [min(max(nbytes - k * chunk, 0), chunk) for k in range(workers)]
    return tuple(2 * nbytes - chunks[rank] - chunks[rank - 1] for rank in range(workers))


def broadcast_tree(workers: int) -> tuple[tuple[int, ...], ...]:
    """To whom each rank passes a broadcast on, counted from the root as rank 0.

    A binomial tree: a rank k > 0 whose highest bit is bit i has the children ``k + 2^j`` for all j > i that exist, the
    root all ``2^j``.

    Args:
        workers: how many take part.

    Raises:
        ValueError: no workers.
    """
    _check(0, workers)
    depth = (workers - 1).bit_length()
    return tuple(
        tuple(rank + (1 << bit) for bit in range(rank.bit_length(), depth) if rank + (1 << bit) < workers)
        for rank in range(workers)
    )


def broadcast_bytes(nbytes: int, workers: int, root: int = 0) -> tuple[int, ...]:
    """Bytes that each rank sends in a broadcast: ``nbytes`` per child in :func:`broadcast_tree`.

    The root sends most, ``ceil(log2 n) * nbytes``; half of the ranks send nothing; all together ``(n - 1) * nbytes``.

    Args:
        nbytes: of the tensor.
        workers: how many take part.
        root: rank of the sender.

    Raises:
        ValueError: a negative size, no workers, or a root that is none of them.
    """
    _check(nbytes, workers)
    if not 0 <= root < workers:
        raise ValueError(f"root: {root} is no rank among {workers} workers")
    tree = broadcast_tree(workers)
    return tuple(nbytes * len(tree[(rank - root) % workers]) for rank in range(workers))


def mix_bytes(nbytes: int, neighbours: int) -> int:
    """Bytes that one rank sends when it exchanges a tensor with its neighbours: ``neighbours * nbytes``.

    Args:
        nbytes: of the tensor.
        neighbours: how many.

    Raises:
        ValueError: a negative size or number.
    """
    if nbytes < 0 or neighbours < 0:
        raise ValueError(f"nbytes and neighbours cannot be negative, got {nbytes} and {neighbours}")
    return nbytes * neighbours


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _check(nbytes: int, workers: int) -> None:
    if nbytes < 0:
        raise ValueError(f"nbytes: {nbytes} is negative")
    if workers < 1:
        raise ValueError(f"workers: {workers}; at least 1 takes part")
