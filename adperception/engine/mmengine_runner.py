"""The thin layer over mmengine's Runner. The only module that knows its Runner, Hook and BaseLoop.

The Runner gives the order in which a run is set up, and the points at which hooks are called. Processes, seeds, the
DDP wrapper, logs and checkpoints are ours (mmengine 0.10.7 cannot read its own checkpoints with torch's weights-only
reader, and its wrapper wants a ``train_step`` method).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook as MmengineHook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from adperception.engine.distributed import average_in_rank_order
from adperception.engine.step_outcome import StepOutcome
from adperception.engine.stop_signals import StopSignals
from adperception.engine.trainer import Trainer

__all__ = ["Hook", "TrainingRunner"]

_DEFAULT_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


class Hook(MmengineHook):
    """Something that happens around training steps. Subclasses override what they need."""

    def before_run(self, trainer: Trainer) -> None:
        """After a checkpoint was restored, before the first step."""

    def before_update(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """Between the backward passes and the change of the parameters; may set ``outcome.skipped``."""

    def after_update(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """Right after the parameters changed, or did not; ``trainer.progress.step`` counts this step.

        The last that belongs to the step's time: what is read of the device is read here.
        """

    def after_step(self, trainer: Trainer, outcome: StepOutcome) -> None:
        """After the parameters changed; ``trainer.progress.step`` already counts this step."""

    def after_run(self, trainer: Trainer) -> None:
        """After the last step, also when a signal ended the run early."""


class TrainingRunner(Runner):
    """mmengine's Runner around a ``Trainer``.

    Args:
        trainer: the parts of the run.
        hooks: called in this order.
        restore: called before the first step; puts a checkpoint into the trainer, if any.
        make_loader: called after ``restore``; the data loader that starts at the trainer's step.
    """

    def __init__(
        self,
        trainer: Trainer,
        hooks: Sequence[Hook],
        restore: Callable[[], None],
        make_loader: Callable[[], Iterable[Any]],
    ) -> None:
        self.trainer = trainer
        self._restore = restore
        self._make_loader = make_loader
        super().__init__(
            model=trainer.model,
            work_dir=str(trainer.work_dir),
            default_hooks=dict.fromkeys(_DEFAULT_HOOKS),
            custom_hooks=list(hooks),
            launcher="pytorch" if trainer.processes.world_size > 1 and trainer.sync is None else "none",
            default_scope=None,
            randomness={"seed": trainer.settings.seed},
            experiment_name=trainer.config.name,
        )
        trainer.network = self.model

    def setup_env(self, env_cfg: Mapping[str, Any]) -> None:
        """The processes are already joined; the "timestamp" only names the folder of the logs."""
        self._rank, self._world_size = self.trainer.processes.rank, self.trainer.processes.world_size
        self._timestamp = "logs"

    def set_randomness(self, seed: int) -> None:
        """The generators were seeded before the model was built."""
        self._seed, self._deterministic = seed, False

    def wrap_model(self, model_wrapper_cfg: object, model: nn.Module) -> nn.Module:
        """DDP around the model if processes share gradients; buffers follow process 0 before every forward pass."""
        processes = self.trainer.processes
        if processes.world_size == 1 or self.trainer.sync is not None:
            return model
        wrapped = DistributedDataParallel(model, find_unused_parameters=False)
        if processes.device.type == "cpu" and processes.world_size > 2:
            wrapped.register_comm_hook(None, lambda state, bucket: average_in_rank_order(bucket))
        return wrapped

    def build_logger(self, log_level: object = None) -> Any:
        """A logger that stays silent: our hooks write the logs."""
        return _Silent()

    def build_visualizer(self, visualizer: object = None) -> None:
        """Our hooks write TensorBoard files."""

    def dump_config(self) -> None:
        """The config is written by us, with the command-line overrides in it."""

    def _log_env(self, env_cfg: Mapping[str, Any]) -> None:
        """No compiler or GPU tools are started to describe the machine; ``tools/doctor.py`` does that."""

    def load_or_resume(self) -> None:
        """From our own checkpoints."""
        self._restore()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a point of every hook with the trainer."""
        for hook in self._hooks:
            getattr(hook, fn_name)(self.trainer, **kwargs)

    def train(self) -> nn.Module:
        """Run from the trainer's step to the end or to a signal."""
        with StopSignals() as self.signals:
            self.load_or_resume()
            self._train_loop = _TrainingLoop(self, self._make_loader())
            self.call_hook("before_run")
            self._train_loop.run()
            # A run that a signal ended has its checkpoint and no time to lose: torchrun kills after 30 seconds.
            with self.trainer.as_evaluated() if self.trainer.is_done else contextlib.nullcontext():
                self.call_hook("after_run")
        return self.trainer.model


class _TrainingLoop(BaseLoop):
    """Steps until the run is done or a signal came."""

    def run(self) -> None:
        trainer: Trainer = self.runner.trainer
        rank = trainer.processes.rank
        trainer.model.train()
        batches = iter(self.dataloader)
        while not trainer.is_done and not trainer.stop_signal:
            start, cpu_start = time.perf_counter(), time.process_time()
            micro_batches = trainer.order.micro_batches(trainer.progress.step, rank)
            data = [next(batches) for _ in micro_batches]
            wait_seconds = time.perf_counter() - start
            outcome = trainer.compute(data, micro_batches)
            trainer.agree(outcome, self.runner.signals.received)
            self.runner.call_hook("before_update", outcome=outcome)
            if outcome.skipped or outcome.overflowed:
                trainer.skip_update(outcome)
            else:
                trainer.update(outcome)
            trainer.progress.step += 1
            self.runner.call_hook("after_update", outcome=outcome)
            outcome.wait_seconds = wait_seconds
            outcome.step_seconds = time.perf_counter() - start
            trainer.progress.seconds += outcome.step_seconds
            trainer.progress.cpu_seconds += time.process_time() - cpu_start
            self.runner.call_hook("after_step", outcome=outcome)
            # The next batches are loaded before these would go out of scope.
            del data, outcome


class _Silent:
    """Takes mmengine's log lines and drops them."""

    def info(self, message: str) -> None:
        """Drop ``message``."""
