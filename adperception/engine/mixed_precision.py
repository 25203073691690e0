"""``train.amp``: forward passes in bfloat16 or float16 where that is safe (``torch.autocast``), weights in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

__all__ = ["AMP_DTYPES", "training_autocast"]

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""By name in the config."""


def training_autocast(amp: str, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """What a forward pass of the training runs in; backward passes and evaluations stay outside of it.

    Args:
        amp: ``"off"``, ``"bf16"`` or ``"fp16"``.
        device: where the model is.

    Raises:
        ValueError: if the device cannot compute in this precision.
    """
    if amp == "off":
        return contextlib.nullcontext
    dtype = AMP_DTYPES[amp]
    if device.type == "cuda" and amp == "bf16" and torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            f'train.amp="bf16": {torch.cuda.get_device_name(device)} does not compute in bfloat16 (compute capability '
            '8.0 or newer does). Use train.amp="fp16" or "off".'
        )
    return lambda: torch.autocast(device.type, dtype)
