"""What the person at the terminal sees: progress with time left, waiting for data, memory."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

from adperception.engine.console import say
from adperception.engine.memory import peak_memory
from adperception.engine.mmengine_runner import Hook
from adperception.engine.results import describe_computation
from adperception.engine.step_outcome import StepOutcome
from adperception.engine.trainer import Trainer

__all__ = ["ProgressBar"]

_MEASURED_STEPS = 20
_WAIT_SHARE_WORTH_ADVICE = 0.1


class ProgressBar(Hook):
    """A bar on a terminal, else a line every ``log.every_steps``; a summary after 20 steps."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._steps = 0
        self._summarised = False
        self._step_seconds = 0.0
        self._wait_seconds = 0.0
        self._start = 0.0

    def before_run(self, trainer: Trainer) -> None:
        """Say what is about to happen."""
        if not trainer.processes.is_main:
            return
        order, train = trainer.order, trainer.settings.train
        self._start = time.perf_counter()
        say(
            f"training {trainer.total_steps:,} steps of {order.effective_batch} frames "
            f"({train.batch_size} per pass x {train.accumulate_steps} passes x {order.world_size} processes), "
            f"{order.frames:,} frames, {order.steps_per_epoch:,} steps per epoch, on {trainer.processes.device}"
        )
        computation = describe_computation(trainer)
        if computation["amp"] != "off" or computation["compile"] or trainer.processes.device.type == "cuda":
            compiled = ", ".join(computation["compile"]) or "nothing"
            say(f"amp {computation['amp']}, sparse backend {computation['sparse_backend']}, compiled: {compiled}")
        if trainer.sync is not None:
            say(trainer.sync.describe())
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=trainer.total_steps, initial=trainer.progress.step, unit="step", dynamic_ncols=True)

    def after_step(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """Advance; measure the first 20 steps."""
        if not trainer.processes.is_main:
            return
        step = trainer.progress.step
        self._steps += 1
        self._step_seconds += outcome.step_seconds
        self._wait_seconds += outcome.wait_seconds
        per_step = self._step_seconds / self._steps
        left = _duration(per_step * (trainer.total_steps - step))
        # The loss is read no more often than it is logged: a GPU would wait for it.
        shows_loss = step % trainer.settings.log.every_steps == 0 or self._steps == 1 or trainer.is_done
        if self._bar is not None:
            self._bar.update(1)
            if shows_loss:
                self._bar.set_postfix_str(f"loss {_own_loss(trainer, outcome):.4g}", refresh=False)
        elif shows_loss:
            say(
                f"step {step}/{trainer.total_steps}  loss {_own_loss(trainer, outcome):.4g}  "
                f"learning rate {outcome.learning_rate:.3g}  {per_step:.2f} s/step  {left} left"
            )
        # Seconds are true up to a read.
        if self._steps >= _MEASURED_STEPS and not self._summarised and outcome.finite is not None:
            self._summarised = True
            self._summarise(trainer, left)

    def after_run(self, trainer: Trainer) -> None:
        """Say how it ended."""
        if not trainer.processes.is_main:
            return
        if self._bar is not None:
            self._bar.close()
        step = trainer.progress.step
        if trainer.stop_signal and not trainer.is_done:
            name = signal.Signals(trainer.stop_signal).name
            say(f"stopped by {name} after step {step} of {trainer.total_steps}; go on with --resume")
            return
        took = _duration(time.perf_counter() - self._start)
        skipped = trainer.progress.skipped_steps
        note = f", {skipped} steps skipped because of non-finite values" if skipped else ""
        if trainer.loss_scale is not None:
            note += f", {trainer.progress.scaler_skips} steps left out by the loss scale of float16"
        if trainer.sync is not None:
            totals = trainer.sync.totals()
            sent = totals["bytes_sent"] / 2**20
            rounds = f"{totals['rounds']} rounds, {totals['rounds_skipped']} skipped"
            say(f"{rounds}; this worker sent {sent:,.1f} MiB in them")
        say(f"done: step {step} of {trainer.total_steps} after {took}{note}; results in {trainer.work_dir}")

    def _summarise(self, trainer: Trainer, left: str) -> None:
        share = self._wait_seconds / self._step_seconds
        memory = ", ".join(
            f"{name.removesuffix('_mib').replace('_', ' ')} {value:,.0f} MiB"
            for name, value in peak_memory(trainer.processes.device).items()
        )
        per_step = self._step_seconds / self._steps
        say(
            f"after {self._steps} steps: {per_step:.2f} s per step, {share:.0%} waiting for data, {memory}, {left} left"
        )
        if share > _WAIT_SHARE_WORTH_ADVICE:
            workers = trainer.settings.train.workers
            say(
                f"advice: {share:.0%} of the time is spent waiting for data; raise train.workers (now {workers}), or "
                "put the data on a faster disk."
            )


def _own_loss(trainer: Trainer, outcome: StepOutcome) -> float:
    """Mean over this process's frames of the step; where gradients are averaged, ``loss`` is only its part of all."""
    share = sum(micro_batch.share for micro_batch in outcome.micro_batches) if trainer.sync is None else 1.0
    return float(outcome.loss) / share


def _duration(seconds: float) -> str:
    """``"1 h 03 min"``, ``"4 min 10 s"`` or ``"9 s"``."""
    hours, minutes, rest = int(seconds) // 3600, int(seconds) % 3600 // 60, int(seconds) % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
