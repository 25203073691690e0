"""``train.compile``: ``torch.compile`` for the dense parts that a model names (``TrainableModel.COMPILED``)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

from adperception.config import nearest
from adperception.models.base import TrainableModel

__all__ = ["c_compiler", "compile_modules"]

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""What torch.compile calls ``mode``; the second and the third record CUDA graphs."""


def c_compiler() -> str | None:
    """The C compiler that torch.compile would use, if there is one."""
    names = (os.environ.get("CXX"), os.environ.get("CC"), "g++", "gcc", "clang", "cc", "cl")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def compile_modules(model: TrainableModel, setting: bool | str | None, device: torch.device) -> tuple[str, ...]:
    """Compile the modules that the model names, in place: names in the state dict stay as they are.

    Each is compiled at its first call. Shapes are taken as fixed; a dimension that changes later, the number of frames
    in the last batch, becomes variable with one more compilation.

    Args:
        model: on ``device``, not wrapped by DDP yet.
        setting: ``train.compile``: yes or no, a mode of torch.compile, or ``None``: on a GPU where that is possible.
        device: where the model is.

    Returns:
        Names of the compiled modules.

    Raises:
        ValueError: for an unknown mode, or if the config asks for it and there is no compiler.
    """
    if setting is False or (setting is None and (device.type != "cuda" or _missing(device))):
        return ()
    if isinstance(setting, str) and setting not in MODES:
        raise ValueError(f'train.compile="{setting}" is not a mode of torch.compile.{nearest(setting, list(MODES))}')
    missing = _missing(device)
    if missing:
        raise ValueError(f"train.compile={setting!r} needs {missing}. Install it, or set train.compile=False.")
    for name in model.COMPILED:
        model.get_submodule(name).compile(mode=setting if isinstance(setting, str) else None)
    return model.COMPILED


def _missing(device: torch.device) -> str:
    """What torch.compile lacks on this machine; empty if nothing."""
    if c_compiler() is None:
        return "a C compiler (gcc or clang)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python's header files (Python.h; in the package python3-dev of Debian and Ubuntu)"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton"
    return ""
