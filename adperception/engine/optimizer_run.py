"""One run of a study of optimisers: any number of workers in one process, each with a model of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adperception.engine.optimizer_methods import METHODS, Setting
from adperception.engine.study_task import Batches, Sharding, Split, StudyTask
from adperception.optim import EverySteps, Simulation, SyncOptimizer
from adperception.optim.collectives import Request
from adperception.optim.consensus import ConsensusSwap
from adperception.optim.traffic import sent_bytes

__all__ = ["RunSpec", "run_simulated"]

DROP = 0.1
"""Factor on the learning rate for the last part of a run."""

NEVER = 10**9


@dataclass(frozen=True)
class RunSpec:
    """What decides the outcome of a run, together with the task.

    Attributes:
        method: name in ``METHODS``.
        setting: learning rate and strengths.
        sharding: who trains on what.
        workers: M.
        seed: of initial weights, shards and order of samples.
        steps: local steps of every worker.
        batch_size: of one worker.
        sync_every: local steps between two rounds.
        drop_at: share of the steps after which the learning rate drops to a tenth.
        split: what the models are scored on.
        curve: whether they are scored at every round and not only at the end.
    """

    method: str
    setting: Setting
    sharding: Sharding
    workers: int
    seed: int
    steps: int
    batch_size: int
    sync_every: int
    drop_at: float
    split: Split
    curve: bool


class _Traffic:
    """The cost of a simulation in which only bytes count."""

    def seconds(self, request: Request, workers: int) -> float:
        return 0.0

    def bytes_sent(self, request: Request, workers: int, worker_id: int) -> float:
        return sent_bytes(request, worker_id, range(workers))


class _Run:
    """Models, optimizers and data of all workers."""

    def __init__(self, task: StudyTask, spec: RunSpec) -> None:
        self.task, self.spec = task, spec
        method = METHODS[spec.method]
        self.simulation = Simulation(spec.workers, _Traffic())
        # What serves the start and the evaluations is not counted.
        self._uncounted = Simulation(spec.workers)
        self.batches: Batches = task.batches(spec.workers, spec.seed, spec.sharding, spec.batch_size, spec.steps)
        self.models: list[nn.Module] = []
        self.syncs: list[SyncOptimizer] = []
        self._step = 0
        strategy = method.build(spec.setting)
        trigger = EverySteps(spec.sync_every if method.communicates else NEVER)
        for communicator in self.simulation.communicators:
            model = task.build_model(spec.seed)
            self.models.append(model)
            self.syncs.append(
                SyncOptimizer(
                    task.build_optimizer(model),
                    strategy,
                    trigger,
                    model=model,
                    communicator=communicator,
                    probe=self._probe(communicator.worker_id),
                    allow_single_worker=True,
                )
            )
        self._uncounted.run([sync.starting() for sync in self.syncs])

    def train(self, first: int, end: int) -> float:
        """Steps ``first`` to ``end`` of all workers; the mean training loss."""
        losses: list[Tensor] = []
        self.simulation.run([self._steps(worker, first, end, losses) for worker in range(self.spec.workers)])
        self._step = end
        return float(torch.stack(losses).double().mean())

    def consensus_score(self) -> float:
        """The metric of the consensus model.

        Raises:
            FloatingPointError: if no worker has finite parameters.
        """
        if not any(torch.isfinite(sync.worker.vector).all() for sync in self.syncs):
            raise FloatingPointError(f"training diverged before step {self._step}: no worker has finite parameters")
        swaps = [
            ConsensusSwap(sync, model, self._recalibration(worker))
            for worker, (sync, model) in enumerate(zip(self.syncs, self.models, strict=True))
        ]
        self._uncounted.run([swap.entering() for swap in swaps])
        score = self._scored(self.models[0])
        for swap in swaps:
            swap.leave()
        return score

    def worker_scores(self) -> list[float]:
        """The metric of every worker's own model."""
        return [self._scored(model) for model in self.models]

    def disagreement(self) -> float:
        """Mean squared distance of the workers to their mean."""
        vectors = torch.stack([sync.worker.vector for sync in self.syncs]).double()
        return float((vectors - vectors.mean(0)).square().sum(1).mean())

    def bytes_sent(self) -> float:
        """By all workers together."""
        return sum(communicator.bytes_sent for communicator in self.simulation.communicators)

    def _steps(self, worker: int, first: int, end: int, losses: list[Tensor]) -> Generator[Request, Any, None]:
        spec, model, sync = self.spec, self.models[worker], self.syncs[worker]
        for step in range(first, end):
            drop = DROP if step >= spec.drop_at * spec.steps else 1.0
            rate = spec.setting.learning_rate * self.task.rate_scale * drop
            for group in sync.param_groups:
                group["lr"] = rate
            sync.zero_grad()
            loss = self.batches.loss(model, worker, step)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            self.batches.before_step(model)
            yield from sync.stepping(loss=loss.detach())
            self.batches.after_step(model, step, spec.steps)

    def _probe(self, worker: int) -> Any:
        """Of the mini-batch that the worker trains on next."""

        def probe(model: nn.Module) -> Tensor:
            step = min(self.syncs[worker].worker.steps, self.spec.steps - 1)
            loss = self.batches.loss(model, worker, step)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return probe

    def _recalibration(self, worker: int) -> Callable[[nn.Module], None] | None:
        count = min(self.task.recalibration_batches, self.spec.steps)

        def recalibrate(model: nn.Module) -> None:
            for step in range(count):
                self.batches.loss(model, worker, step)

        return recalibrate if count else None

    def _scored(self, model: nn.Module) -> float:
        training = model.training
        model.eval()
        score = self.task.score(model, self.spec.split)
        model.train(training)
        return score


def run_simulated(task: StudyTask, spec: RunSpec) -> dict[str, Any]:
    """Train and score.

    Returns:
        ``score`` of the consensus model, ``best_worker`` and ``mean_worker``, ``training_loss`` (mean over the last
        ``sync_every`` steps of all workers), ``disagreement``, ``steps``, ``samples`` and ``bytes_sent`` of all workers
        together, ``parameters``, ``tensors``, ``cpu_seconds``, and ``curve``: rows of step, score, training loss,
        disagreement and bytes.

    Raises:
        FloatingPointError: if training diverged.
    """
    started = time.process_time()
    run = _Run(task, spec)
    curve: list[list[float]] = []
    loss = math.nan
    for first in range(0, spec.steps, spec.sync_every):
        end = min(first + spec.sync_every, spec.steps)
        loss = run.train(first, end)
        if spec.curve or end == spec.steps:
            curve.append([end, run.consensus_score(), loss, run.disagreement(), run.bytes_sent()])
    workers = run.worker_scores()
    params = run.syncs[0].worker.params
    return {
        "score": curve[-1][1],
        "best_worker": task.metric.sign * max(task.metric.sign * score for score in workers),
        "mean_worker": math.fsum(workers) / len(workers),
        "training_loss": loss,
        "disagreement": run.disagreement(),
        "steps": spec.steps,
        "samples": spec.steps * spec.workers * spec.batch_size,
        "bytes_sent": run.bytes_sent(),
        "parameters": params.numel,
        "tensors": len(params.segments),
        "cpu_seconds": round(time.process_time() - started, 3),
        "curve": curve if spec.curve else [],
    }
