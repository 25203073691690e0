"""One simulated run: repeatable to the bit, bytes by the formulas, and what becomes of a run that diverges."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from adperception.engine.digits import DigitsTask
from adperception.engine.optimizer_methods import METHODS, Setting
from adperception.engine.optimizer_run import RunSpec, run_simulated

from toy_study import ToyTask

SPEC = RunSpec(
    method="LocalSGD",
    setting=Setting(0.05),
    sharding="fixed",
    workers=3,
    seed=0,
    steps=4,
    batch_size=8,
    sync_every=2,
    drop_at=0.75,
    split="test",
    curve=True,
)


def spec(**changes: object) -> RunSpec:
    return dataclasses.replace(SPEC, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [*METHODS])
def test_a_run_is_repeatable_to_the_bit(method: str) -> None:
    first, second = (run_simulated(DigitsTask(), spec(method=method)) for _ in range(2))
    for found in (first, second):
        found.pop("cpu_seconds")
    assert first == second
    assert [row[0] for row in first["curve"]] == [2, 4]
    assert first["samples"] == 4 * 3 * 8


def test_bytes_are_those_of_the_collectives() -> None:
    size = 4 * 10032
    found = {method: run_simulated(DigitsTask(), spec(method=method)) for method in ("LocalSGD", "LSGD", "DPSGD")}
    assert found["LocalSGD"]["bytes_sent"] == 2 * 2 * (3 - 1) * size  # two rounds, 2 (M - 1) P each
    assert found["LSGD"]["bytes_sent"] == 2 * (3 - 1) * size
    assert found["DPSGD"]["bytes_sent"] == 2 * 3 * 2 * size
    silent = run_simulated(DigitsTask(), spec(method="NoCommunication"))
    assert silent["bytes_sent"] == 0
    assert silent["disagreement"] > 0
    parallel = run_simulated(DigitsTask(), spec(method="DataParallel"))
    assert parallel["bytes_sent"] == 4 * 2 * (3 - 1) * (size + 4 * 10)  # and which of 10 tensors have a gradient
    assert parallel["disagreement"] == 0


def test_the_mean_model_and_the_workers_are_scored() -> None:
    """Two workers on quadratics, by hand: x <- x - 2 lr (x - t) / 3 per element, momentum from the second step."""
    task = ToyTask()
    found = run_simulated(task, spec(method="NoCommunication", workers=2, drop_at=1.0, sync_every=4))
    targets = task.batches(2, 0, "fixed", 8, 4).targets
    ends = []
    for worker in range(2):
        x, v = torch.zeros(3), torch.zeros(3)
        for step in range(4):
            gradient = 2 * (x - targets[worker, step]) / 3 + 1e-4 * x
            v = 0.9 * v + gradient
            x = x - 0.05 * (gradient + 0.9 * v)
        ends.append(x)
    scores = [100 - float((x - 1).abs().mean()) for x in ends]
    assert found["best_worker"] == pytest.approx(max(scores), abs=1e-4)
    assert found["mean_worker"] == pytest.approx(sum(scores) / 2, abs=1e-4)
    mean = (ends[0] + ends[1]) / 2
    assert found["score"] == pytest.approx(100 - float((mean - 1).abs().mean()), abs=1e-4)
    assert found["disagreement"] == pytest.approx(float((ends[0] - ends[1]).square().sum()) / 4, rel=1e-4)


def test_the_learning_rate_drops_to_a_tenth() -> None:
    whole = run_simulated(ToyTask(), spec(drop_at=1.0, split="validation"))
    early = run_simulated(ToyTask(), spec(drop_at=0.5, split="validation"))
    assert whole["curve"][0] == early["curve"][0]
    assert early["score"] < whole["score"]  # it had come less far


class Diverging(ToyTask):
    def build_model(self, seed: int) -> nn.Module:
        model = super().build_model(seed)
        nn.init.constant_(model.weight, math.inf)  # type: ignore[arg-type]
        return model


def test_divergence_is_an_error_that_names_the_step() -> None:
    with pytest.raises(FloatingPointError, match="training diverged before step 2"):
        run_simulated(Diverging(), SPEC)
