"""``results.json``: what a finished run found, and everything needed to repeat it."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import adperception
from adperception.engine.memory import peak_memory
from adperception.engine.trainer import Trainer
from adperception.sparse.backends import backend_for

__all__ = ["RESULTS_FILE", "describe_computation", "describe_machine", "write_json", "write_results"]

RESULTS_FILE = "results.json"


def write_results(trainer: Trainer) -> Path:
    """Write the results file of a run into its work directory; an undefined metric is ``null``."""
    settings, progress = trainer.settings, trainer.progress
    path = trainer.work_dir / RESULTS_FILE
    write_json(
        path,
        {
            "config": trainer.config.name,
            "config_sha256": trainer.config.sha256(),
            "command": sys.argv,
            "seed": settings.seed,
            "steps": progress.step,
            "epochs": progress.step / trainer.order.steps_per_epoch,
            "effective_batch": trainer.order.effective_batch,
            "processes": trainer.order.world_size,
            **({} if trainer.sync is None else {"distributed": settings.distributed, **trainer.sync.totals()}),
            "training_frames": len(trainer.dataset),
            # The sentence that fine-tuning must not leave out: where the encoder came from.
            "initialised_from": progress.origin or "random weights",
            "metrics": progress.metrics,
            "training_seconds": round(progress.seconds, 3),
            "training_cpu_seconds": round(progress.cpu_seconds, 3),
            **peak_memory(trainer.processes.device),
            **describe_computation(trainer),
            **describe_machine(trainer.processes.device),
        },
    )
    return path


def describe_computation(trainer: Trainer) -> dict[str, Any]:
    """How the run computed: precision, backend of sparse convolutions, compiled modules, fused optimizer."""
    train = trainer.settings.train
    scale = {} if trainer.loss_scale is None else {"scaler_skips": trainer.progress.scaler_skips}
    return {
        "amp": train.amp,
        **scale,
        "sparse_backend": backend_for(trainer.processes.device),
        "compile": list(trainer.compiled),
        "fused_optimizer": all(bool(group.get("fused")) for group in trainer.optimizer.param_groups),
        "check_finite_every": trainer.check_finite_every,
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Device, threads and versions that a result belongs to."""
    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": {
            "adperception": adperception.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a kill leaves the old file or the new one; NaN becomes ``null``."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    temporary.write_text(json.dumps(_plain(content), indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
