"""What of a run goes into a checkpoint, and how a run comes out of one."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import adperception
from adperception.checkpoint import layout, save
from adperception.checkpoint.layout import CheckpointError, FileRecord
from adperception.checkpoint.load import read_tensors
from adperception.checkpoint.optimizer_state import flatten_optimizer, restore_optimizer
from adperception.engine.trainer import Progress, Trainer
from adperception.models.base import Pruning
from adperception.structures import RadarGrid

__all__ = ["checkpoint_root", "describe_weights", "restore_checkpoint", "save_checkpoint"]


def checkpoint_root(work_dir: Path) -> Path:
    """Where the checkpoints of a run lie."""
    return work_dir / "checkpoints"


def save_checkpoint(trainer: Trainer) -> Path:
    """Write a complete checkpoint of the present step, then remove those that need not be kept.

    Every process calls it and writes its own file; process 0 writes the rest.

    Raises:
        CheckpointError: on every process, if any of them could not write. The checkpoints from before are intact.
    """
    processes, step = trainer.processes, trainer.progress.step
    root = checkpoint_root(trainer.work_dir)
    temporary = root / f".{layout.step_directory(root, step).name}.tmp"
    problem, files = "", {}
    if processes.is_main:
        try:
            save.begin(root, step)
        except OSError as error:
            problem = str(save.describe_failure(error, root, step))
    _raise_everywhere(processes.gather_text(problem))
    try:
        files = _write_files(trainer, temporary)
    except OSError as error:
        problem = str(save.describe_failure(error, root, step))
    replies = processes.gather_text(json.dumps({"problem": problem, "files": files}))
    problems = [json.loads(reply)["problem"] for reply in replies]
    if processes.is_main:
        if not any(problems):
            written = [json.loads(reply)["files"] for reply in replies]
            records = {name: FileRecord(*record) for part in written for name, record in part.items()}
            try:
                save.commit(temporary, root, step, _state(trainer), records)
                best = trainer.progress.best_step
                save.prune(root, trainer.settings.checkpoint.keep, [] if best is None else [best])
            except OSError as error:
                problem = str(save.describe_failure(error, root, step))
            except CheckpointError as error:
                problem = str(error)
        if problem or any(problems):
            save.discard(temporary)
    _raise_everywhere(problems)
    _raise_everywhere([processes.share_text(problem)])
    return layout.step_directory(root, step)


def restore_checkpoint(trainer: Trainer, directory: Path, state: dict[str, Any]) -> None:
    """Put a verified checkpoint into a trainer that was built from the same model and optimizer config.

    Raises:
        CheckpointError: if a tensor does not fit.
    """
    model_tensors = read_tensors(directory / layout.MODEL_FILE)
    try:
        trainer.model.load_state_dict(model_tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{directory}: does not fit the model of this config: {error}") from error
    optimizer_tensors = read_tensors(directory / layout.OPTIMIZER_FILE)
    restore_optimizer(trainer.optimizer, trainer.model, optimizer_tensors, state["optimizer"])
    trainer.progress = Progress(**state["progress"])
    own_file = directory / layout.rank_file(trainer.processes.rank)
    if own_file.is_file():
        _restore_rank(read_tensors(own_file))


def _write_files(trainer: Trainer, directory: Path) -> dict[str, tuple[int, str]]:
    """This process's part; returns size and SHA-256 by file name."""
    rank_name = layout.rank_file(trainer.processes.rank)
    records = {rank_name: save.write_tensors(directory / rank_name, _rank_tensors())}
    if trainer.processes.is_main:
        model_file, optimizer_file = directory / layout.MODEL_FILE, directory / layout.OPTIMIZER_FILE
        records[layout.MODEL_FILE] = save.write_tensors(
            model_file, trainer.model.state_dict(), describe_weights(trainer)
        )
        tensors, _ = flatten_optimizer(trainer.optimizer, trainer.model)
        records[layout.OPTIMIZER_FILE] = save.write_tensors(optimizer_file, tensors)
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
