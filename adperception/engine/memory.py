"""Measured peak memory of a process."""

from __future__ import annotations

import sys

import torch

__all__ = ["peak_memory"]


def peak_memory(device: torch.device) -> dict[str, float]:
    """``peak_memory_mib`` of this process (its data workers are not in it), and ``peak_gpu_memory_mib`` on a GPU."""
    figures: dict[str, float] = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        figures["peak_memory_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
    if device.type == "cuda":
        figures["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return figures
