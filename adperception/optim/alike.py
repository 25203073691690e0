"""What has to be alike on all workers: parameters at the start, replicated state later, the rest of a mended model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from adperception.optim.checksum import checksum
from adperception.optim.collectives import Broadcast, Commit, Requests, RollCall
from adperception.optim.communication_errors import ReplicasDifferError
from adperception.optim.strategy import Strategy
from adperception.optim.worker import Worker

__all__ = ["checksums", "compare_replicas", "mend", "same_start"]


@torch.no_grad()
def same_start(worker: Worker, strategy: Strategy) -> Requests:
    """Compare names and shapes, then take over parameters and buffers of the first worker.

    Raises:
        ValueError: if a worker has other parameters or other options.
    """
    worker.params.gather()
    own = {
        "fingerprint": worker.params.fingerprint(),
        "tensors": len(worker.params.segments),
        "elements": worker.params.numel,
        "strategy": repr(strategy),
    }
    worker.notes = yield RollCall(worker.note(worker.losses.mean(), own))
    _compare_workers(worker)
    first = worker.members[0]
    worker.scratch_vector.copy_(worker.vector)
    yield Broadcast(worker.scratch_vector, first)
    received = yield from _of_worker(first, [] if worker.model is None else worker.model.buffers())
    yield Commit()
    worker.vector.copy_(worker.scratch_vector)
    worker.params.scatter()
    for buffer, values in received:
        buffer.copy_(values)


def _compare_workers(worker: Worker) -> None:
    mine = worker.notes[worker.worker_id].tell
    for member, note in worker.notes.items():
        theirs = note.tell
        if theirs["fingerprint"] != mine["fingerprint"]:
            raise ValueError(
                f"worker {worker.worker_id} trains {mine['tensors']} tensors with {mine['elements']} elements, worker "
                f"{member} {theirs['tensors']} with {theirs['elements']}; names, shapes, precision and memory order "
                "must be the same. Build the same model and optimizer on each."
            )
        if theirs["strategy"] != mine["strategy"]:
            raise ValueError(
                f"worker {worker.worker_id} uses {mine['strategy']}, worker {member} {theirs['strategy']}. Give all "
                "workers the same options."
            )


def checksums(worker: Worker, strategy: Strategy, every: int) -> dict[str, Any]:
    """What to tell at the roll call of the next round: in every so many, checksums of what is replicated."""
    if not every or not strategy.replicated or (worker.rounds + 1) % every:
        return {}
    return {"checksums": {n: checksum(worker.state[n]) for n in strategy.replicated if n in worker.state}}


def compare_replicas(worker: Worker, strategy: Strategy) -> None:
    """Compare the checksums that the members told.

    Raises:
        ReplicasDifferError: naming the workers that differ from most others.
    """
    found = {member: note.tell.get("checksums") for member, note in worker.notes.items()}
    sums = list(found.values())
    if all(value == sums[0] for value in sums):
        return
    usual = max(sums, key=sums.count)
    different = [member for member, value in found.items() if value != usual]
    raise ReplicasDifferError(
        f"{strategy.name}: what all workers should hold alike ({', '.join(strategy.replicated)}) differs on worker "
        f"{different} in round {worker.rounds + 1}. Memory was damaged, or a worker resumed from another checkpoint; "
        "resume all workers from one."
    )


@torch.no_grad()
def mend(worker: Worker) -> Requests:
    """Workers whose parameters are not finite take over the rest of the model (buffers, averages) from a fit one.

    What a forward pass of theirs updates is not finite either, and no round replaces it.
    """
    if worker.model is None or not worker.healthy or not worker.report.unhealthy:
        return
    in_rounds = {id(parameter) for parameter in worker.params.parameters}
    others = [t for t in (*worker.model.parameters(), *worker.model.buffers()) if id(t) not in in_rounds]
    received = yield from _of_worker(worker.healthy[0], others)
    yield Commit()
    if not worker.is_healthy:
        for tensor, values in received:
            tensor.copy_(values)


def _of_worker(root: int, tensors: Iterable[Tensor]) -> Requests:
    """Pairs of each tensor and what worker ``root`` has there."""
    received = [(tensor, tensor.detach().clone().contiguous()) for tensor in tensors if tensor.numel()]
    for _, values in received:
        yield Broadcast(values.view(-1), root)
    return received
