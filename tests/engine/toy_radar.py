"""A radar dataset and a radar model that are tiny and learn something within seconds: for the engine's tests.

``python tests/engine/toy_radar.py CONFIG ...`` is ``tools/train.py`` with these registered.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adperception.datasets.radar_dataset import RadarDataset
from adperception.models.base import Losses
from adperception.models.radar.base import CARRADA_CLASSES, RadarModel, RadarPrediction
from adperception.models.radar.normalization import ViewNormalization
from adperception.registry import DATASETS, EVALUATIONS, MODELS
from adperception.structures import (
    RadarBatch,
    RadarFrame,
    RadarGrid,
    RadarMasks,
    RadarObjects,
    RadarViews,
    flip_label_row,
)

CONFIG = """
model = dict(type="ToyRadarModel", moments=2)
train_dataset = dict(type="ToyRadarFrames", frames=12, moments=2)
val_dataset = dict(type="ToyRadarFrames", frames=6, moments=2, seed=1)
optimizer = dict(type="Adam", lr=0.05, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)
train = dict(steps=8, batch_size=3)
evaluations = [dict(type="RadarSegmentation"), dict(type="RadarDetection")]
checkpoint = dict(every_steps=2, keep=10, best="mean_dice", best_rule="greater")
seed = 3
"""

TOY_GRID = RadarGrid(16, 24, 8, range_bin_m=1.0, doppler_bin_mps=1.5)


def toy_frame(number: int, moments: int, seed: int, grid: RadarGrid = TOY_GRID) -> RadarFrame:
    """Frame ``number``: noise, and, but for every fourth frame, one echo that goes away."""
    rng = np.random.default_rng([seed, number])
    shape = grid.shape
    cubes = rng.rayleigh(10.0, (moments, *shape)).astype(np.float32)
    range_doppler = np.zeros((shape[0], shape[2]), dtype=np.uint8)
    range_angle = np.zeros(shape[:2], dtype=np.uint8)
    objects = RadarObjects.empty()
    if number % 4:
        class_id = 1 + number % 3
        row, column, doppler = (int(rng.integers(3, size - 3)) for size in shape)
        for moment in range(moments):
            at = row + moments - 1 - moment
            cubes[moment, at - 1 : at + 2, column - 1 : column + 2, doppler - 1 : doppler + 2] += 1000.0 * class_id
        near = int(flip_label_row(row, shape[0]))
        range_doppler[near - 1 : near + 2, doppler - 1 : doppler + 2] = class_id
        range_angle[row - 1 : row + 2, column - 1 : column + 2] = class_id
        objects = RadarObjects(
            np.array([[row, column, doppler]], dtype=np.float32),
            np.full((1, 3), 3, dtype=np.float32),
            np.array([class_id]),
            np.ones(1, dtype=np.float32),
        )
    masks = RadarMasks(range_doppler, range_angle)
    return RadarFrame(f"toy/{number:06d}", grid, cubes, RadarViews.processed(cubes), masks, objects)


@DATASETS.register_module()
class ToyRadarFrames(RadarDataset):
    """``frames`` frames of ``toy_frame``; ``nan_frame`` has a NaN in its cube."""

    class_names = CARRADA_CLASSES
    label_axis = "sin"

    def __init__(self, frames: int, moments: int = 1, seed: int = 0, nan_frame: int | None = None) -> None:
        super().__init__([f"toy/{number:06d}" for number in range(frames)], moments, ("cubes", "views"))
        self.grid = TOY_GRID
        self.seed = seed
        self.nan_frame = nan_frame

    def read(self, index: int) -> RadarFrame:
        frame = toy_frame(index, self.moments, self.seed)
        if index == self.nan_frame:
            assert frame.cubes is not None
            assert frame.views is not None
            frame.cubes[0, 0] = np.nan
            frame.views.range_angle[0, 0] = np.nan
        return frame


@MODELS.register_module()
class ToyRadarModel(RadarModel):
    """A pixel classifier per view on the newest T moments; an object where a class has pixels in range-Doppler.

    Dropout draws from the generator and batch norm has running statistics, so resuming is not trivial.
    """

    def __init__(self, moments: int = 1, width: int = 6, dropout: float = 0.1) -> None:
        super().__init__()
        self.class_names = CARRADA_CLASSES
        self.moments = moments
        self.dropout = dropout
        self.normalization = ViewNormalization("train")

        def head() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(moments, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, 1 + len(CARRADA_CLASSES), 1),
            )

        self.range_doppler, self.range_angle = head(), head()

    def before_training(self, frames: Iterable[RadarFrame]) -> None:
        self.normalization.fit(frames)

    def logits(self, batch: RadarBatch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        out = []
        for head, view in ((self.range_doppler, "range_doppler"), (self.range_angle, "range_angle")):
            values = getattr(batch, view)
            if values is None:
                raise ValueError(f'{type(self).__name__} needs the views. Add "views" to the dataset\'s load= option.')
            values = self.normalization(values[:, -self.moments :], view)
            if generator is not None:
                keep = torch.rand(values.shape, generator=generator) >= self.dropout
                values = values * keep.to(values.device)
            out.append(head(values))
        return out[0], out[1]

    def forward(self, batch: RadarBatch, generator: torch.Generator | None = None) -> Losses:
        range_doppler, range_angle = self.logits(batch, generator)
        assert batch.range_doppler_mask is not None
        assert batch.range_angle_mask is not None
        weight = torch.tensor([0.05, 1.0, 1.0, 1.0], device=range_doppler.device)
        return Losses.sum_of(
            {
                "range_doppler": functional.cross_entropy(range_doppler, batch.range_doppler_mask, weight),
                "range_angle": functional.cross_entropy(range_angle, batch.range_angle_mask, weight),
            }
        )

    @torch.no_grad()
    def predict(self, batch: RadarBatch) -> list[RadarPrediction]:
        assert not self.training
        range_doppler, range_angle = (logits.argmax(1).cpu().numpy().astype(np.uint8) for logits in self.logits(batch))
        found = []
        for rd, ra in zip(range_doppler, range_angle, strict=True):
            found.append(RadarPrediction(RadarMasks(rd, ra), _objects(rd, ra)))
        return found


def _objects(range_doppler: np.ndarray, range_angle: np.ndarray) -> RadarObjects:
    cells, class_ids = [], []
    for class_id in range(1, 1 + len(CARRADA_CLASSES)):
        rows, dopplers = np.nonzero(range_doppler == class_id)
        columns = np.nonzero(range_angle == class_id)[1]
        if len(rows) and len(columns):
            row = float(flip_label_row(rows.mean(), len(range_doppler)))
            cells.append([row, columns.mean(), dopplers.mean()])
            class_ids.append(class_id)
    n = len(cells)
    return RadarObjects(
        np.array(cells, dtype=np.float32).reshape(n, 3),
        np.zeros((n, 3), dtype=np.float32),
        np.array(class_ids, dtype=np.int64),
        np.full(n, 0.5, dtype=np.float32),
    )


if __name__ == "__main__":
    # Workers that unpickle these classes must find them in a module, not in __main__.
    sys.path.insert(0, str(Path(__file__).parent))
    for registry in (MODELS, DATASETS, EVALUATIONS):
        for name in [name for name in registry.module_dict if name.startswith("Toy")]:
            del registry.module_dict[name]
    import toy
    import toy_radar  # noqa: F401

    sys.exit(toy.main())
