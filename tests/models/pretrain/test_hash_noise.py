"""Draws by hashing: uniform, independent of how many there are, and of those of other seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from adperception.models.pretrain.hash_noise import draw_seed, hash_noise

COUNT = 1 << 18


def mixed(bits: int) -> int:
    """The mixing function in Python's own integers."""
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) % 2**32
    bits = ((bits ^ (bits >> 15)) * 0x846CA68B) % 2**32
    return bits ^ (bits >> 16)


@pytest.mark.parametrize("seed", [0, 1, 0xFFFFFFFF, (1 << 62) - 1])
def test_equals_the_same_hash_in_exact_integers(seed: int) -> None:
    noise = hash_noise(seed, 100, "cpu")
    low, high = seed % 2**32, seed >> 32
    first = mixed(mixed(low) ^ high)
    second = mixed(first ^ 0x9E3779B9 ^ low)
    expected = [(mixed(mixed(i ^ first) ^ second) >> 8) / 2**24 for i in range(100)]
    assert noise.dtype == torch.float32
    assert noise.tolist() == expected


@pytest.mark.parametrize("seed", [0, 3, 1 << 40])
def test_draws_are_uniform_and_neighbours_independent(seed: int) -> None:
    noise = hash_noise(seed, COUNT, "cpu").double()
    assert float(noise.min()) >= 0
    assert float(noise.max()) < 1
    counts = torch.histc(noise, 256, 0, 1)
    expected = COUNT / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 170 < chi_square < 360  # 255 degrees of freedom: mean 255, standard deviation 22.6
    for distance in (1, 2, 176, 35200):  # along x, along y, to the next sample of a map
        pair = torch.stack([noise[:-distance], noise[distance:]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / COUNT**0.5
    # Every single bit of the 24 is set half of the time.
    bits = (noise * 2**24).long()
    for bit in range(24):
        share = float((bits >> bit & 1).double().mean())
        assert abs(share - 0.5) < 5 * 0.5 / COUNT**0.5


def test_seeds_next_to_each_other_have_nothing_in_common() -> None:
    draws = torch.stack([hash_noise(seed, COUNT // 4, "cpu").double() for seed in (0, 1, 2, 3, 1 << 32, (1 << 32) + 1)])
    correlation = torch.corrcoef(draws) - torch.eye(6)
    assert float(correlation.abs().max()) < 5 / (COUNT // 4) ** 0.5
    # Nor is one the other, moved along or in another order.
    ordered = np.sort(draws.numpy(), axis=1)
    for a, b in itertools.combinations(range(6), 2):
        assert not np.array_equal(ordered[a], ordered[b])


def test_first_draws_do_not_depend_on_their_number() -> None:
    assert torch.equal(hash_noise(5, 1000, "cpu")[:10], hash_noise(5, 10, "cpu"))
    assert len(hash_noise(5, 0, "cpu")) == 0


def test_seeds_come_from_the_generator() -> None:
    seeds = [draw_seed(torch.Generator().manual_seed(n)) for n in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert all(0 <= seed < 1 << 62 for seed in seeds)
    torch.manual_seed(0)
    first = draw_seed()
    torch.manual_seed(0)
    assert draw_seed() == first
