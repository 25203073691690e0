from __future__ import annotations

import struct
import zlib

import pytest
import torch

from adperception.optim.checksum import checksum

STEP = 0x9E3779B97F4A7C15


def signed(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def spread(value: int) -> int:
    """Multiply, and xor the lower half with the upper one."""
    product = value * STEP % 2**64
    return product ^ (product >> 32)


def weight(place: int) -> int:
    """The weight of the element at a place, shifts of signed numbers included."""
    mixed = signed((place + 1) * STEP)
    mixed = signed((mixed ^ (mixed >> 29)) * STEP)
    return (mixed ^ (mixed >> 32)) | 1


def test_by_hand() -> None:
    values = [0.0, -1.5, float("nan"), 3e-45]
    bits = [struct.unpack("<i", struct.pack("<f", value))[0] for value in values]
    total = sum(spread(integer) * weight(place) for place, integer in enumerate(bits))
    expected = (zlib.crc32(b"torch.float32 (4,)") * 0x100000001B3 + signed(total)) % 2**64
    assert checksum(torch.tensor(values)) == expected


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
def test_every_change_shows(dtype: torch.dtype) -> None:
    tensor = (torch.arange(300_000) % 251).to(dtype)
    before = checksum(tensor)
    assert checksum(tensor.clone()) == before
    for place in (0, 1, 262_143, 262_144, 299_999):
        changed = tensor.clone()
        changed[place] = changed[place] == 0
        assert checksum(changed) != before
    swapped = tensor.clone()
    swapped[[0, 262_144]] = tensor[[262_144, 0]]  # places with the same weight in two chunks
    assert (checksum(swapped) == before) == bool(torch.equal(swapped, tensor))


def test_bits_not_values() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    assert checksum(zero) != checksum(-zero)
    one, other = torch.full((3,), float("nan")), torch.full((3,), float("nan"))
    assert checksum(one) == checksum(other)
    other.view(torch.int32)[1] += 1
    assert checksum(one) != checksum(other)
    # Two flipped signs: a plain sum of 64-bit numbers modulo 2^64 would not notice.
    values = torch.randn(8, dtype=torch.float64)
    flipped = values.clone()
    flipped[:2] *= -1
    assert checksum(values) != checksum(flipped)


def test_shape_and_type_count() -> None:
    tensors = [torch.zeros(6), torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6, dtype=torch.int32), torch.zeros(0)]
    assert len({checksum(tensor) for tensor in tensors}) == len(tensors)


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\) is not contiguous"):
        checksum(torch.zeros(2, 3).T)
    with pytest.raises(ValueError, match="complex128 are wider"):
        checksum(torch.zeros(2, dtype=torch.complex128))
