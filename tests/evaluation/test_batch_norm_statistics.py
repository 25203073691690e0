from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from adperception.evaluation.batch_norm_statistics import mask_generator, with_reestimated_batch_norm
from adperception.models.base import Losses


class Toy(nn.Module):
    """Batch norm over rows plus noise from the generator."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, momentum=0.01)
        self.dropout = nn.Dropout(0.5)
        self.noise = noise
        self.seen: list[float] = []

    def forward(self, batch, generator=None):
        noise = torch.randn(batch.shape, generator=generator) * self.noise
        self.seen.append(float(noise.sum()))
        return Losses(self.dropout(self.norm(batch + noise)).sum())


def batches(count: int) -> list[torch.Tensor]:
    return [torch.randn(20, 3, generator=torch.Generator().manual_seed(i)) * (i + 1) + i for i in range(count)]


def test_statistics_are_the_mean_over_batches():
    data = batches(16)
    copy_ = with_reestimated_batch_norm(Toy(), data, device="cpu", count=15)
    used = torch.stack(data[:15])
    torch.testing.assert_close(copy_.norm.running_mean, used.mean(1).mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(copy_.norm.running_var, used.var(1).mean(0), rtol=1e-5, atol=1e-5)
    assert copy_.norm.momentum == 0.01
    assert not any(module.training for module in copy_.modules())


def test_model_and_random_state_stay_untouched():
    model = Toy(noise=0.1).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    loader = DataLoader(torch.randn(8, 20, 3, generator=torch.Generator().manual_seed(0)), batch_size=None)
    with_reestimated_batch_norm(model, loader, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model.norm.momentum == 0.01
    assert model.seen == []


def test_few_batches_are_reused_with_other_masks_and_the_same_ones_next_time():
    model, data = Toy(noise=1.0), batches(2)
    first = with_reestimated_batch_norm(model, data, device="cpu", count=15, mask_seed=4)
    second = with_reestimated_batch_norm(model, data, device="cpu", count=15, mask_seed=4)
    assert len(set(first.seen)) == 15
    assert first.seen == second.seen
    other = with_reestimated_batch_norm(model, data, device="cpu", count=15, mask_seed=5)
    assert other.seen != first.seen


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="hold no batch"):
        with_reestimated_batch_norm(Toy(), [], device="cpu")


def test_mask_generator_depends_on_every_seed():
    draws = {torch.rand(1, generator=mask_generator(*seeds)).item() for seeds in [(0, 0), (0, 1), (1, 0), (0, 0, 1)]}
    assert len(draws) == 4
    assert torch.equal(torch.rand(3, generator=mask_generator(7, 1)), torch.rand(3, generator=mask_generator(7, 1)))
