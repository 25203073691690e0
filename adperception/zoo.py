"""The model zoo: a name is its config's path, ``configs/ad_l_jepa/ad_l_jepa_kitti.py`` is ``ad_l_jepa_kitti``."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.load import load_weights, read_metadata
from adperception.config import Config, load_config, nearest
from adperception.models.base import TrainableModel
from adperception.registry import MODELS, build

__all__ = ["config_directory", "create_model", "list_models", "load_model", "load_model_config"]


def config_directory() -> Path:
    """Where the configs are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _configs() -> dict[str, Path]:
    # One folder per method; single files on the top level are demonstrations, not models.
    return {path.stem: path for path in sorted(config_directory().glob("*/*.py"))}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the zoo's models that match a shell pattern, e.g. ``"*kitti*"``, sorted."""
    return sorted(fnmatch.filter(_configs(), pattern))


def load_model_config(name: str) -> Config:
    """The config of a zoo model, or of a config file given by its path.

    Raises:
        ValueError: for an unknown name, with the nearest known ones.
    """
    if name.endswith(".py"):
        return load_config(name)
    configs = _configs()
    if name not in configs:
        raise ValueError(f'"{name}" is not a model of the zoo.{nearest(name, list(configs))}')
    return load_config(configs[name])


def create_model(name: str, checkpoint: str | Path | None = None, **overrides: Any) -> TrainableModel:
    """Build a model of the zoo.

    Args:
        name: a name from ``list_models``, or the path of a config file.
        checkpoint: weights to load: a checkpoint directory or a ``.safetensors`` file; every tensor has to fit.
        overrides: model options to replace, e.g. ``point_cloud_range=[...]`` or ``mask_ratio=0.75``.

    Returns:
        The model on the CPU, in training mode.

    Raises:
        ValueError: for an unknown name or option, with the nearest valid one.
        CheckpointError: if the weights do not fit.
    """
    config = load_model_config(name)
    model: TrainableModel = build(MODELS, {**config.values["model"], **overrides})
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return model


def load_model(checkpoint: str | Path) -> TrainableModel:
    """Build the model that a file says it holds, and fill it: nothing but the file is needed.

    Args:
        checkpoint: a checkpoint directory or a ``.safetensors`` file of this package.

    Returns:
        The model on the CPU, in training mode.

    Raises:
        FileNotFoundError: if there is nothing at ``checkpoint``.
        CheckpointError: if the file does not say what it holds, or its weights do not fit.
    """
    config = read_metadata(checkpoint).get("model_config")
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{checkpoint}: does not say which model it holds (it was converted without one). Convert it again with "
            "--model and the name of its config."
        )
    model: TrainableModel = build(MODELS, config)
    load_weights(model, checkpoint)
    return model
