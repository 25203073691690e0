"""A checksum of a tensor's bits."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

__all__ = ["checksum"]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1 << 18
_MODULUS = 1 << 64
# Odd 64-bit constants, as two's complement where torch needs them: the golden ratio's fraction and a prime.
_STEP = 0x9E3779B97F4A7C15 - _MODULUS
_BASE = 0x100000001B3


def checksum(tensor: Tensor) -> int:
    """64 bits that depend on every bit of a tensor, its place, the shape and the type; the same on every device.

    With ``b_i`` the bits of element i as a 64-bit integer, ``m`` a mixing that can be undone, and ``w_i`` an odd number
    for each place, a chunk of 2^18 elements gives ``sum_i m(b_i) w_i mod 2^64``; chunks are the digits of a number in a
    prime base. A change of one element always shows; others are missed with a chance of about ``2^-64`` (no protection
    against intent).

    NaNs with different bits, and 0.0 and -0.0, are different. Temporary memory: three chunks of 64-bit integers.

    Args:
        tensor: any shape, contiguous; elements of 1, 2, 4 or 8 bytes.

    Raises:
        ValueError: a tensor that is not contiguous (``.contiguous()`` makes it so), or of wider elements.
    """
    if not tensor.is_contiguous():
        raise ValueError(f"checksum: a tensor of shape {tuple(tensor.shape)} is not contiguous; pass t.contiguous()")
    integers = _INTEGERS.get(tensor.element_size())
    if integers is None:
        raise ValueError(f"checksum: elements of {tensor.dtype} are wider than 8 bytes; pass torch.view_as_real(t)")
    bits = tensor.detach().view(-1).view(integers)
    weights = _weights(min(_CHUNK, len(bits)), bits.device)
    sums = [(_mix(part) * weights[: len(part)]).sum() for part in torch.split(bits, _CHUNK)]
    total = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for value in torch.stack(sums).tolist() if len(bits) else ():
        total = (total * _BASE + value) % _MODULUS
    return total


def _mix(bits: Tensor) -> Tensor:
    """Spread high bits to low ones: without it, two flipped signs of float64 values would cancel in the sum."""
    mixed = bits.to(torch.int64) * _STEP
    return mixed.bitwise_xor_((mixed >> 32).bitwise_and_(0xFFFFFFFF))


def _weights(count: int, device: torch.device) -> Tensor:
    """Odd numbers without a pattern: multiplication by a constant, an exclusive or with its upper half, once more."""
    mixed = torch.arange(1, count + 1, device=device) * _STEP
    mixed ^= mixed >> 29
    mixed *= _STEP
    mixed ^= mixed >> 32
    return mixed | 1
