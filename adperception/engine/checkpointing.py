"""What of a run goes into a checkpoint, and how a run comes out of one."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import adperception
from adperception.checkpoint import layout, save
from adperception.checkpoint.layout import CheckpointError, FileRecord
from adperception.checkpoint.load import read_metadata, read_tensors
from adperception.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer
from adperception.engine.trainer import Progress, Trainer
from adperception.models.base import Pruning
from adperception.structures import RadarGrid

__all__ = ["checkpoint_root", "describe_weights", "restore_checkpoint", "restore_consensus", "save_checkpoint"]

# In the file of a worker that trains apart.
_MODEL, _OPTIMIZER, _STRATEGY = "model/", "optimizer/", "strategy/"
# Beside the optimizer's tensors.
_LOSS_SCALE = "loss_scale/"


def checkpoint_root(work_dir: Path) -> Path:
    """Where the checkpoints of a run lie."""
    return work_dir / "checkpoints"


def save_checkpoint(trainer: Trainer) -> Path:
    """Write a complete checkpoint of the present step, then remove those that need not be kept.

    Every process calls it and writes its own file; the main process writes the rest. If a worker is lost meanwhile and
    the others go on, they begin again, so that what is written is of those that are left.

    Raises:
        CheckpointError: on every process, if any of them could not write. The checkpoints from before are intact.
    """
    trainer.settle()
    while True:
        members = trainer.processes.members
        path = _save(trainer)
        if trainer.processes.members == members:
            return path


def _save(trainer: Trainer) -> Path:
    processes, step = trainer.processes, trainer.progress.step
    root = checkpoint_root(trainer.work_dir)
    temporary = root / f".{layout.step_directory(root, step).name}.tmp"

    def attempt(work: Callable[[], object]) -> str:
        """JSON of a problem, empty if there is none, and of what ``work`` returns."""
        try:
            return json.dumps(["", work()])
        except OSError as error:
            return json.dumps([str(save.describe_failure(error, root, step)), None])
        except CheckpointError as error:
            return json.dumps([str(error), None])

    def complete() -> None:
        records = {name: FileRecord(*record) for part in written for name, record in part.items()}
        save.commit(temporary, root, step, _state(trainer), records)
        best = trainer.progress.best_step
        save.prune(root, trainer.settings.checkpoint.keep, [] if best is None else [best])

    begun = processes.main_does(lambda: attempt(lambda: str(save.begin(root, step))))
    _raise_everywhere([json.loads(begun)[0]])
    replies = [json.loads(r) for r in processes.all_do(lambda: attempt(lambda: _write_own(trainer, temporary)))]
    with trainer.as_evaluated(recalibrate=False):
        model = processes.main_does(lambda: attempt(lambda: _write_shared(trainer, temporary)))
    replies.append(json.loads(model))
    problems, written = [reply[0] for reply in replies], [reply[1] for reply in replies]
    if not any(problems):
        problems.append(json.loads(processes.main_does(lambda: attempt(complete)))[0])
    if any(problems) and processes.is_main:
        save.discard(temporary)
    _raise_everywhere(problems)
    return layout.step_directory(root, step)


def restore_checkpoint(trainer: Trainer, directory: Path, state: dict[str, Any]) -> None:
    """Put a verified checkpoint into a trainer that was built from the same model and optimizer config.

    Raises:
        CheckpointError: if a tensor does not fit.
    """
    own_file = directory / layout.rank_file(trainer.processes.rank)
    if trainer.sync is None:
        _load_model(trainer, directory, read_tensors(directory / layout.MODEL_FILE))
        tensors = read_tensors(directory / layout.OPTIMIZER_FILE)
        optimizer_tensors = {name: value for name, value in tensors.items() if not name.startswith(_LOSS_SCALE)}
        loss_scale = _below(tensors, _LOSS_SCALE)
        if trainer.loss_scale is not None and loss_scale:
            trainer.loss_scale.restore(loss_scale)
        restore_optimizer(trainer.optimizer, trainer.model, optimizer_tensors, state["optimizer"])
    else:
        _restore_worker(trainer, directory, own_file)
    trainer.progress = Progress(**state["progress"])
    if own_file.is_file():
        _restore_rank(read_tensors(own_file))


def restore_consensus(trainer: Trainer, directory: Path, state: dict[str, Any]) -> None:
    """Put the consensus model of a verified checkpoint into every worker; local optimizers and rounds begin anew.

    Raises:
        CheckpointError: if a tensor does not fit.
    """
    _load_model(trainer, directory, read_tensors(directory / layout.MODEL_FILE))
    assert trainer.sync is not None
    trainer.sync.restart()
    trainer.progress = Progress(**state["progress"])


def _load_model(trainer: Trainer, directory: Path, tensors: dict[str, Tensor]) -> None:
    try:
        trainer.model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{directory}: does not fit the model of this config: {error}") from error


def _restore_worker(trainer: Trainer, directory: Path, own_file: Path) -> None:
    """One worker's own model, local optimizer and part of the strategy."""
    assert trainer.sync is not None
    tensors, values = read_tensors(own_file), read_metadata(own_file)
    _load_model(trainer, directory, _below(tensors, _MODEL))
    restore_optimizer(trainer.optimizer, trainer.model, _below(tensors, _OPTIMIZER), values["optimizer"])
    try:
        trainer.sync.restore(_below(tensors, _STRATEGY), values["strategy"])
    except ValueError as error:
        raise CheckpointError(f"{own_file}: {error}") from error


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _write_own(trainer: Trainer, directory: Path) -> dict[str, tuple[int, str]]:
    """What belongs to this process; returns size and SHA-256 by file name."""
    name = layout.rank_file(trainer.processes.rank)
    tensors, values = _rank_tensors(), None
    if trainer.sync is not None:
        optimizer, optimizer_values = flatten_optimizer(trainer.optimizer, trainer.model)
        strategy, strategy_values = trainer.sync.state()
        values = {"optimizer": optimizer_values, "strategy": strategy_values}
        for prefix, part in ((_MODEL, trainer.model.state_dict()), (_OPTIMIZER, optimizer), (_STRATEGY, strategy)):
            tensors |= {prefix + key: tensor for key, tensor in part.items()}
    record = save.write_tensors(directory / name, tensors, values)
    return {name: (record.size_bytes, record.sha256)}


