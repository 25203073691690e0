"""The engine's own optimizer step on prepared batches, with what is measured about it.

Nothing of the step is rewritten here: ``EngineStep`` builds the engine's ``Trainer`` from a config of the zoo and goes
through the same calls as its loop. Only the data loader is replaced by batches that are ready on the CPU; its part is
measured by ``share_of_waiting``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from simulated_batches import Frames, cache_folder

from adperception.config import Config
from adperception.engine.compilation import compile_modules
from adperception.engine.data import training_loader
from adperception.engine.distributed import Processes
from adperception.engine.hooks.non_finite_guard import NonFiniteGuard
from adperception.engine.host_reads import HostReads
from adperception.engine.memory_format import use_channels_last
from adperception.engine.optimizers import build_optimizer
from adperception.engine.sampling import SampleOrder, StepBatchSampler
from adperception.engine.settings import parse_settings
from adperception.engine.trainer import Trainer
from adperception.located_dict import LocatedDict
from adperception.models.base import TrainableModel
from adperception.registry import MODELS, SCHEDULES, build
from adperception.sparse import available_backends, use_backend
from adperception.zoo import load_model_config

__all__ = [
    "EngineStep",
    "PhaseClock",
    "cudnn_tf32",
    "host_reads",
    "own_backend",
    "share_of_waiting",
    "upstream_backend",
]


def own_backend(device: torch.device) -> str:
    """The backend of sparse convolutions that our step is measured with."""
    available = available_backends(device)
    return "triton" if "triton" in available else next(name for name in available if name != "spconv")


def upstream_backend(device: torch.device) -> str:
    """spconv where it can be used, else the ``torch`` backend, which the reports then say."""
    return "spconv" if "spconv" in available_backends(device) else "torch"


@contextmanager
def cudnn_tf32(allowed: bool) -> Iterator[None]:
    """Whether cuDNN may round float32 convolutions to TF32 (PyTorch's default: yes)."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class PhaseClock:
    """Marks along a step and the time between them: CUDA events, on a CPU the clock.

    Args:
        device: where the step runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        """The end of ``phase``, which began at the mark before."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append((phase, event))
        else:
            self._marks.append((phase, time.perf_counter()))

    def milliseconds(self) -> dict[str, float]:
        """Time of every phase; the first mark only starts the clock."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        spent: dict[str, float] = {}
        for (_, start), (phase, end) in zip(self._marks, self._marks[1:], strict=False):
            passed = start.elapsed_time(end) if self._device.type == "cuda" else 1e3 * (end - start)
            spent[phase] = spent.get(phase, 0.0) + passed
        return spent


class EngineStep:
    """One optimizer step of a config per call.

    Args:
        config: name in the zoo, or a config's values.
        frames: of which the batches are made, ``batch_size`` each; a last incomplete batch is left out.
        batch_size: frames per step.
        device: where to train.
        backend: of sparse convolutions.
        train: options of ``train`` to add or replace, e.g. ``{"amp": "bf16"}``.
        model: options of ``model`` to replace.

    Attributes:
        trainer: the engine's.
        batch_size: frames per step.
    """

    def __init__(
        self,
        config: str | Mapping[str, Any],
        frames: Sequence[Any],
        batch_size: int,
        device: torch.device,
        *,
        backend: str = "auto",
        train: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        torch.manual_seed(0)
        values = dict(load_model_config(config).values if isinstance(config, str) else config)
        values = {k: v for k, v in values.items() if k not in ("evaluations", "val_dataset", "prepare", "init")}
        values["model"] = {**values["model"], **(model or {})}
        values["train"] = {
            **{k: v for k, v in values["train"].items() if k not in ("epochs", "batch_norm_statistics")},
            **(train or {}),
            "steps": 100_000,
            "batch_size": batch_size,
            "accumulate_steps": 1,
        }
        settings = parse_settings(values)
        built: TrainableModel = build(MODELS, settings.model)
        built.before_training(iter(frames))
        built.to(device).train()
        if device.type == "cuda":
            use_channels_last(built)
        compiled = compile_modules(built, settings.train.compile, device)
        optimizer = build_optimizer(settings.optimizer, built)
        self.batch_size, self._backend = batch_size, backend
        self.trainer = Trainer(
            config=Config(Path("benchmark.py"), LocatedDict(values, {})),
            settings=settings,
            model=built,
            optimizer=optimizer,
            schedule=build(SCHEDULES, settings.schedule),
            order=SampleOrder(batch_size, batch_size, 1, 1, 0, False),
            processes=Processes(0, 1, device),
            dataset=Frames(frames),
            work_dir=cache_folder(),
            compiled=compiled,
        )
        collate = built.collate(training=True)
        starts = range(0, len(frames) - batch_size + 1, batch_size)
        batches = [collate(frames[start : start + batch_size]) for start in starts]
        self.batches = [batch.pin_memory() if device.type == "cuda" else batch for batch in batches]
        self._guard = NonFiniteGuard()
        self._guard.before_run(self.trainer)

    @property
    def model(self) -> TrainableModel:
        """The model that is trained."""
        return self.trainer.model

    def __call__(self, batch: Any = None, mark: Callable[[str], None] = lambda phase: None) -> torch.Tensor:
        """Make one step; returns the loss, still on the device.

        Args:
            batch: instead of the prepared ones, which take turns.
            mark: called at the ends of the phases that lie between the engine's calls.
        """
        trainer = self.trainer
        step = trainer.progress.step
        if batch is None:
            batch = self.batches[step % len(self.batches)]
        with use_backend(self._backend):
            outcome = trainer.compute([batch], trainer.order.micro_batches(0, 0))
            mark("backward")
            trainer.agree(outcome, 0)
            self._guard.before_update(trainer, outcome)
            if outcome.skipped or outcome.overflowed:
                trainer.skip_update(outcome)
            else:
                trainer.update(outcome)
            trainer.progress.step += 1
            self._guard.after_update(trainer, outcome)
        return outcome.loss

    def phases(self, calls: int = 5) -> dict[str, float]:
        """Milliseconds of every phase of a step, medians over ``calls`` steps.

        ``copy`` (batch to the device, gradients cleared), ``forward``, ``backward`` (with the norm of the gradient),
        ``checks`` (finite values, clipping), ``optimizer``, ``after step`` (the moving average of AD-L-JEPA).
        """
        model, optimizer, device = self.model, self.trainer.optimizer, self.trainer.processes.device
        found: list[dict[str, float]] = []
        for _ in range(calls):
            clock = PhaseClock(device)
            hooks = [
                model.register_forward_pre_hook(lambda *_, clock=clock: clock.mark("copy")),
                model.register_forward_hook(lambda *_, clock=clock: clock.mark("forward")),
                optimizer.register_step_pre_hook(lambda *_, clock=clock: clock.mark("checks")),
                optimizer.register_step_post_hook(lambda *_, clock=clock: clock.mark("optimizer")),
            ]
            clock.mark("start")
            try:
                self(mark=clock.mark)
                clock.mark("after step")
            finally:
                for hook in hooks:
                    hook.remove()
            found.append(clock.milliseconds())
        return {phase: statistics.median(one.get(phase, 0.0) for one in found) for phase in found[0]}


def host_reads(step: Callable[[], object], steps: int = 3) -> tuple[int, list[str]]:
    """How often a step makes Python wait for the device, and where: the middle one of some steps.

    The engine looks at its flags every so many steps; one of three may be such a step.
    """
    found = []
    for _ in range(steps):
        with HostReads() as reads:
            step()
        found.append(list(reads.places))
    places = sorted(found, key=len)[steps // 2]
    return len(places), places


def share_of_waiting(step: EngineStep, dataset: Any, workers: int, steps: int, skip: int = 3) -> dict[str, float]:
    """Train with the engine's loader over ``dataset`` for some steps, and see how long they wait for data.

    Args:
        step: what is trained.
        dataset: read, augmented and collated by the loader's workers.
        workers: of the loader.
        steps: counted ones.
        skip: steps before, while the workers start.

    Returns:
        ``share`` of the time in which the step waited for data, ``samples_per_second``, and the number of ``workers``.
    """
    device = step.trainer.processes.device
    order = SampleOrder(len(dataset), step.batch_size, 1, 1, 0, True)
    sampler = StepBatchSampler(order, 0, 0, steps + skip)
    waits, start = 0.0, time.perf_counter()
    batches = iter(training_loader(dataset, sampler, step.model.collate(training=True), workers, device))
    for number in range(steps + skip):
        if number == skip:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            waits, start = 0.0, time.perf_counter()
        before = time.perf_counter()
        batch = next(batches)
        waits += time.perf_counter() - before
        # Reading the loss lets the device finish, so that no waiting hides behind steps that are still queued.
        float(step(batch))
    seconds = time.perf_counter() - start
    return {"share": waits / seconds, "samples_per_second": steps * step.batch_size / seconds, "workers": workers}
