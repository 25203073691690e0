"""One optimizer step, and everything that is known about a run while it goes on."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adperception.config import Config
from adperception.engine.console import say
from adperception.engine.data import FrameDataset, ValidationBatches, spread_indices
from adperception.engine.distributed import Processes
from adperception.engine.optimizers import apply_schedule
from adperception.engine.randomness import step_generator
from adperception.engine.sampling import MicroBatch, SampleOrder
from adperception.engine.schedules import Schedule
from adperception.engine.settings import Settings
from adperception.engine.synchronisation import Synchronisation
from adperception.evaluation.batch_norm_statistics import mask_generator
from adperception.models.base import TrainableModel

__all__ = ["STATISTICS_FRAMES", "Progress", "StepOutcome", "Trainer"]


STATISTICS_FRAMES = 64
"""Training frames over which batch-norm statistics are estimated."""


@dataclass
class Progress:
    """What changes during a run and goes into a checkpoint next to the tensors.

    Attributes:
        step: optimizer steps done.
        skipped_steps: steps without an update because of a non-finite loss or gradient.
        best_step: step with the best value of the metric that the config names.
        best_value: that value.
        metrics: the newest value of every evaluation metric.
        seconds: time spent in steps (evaluations and saving not counted), over all starts of the run.
        cpu_seconds: processor time of this process in those steps, all threads; what data-loading processes spend is
            not in it. Other work on the machine disturbs it far less than ``seconds``.
        origin: where the first weights came from (``init`` of the config); ``None``: random ones.
        ground_height: z of the road in the training frames, metres; ``None`` where it cannot be told.
    """

    step: int = 0
    skipped_steps: int = 0
    best_step: int | None = None
    best_value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    origin: dict[str, Any] | None = None
    ground_height: float | None = None


@dataclass
class StepOutcome:
    """One optimizer step, between its backward passes and its end.

    Attributes:
        step: 0-based number of the step.
        micro_batches: which frames this process saw.
        batches: the batches themselves, on the training device.
        loss: this process's part of the mean loss over the step's frames.
        terms: likewise, the named terms.
        term_values: per micro-batch, total and terms as the model returned them.
        gradient_norm: norm of the whole gradient, the same on every process.
        learning_rate: of this step.
        momentum: beta1 of this step; ``None`` if the schedule leaves it.
        finite: whether losses and gradient are finite on every process.
        skipped: set by a hook: make no update.
        wait_seconds: time this step waited for data.
        step_seconds: time of the whole step.
    """

    step: int
    micro_batches: Sequence[MicroBatch]
    batches: Sequence[Any]
    loss: Tensor
    terms: dict[str, Tensor]
    term_values: list[dict[str, Tensor]]
    gradient_norm: Tensor
    learning_rate: float
    momentum: float | None
    finite: bool = True
    skipped: bool = False
    wait_seconds: float = 0.0
    step_seconds: float = 0.0


class Trainer:
    """The parts of a run, and how one optimizer step is made of them.

    Attributes:
        config: the resolved config.
        settings: its typed view.
        model: the model, not wrapped.
        network: what is called: the model, or its DDP wrapper (set by the runner).
        optimizer: over the model's trainable parameters.
        schedule: learning-rate and momentum curve.
        order: which frames a step sees.
        processes: the processes of the run.
        dataset: training frames.
        work_dir: where everything is written.
        progress: what changes during the run.
        stop_signal: number of the signal that ends the run after this step, agreed by all processes, else 0.
        sync: rounds, if the processes train apart (``distributed`` in the config); ``None``: gradients are averaged.
    """

    def __init__(
        self,
        *,
        config: Config,
        settings: Settings,
        model: TrainableModel,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        order: SampleOrder,
        processes: Processes,
        dataset: FrameDataset,
        work_dir: Path,
        origin: dict[str, Any] | None = None,
        ground_height: float | None = None,
        sync: Synchronisation | None = None,
    ) -> None:
        self.config = config
        self.settings = settings
        self.model = model
        self.network: nn.Module = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.order = order
        self.processes = processes
        self.dataset = dataset
        self.work_dir = work_dir
        self.progress = Progress(origin=origin, ground_height=ground_height)
        self.stop_signal = 0
        self.sync = sync
        self._received_signal = 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        train = self.settings.train
        return train.steps if train.steps is not None else (train.epochs or 0) * self.order.steps_per_epoch

    @property
    def is_done(self) -> bool:
        """Whether the last step is done."""
        return self.progress.step >= self.total_steps

    @property
    def epochs_done(self) -> int:
        """Complete passes over the training frames."""
        return self.progress.step // self.order.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the step just done was the last of an epoch."""
        return self.progress.step > 0 and self.progress.step % self.order.steps_per_epoch == 0

    def compute(self, batches: Sequence[Any], micro_batches: Sequence[MicroBatch]) -> StepOutcome:
        """Forward and backward passes of the next step; parameters stay as they are.

        Args:
            batches: one collated batch per micro-batch, on the CPU.
            micro_batches: their frames and shares.
        """
        step = self.progress.step
        values = self.schedule.at(step, self.total_steps, float(self.settings.optimizer["lr"]))
        apply_schedule(self.optimizer, values)
        generator = step_generator(self.settings.seed, step, self.processes.rank)
        device = self.processes.device
        batches = [batch.to(device, non_blocking=True) for batch in batches]
        self.optimizer.zero_grad(set_to_none=True)
        term_values: list[dict[str, Tensor]] = []
        means: dict[str, Tensor] = {}
        shares = self._shares(micro_batches)
        # DDP divides the summed gradient by the number of processes; shares already add up to 1 over all.
        scale = 1 if self.sync is not None else self.processes.world_size
        for number, (batch, share) in enumerate(zip(batches, shares, strict=True)):
            with self._communicate(only_if=number == len(batches) - 1):
                losses = self.network(batch, generator)
                (losses.total * (share * scale)).backward()
            present = {"loss": losses.total.detach(), **{name: term.detach() for name, term in losses.terms.items()}}
            term_values.append(present)
            for name, value in present.items():
                means[name] = means.get(name, torch.zeros((), device=device)) + value * share
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return StepOutcome(
            step=step,
            micro_batches=micro_batches,
            batches=batches,
            loss=means.pop("loss"),
            terms=means,
            term_values=term_values,
            gradient_norm=nn.utils.get_total_norm(gradients),
            learning_rate=values.learning_rate,
            momentum=values.momentum,
        )

    def agree(self, outcome: StepOutcome, stop_signal: int) -> None:
        """Let all processes know whether any of them saw a non-finite value or a signal to stop.

        Processes that train apart look at their own values only, and tell of signals in the next round.
        """
        finite = bool(torch.isfinite(outcome.loss) & torch.isfinite(outcome.gradient_norm))
        if self.sync is not None:
            if stop_signal and not self._received_signal and self.processes.is_main:
                say(f"{signal.Signals(stop_signal).name} received; all workers stop after the next round")
            outcome.finite, self._received_signal = finite, stop_signal
            return
        not_finite, self.stop_signal = self.processes.largest([0 if finite else 1, stop_signal])
        outcome.finite = not_finite == 0

    def update(self, outcome: StepOutcome) -> None:
        """Clip the gradient and change the parameters."""
        limit = self.settings.train.clip_grad_norm
        if limit is not None:
            parameters = [p for p in self.model.parameters() if p.grad is not None]
            nn.utils.clip_grads_with_norm_(parameters, limit, outcome.gradient_norm)
        if self.sync is not None:
            self.stop_signal = self.sync.step(outcome.loss, self._received_signal)
        else:
            self.optimizer.step()
        self.model.after_optimizer_step(outcome.step, self.total_steps)

    def skip_update(self) -> None:
        """Leave the parameters as they are; a process that trains apart still keeps its place in the rounds."""
        if self.sync is not None:
            self.stop_signal = self.sync.skip(self._received_signal)

    @contextlib.contextmanager
    def as_evaluated(self, *, recalibrate: bool = True) -> Iterator[None]:
        """The model as it stands for all processes: with rounds, their consensus. All processes enter together.

        Args:
            recalibrate: estimate the consensus's batch-norm statistics over training frames, every worker on its part
                of them; otherwise they are pooled from those of the workers.
        """
        if self.sync is None:
            yield
            return
        with self.sync.consensus(self._forward_training_frames if recalibrate else None):
            yield

    def record_metrics(self, metrics: dict[str, float]) -> None:
        """Note evaluation results, and the step if the metric that the config calls best improved.

        The baseline before the first step does not count: there is no checkpoint of it.
        """
        self.progress.metrics.update(metrics)
        name = self.settings.checkpoint.best
        if name is None or name not in metrics or self.progress.step == 0:
            return
        value, best = metrics[name], self.progress.best_value
        sign = 1.0 if self.settings.checkpoint.best_rule == "less" else -1.0
        if math.isnan(value) or (best is not None and sign * value >= sign * best):
            return
        self.progress.best_step, self.progress.best_value = self.progress.step, value

    def _shares(self, micro_batches: Sequence[MicroBatch]) -> list[float]:
        """What each pass counts: its part of the step's frames, those of all processes or, with rounds, one's own."""
        shares = [micro_batch.share for micro_batch in micro_batches]
        own = sum(shares)
        if self.sync is None or own == 0:
            return shares
        return [share / own for share in shares]

    def _forward_training_frames(self, model: nn.Module) -> None:
        """Some training frames through the model, for its batch-norm statistics: this worker's part of them."""
        indices = spread_indices(len(self.dataset), STATISTICS_FRAMES)
        processes = self.processes
        batches = ValidationBatches(
            dataset=self.dataset,
            batch_size=self.settings.train.batch_size,
            seed=self.settings.seed,
            collate=self.model.collate(training=True),
            workers=0,
            device=processes.device,
            indices=indices[processes.rank :: processes.world_size] or indices,
        )
        for number, batch in enumerate(batches):
            model(batch.to(processes.device), mask_generator(0, 1, number))

    def _communicate(self, only_if: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are exchanged in the last backward pass of a step only."""
        if isinstance(self.network, DistributedDataParallel) and not only_if:
            context: contextlib.AbstractContextManager[None] = self.network.no_sync()
            return context
        return contextlib.nullcontext()
