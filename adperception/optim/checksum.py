"""A checksum of the bits of a tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from adperception.optim.flat_params import chunks

__all__ = ["checksum"]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_WIDTH = 509  # prime, so that rows of any usual layer are cut at ever other places


def checksum(tensor: Tensor) -> int:
    """A number that differs, for all that can be expected, where any bit of a floating-point tensor differs or moved.

    Args:
        tensor: of any shape; NaNs count with their bits.
    """
    bits = tensor.detach().reshape(-1).view(_INTEGERS[tensor.element_size()])
    total = 0
    for number, (part,) in enumerate(chunks(bits)):
        padded = torch.nn.functional.pad(part.to(torch.int64), (0, -len(part) % _WIDTH)).view(-1, _WIDTH)
        rows = (padded * torch.arange(1, _WIDTH + 1, device=bits.device)).sum(1)
        rows = rows * torch.arange(1, len(rows) + 1, device=bits.device)
        total = (total * 1_000_003 + int(rows.sum()) + number) % (1 << 61)
    return total
