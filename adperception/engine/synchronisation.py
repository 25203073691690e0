"""What a run with a strategy has beside its local optimizer: rounds, their log, the consensus, per-worker state."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adperception.engine.data import FrameDataset
from adperception.engine.randomness import probe_rng, step_generator
from adperception.engine.strategies import DistributedPlan
from adperception.engine.workers import Workers
from adperception.models.base import TrainableModel
from adperception.optim import RoundFailedError, SyncOptimizer, consensus

__all__ = ["Synchronisation"]


class Synchronisation:
    """Rounds of one worker.

    Args:
        plan: the ``distributed`` section.
        workers: the other workers.
        model: what is trained.
        optimizer: the local optimizer.
        dataset: training frames, for strategies with a probe.
        frames_per_step: of one local step of one worker.
        frames_per_pass: of the probe.
        seed: of the run.

    Attributes:
        optimizer: makes local steps and rounds.
    """

    def __init__(
        self,
        plan: DistributedPlan,
        workers: Workers,
        model: TrainableModel,
        optimizer: torch.optim.Optimizer,
        dataset: FrameDataset,
        *,
        frames_per_step: int,
        frames_per_pass: int,
        seed: int,
    ) -> None:
        self._workers = workers
        self._model = model
        self._dataset = dataset
        self._frames_per_pass, self._seed = frames_per_pass, seed
        self._collate = model.collate(training=True)
        self.optimizer = SyncOptimizer(
            optimizer,
            plan.strategy,
            plan.trigger(frames_per_step),
            model=model,
            communicator=workers.communicator,
            probe=self._probe,
            allow_single_worker=plan.allow_single_worker,
            check_replicas_every=plan.check_replicas_every,
            overlap=plan.overlap,
        )
        workers.settle = self.optimizer.wait
        self._bytes_sent = 0
        self._leaders: Counter[int] = Counter()
        self._weights: dict[int, list[float]] = {}
        self._round_seconds: list[float] = []

    def step(self, loss: Tensor, stop_signal: int) -> int:
        """One local step, and a round if it is due.

        Args:
            loss: this worker's loss of the step.
            stop_signal: number of the signal that this worker received, else 0.

        Returns:
            The signal that any worker told of in the round of this step, else 0: all workers stop after the same one.
        """
        return self._advance(lambda: self.optimizer.step(loss=loss), stop_signal)

    def skip(self, stop_signal: int) -> int:
        """Count a step without an update; otherwise as ``step``."""
        return self._advance(self.optimizer.skip_step, stop_signal)

    def _advance(self, step: Callable[[], Any], stop_signal: int) -> int:
        sync, communicator = self.optimizer, self._workers.communicator
        sync.tell = {"stop": stop_signal}
        before, sent = sync.worker.rounds, communicator.bytes_sent
        step()
        self._bytes_sent += communicator.bytes_sent - sent
        if sync.worker.rounds == before:
            # Alone there is no round that could be waited for.
            return stop_signal if len(sync.members) == 1 else 0
        notes, report = sync.worker.notes, sync.report
        self._round_seconds.append(communicator.last_round_seconds)
        if report.leader is not None:
            self._leaders[report.leader] += 1
        for member, note in notes.items():
            if not math.isnan(note.weight):
                self._weights.setdefault(member, []).append(note.weight)
        return max(int(note.tell["stop"]) for note in notes.values())

    def describe(self) -> str:
        """In words for the terminal: what the workers do."""
        trigger, workers = self.optimizer.trigger, len(self.optimizer.members)
        steps = f"{trigger.steps_per_round(workers):.3g}"
        return (
            f"{self.optimizer.strategy.name}: {workers} workers train apart; a round after every {steps} steps of each"
        )

    def totals(self) -> dict[str, float]:
        """Counts over the whole run, over all its starts.

        ``bytes_sent`` is what this worker sent in its steps and rounds; the start, evaluations and checkpoints, which
        do not belong to the method, are not in it.
        """
        sync = self.optimizer
        return {
            "rounds": sync.worker.rounds,
            "rounds_skipped": sync.rounds_skipped,
            "workers": len(sync.members),
            "bytes_sent": self._bytes_sent,
        }

    def log_line(self) -> dict[str, float]:
        """What is logged beside loss and learning rate; means are over the rounds since the last line."""
        sync = self.optimizer
        losses = [n.loss for n in sync.worker.notes.values() if not math.isnan(n.loss)]
        line: dict[str, float] = self.totals()
        if self._round_seconds:
            line["round_seconds"] = float(np.mean(self._round_seconds))
        if losses:
            line["workers_loss"] = float(np.mean(losses))
        if not math.isnan(sync.disagreement()):
            line["disagreement"] = sync.disagreement()
        line |= {f"left_out_{member}": float(count) for member, count in sorted(sync.left_out.items())}
        line |= {f"leader_{member}": float(count) for member, count in sorted(self._leaders.items())}
        line |= {f"weight_{member}": float(np.mean(values)) for member, values in sorted(self._weights.items())}
        self._round_seconds.clear()
        self._weights.clear()
        return line

    @contextmanager
    def consensus(self, recalibrate: Callable[[nn.Module], Any] | None) -> Iterator[None]:
        """The model holds the consensus within the block. If a worker is lost on the way in, the others try again."""
        while True:
            context = consensus(self.optimizer, self._model, recalibrate)
            try:
                context.__enter__()
            except RoundFailedError:
                continue
            break
        try:
            yield
        finally:
            context.__exit__(None, None, None)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What belongs to this worker alone, and the strategy's state: tensors by name, and plain values."""
        tensors, values = self.optimizer.sync_state()
        counts = {str(member): count for member, count in self._leaders.items()}
        return tensors, {**values, "leaders": counts, "bytes_sent": self._bytes_sent}

    def restore(self, tensors: dict[str, Tensor], values: Mapping[str, Any]) -> None:
        """What ``state`` gave.

        Raises:
            ValueError: if it is of other workers or another strategy.
        """
        self.optimizer.load_sync_state(tensors, dict(values))
        self._leaders = Counter({int(member): count for member, count in values["leaders"].items()})
        self._bytes_sent = values["bytes_sent"]

    def restart(self) -> None:
        """Begin rounds anew from the model's parameters, which are the same on all workers."""
        self.optimizer.restart_from(self.optimizer.worker.vector.clone())

    def _probe(self, model: nn.Module) -> Tensor:
        """Gradients of one mini-batch of fresh training frames, drawn from all of them."""
        worker = self.optimizer.worker
        rng = probe_rng(self._seed, worker.rounds, worker.worker_id)
        count = min(self._frames_per_pass, len(self._dataset))
        indices = rng.choice(len(self._dataset), count, replace=False)
        batch = self._collate([self._dataset.get(int(index), rng) for index in indices])
        generator = step_generator(self._seed, worker.steps, worker.worker_id)
        losses = model(batch.to(self._workers.device), generator)
        losses.total.backward()
        return losses.total.detach()  # type: ignore[no-any-return]
