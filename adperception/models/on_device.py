"""Small numbers that the host knows, brought to the device without a wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["on_device"]


def on_device(
    values: Sequence[int] | Sequence[float], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """``(n,)`` tensor of ``values``.

    ``torch.tensor(values, device=device)`` and ``new_tensor`` make the host wait until a GPU has done everything that
    it was given before; an asynchronous copy does not.

    Args:
        values: the numbers.
        device: where to put them.
        dtype: their type; int64 for integers and float32 for other numbers if ``None``.
    """
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
