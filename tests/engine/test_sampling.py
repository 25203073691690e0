from __future__ import annotations

import pickle

import numpy as np
import pytest

from adperception.engine.randomness import item_rng, step_generator
from adperception.engine.sampling import MicroBatch, SampleOrder, StepBatchSampler


def order(
    frames: int = 22, batch: int = 4, accumulate: int = 1, world: int = 1, drop_last: bool = False
) -> SampleOrder:
    return SampleOrder(frames, batch, accumulate, world, seed=3, drop_last=drop_last)


def epoch_frames(plan: SampleOrder, epoch: int) -> list[int]:
    """The frames that count, of all processes."""
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return [
        index
        for step in steps
        for rank in range(plan.world_size)
        for micro_batch in plan.micro_batches(step, rank)
        if micro_batch.share > 0
        for _, index in micro_batch.items
    ]


@pytest.mark.parametrize("frames", [1, 5, 16, 17, 22, 24])
@pytest.mark.parametrize(("accumulate", "world"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_every_frame_once_per_epoch(frames: int, accumulate: int, world: int) -> None:
    plan = order(frames, accumulate=accumulate, world=world)
    assert sorted(epoch_frames(plan, 0)) == list(range(frames))
    assert sorted(epoch_frames(plan, 5)) == list(range(frames))
    for step in range(plan.steps_per_epoch):
        per_rank = [plan.micro_batches(step, rank) for rank in range(world)]
        assert sum(m.share for passes in per_rank for m in passes) == pytest.approx(1.0)
        # Collectives need equally many passes everywhere, and every pass needs a frame.
        assert len({len(passes) for passes in per_rank}) == 1
        assert all(micro_batch.items for passes in per_rank for micro_batch in passes)


def test_epochs_differ_and_seeds_differ() -> None:
    assert epoch_frames(order(), 0) != epoch_frames(order(), 1)
    other = SampleOrder(22, 4, 1, 1, seed=4, drop_last=False)
    assert epoch_frames(order(), 0) != epoch_frames(other, 0)


def test_steps_per_epoch_counts_the_partial_batch() -> None:
    assert order(3712, batch=16).steps_per_epoch == 232
    assert order(22).steps_per_epoch == 6
    assert order(22, drop_last=True).steps_per_epoch == 5
    assert len(epoch_frames(order(22, drop_last=True), 0)) == 20


def test_rest_of_an_epoch_is_spread_over_the_processes() -> None:
    plan = order(9, batch=4, world=2)  # 8 frames, then 1
    first, second = (plan.micro_batches(1, rank) for rank in (0, 1))
    assert [m.share for m in first] == [1.0]
    assert second == [MicroBatch(first[0].items, 0.0)]
    plan = order(13, batch=4, world=2)  # 8 frames, then 5
    assert [len(plan.micro_batches(1, rank)[0].items) for rank in (0, 1)] == [3, 2]
    assert plan.micro_batches(1, 0)[0].share == pytest.approx(3 / 5)


def test_accumulation_sees_the_frames_of_the_big_batch() -> None:
    small, big = order(22, batch=2, accumulate=4), order(22, batch=8)
    for step in range(6):
        one, two = ([i for m in plan.micro_batches(step, 0) for i in m.items] for plan in (small, big))
        assert one == two


def test_sampler_starts_anywhere() -> None:
    everything = list(StepBatchSampler(order(), 0, 0, 18))
    assert list(StepBatchSampler(order(), 0, 7, 18)) == everything[7:]
    assert everything[6][0][0] == 1  # epoch of the seventh step


def test_empty_and_too_small() -> None:
    with pytest.raises(ValueError, match="no frames"):
        order(0)
    with pytest.raises(ValueError, match=r"3 frames, less than one effective batch of 4, and drop_last"):
        order(3, drop_last=True)


def test_item_draws_depend_on_seed_epoch_and_index_only() -> None:
    draw = item_rng(1, 2, 3).standard_normal(4)
    assert np.array_equal(draw, item_rng(1, 2, 3).standard_normal(4))
    for other in (item_rng(0, 2, 3), item_rng(1, 3, 3), item_rng(1, 2, 2), item_rng(1, 3, 2)):
        assert not np.array_equal(draw, other.standard_normal(4))


def test_step_generators_differ_by_step_rank_and_seed() -> None:
    import torch

    draws = {
        float(torch.rand((), generator=step_generator(*where)))
        for where in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 1, 1)]
    }
    assert len(draws) == 5
    assert float(torch.rand((), generator=step_generator(0, 1, 1))) in draws


def test_sampler_is_picklable() -> None:
    sampler = StepBatchSampler(order(), 0, 0, 18)
    assert list(pickle.loads(pickle.dumps(sampler))) == list(sampler)
