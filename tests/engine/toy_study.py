"""A task small enough to train on in a test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adperception.engine.communication_plan import Hardware
from adperception.engine.study_task import Metric, Sharding, Split
from adperception.optim.time_model import Link

HARDWARE = Hardware(Link(1e9, 1e-4), 0.01)


class ToyBatches:
    def __init__(self, targets: Tensor) -> None:
        self.targets = targets
        self.stepped: list[int] = []

    def loss(self, model: nn.Module, worker: int, step: int) -> Tensor:
        weight: Tensor = model.weight  # type: ignore[assignment]
        return (weight - self.targets[worker, step]).square().mean()

    def before_step(self, model: nn.Module) -> None:
        pass

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.stepped.append(step)


@dataclass(frozen=True)
class ToyTask:
    """Every worker draws towards numbers of its own around 1; the score is 100 less the distance from 1."""

    name: str = "toy"
    metric: Metric = field(default_factory=lambda: Metric("accuracy", higher_is_better=True, tolerance=0.5))
    shardings: tuple[Sharding, ...] = ("fixed", "skewed")
    batch_size: int = 8
    rate_scale: float = 1.0
    recalibration_batches: int = 0

    def identity(self) -> dict[str, Any]:
        return {"task": self.name}

    def build_model(self, seed: int) -> nn.Module:
        model = nn.Linear(3, 1, bias=False)
        nn.init.constant_(model.weight, 0.1 * seed)
        return model

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)

    def batches(self, workers: int, seed: int, sharding: Sharding, batch_size: int, steps: int) -> ToyBatches:
        noise = torch.randn(workers, steps, 3, generator=torch.Generator().manual_seed(seed))
        return ToyBatches(1 + noise / batch_size)

    def score(self, model: nn.Module, split: Split) -> float:
        return 100 - float((next(model.parameters()).detach() - 1).abs().mean())
