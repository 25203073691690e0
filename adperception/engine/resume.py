"""``--resume``: find the newest complete checkpoint, and refuse what would silently be another run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from adperception.checkpoint.layout import CheckpointError, list_checkpoints, newest_complete, read_state
from adperception.compression.applied_pruning import apply_pruning
from adperception.engine.checkpointing import checkpoint_root, restore_checkpoint, restore_consensus
from adperception.engine.console import say
from adperception.engine.trainer import Trainer
from adperception.models.base import Pruning, TrainableModel

__all__ = ["restore_pruning", "resume", "resume_consensus"]

# These do not change any parameter of the model.
_FREE_SECTIONS = ("log", "checkpoint")
_FREE_KEYS = (
    *("train.workers", "train.evaluate_first", "train.batch_norm_statistics"),
    *("train.check_finite_every", "train.prefetch_factor"),
)


def resume(trainer: Trainer, allow_config_change: bool) -> None:
    """Continue from the newest complete checkpoint below the work directory.

    Raises:
        CheckpointError: if there is none, if the config differs (unless allowed), or if it does not fit the model.
    """
    directory, state = _find(trainer, allow_config_change)
    _compare_workers(trainer, directory, state)
    _compare_processes(trainer, directory, state)
    restore_checkpoint(trainer, directory, state)
    if state["effective_batch"] != trainer.order.effective_batch:
        _move_to_new_batch_size(trainer, state)
    if trainer.processes.is_main:
        say(f"resumed from {directory}: step {trainer.progress.step} of {trainer.total_steps}")


def resume_consensus(trainer: Trainer, allow_config_change: bool) -> None:
    """Continue from the consensus model of the newest complete checkpoint, with whatever number of workers.

    The place in the run is kept; local optimizers (momentum) and the strategy begin anew, so this is not the run that
    would have gone on.

    Raises:
        CheckpointError: as ``resume``; another strategy or number of workers is no reason.
    """
    directory, state = _find(trainer, allow_config_change, free=("distributed",))
    restore_consensus(trainer, directory, state)
    if state["effective_batch"] != trainer.order.effective_batch:
        _move_to_new_batch_size(trainer, state)
    if trainer.processes.is_main:
        say(
            f"resumed from the consensus model of {directory} ({state['world_size']} processes, now "
            f"{trainer.order.world_size}) with fresh local optimizers: step {trainer.progress.step} of "
            f"{trainer.total_steps}"
        )


def restore_pruning(model: TrainableModel, work_dir: Path) -> None:
    """Make a model that its config has just built as small as that of the run in ``work_dir``, if it was pruned.

    The optimizer is built for what is left, so this comes first; ``resume`` then finds the complete checkpoint.
    """
    for directory in list_checkpoints(checkpoint_root(work_dir)):
        try:
            pruning = read_state(directory).get("pruning")
        except CheckpointError:
            continue
        if pruning:
            apply_pruning(model, Pruning.from_dict(pruning))
        return


def _find(trainer: Trainer, allow_config_change: bool, free: Sequence[str] = ()) -> tuple[Path, dict[str, Any]]:
    """The newest complete checkpoint and its state, unless its config differs in more than the ``free`` sections."""
    root = checkpoint_root(trainer.work_dir)
    found = newest_complete(root, _say_on_main(trainer))
    if found is None:
        raise CheckpointError(
            f"--resume: there is no complete checkpoint in {root}. Start without --resume, or name the folder of the "
            "run with --work-dir."
        )
    directory, state = found
    saved, present = ({k: v for k, v in c.items() if k not in free} for c in (state["config"], trainer.config.values))
    changes = list(differences(saved, present))
    if changes and not allow_config_change:
        raise CheckpointError(
            f"--resume: the config is not the one {directory} was trained with: {'; '.join(changes)}. Use the old "
            "values, or --allow-config-change to go on with the new ones."
        )
    if trainer.processes.is_main:
        for change in changes:
            say(f"config change: {change}")
    return directory, state


def _compare_workers(trainer: Trainer, directory: Path, state: Mapping[str, Any]) -> None:
    """Refuse to go on with other workers: each has parameters and momentum of its own, in a file of its own."""
    saved, present = state.get("workers"), None if trainer.sync is None else list(trainer.processes.members)
    if saved == present:
        return
    was = "one model for all processes" if saved is None else f"workers {', '.join(map(str, saved))}"
    now = "one model for all processes" if present is None else f"workers {', '.join(map(str, present))}"
    raise CheckpointError(
        f"--resume: {directory} holds {was}, this run has {now}. "
        + (
            "Use a config with a distributed section, or start new from its model with init.weights."
            if present is None
            else "Start the same workers, or use --resume-consensus: all begin from the consensus model, with fresh "
            "local optimizers."
        )
    )


def differences(saved: Mapping[str, Any], present: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """``"train.batch_size: 4 -> 8"`` for every key that may change the result and differs."""
    for key in sorted({*saved, *present}):
        name = f"{prefix}{key}"
        if name in _FREE_SECTIONS or name in _FREE_KEYS:
            continue
        old, new = _plain(saved.get(key)), _plain(present.get(key))
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{name}.")
        elif old != new:
            yield f"{name}: {old!r} -> {new!r}"


def _plain(value: Any) -> Any:
    """As JSON keeps it: tuples are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _compare_processes(trainer: Trainer, directory: Path, state: Mapping[str, Any]) -> None:
    """Warn about what makes sums come out in another order."""
    threads, world_size = torch.get_num_threads(), trainer.order.world_size
    if not trainer.processes.is_main:
        return
    if (state["world_size"], state["threads"]) != (world_size, threads):
        say(
            f"warning: {directory} was written by {state['world_size']} processes with {state['threads']} threads "
            f"each; this run has {world_size} with {threads}. It goes on, but not bit-equal to the uninterrupted run."
        )
    if state["device"] != trainer.processes.device.type:
        say(f"warning: {directory} was written on {state['device']}; this run is on {trainer.processes.device.type}.")


def _move_to_new_batch_size(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Keep the place in the epoch when a step now takes another number of frames."""
    old, new = int(state["effective_batch"]), trainer.order.effective_batch
    if trainer.settings.train.epochs is not None:
        epoch, position = divmod(trainer.progress.step, int(state["steps_per_epoch"]))
        frames_seen = position * old
        steps = min(math.ceil(frames_seen / new), trainer.order.steps_per_epoch)
        trainer.progress.step = epoch * trainer.order.steps_per_epoch + steps
    if trainer.processes.is_main:
        rate = float(trainer.settings.optimizer["lr"])
        say(
            f"effective batch: {old} -> {new} frames per step. Learning-rate rule: the configured peak {rate:g} is "
            f"used as it is; linear scaling to the new batch would be optimizer.lr={rate * new / old:g} (with "
            "--allow-config-change), or keep the old batch with train.batch_size and train.accumulate_steps."
        )


def _say_on_main(trainer: Trainer) -> Any:
    return say if trainer.processes.is_main else lambda message: None
