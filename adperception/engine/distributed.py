"""Processes of a run. The only module that reads torchrun's environment variables and calls collectives by hand."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from adperception.engine.fresh_store import fresh_store

__all__ = ["Processes", "average_in_rank_order", "launched_processes", "start_processes", "was_restarted"]

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_Result = TypeVar("_Result")

_COLLECTIVE_TIMEOUT = timedelta(minutes=30)
_EVALUATION_TIMEOUT = timedelta(days=2)


@dataclass
class Processes:
    """Who this process is and how it talks to the others. With one process every method is trivial.

    Attributes:
        rank: 0 for the process that writes files.
        world_size: number of processes.
        device: where this process computes.
        patient_group: process group whose collectives may wait for an evaluation to end.
    """

    rank: int
    world_size: int
    device: torch.device
    patient_group: Any = field(default=None, repr=False)

    @property
    def members(self) -> tuple[int, ...]:
        """Ranks of all processes that are left."""
        return tuple(range(self.world_size))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def largest(self, flags: Sequence[int]) -> list[int]:
        """Element-wise maximum over the processes; one small collective on the CPU."""
        if self.world_size == 1:
            return list(flags)
        values = torch.tensor(flags, dtype=torch.int64)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return [int(value) for value in values]

    def largest_on_device(self, flags: torch.Tensor) -> torch.Tensor:
        """Element-wise maximum over the processes of a boolean tensor on this process's device; nobody waits for it."""
        if self.world_size == 1:
            return flags
        values = flags.int()
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values.bool()

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the processes of a CPU tensor."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather_text(self, text: str) -> list[str]:
        """The texts of all processes, by rank, on every process."""
        if self.world_size == 1:
            return [text]
        data = torch.frombuffer(bytearray(text.encode() + b"\0"), dtype=torch.uint8)
        length = self.largest([len(data)])[0]
        padded = torch.zeros(length, dtype=torch.uint8)
        padded[: len(data)] = data
        received = [torch.zeros_like(padded) for _ in range(self.world_size)]
        dist.all_gather(received, padded)
        return [bytes(row.tolist()).rstrip(b"\0").decode() for row in received]

    def share_text(self, text: str) -> str:
        """The text of process 0, however long it takes to make it (evaluations, data preparation)."""
        if self.world_size == 1:
            return text
        length = torch.tensor([len(text.encode())])
        dist.broadcast(length, src=0, group=self.patient_group)
        data = torch.zeros(int(length) + 1, dtype=torch.uint8)
        if self.is_main:
            data[:-1] = torch.tensor(list(text.encode()), dtype=torch.uint8)
        dist.broadcast(data, src=0, group=self.patient_group)
        return bytes(data[:-1].tolist()).decode()

    def all_do(self, work: Callable[[], str]) -> list[str]:
        """Every process does something; the results of all, by rank."""
        return self.gather_text(work())

    def main_does(self, work: Callable[[], str]) -> str:
        """The main process does something while the others wait; its result."""
        return self.share_text(work() if self.is_main else "")

    def on_main(self, work: Callable[[], _Result]) -> _Result | None:
        """Do something on the main process while the others wait; what goes wrong stops all with the same message.

        Returns:
            What ``work`` returns, on the main process; ``None`` on the others.

        Raises:
            ValueError: with the message of a ``ValueError`` or ``OSError`` of ``work``.
        """
        results: list[_Result] = []

        def attempt() -> str:
            try:
                results.append(work())
            except (ValueError, OSError) as error:
                if self.world_size == 1:
                    raise
                return str(error)
            return ""

        problem = self.main_does(attempt)
        if problem:
            raise ValueError(problem)
        return results[0] if results else None

    def stop(self) -> None:
        """Leave the process group. Nothing may hold on to it any more (a DDP wrapper does)."""
        if self.world_size > 1:
            # gloo aborts the interpreter if its threads outlive the group, so every reference has to go first.
            self.patient_group = None
            gc.collect()
            dist.destroy_process_group()


def launched_processes() -> int:
    """How many processes ``torchrun`` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def was_restarted() -> bool:
    """Whether ``torchrun`` started these processes anew because one of them had failed (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def average_in_rank_order(bucket: Any) -> torch.futures.Future[torch.Tensor]:
    """The mean of a DDP gradient bucket over the processes, summed in the order of their ranks.

    DDP repacks its buckets after the first step, and a ring all-reduce adds the processes in an order that depends on
    the place in the bucket. From three processes on, the first step after a resume would differ in the last bit.

    Args:
        bucket: a ``torch.distributed.GradBucket``.
    """
    mine = bucket.buffer()
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    gathered = dist.all_gather(parts, mine, async_op=True).get_future()
    mean: torch.futures.Future[torch.Tensor] = gathered.then(lambda _: torch.stack(parts).sum(dim=0) / len(parts))
    return mean


def start_processes(device: str | None) -> Processes:
    """Join the processes that ``torchrun`` started, or be the only one.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``None`` for cuda where there is one.

    Raises:
        ValueError: if only some of torchrun's variables are set, or ``device="cuda"`` without a usable GPU.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    present = [name for name in _VARIABLES if os.environ.get(name)]
    launched = "RANK" in present or "LOCAL_RANK" in present
    missing = [name for name in _VARIABLES if name not in present]
    if launched and missing:
        raise ValueError(
            f"{', '.join(present)} set, but {', '.join(missing)} missing in the environment. Start several processes "
            "with torchrun --nproc-per-node=N tools/train.py ..., or unset these variables to run one process."
        )
    rank, world_size, local_rank = (int(os.environ[name]) for name in _VARIABLES[:3]) if launched else (0, 1, 0)
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"--device cuda: process {rank} needs GPU {local_rank}, but {torch.cuda.device_count()} are visible. "
                "Use --device cpu or start fewer processes per machine."
            )
        torch.cuda.set_device(local_rank)
    where = torch.device("cuda", local_rank) if device == "cuda" else torch.device(device)
    if world_size == 1:
        return Processes(0, 1, where)
    # Control messages go over the CPU in both cases, next to the gradients on the GPU.
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=_COLLECTIVE_TIMEOUT))
    store = fresh_store(store, rank, world_size, _COLLECTIVE_TIMEOUT.total_seconds())
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_COLLECTIVE_TIMEOUT)
    patient = dist.new_group(backend="gloo", timeout=_EVALUATION_TIMEOUT)
    return Processes(rank, world_size, where, patient)
