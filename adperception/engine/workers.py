"""Processes that train apart and meet in rounds, instead of exchanging gradients in every step.

They talk through roll calls, which notice when somebody is lost, so that nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch.distributed import HashStore, TCPStore  # type: ignore[attr-defined]  # public, but not in __all__

from adperception.engine.distributed import Processes, start_processes
from adperception.engine.strategies import DistributedPlan
from adperception.optim import Note, RollCall
from adperception.optim.background import Background
from adperception.optim.collectives import Requests
from adperception.optim.torch_communicator import TorchCommunicator

__all__ = ["StoreAddress", "Workers", "start_workers"]

_Result = TypeVar("_Result")

_BEATS_PER_TIMEOUT = 4
"""How often workers that wait for a long piece of work meet, so that a lost one is noticed."""


@dataclass(frozen=True)
class StoreAddress:
    """Where workers with launchers of their own find each other.

    Attributes:
        host: of ``tools/store.py``.
        port: of ``tools/store.py``.
        worker_id: which worker this is, from 0.
        workers: how many there are.
    """

    host: str
    port: int
    worker_id: int
    workers: int

    @classmethod
    def parse(cls, store: str, worker: str | None) -> StoreAddress:
        """From ``HOST:PORT`` and ``I/N``.

        Raises:
            ValueError: if they are not of this form.
        """
        host, _, port = store.rpartition(":")
        number, _, count = (worker or "").partition("/")
        if not (host and port.isdigit()):
            raise ValueError(f"--store {store}: give HOST:PORT of a running tools/store.py.")
        if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
            raise ValueError(f"--worker {worker}: give I/N with --store, the third of four workers is 2/4.")
        return cls(host, int(port), int(number), int(count))


@dataclass
class Workers(Processes):
    """The processes of a run with a strategy. ``rank`` is the worker id.

    Attributes:
        communicator: how rounds and everything else reach the others.
        beat_seconds: pause between two meetings during a long piece of work.
        settle: called before the others are told anything: waits for a round in the background.
    """

    communicator: TorchCommunicator = field(kw_only=True)
    beat_seconds: float = field(kw_only=True)
    settle: Callable[[], None] = field(kw_only=True, default=lambda: None)

    @property
    def members(self) -> tuple[int, ...]:
        """Worker ids of all that are left."""
        return self.communicator.members

    @property
    def is_main(self) -> bool:
        """Whether this worker writes files and prints: the first one that is left."""
        return self.rank == self.members[0]

    def largest(self, flags: Sequence[int]) -> list[int]:
        """Element-wise maximum over the workers."""
        told = self._tell({"flags": list(flags)})
        return [max(values) for values in zip(*(each["flags"] for each in told.values()), strict=True)]

    def gather_text(self, text: str) -> list[str]:
        """The texts of all workers that are left, by worker id, on every worker."""
        return [told["text"] for told in self._tell({"text": text}).values()]

    def share_text(self, text: str) -> str:
        """The text of the first worker."""
        return self.gather_text(text)[0]

    def all_do(self, work: Callable[[], str]) -> list[str]:
        """Everybody does something, however long it takes; the results of all that are left at the end."""
        task = Background(work)
        while True:
            done = task.wait(self.beat_seconds)
            told = self._tell({"done": done, "text": task.result() if done else ""})
            if all(each["done"] for each in told.values()):
                return [each["text"] for each in told.values()]

    def main_does(self, work: Callable[[], str]) -> str:
        """The first worker does something while the others wait; if it is lost, the next one does it again."""
        while True:
            main = self.members[0]
            texts = self.all_do(work if self.rank == main else str)
            if self.members[0] == main:
                return texts[0]

    def stop(self) -> None:
        """Leave."""
        if dist.is_initialized():
            super().stop()

    def _tell(self, values: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """Tell all others something; what everybody said, by worker id."""

        def telling() -> Requests:
            notes: dict[int, Note] = yield RollCall(Note(tell=values))
            return {member: note.tell for member, note in notes.items()}

        self.settle()
        told: dict[int, dict[str, Any]] = self.communicator.run(telling())
        return told


def start_workers(plan: DistributedPlan, device: str | None, address: StoreAddress | None) -> Workers:
    """Join the other workers: those that torchrun started, or those at a store.

    Args:
        plan: the ``distributed`` section.
        device: as for ``start_processes``.
        address: where to find the others if each has a launcher of its own.

    Raises:
        ValueError: as ``start_processes``; if there is one worker and the plan does not allow it.
    """
    timeout = plan.round_timeout_seconds
    if address is None:
        processes = start_processes(device)
        rank, world_size, where = processes.rank, processes.world_size, processes.device
    else:
        rank, world_size = address.worker_id, address.workers
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if world_size == 1 and not plan.allow_single_worker:
        raise ValueError(
            f"{plan.strategy.name} needs at least two workers: start them with torchrun --nproc-per-node=N "
            "tools/train.py ..., or set distributed.allow_single_worker=True to train with the local optimizer alone."
        )
    if address is None and world_size > 1:
        communicator = TorchCommunicator(round_timeout_seconds=timeout, on_failure=plan.on_failure or "raise")
    elif address is None:
        communicator = TorchCommunicator(store=HashStore(), worker_id=0, workers=1)
    else:
        store = TCPStore(address.host, address.port, is_master=False, timeout=timedelta(seconds=60))
        communicator = TorchCommunicator(
            store=store,
            worker_id=rank,
            workers=world_size,
            round_timeout_seconds=timeout,
            on_failure=plan.on_failure or "regroup",
        )
    return Workers(rank, world_size, where, communicator=communicator, beat_seconds=timeout / _BEATS_PER_TIMEOUT)
