"""Which code runs a sparse convolution: ``torch`` everywhere; on CUDA also ``spconv`` and ``triton``.

All backends take the same weights (KRSC) and give the same results within float rounding. ``auto`` takes the one that
was measured to be the fastest on this device (``tools/doctor.py`` measures and keeps the figures); without measurements
it takes spconv where it is installed, else torch.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from adperception.sparse.precision import autocast_type
from adperception.sparse.tuning import read_tuning

__all__ = [
    "NAMES",
    "TRITON_MAX_TAPS",
    "available_backends",
    "backend_for",
    "set_backend",
    "triton_problem",
    "use_backend",
    "uses_planned_sites",
]

NAMES = ("auto", "torch", "spconv", "triton")

TRITON_MAX_TAPS = 31
"""Largest kernel of the ``triton`` backend; layers with more taps run on ``torch``."""

_LEAST_CAPABILITY = (8, 0)
"""Of a device for the ``triton`` backend: the first with bfloat16 products."""

_selected = "auto"
_usable_on: dict[torch.device, tuple[str, ...]] = {}  # asked by every layer in every pass


def available_backends(device: torch.device | str, precision: torch.dtype = torch.float32) -> tuple[str, ...]:
    """Backends that run on ``device``, the preferred one first: the measured ones by speed, then spconv, torch, triton.

    spconv is never among them on a CPU: its CPU build computes wrong results with several threads and has no backward.
    """
    device = torch.device(device)
    usable = _usable(device)
    if len(usable) == 1:
        return usable
    measured = [name for name in read_tuning(device).fastest(str(precision).removeprefix("torch.")) if name in usable]
    return (*measured, *(name for name in usable if name not in measured))


def _usable(device: torch.device) -> tuple[str, ...]:
    if device not in _usable_on:
        names = ["spconv"] if device.type == "cuda" and _is_installed("spconv") else []
        names.append("torch")
        if device.type == "cuda" and not triton_problem(device):
            names.append("triton")
        _usable_on[device] = tuple(names)
    return _usable_on[device]


def triton_problem(device: torch.device) -> str:
    """Why the ``triton`` backend cannot run on ``device``, in words; empty if it can.

    On a CPU it runs only under Triton's interpreter (``TRITON_INTERPRET=1``), which is for tests: it is a thousand
    times slower than anything else.
    """
    if not _is_installed("triton"):
        fix = "pip install triton" if sys.platform == "linux" else 'use the "torch" or "spconv" backend'
        return f"Triton is not installed (CUDA builds of PyTorch for Linux bring it). Fix: {fix}"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    if device.type != "cuda":
        return f'it needs a CUDA device, and this is {device}. Use "auto" or "torch"'
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return f'{name} has compute capability {capability[0]}.{capability[1]}, it needs 8.0. Use "auto" or "torch"'
    if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        return "Triton builds its launcher with a C compiler, and none is found. Install gcc or clang, or set CC"
    return ""


def set_backend(name: str) -> None:
    """Select the backend of all sparse convolutions: ``auto`` (default), ``torch``, ``spconv`` or ``triton``.

    Raises:
        ValueError: for an unknown name.
        ModuleNotFoundError: for a backend whose package is not installed, with the install command.
    """
    global _selected
    if name not in NAMES:
        raise ValueError(f'sparse backend "{name}" is unknown. Available: {", ".join(NAMES)}.')
    if name == "spconv" and not _is_installed("spconv"):
        raise ModuleNotFoundError(
            'sparse backend "spconv": the package is not installed. Install it with: pip install "adperception[gpu]"'
        )
    if name == "triton" and not _is_installed("triton"):
        raise ModuleNotFoundError(f'sparse backend "triton": {triton_problem(torch.device("cpu"))}.')
    _selected = name


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Select a backend for the duration of a ``with`` block."""
    before = _selected
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def backend_for(device: torch.device, precision: torch.dtype = torch.float32) -> str:
    """The backend that runs features of type ``precision`` on ``device`` now.

    Raises:
        ValueError: if a backend was selected that cannot run there, or whose results would be wrong.
    """
    if _selected == "auto":
        name = available_backends(device, precision)[0]
        return name if name != "triton" or _triton_computes_in(precision) else "torch"
    if _selected == "spconv" and device.type != "cuda":
        raise ValueError(
            f'sparse backend "spconv" on {device}: its CPU build computes wrong results with more than one thread and '
            'has no backward. Use "auto" or "torch", or move the model and the batch to a CUDA device.'
        )
    if _selected == "triton":
        problem = triton_problem(device)
        if problem:
            raise ValueError(f'sparse backend "triton": {problem}.')
        if not _triton_computes_in(precision):
            return "torch"
    return _selected


def uses_planned_sites(features: Tensor) -> bool:
    """Whether the backend of ``features`` takes output sites that are known beforehand (``plan_levels``)."""
    return backend_for(features.device, autocast_type(features)) == "triton"


def _triton_computes_in(precision: torch.dtype) -> bool:
    return precision in (torch.float32, torch.bfloat16, torch.float16)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
