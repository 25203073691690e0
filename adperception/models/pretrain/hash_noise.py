"""Uniform draws that are a function of seed and index: the same on every device, none of them copied there.

A generator's stream differs between devices, and drawing on the CPU means a copy (and, where the number of draws is
known to the device only, a wait). Hashing the index of each draw needs neither.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["draw_seed", "hash_noise"]

Bits = TypeVar("Bits", int, Tensor)

_MASK = 0xFFFFFFFF


def draw_seed(generator: torch.Generator | None = None) -> int:
    """A seed of 62 bits for ``hash_noise`` from a CPU generator (torch's global one if ``None``)."""
    return int(torch.randint(1 << 62, (), generator=generator))


def hash_noise(seed: int, count: int, device: torch.device | str) -> Tensor:
    """``(count,)`` float32 draws, uniform over the multiples of 2^-24 in [0, 1).

    Draw i is the upper 24 bits of a hash of (seed, i): two rounds of a 32-bit mixing function with a key before each.
    Both keys depend on the whole seed, so that the draws of one seed are not those of another in some other order.

    Args:
        seed: 0 or more; its low 64 bits count.
        count: number of draws, at most 2^32; the first n draws do not depend on it.
        device: where to draw.

    Source: the multipliers and shifts are "lowbias32" of Wellons' hash prospector
    (https://nullprogram.com/blog/2018/07/31/).
    """
    first_key = _mix(_mix(seed & _MASK) ^ ((seed >> 32) & _MASK))
    second_key = _mix(first_key ^ 0x9E3779B9 ^ (seed & _MASK))
    index = torch.arange(count, dtype=torch.int64, device=device)
    bits = _mix(_mix(index ^ first_key) ^ second_key)
    return (bits >> 8).to(torch.float32) * 2.0**-24


def _mix(bits: Bits) -> Bits:
    """A bijection of 32-bit numbers that spreads every bit over all others.

    In tensors they are int64, whose products wrap around at 64 bits: that leaves the low 32 bits right.
    """
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) & _MASK
    bits = ((bits ^ (bits >> 15)) * 0x846CA68B) & _MASK
    return bits ^ (bits >> 16)
