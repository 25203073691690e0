"""From a config to a finished run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adperception.checkpoint.layout import newest_complete
from adperception.checkpoint.save import remove_leftovers
from adperception.config import Config, format_config
from adperception.datasets.base import LidarDataset
from adperception.datasets.data_check import require_sane_data
from adperception.engine.checkpointing import checkpoint_root, move_previous_run_aside
from adperception.engine.compilation import compile_modules
from adperception.engine.console import say, show_log_messages
from adperception.engine.data import FrameDataset, ValidationBatches, spread_indices, training_loader
from adperception.engine.distributed import Processes, launched_processes, start_processes, was_restarted
from adperception.engine.hooks.checkpoints import Checkpoints
from adperception.engine.hooks.evaluations import Evaluations
from adperception.engine.hooks.log_files import LogFiles
from adperception.engine.hooks.non_finite_guard import NonFiniteGuard
from adperception.engine.hooks.progress_bar import ProgressBar
from adperception.engine.hooks.run_report import RunReport
from adperception.engine.initial_weights import load_initial_weights
from adperception.engine.memory_format import use_channels_last
from adperception.engine.mmengine_runner import Hook, TrainingRunner
from adperception.engine.optimizers import build_optimizer
from adperception.engine.randomness import seed_everything
from adperception.engine.resume import restore_pruning, resume, resume_consensus
from adperception.engine.sampling import SampleOrder, StepBatchSampler
from adperception.engine.settings import Settings, parse_settings
from adperception.engine.strategies import parse_distributed
from adperception.engine.synchronisation import Synchronisation
from adperception.engine.trainer import Trainer
from adperception.engine.workers import StoreAddress, Workers, start_workers
from adperception.models.base import TrainableModel
from adperception.registry import (
    DATASETS,
    EVALUATIONS,
    MODELS,
    OPTIMIZERS,
    PREPARATIONS,
    SCHEDULES,
    STRATEGIES,
    build,
    check,
)
from adperception.structures import VoxelGrid

__all__ = ["RunOptions", "train"]

STATISTICS_FRAMES = 256


@dataclass(frozen=True)
class RunOptions:
    """What a command line adds to a config.

    Attributes:
        work_dir: where everything is written.
        resume: continue from the newest complete checkpoint in ``work_dir``.
        allow_config_change: resume even if the config differs.
        device: ``"cpu"``, ``"cuda"`` or ``None`` for cuda where there is one.
        deterministic: fail on an operation that cannot be deterministic.
        resume_consensus: continue from the consensus model of the newest checkpoint, with any number of workers: local
            optimizers and the strategy begin anew.
        address: where workers that each have a launcher of their own find each other.
    """

    work_dir: Path
    resume: bool = False
    allow_config_change: bool = False
    device: str | None = None
    deterministic: bool = False
    resume_consensus: bool = False
    address: StoreAddress | None = None

    @property
    def continues(self) -> bool:
        """Whether the run goes on from a checkpoint."""
        return self.resume or self.resume_consensus


def train(config: Config, options: RunOptions) -> Trainer:
    """Train as the config says; returns the trainer with the final model.

    Processes that torchrun started again, because one of them had failed, go on from the newest complete checkpoint in
    ``work_dir``; without one they start as the first time.

    Raises:
        ValueError: for a config, data or checkpoint that does not fit, and for non-finite losses or gradients.
        FileNotFoundError: for data that are not there.
    """
    settings = parse_settings(config.values)
    check_names(settings)
    processes = _start(settings, options)
    # A worker with a launcher of its own has a console of its own, and may be the last one.
    show_log_messages(processes.is_main or options.address is not None)
    try:
        options = _prepare_work_dir(config, options, processes)
        trainer = _build(config, settings, options, processes)
        _runner(trainer, options).train()
        trainer.network = trainer.model
        return trainer
    finally:
        processes.stop()


def _start(settings: Settings, options: RunOptions) -> Processes:
    if settings.distributed is None:
        if options.resume_consensus or options.address is not None:
            raise ValueError("--resume-consensus and --store need a distributed section, and the config has none.")
        return start_processes(options.device)
    count = launched_processes() if options.address is None else options.address.workers
    return start_workers(parse_distributed(settings.distributed, count), options.device, options.address)


def check_names(settings: Settings) -> None:
    """Check every type and option name of the sections before anything slow happens.

    Raises:
        ValueError: for the first unknown name, with the nearest valid one.
    """
    check(MODELS, settings.model)
    check(DATASETS, settings.train_dataset)
    check(OPTIMIZERS, settings.optimizer, params=())
    check(SCHEDULES, settings.schedule)
    if settings.val_dataset is not None:
        check(DATASETS, settings.val_dataset)
    if settings.prepare is not None:
        check(PREPARATIONS, settings.prepare)
    for evaluation in settings.evaluations:
        check(EVALUATIONS, evaluation)
    if settings.distributed is not None:
        STRATEGIES.find(settings.distributed)


def _build(config: Config, settings: Settings, options: RunOptions, processes: Processes) -> Trainer:
    seed_everything(settings.seed, options.deterministic)
    if settings.prepare is not None:
        _prepare_data(settings, processes)
    dataset: FrameDataset = build(DATASETS, settings.train_dataset)
    order = SampleOrder(
        frames=len(dataset),
        batch_size=settings.train.batch_size,
        accumulate_steps=settings.train.accumulate_steps,
        world_size=processes.world_size,
        seed=settings.seed,
        drop_last=settings.train.drop_last,
    )
    model: TrainableModel = build(MODELS, settings.model)
    origin = None if settings.init is None or options.continues else load_initial_weights(model, settings.init)
    if origin is not None and processes.is_main:
        say(origin.sentence)
    if options.continues:
        restore_pruning(model, options.work_dir)
    else:
        model.before_training(_spread_frames(dataset))
    model.to(processes.device)
    if processes.device.type == "cuda" and settings.distributed is None:  # with rounds, parameters lie in one vector
        use_channels_last(model)
    compiled = compile_modules(model, settings.train.compile, processes.device)
    ground_height = _check_data(dataset, model, processes)
    optimizer = build_optimizer(settings.optimizer, model)
    return Trainer(
        config=config,
        settings=settings,
        model=model,
        optimizer=optimizer,
        schedule=build(SCHEDULES, settings.schedule),
        order=order,
        processes=processes,
        dataset=dataset,
        work_dir=options.work_dir,
        origin=None if origin is None else origin.record,
        ground_height=ground_height,
        sync=_synchronisation(settings, processes, model, optimizer, dataset),
        compiled=compiled,
    )


def _synchronisation(
    settings: Settings,
    processes: Processes,
    model: TrainableModel,
    optimizer: torch.optim.Optimizer,
    dataset: FrameDataset,
) -> Synchronisation | None:
    if settings.distributed is None:
        return None
    assert isinstance(processes, Workers)
    train = settings.train
    return Synchronisation(
        parse_distributed(settings.distributed, processes.world_size),
        processes,
        model,
        optimizer,
        dataset,
        frames_per_step=train.batch_size * train.accumulate_steps,
        frames_per_pass=train.batch_size,
        seed=settings.seed,
    )


def _spread_frames(dataset: FrameDataset) -> Iterator[Any]:
    """Training frames evenly spread over the split, as stored."""
    for index in spread_indices(len(dataset), STATISTICS_FRAMES):
        yield dataset.read(index)


def _runner(trainer: Trainer, options: RunOptions) -> TrainingRunner:
    settings, device = trainer.settings, trainer.processes.device

    def restore() -> None:
        if options.resume_consensus:
            resume_consensus(trainer, options.allow_config_change)
        elif options.resume:
            resume(trainer, options.allow_config_change)

    def make_loader() -> Any:
        sampler = StepBatchSampler(trainer.order, trainer.processes.rank, trainer.progress.step, trainer.total_steps)
        collate = trainer.model.collate(training=True)
        train = settings.train
        return training_loader(trainer.dataset, sampler, collate, train.workers, device, train.prefetch_factor)

    log = LogFiles()
    hooks: list[Hook] = [NonFiniteGuard(), log, ProgressBar()]
    batches: ValidationBatches | None = None
    if settings.evaluations and settings.val_dataset is not None:
        batches = ValidationBatches(
            dataset=build(DATASETS, settings.val_dataset),
            batch_size=settings.train.batch_size,
            seed=settings.seed,
            collate=trainer.model.collate(training=False),
            workers=settings.train.workers,
            device=device,
        )
        hooks.append(Evaluations([build(EVALUATIONS, section) for section in settings.evaluations], batches, log))
    # After the evaluations, so that a checkpoint holds the results of its step; before the report, which may fail.
    hooks += [Checkpoints(), RunReport(batches)]
    return TrainingRunner(trainer, hooks, restore, make_loader)


def _prepare_work_dir(config: Config, options: RunOptions, processes: Processes) -> RunOptions:
    """Make the folder; remove what a killed save left; keep an older run that would be in the way.

    Returns:
        The options, with ``resume`` if torchrun started the processes again and there is something to go on from.
    """
    problem, resumes = "", options.resume and not options.resume_consensus
    restarted = processes.largest([was_restarted()]) == [1]  # each agent counts its own restarts
    if processes.is_main:
        root = checkpoint_root(options.work_dir)
        try:
            options.work_dir.mkdir(parents=True, exist_ok=True)
            for name in remove_leftovers(root):
                say(f"removed an unfinished checkpoint: {name}")
            if restarted:
                resumes = resumes or _has_checkpoint(root, processes, options)
            if not (resumes or options.continues):
                aside = move_previous_run_aside(options.work_dir)
                if aside is not None:
                    say(f"{options.work_dir} held an earlier run; it is now in {aside} (--resume would have gone on)")
                (options.work_dir / "config.py").write_text(format_config(config.values), encoding="utf-8")
        except OSError as error:
            problem = f"cannot write to the work directory {options.work_dir}: {error}"
    problem, resumes = json.loads(processes.share_text(json.dumps([problem, resumes])))
    if problem:
        raise ValueError(problem)
    return dataclasses.replace(options, resume=resumes, resume_consensus=options.resume_consensus and not resumes)


def _has_checkpoint(root: Path, processes: Processes, options: RunOptions) -> bool:
    """Whether these processes can go on from a checkpoint; one of other workers has to be taken as a consensus."""
    found = newest_complete(root, say)
    return found is not None and (not options.resume_consensus or found[1].get("workers") == list(processes.members))


def _prepare_data(settings: Settings, processes: Processes) -> None:
    """Make the data on process 0; the others wait."""
    assert settings.prepare is not None
    processes.on_main(build(PREPARATIONS, settings.prepare))


def _check_data(dataset: FrameDataset, model: TrainableModel, processes: Processes) -> float | None:
    """Look at some frames before the first step: boxes and points in one frame, points inside the model's range.

    Returns:
        z of the road in these frames, metres; ``None`` where it cannot be told, and for other frames than a LiDAR's.
    """
    if not isinstance(dataset, LidarDataset):
        return None
    grid: VoxelGrid | None = getattr(model, "grid", None)
    report = processes.on_main(lambda: require_sane_data(dataset, grid))
    height: float | None = json.loads(processes.share_text(json.dumps(report and report.ground_height)))
    return height
