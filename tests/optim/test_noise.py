from __future__ import annotations

import pytest
import torch

from adperception.optim._noise import Noise


def test_depends_on_its_seed_alone() -> None:
    like = [torch.zeros(3, 4), torch.zeros(5, dtype=torch.float64)]
    one = Noise(3, torch.device("cpu")).like(like)
    torch.manual_seed(5)
    outside = torch.get_rng_state()
    again = Noise(3, torch.device("cpu")).like(like)
    assert torch.equal(torch.get_rng_state(), outside)
    other = Noise(4, torch.device("cpu")).like(like)
    for a, b, c, t in zip(one, again, other, like, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert (a.shape, a.dtype) == (t.shape, t.dtype)


def test_moments() -> None:
    (numbers,) = Noise(0, torch.device("cpu")).like([torch.zeros(100_000, dtype=torch.float64)])
    assert abs(numbers.mean().item()) < 0.02
    assert abs(numbers.std().item() - 1) < 0.02


def test_continues_from_its_state() -> None:
    noise = Noise(0, torch.device("cpu"))
    noise.like([torch.zeros(7)])
    state = noise.state()
    expected = noise.like([torch.zeros(7)])
    other = Noise(1, torch.device("cpu"))
    other.load_state(state)
    assert torch.equal(other.like([torch.zeros(7)])[0], expected[0])


def test_a_state_of_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Noise(0, torch.device("cpu")).load_state(torch.zeros(16, dtype=torch.uint8))
