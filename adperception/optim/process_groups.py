"""The process groups of one membership epoch, built over a store and independent of torch.distributed's world."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from adperception.optim.agreement import fingerprint
from adperception.optim.collectives import Mix
from adperception.optim.mixing import mix_over_gloo, mix_over_nccl

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["ProcessGroups"]


class ProcessGroups:
    """gloo among the members, NCCL for their GPU tensors where it is wanted, and groups for parts of the members.

    Args:
        store: a connection that nobody else uses while groups are built, because they wait in it; keys go below the
            prefix, which belongs to these groups alone.
        prefix: see ``store``.
        worker_id: this worker.
        members: worker ids in ascending order; a worker's place is its rank.
        timeout_seconds: time limit for connecting, and for a collective.
        nccl: whether tensors on a GPU are communicated with NCCL; otherwise gloo copies them over the CPU.

    Raises:
        RuntimeError: a member could not be reached in time.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        worker_id: int,
        members: Sequence[int],
        *,
        timeout_seconds: float,
        nccl: bool = False,
    ) -> None:
        self._store = PrefixStore(prefix, store)
        self._worker_id = worker_id
        self._members = tuple(members)
        self._timeout = timedelta(seconds=timeout_seconds)
        self._nccl = nccl
        self._groups: dict[tuple[str, tuple[int, ...]], Any] = {}
        self.add(None, torch.device("cpu"))

    def has(self, among: tuple[int, ...] | None, device: torch.device) -> bool:
        """Whether the group for some members (``None``: all) and for tensors on a device is there."""
        return self._key(among, device) in self._groups

    def add(self, among: tuple[int, ...] | None, device: torch.device) -> None:
        """Build the group for some of the members. All of them do, when they first need it.

        Args:
            among: worker ids in ascending order, this one included; ``None`` for all members.
            device: where the tensors will be.

        Raises:
            RuntimeError: one of them could not be reached in time.
        """
        backend, ids = self._key(among, device)
        store = PrefixStore(f"{backend}/{fingerprint(ids)}", self._store)
        rank = ids.index(self._worker_id)
        group: Any
        if backend == "nccl":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = self._timeout
            group = dist.ProcessGroupNCCL(store, rank, len(ids), options)
        else:
            group = dist.ProcessGroupGloo(store, rank, len(ids), self._timeout)
        self._groups[backend, ids] = group

    def all_reduce(self, tensor: Tensor) -> None:
        """Sum over the members, in place."""
        self._group(None, tensor.device).allreduce([tensor]).wait(self._timeout)

    def broadcast(self, tensor: Tensor, root: int, among: tuple[int, ...] | None) -> None:
        """The values of worker ``root`` to the others of ``among``."""
        options = dist.BroadcastOptions()
        options.rootRank = (self._members if among is None else among).index(root)
        self._group(among, tensor.device).broadcast([tensor], options).wait(self._timeout)

    def mix(self, request: Mix) -> None:
        """Exchange with the neighbours, and add up."""
        group = self._group(None, request.source.device)
        ranks = {other: rank for rank, other in enumerate(self._members)}
        if self._key(None, request.source.device)[0] == "nccl":
            mix_over_nccl(group, ranks, request, self._timeout, ranks[self._worker_id])
        else:
            mix_over_gloo(group, ranks, request, self._timeout)

    def _group(self, among: tuple[int, ...] | None, device: torch.device) -> Any:
        return self._groups[self._key(among, device)]

    def _key(self, among: tuple[int, ...] | None, device: torch.device) -> tuple[str, tuple[int, ...]]:
        backend = "nccl" if self._nccl and device.type == "cuda" else "gloo"
        return backend, self._members if among is None else among
