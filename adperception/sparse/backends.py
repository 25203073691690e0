"""Which code runs a sparse convolution: ``torch`` everywhere, ``spconv`` on CUDA where it is installed.

All backends take the same weights (KRSC) and give the same results within float rounding. A further backend is one
entry of ``_AVAILABLE`` and one branch of ``SparseConvolution.forward``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["available_backends", "backend_for", "set_backend", "use_backend"]

NAMES = ("auto", "torch", "spconv")
_selected = "auto"


def available_backends(device: torch.device | str) -> tuple[str, ...]:
    """Backends that give correct results on ``device``, the preferred one first.

    spconv is never among them on a CPU: its CPU build computes wrong results with several threads and has no backward.
    """
    if torch.device(device).type == "cuda" and importlib.util.find_spec("spconv") is not None:
        return ("spconv", "torch")
    return ("torch",)


def set_backend(name: str) -> None:
    """Select the backend of all sparse convolutions: ``auto`` (default), ``torch`` or ``spconv``.

    Raises:
        ValueError: for an unknown name.
        ModuleNotFoundError: for ``spconv`` without the package, with the install command.
    """
    global _selected
    if name not in NAMES:
        raise ValueError(f'sparse backend "{name}" is unknown. Available: {", ".join(NAMES)}.')
    if name == "spconv" and importlib.util.find_spec("spconv") is None:
        raise ModuleNotFoundError(
            'sparse backend "spconv": the package is not installed. Install it with: pip install "adperception[gpu]"'
        )
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


def backend_for(device: torch.device) -> str:
    """The backend that runs on ``device`` now.

    Raises:
        ValueError: if ``spconv`` was selected for a device on which its results are wrong.
    """
    if _selected == "auto":
        return available_backends(device)[0]
    if _selected == "spconv" and device.type != "cuda":
        raise ValueError(
            f'sparse backend "spconv" on {device}: its CPU build computes wrong results with more than one thread and '
            'has no backward. Use "auto" or "torch", or move the model and the batch to a CUDA device.'
        )
    return _selected
