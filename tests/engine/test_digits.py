"""The digits: a fixed split, shards that are disjoint, orders that are functions of the seed."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
import torch

from adperception.engine.digits import DigitsTask, load_digits, sample_order
from adperception.engine.study_task import Sharding

LABELS = np.repeat(np.arange(10), 30)


def test_the_split_is_stratified_and_disjoint() -> None:
    splits = load_digits()
    assert {name: len(split.labels) for name, split in splits.items()} == {
        "train": 1079,
        "validation": 359,
        "test": 359,
    }
    for split in splits.values():
        shares = np.bincount(split.labels.numpy(), minlength=10) / len(split.labels)
        assert np.all(np.abs(shares - 0.1) < 0.005)
        assert split.images.shape[1:] == (1, 8, 8)
        assert float(split.images.min()) == 0
        assert float(split.images.max()) == 1
    images = torch.cat([split.images for split in splits.values()]).flatten(1)
    assert len(images) == 1797
    assert len(torch.unique(images, dim=0)) == 1797  # no image is in two splits


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    load_digits.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "adperception\[study\]"'):
        load_digits()


def test_dealt_shards_are_new_in_every_epoch_and_disjoint_within_one() -> None:
    order = sample_order(LABELS, 4, 0, "dealt", 150)
    assert order.shape == (4, 150)
    first, second = order[:, :75], order[:, 75:]
    assert sorted(first.flatten()) == sorted(second.flatten()) == list(range(300))
    assert not np.array_equal(np.sort(first[0]), np.sort(second[0]))


@pytest.mark.parametrize("sharding", ["fixed", "skewed"])
def test_fixed_shards_stay_and_are_shuffled_in_every_epoch(sharding: Sharding) -> None:
    order = sample_order(LABELS, 3, 1, sharding, 900)
    shards = [np.unique(row) for row in order]
    assert sorted(np.concatenate(shards)) == list(range(300))
    for row, shard in zip(order, shards, strict=True):
        first, second = row[: len(shard)], row[len(shard) : 2 * len(shard)]
        assert np.array_equal(np.sort(first), shard)
        if len(second) == len(shard):
            assert np.array_equal(np.sort(second), shard)
            assert not np.array_equal(first, second)


def test_skewed_shards_have_few_labels_and_at_least_a_quarter_of_an_equal_share() -> None:
    commonest = {}
    for sharding in ("fixed", "skewed"):
        order = sample_order(LABELS, 4, 0, sharding, 1200)  # type: ignore[arg-type]
        shards = [LABELS[np.unique(row)] for row in order]
        assert min(map(len, shards)) >= 300 // 16
        commonest[sharding] = np.mean([Counter(s.tolist()).most_common(3)[0][1] / len(s) for s in shards])
    assert commonest["skewed"] > 2 * commonest["fixed"]


def test_orders_depend_on_seed_worker_and_nothing_else() -> None:
    torch.manual_seed(5)
    order = sample_order(LABELS, 4, 7, "fixed", 80)
    np.random.default_rng(0).random()
    assert np.array_equal(order, sample_order(LABELS, 4, 7, "fixed", 80))
    assert np.array_equal(order[:, :40], sample_order(LABELS, 4, 7, "fixed", 40))
    assert not np.array_equal(order, sample_order(LABELS, 4, 8, "fixed", 80))


@pytest.mark.parametrize(
    ("workers", "sharding", "message"),
    [(301, "dealt", "--workers 301: there are 300 training samples"), (250, "skewed", "Use fewer workers")],
)
def test_what_cannot_be_divided_is_refused(workers: int, sharding: Sharding, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_order(LABELS, workers, 0, sharding, 8)


def test_models_of_one_seed_are_equal_and_leave_the_global_generator_alone() -> None:
    task = DigitsTask()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second, other = task.build_model(0), task.build_model(0), task.build_model(1)
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert 0 <= task.score(first, "validation") <= 100
