"""What radar models share: their batch, their classes, what they predict."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adperception.models.base import PredictionModel
from adperception.structures import RadarBatch, RadarFrame, RadarMasks, RadarObjects

__all__ = ["CARRADA_CLASSES", "RadarModel", "RadarPrediction"]


@dataclass(frozen=True)
class RadarPrediction:
    """What a model finds in one frame.

    Attributes:
        masks: a class for every pixel of both views; ``None`` from a model that only detects.
        objects: the objects; ``None`` from a model that only segments.
    """

    masks: RadarMasks | None = None
    objects: RadarObjects | None = None


class RadarModel(PredictionModel):
    """A model over T consecutive radar frames.

    Attributes:
        class_names: the foreground classes; class id c is ``class_names[c - 1]``, 0 is background.
        moments: T, the frames that it looks at (it takes the newest T of a batch with more).
    """

    class_names: tuple[str, ...]
    moments: int

    def collate(self, training: bool) -> Callable[[Sequence[RadarFrame]], RadarBatch]:
        """Stacks frames."""
        return RadarBatch.from_frames

    @abstractmethod
    def predict(self, batch: RadarBatch) -> list[RadarPrediction]:
        """Masks or objects, or both, for each frame. To be called in evaluation mode; computes no gradients."""


CARRADA_CLASSES: tuple[str, ...] = ("pedestrian", "cyclist", "car")
"""Class ids 1, 2, 3 of CARRADA."""
