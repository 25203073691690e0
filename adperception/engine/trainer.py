"""One optimizer step, and everything that is known about a run while it goes on."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
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
from adperception.engine.loss_scale import LossScale
from adperception.engine.mixed_precision import training_autocast
from adperception.engine.optimizers import apply_schedule, can_mask_steps, masked_step
from adperception.engine.randomness import step_generator
from adperception.engine.sampling import MicroBatch, SampleOrder
from adperception.engine.schedules import Schedule
from adperception.engine.settings import Settings
from adperception.engine.step_outcome import StepOutcome
from adperception.engine.synchronisation import Synchronisation
from adperception.evaluation.batch_norm_statistics import mask_generator
from adperception.models.base import TrainableModel

__all__ = ["STATISTICS_FRAMES", "Progress", "StepOutcome", "Trainer"]


STATISTICS_FRAMES = 64
"""Training frames over which batch-norm statistics are estimated."""

CHECK_FINITE_EVERY_ON_GPU = 20
"""Steps between two reads of the non-finite flags on a GPU, unless the config says otherwise."""


@dataclass
class Progress:
    """What changes during a run and goes into a checkpoint next to the tensors.

    Attributes:
        step: optimizer steps done.
        skipped_steps: steps without an update because of a non-finite loss or gradient.
        scaler_skips: steps without an update because the loss scale of float16 was too large; part of its working.
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
    scaler_skips: int = 0
    best_step: int | None = None
    best_value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    origin: dict[str, Any] | None = None
    ground_height: float | None = None


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
        loss_scale: with ``train.amp="fp16"``; ``None`` otherwise.
        compiled: names of the modules that ``torch.compile`` runs.
        check_finite_every: steps between two reads of the non-finite flags; 1: every step waits for its own.
        settle: reads what is still unread on the device, and acts on it; called before the state is shown or saved.
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
        compiled: Sequence[str] = (),
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
        self.compiled = tuple(compiled)
        amp, device = settings.train.amp, processes.device
        self.loss_scale = LossScale(device) if amp == "fp16" else None
        self.check_finite_every = self._check_every()
        self.settle: Callable[[], None] = lambda: None
        self._autocast = training_autocast(amp, device)
        # Modes of torch.compile that record CUDA graphs, whose outputs the next forward pass overwrites.
        self._records_graphs = bool(compiled) and settings.train.compile in ("reduce-overhead", "max-autotune")
        self._received_signal = 0
        self._has_updated = False

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

    @property
    def read_is_due(self) -> bool:
        """Whether the host looks at the device after the step just done: at the flags, for a log line or a save."""
        intervals = (self.check_finite_every, self.settings.log.every_steps, self.settings.checkpoint.every_steps)
        due = any(interval is not None and self.progress.step % interval == 0 for interval in intervals)
        return due or self.progress.step == 1 or self.ends_epoch or self.is_done or self.stop_signal != 0

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
                if self._records_graphs:
                    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                with self._autocast():
                    losses = self.network(batch, generator)
                weighted = losses.total * (share * scale)
                (weighted if self.loss_scale is None else self.loss_scale.scaled(weighted)).backward()
            present = {"loss": losses.total.detach(), **{name: term.detach() for name, term in losses.terms.items()}}
            term_values.append(present)
            for name, value in present.items():
                means[name] = means.get(name, torch.zeros((), device=device)) + value * share
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self.loss_scale is not None:
            self.loss_scale.unscale_(gradients)
        # As torch's get_total_norm, which does not give the single ones.
        norms = torch.stack(torch._foreach_norm(gradients)) if gradients else torch.zeros(1, device=device)
        loss, norm = means.pop("loss"), torch.linalg.vector_norm(norms)
        return StepOutcome(
            step=step,
            micro_batches=micro_batches,
            batches=batches,
            loss=loss,
            terms=means,
            term_values=term_values,
            gradient_norms=norms,
            gradient_norm=norm,
            learning_rate=values.learning_rate,
            momentum=values.momentum,
            flags=torch.stack((loss, norm)).isfinite().logical_not(),
        )

    def agree(self, outcome: StepOutcome, stop_signal: int) -> None:
        """Let all processes know whether any of them saw a non-finite value or a signal to stop.

        Processes that train apart look at their own values only, and tell of signals in the next round. Where flags are
        read later, the device knows at once and the host not yet (``outcome.finite`` is ``None``).
        """
        scaled = self.loss_scale is not None
        if self.check_finite_every > 1 and self._has_updated:
            outcome.flags = self.processes.largest_on_device(outcome.flags)
            self.stop_signal = self.processes.largest([stop_signal])[0]
            outcome.applied = outcome.flags.any().logical_not()
            outcome.counted = outcome.flags[0].logical_not() if scaled else outcome.applied
            return
        loss_bad, gradient_bad = outcome.flags.tolist()
        if self.sync is not None:
            if stop_signal and not self._received_signal and self.processes.is_main:
                say(f"{signal.Signals(stop_signal).name} received; all workers stop after the next round")
            self._received_signal = stop_signal
        else:
            agreed = self.processes.largest([loss_bad, gradient_bad, stop_signal])
            loss_bad, gradient_bad, self.stop_signal = bool(agreed[0]), bool(agreed[1]), agreed[2]
        outcome.resolve(loss_bad, gradient_bad, scaled)

    def update(self, outcome: StepOutcome) -> None:
        """Clip the gradient and change the parameters, unless the device finds the step to be a bad one."""
        limit = self.settings.train.clip_grad_norm
        if limit is not None:
            parameters = [p for p in self.model.parameters() if p.grad is not None]
            nn.utils.clip_grads_with_norm_(parameters, limit, outcome.gradient_norm)
        if self.sync is not None:
            self.stop_signal = self.sync.step(outcome.loss, self._received_signal)
        elif outcome.applied is not None:
            masked_step(self.optimizer, outcome.applied)
        else:
            self.optimizer.step()
            self._has_updated = True
        self.model.after_optimizer_step(outcome.step, self.total_steps, outcome.applied)
        self._adapt_loss_scale(outcome, made=True)

    def skip_update(self, outcome: StepOutcome) -> None:
        """Leave the parameters as they are; a process that trains apart still keeps its place in the rounds."""
        if self.sync is not None:
            self.stop_signal = self.sync.skip(self._received_signal)
        self._adapt_loss_scale(outcome, made=False)

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

    def _check_every(self) -> int:
        """The interval of reads: as configured, if flags can stay on the device at all."""
        configured = self.settings.train.check_finite_every
        if self.sync is not None or not can_mask_steps(self.optimizer):
            return 1
        if configured is not None:
            return configured
        return CHECK_FINITE_EVERY_ON_GPU if self.processes.device.type == "cuda" else 1

    def _adapt_loss_scale(self, outcome: StepOutcome, made: bool) -> None:
        if self.loss_scale is None:
            return
        if outcome.applied is not None:
            loss_bad, gradient_bad = outcome.flags.unbind()
            self.loss_scale.update(gradient_bad & ~loss_bad, outcome.applied)
        else:
            overflowed, applied = (
                torch.full((), known, device=self.processes.device) for known in (outcome.overflowed, made)
            )
            self.loss_scale.update(overflowed, applied)

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
