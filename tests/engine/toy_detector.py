"""A detector that repeats the labels it is shown, and an evaluation that counts them: for the engine's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from adperception.evaluation.detection_evaluation import DetectionEvaluation
from adperception.geometry.voxelization import VoxelCollate, Voxelizer
from adperception.models.base import DetectionModel, Losses
from adperception.registry import DATASETS, EVALUATIONS, MODELS
from adperception.structures import Boxes3D, Detections, LidarBatch, LidarFrame, PointCloud, VoxelGrid

CONFIG = """
model = dict(type="ToyDetector")
train_dataset = dict(type="ToyFrames", frames=5)
val_dataset = dict(type="ToyFrames", frames=3)
optimizer = dict(type="AdamW", lr=0.01)
train = dict(steps=2, batch_size=2)
evaluations = [dict(type="ToyCount")]
"""


@DATASETS.register_module()
class ToyFrames:
    """Frame n holds n cars."""

    def __init__(self, frames: int) -> None:
        self.frame_ids = [f"frame_{index}" for index in range(frames)]

    def __len__(self) -> int:
        return len(self.frame_ids)

    def get(self, index: int, rng: np.random.Generator) -> LidarFrame:
        points = np.full((4, 4), 0.5, dtype=np.float32)
        boxes = np.tile(np.array([1, 1, 0, 4, 2, 1.5, 0], dtype=np.float32), (index, 1))
        return LidarFrame(self.frame_ids[index], PointCloud(points), Boxes3D(boxes, ("Car",) * index))


@MODELS.register_module()
class ToyDetector(DetectionModel):
    evaluated_mean = float("nan")

    def __init__(self) -> None:
        super().__init__()
        self.grid = VoxelGrid((0.0, -3.2, -1.0, 6.4, 3.2, 1.0), (0.1, 0.1, 0.1))
        self.class_names = ("Car",)
        self.bias = nn.Parameter(torch.ones(()))
        self.norm = nn.BatchNorm1d(4, momentum=0.01, affine=False)

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        self.norm(torch.full((2, 4), 0.5))
        return Losses(self.bias.square(), {})

    def collate(self, training: bool) -> Callable[[Sequence[Any]], LidarBatch]:
        return VoxelCollate(Voxelizer(self.grid, 5, 100), 4)

    def predict(self, batch: LidarBatch) -> list[Detections]:
        assert not self.training
        ToyDetector.evaluated_mean = float(self.norm.running_mean[0])  # type: ignore[index]
        assert batch.boxes is not None
        return [Detections(boxes, np.full(len(boxes), 0.5, dtype=np.float32)) for boxes in batch.boxes]


@EVALUATIONS.register_module()
class ToyCount(DetectionEvaluation):
    """Boxes found per box there; ``broken`` fails like an evaluator with a missing library."""

    def __init__(self, every_epochs: int = 1, broken: bool = False) -> None:
        super().__init__(every_epochs)
        self.broken = broken
        self.calls: list[int] = []

    def _bind(self, dataset: Any) -> None:
        self.dataset = dataset

    def score(self, predictions: Mapping[str, Detections]) -> dict[str, float]:
        if self.broken:
            raise ValueError("ToyCount: no ground truth")
        wanted = sum(list(self.dataset.frame_ids).index(name) for name in predictions)
        return {
            "recall": sum(map(len, predictions.values())) / wanted,
            "empty_class": float("nan"),
            "evaluated_mean": ToyDetector.evaluated_mean,
        }

    def report(self, metrics: Mapping[str, float]) -> str:
        return f"table: recall {metrics['recall']:.2f}"
