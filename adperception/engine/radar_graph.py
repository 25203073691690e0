"""A radar model as a function from tensors to tensors of fixed shapes: what is exported, quantised and pruned.

The normalisation belongs to it: input is what a recording holds, decibels or magnitudes.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adperception.engine.cells import bare_dataset
from adperception.models.radar.base import RadarModel, RadarPrediction
from adperception.models.radar.erase_net import ERASENet
from adperception.models.radar.view_segmentation import ViewSegmentation
from adperception.structures import RadarBatch, RadarMasks, RadarObjects

__all__ = ["RadarGraph", "radar_graph", "recorded_inputs"]


class RadarGraph(nn.Module):
    """What one batch of tensors goes through.

    Attributes:
        model: the model.
        input_names: names of the inputs.
        output_names: names of the outputs.
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def __init__(self, model: RadarModel) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def inputs(self, batch: RadarBatch) -> tuple[Tensor, ...]:
        """The newest T moments of what the model looks at.

        Raises:
            ValueError: if the batch lacks it.
        """

    @abstractmethod
    def example(self, shape: tuple[int, int, int], seed: int) -> tuple[Tensor, ...]:
        """Inputs of one frame for cubes of ``shape`` (range, azimuth, Doppler): noise and some echoes."""

    @abstractmethod
    def predictions(self, outputs: Sequence[NDArray[np.generic]]) -> list[RadarPrediction]:
        """What the outputs say about each frame."""

    def _newest(self, batch: RadarBatch, name: str) -> Tensor:
        values: Tensor | None = getattr(batch, name)
        if values is None or values.shape[1] < self.model.moments:
            raise ValueError(
                f"frame {batch.frame_ids[0]} does not have {self.model.moments} moments of {name}, which "
                f"{type(self.model).__name__} looks at. Set load= and moments= of the dataset."
            )
        return values[:, values.shape[1] - self.model.moments :]


class ViewGraph(RadarGraph):
    """Processed views in decibels to the scores of every class in every pixel (see ``ViewLogits``)."""

    output_names = ("range_doppler_scores", "range_angle_scores")

    def __init__(self, model: ViewSegmentation) -> None:
        super().__init__(model)
        parameters = inspect.signature(model.logits).parameters.values()
        # A view that a network does without would be an input without effect.
        self.input_names = tuple(p.name for p in parameters if p.default is inspect.Parameter.empty)

    def inputs(self, batch: RadarBatch) -> tuple[Tensor, ...]:
        """``(B, T, rows, columns)`` per view; range-Doppler with **row 0 near**."""
        return tuple(self._newest(batch, name) for name in self.input_names)

    def example(self, shape: tuple[int, int, int], seed: int) -> tuple[Tensor, ...]:
        """Decibels between the normalisation's limits."""
        rows, azimuths, dopplers = shape
        sizes = {
            "range_doppler": (rows, dopplers),
            "range_angle": (rows, azimuths),
            "angle_doppler": (azimuths, dopplers),
        }
        generator = torch.Generator().manual_seed(seed)
        limits = dict(zip(sizes, self.model.normalization.limits.tolist(), strict=True))  # type: ignore[union-attr,operator]
        made = []
        for name in self.input_names:
            low, high = limits[name]
            noise = torch.rand(1, self.model.moments, *sizes[name], generator=generator)
            made.append(low + (high - low) * noise.square())
        return tuple(made)

    def forward(self, *views: Tensor) -> tuple[Tensor, ...]:
        """``(B, classes + 1, rows, columns)`` per view with masks, background first."""
        named = zip(self.input_names, views, strict=True)
        return tuple(self.model.logits(*(self.model.normalization(view, name) for name, view in named)))  # type: ignore[operator]

    def predictions(self, outputs: Sequence[NDArray[np.generic]]) -> list[RadarPrediction]:
        """The best class of every pixel."""
        doppler, angle = (scores.argmax(axis=1).astype(np.uint8) for scores in outputs)
        return [RadarPrediction(RadarMasks(*masks)) for masks in zip(doppler, angle, strict=True)]


class ERASENetGraph(RadarGraph):
    """Cubes of magnitudes to masks and objects (see ``FixedCandidates``)."""

    input_names = ("cubes",)
    output_names = ("range_doppler", "range_angle", "cells", "scores")

    def inputs(self, batch: RadarBatch) -> tuple[Tensor, ...]:
        """``(B, T, range, azimuth, Doppler)``, row 0 far."""
        return (self._newest(batch, "cubes"),)

    def example(self, shape: tuple[int, int, int], seed: int) -> tuple[Tensor, ...]:
        """Rayleigh noise with three echoes of an object's size."""
        generator = torch.Generator().manual_seed(seed)
        power = -torch.rand(1, self.model.moments, *shape, generator=generator).clamp_min(1e-9).log()
        magnitudes = 40 * power.sqrt()
        for echo in range(3):
            cells = [int(torch.randint(2, size - 2, (), generator=generator)) for size in shape]
            row, azimuth, doppler = [slice(cell - 1, cell + 2) for cell in cells]
            magnitudes[0, :, row, azimuth, doppler] *= 30 * (echo + 1)
        return (magnitudes,)

    def forward(self, cubes: Tensor) -> tuple[Tensor, ...]:
        """Masks ``(B, R, D)`` (**row 0 near**) and ``(B, R, A)``, cells ``(B, K, 3)``, scores ``(B, K, C)``."""
        return tuple(self.model.fixed_candidates(cubes))  # type: ignore[operator]

    def predictions(self, outputs: Sequence[NDArray[np.generic]]) -> list[RadarPrediction]:
        """Masks, and the candidates that have a score."""
        doppler, angle, cells, scores = outputs
        found = []
        for frame in range(len(doppler)):
            best = scores[frame].max(axis=1)
            order = np.argsort(-best, kind="stable")
            order = order[best[order] > 0]
            places = cells[frame, order].astype(np.float32)
            objects = RadarObjects(
                places, np.zeros_like(places), scores[frame, order].argmax(axis=1) + 1, best[order].astype(np.float32)
            )
            masks = RadarMasks(doppler[frame].astype(np.uint8), angle[frame].astype(np.uint8))
            found.append(RadarPrediction(masks, objects))
        return found


def radar_graph(model: nn.Module) -> RadarGraph:
    """The model as a function of tensors.

    Raises:
        ValueError: for a model without one.
    """
    if isinstance(model, ViewSegmentation):
        return ViewGraph(model)
    if isinstance(model, ERASENet):
        if model.segmenter is None:
            raise ValueError("ERASENet with phases=[1, 0, 0] has no segmenter; the whole network is needed.")
        return ERASENetGraph(model)
    raise ValueError(
        f"{type(model).__name__} is not one of the radar models that work on tensors of fixed shapes: ERASENet and the "
        "segmentation networks on views."
    )


def recorded_inputs(graph: RadarGraph, section: Mapping[str, Any], count: int) -> list[tuple[Tensor, ...]]:
    """Inputs of frames that are spread evenly over a dataset, as stored.

    Args:
        graph: what they are fed to.
        section: the dataset's section of a config.
        count: how many, if there are so many.
    """
    dataset = bare_dataset(section)
    total = len(dataset)
    collate = graph.model.collate(training=False)
    places = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    return [graph.inputs(collate([dataset.read(int(index))])) for index in places]
