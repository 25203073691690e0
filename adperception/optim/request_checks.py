"""Requests that would hang, or fail on some of the workers only, are refused before they are carried out."""

from __future__ import annotations

from collections.abc import Sequence

from adperception.optim.collectives import AllReduce, Broadcast, Mix, Request

__all__ = ["check_request"]


def check_request(request: Request, worker_id: int, members: Sequence[int]) -> None:
    """Check a request against who takes part.

    Args:
        request: of worker ``worker_id``.
        worker_id: see ``request``.
        members: all worker ids, in ascending order.

    Raises:
        ValueError: a tensor that is not flat and contiguous, a worker that does not take part, a root or worker outside
            of ``among``, weights or shapes that do not match.
    """
    where = f"{type(request).__name__} of worker {worker_id} (members {', '.join(map(str, members))})"
    if isinstance(request, AllReduce):
        _check_flat(where, request.tensor.dim(), request.tensor.is_contiguous())
    elif isinstance(request, Broadcast):
        _check_flat(where, request.tensor.dim(), request.tensor.is_contiguous())
        among = tuple(members) if request.among is None else request.among
        if list(among) != sorted(set(among) & set(members)):
            raise ValueError(f"{where}: among={among} needs to be members in ascending order")
        if request.root not in among or worker_id not in among:
            raise ValueError(f"{where}: root={request.root} and the worker itself need to be in among={among}")
    elif isinstance(request, Mix):
        for tensor in (request.source, request.out):
            _check_flat(where, tensor.dim(), tensor.is_contiguous())
        if request.out.shape != request.source.shape or request.out.dtype != request.source.dtype:
            raise ValueError(
                f"{where}: out is {request.out.dtype} {tuple(request.out.shape)}, source is {request.source.dtype} "
                f"{tuple(request.source.shape)}; they need to be alike"
            )
        if request.out.data_ptr() == request.source.data_ptr() and request.out.numel() > 0:
            raise ValueError(f"{where}: out and source share memory, but neighbours read source while out is written")
        if sorted(request.neighbours) != sorted(set(request.neighbours) & set(members) - {worker_id}):
            raise ValueError(f"{where}: neighbours={request.neighbours} need to be other members, each once")
        if len(request.weights) != len(request.neighbours):
            raise ValueError(f"{where}: {len(request.weights)} weights for {len(request.neighbours)} neighbours")


def _check_flat(where: str, dimensions: int, contiguous: bool) -> None:
    if dimensions != 1 or not contiguous:
        raise ValueError(f"{where}: needs flat contiguous tensors; pass t.contiguous().view(-1) or a copy")
