"""What every trainable model gives to the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adperception.structures import Detections, LidarBatch, VoxelGrid

__all__ = ["DetectionModel", "Losses", "PredictionModel", "Pruning", "TrainableModel"]


@dataclass(frozen=True)
class Losses:
    """The outcome of one training step.

    Attributes:
        total: scalar to be minimised, connected to every trainable parameter whatever the batch holds.
        terms: named scalars to log; the non-finite guard names the first one that is not finite.
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def sum_of(cls, terms: Mapping[str, Tensor]) -> Losses:
        """The sum of weighted terms is to be minimised; it is logged as ``loss`` beside them."""
        total = torch.stack(list(terms.values())).sum()
        return cls(total, {name: value.detach() for name, value in {"loss": total, **terms}.items()})


@dataclass(frozen=True)
class Pruning:
    """What was taken from a model that its config does not know; every weights file carries it (docs/compression.md).

    Attributes:
        shapes: shapes of the tensors that lost channels, by name.
        masked: names of the tensors whose zeros stay zeros.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    masked: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {"shapes": {name: list(shape) for name, shape in self.shapes.items()}, "masked": list(self.masked)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pruning:
        """What ``to_dict`` gave."""
        return cls({name: tuple(shape) for name, shape in values["shapes"].items()}, tuple(values["masked"]))


class TrainableModel(nn.Module, ABC):
    """A model that the engine can train without knowing what it is.

    Attributes:
        pruning: what was taken from it, if it was pruned.
        FINE_TUNING: options of the model that a trained one is trained on with, where they are others.
        ENCODERS: prefixes of the tensors of each encoder in the state dict, by branch name; the first one is what
            fine-tuning takes (``{"context": "context_encoder.", "target": "target_encoder."}``).
        COMPILED: names of the modules that ``train.compile`` compiles: dense, called by their ``forward``, with shapes
            that change in the first dimension only.
    """

    ENCODERS: ClassVar[Mapping[str, str]] = {}

    COMPILED: ClassVar[tuple[str, ...]] = ()

    FINE_TUNING: ClassVar[Mapping[str, Any]] = {}

    pruning: Pruning = Pruning()

    @abstractmethod
    def forward(self, batch: Any, generator: torch.Generator | None = None) -> Losses:
        """The training losses of ``batch``; every random draw comes from ``generator`` (a CPU generator)."""

    @abstractmethod
    def collate(self, training: bool) -> Callable[[Sequence[Any]], Any]:
        """A small picklable callable that turns a list of dataset frames into this model's batch (runs in workers)."""

    def before_training(self, frames: Iterable[Any]) -> None:
        """Called once, before the first step of a new run (on every process; not when a run is resumed).

        Args:
            frames: training frames evenly spread over the split, as stored (not augmented), read when iterated over:
                for statistics that belong to the weights, such as the normalisation of the input.
        """

    def after_optimizer_step(self, step: int, total_steps: int, applied: Tensor | None = None) -> None:
        """Called after optimizer step ``step`` (0, 1, ... ``total_steps`` - 1), identically on every rank.

        Args:
            step: number of the step.
            total_steps: of the run.
            applied: scalar boolean on the model's device: whether the parameters changed; if not, nothing of the model
                may change here, to the bit, and nothing may be read to find out. ``None``: they did.
        """


class PredictionModel(TrainableModel):
    """A model whose output can be judged frame by frame against labels."""

    @abstractmethod
    def predict(self, batch: Any) -> list[Any]:
        """What is found in each frame of ``batch``. To be called in evaluation mode; computes no gradients."""


class DetectionModel(PredictionModel):
    """A model that finds boxes.

    Attributes:
        class_names: the classes it knows, in the order of its outputs.
        grid: the voxel grid, and with it the range that it sees.
    """

    ENCODERS: ClassVar[Mapping[str, str]] = {"backbone_3d": "backbone_3d."}

    class_names: tuple[str, ...]
    grid: VoxelGrid

    @abstractmethod
    def predict(self, batch: LidarBatch) -> list[Detections]:
        """The objects found in each frame of ``batch``, best first.

        To be called in evaluation mode; computes no gradients. A frame without a point yields no detection.
        """