def _write_shared(trainer: Trainer, directory: Path) -> dict[str, tuple[int, str]]:
    """The model and, where all processes have the same one, the optimizer; returns size and SHA-256 by file name."""
    files = {layout.MODEL_FILE: (trainer.model.state_dict(), describe_weights(trainer))}
    if trainer.sync is None:
        optimizer = flatten_optimizer(trainer.optimizer, trainer.model)[0]
        if trainer.loss_scale is not None:
            optimizer |= {_LOSS_SCALE + name: tensor for name, tensor in trainer.loss_scale.state().items()}
        files[layout.OPTIMIZER_FILE] = (optimizer, {})
    records = {name: save.write_tensors(directory / name, *content) for name, content in files.items()}
    return {name: (record.size_bytes, record.sha256) for name, record in records.items()}


def describe_weights(trainer: Trainer) -> dict[str, Any]:
    """What a weights file says about itself; it also stands in ``state.json``."""
    dataset = trainer.dataset
    pruning = trainer.model.pruning
    grid = getattr(dataset, "grid", None)
    return {
        **({"pruning": pruning.to_dict()} if pruning != Pruning() else {}),
        "format_version": layout.FORMAT_VERSION,
        "adperception_version": adperception.__version__,
        "torch_version": torch.__version__,
        "model_config": trainer.settings.model,
        "dataset": trainer.settings.train_dataset,
        "classes": list(getattr(dataset, "classes", None) or getattr(dataset, "class_names", None) or ()),
        "input_channels": getattr(trainer.model, "in_channels", None),
        "channel_names": list(getattr(dataset, "channels", ())),
        "ground_height": trainer.progress.ground_height,
        "radar_grid": grid.to_dict() if isinstance(grid, RadarGrid) else None,
        "label_axis": getattr(dataset, "label_axis", None),
        "kernel_layout": "KRSC",
        "step": trainer.progress.step,
    }


def _state(trainer: Trainer) -> dict[str, Any]:
    order, settings = trainer.order, trainer.settings
    _, optimizer = flatten_optimizer(trainer.optimizer, trainer.model)
    return {
        **describe_weights(trainer),
        "config": trainer.config.values,
        "config_sha256": trainer.config.sha256(),
        "progress": dataclasses.asdict(trainer.progress),
        "epoch": trainer.epochs_done,
        "total_steps": trainer.total_steps,
        "steps_per_epoch": order.steps_per_epoch,
        "effective_batch": order.effective_batch,
        "seed": settings.seed,
        "world_size": order.world_size,
        "workers": None if trainer.sync is None else list(trainer.processes.members),
        "threads": torch.get_num_threads(),
        "device": trainer.processes.device.type,
        "schedule": settings.schedule,
        "optimizer": optimizer,
    }


def _rank_tensors() -> dict[str, Tensor]:
    """State that belongs to one process: its global random generators (the engine itself draws from none)."""
    tensors = {"random/torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  third-party code may draw from it
    tensors["random/numpy_keys"] = torch.from_numpy(np.asarray(keys, dtype=np.uint32).view(np.int32).copy())
    tensors["random/numpy_position"] = torch.tensor([position, has_gauss])
    tensors["random/numpy_gauss"] = torch.tensor([cached], dtype=torch.float64)
    version, words, gauss = random.getstate()
    tensors["random/python"] = torch.tensor([version, *words])
    tensors["random/python_gauss"] = torch.tensor([] if gauss is None else [gauss], dtype=torch.float64)
    return tensors


def _restore_rank(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random/torch"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    position, has_gauss = tensors["random/numpy_position"].tolist()
    keys = tensors["random/numpy_keys"].numpy().view(np.uint32)
    state = ("MT19937", keys, position, has_gauss, float(tensors["random/numpy_gauss"]))
    np.random.set_state(state)  # noqa: NPY002
    version, *words = tensors["random/python"].tolist()
    random.setstate((version, tuple(words), next(iter(tensors["random/python_gauss"].tolist()), None)))


def _raise_everywhere(problems: list[str]) -> None:
    """The first problem, as the same error on every process."""
    for problem in problems:
        if problem:
            raise CheckpointError(problem)


def move_previous_run_aside(work_dir: Path) -> Path | None:
    """Make room for a new run where an old one lies: its files go to ``previous_<n>``; returns that folder."""
    own = (
        *("checkpoints", "config.py", "log.jsonl", "logs", "non_finite", "panels", "predictions"),
        *("results.json", "weights.safetensors"),
    )
    present = [work_dir / name for name in own if (work_dir / name).exists()]
    if not layout.list_checkpoints(checkpoint_root(work_dir)):
        return None
    number = 1 + max((int(p.name.removeprefix("previous_")) for p in work_dir.glob("previous_[0-9]*")), default=0)
    aside = work_dir / f"previous_{number}"
    aside.mkdir()
    for path in present:
        shutil.move(str(path), str(aside / path.name))
    return aside
