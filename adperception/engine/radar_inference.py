"""A trained radar model on cubes or raw ADC samples: objects, masks, and how the input was read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.load import read_metadata
from adperception.engine.radar_input import (
    InputKind,
    RadarDescription,
    RadarMoment,
    read_moments,
    read_radar_description,
)
from adperception.engine.results import write_json
from adperception.models.radar.base import RadarModel, RadarPrediction
from adperception.registry import MODELS
from adperception.structures import RadarBatch, RadarFrame, RadarGrid, RadarObjects, RadarViews
from adperception.visualization.radar_panel import safe_name
from adperception.visualization.radar_views import RadarScene, radar_picture
from adperception.zoo import load_model

__all__ = ["RadarInference", "RadarNetwork", "holds_radar_model"]

_SAME = 1e-3


@runtime_checkable
class _DetectsAlone(Protocol):
    """A model that can stop after its detector, as ``ERASENet`` does."""

    def detect(self, batch: RadarBatch) -> list[RadarObjects]: ...


@dataclass(frozen=True)
class RadarInference:
    """What was found at one moment.

    Attributes:
        frame_id: name of the moment.
        grid: what the cells mean.
        class_names: class id c is ``class_names[c - 1]``.
        prediction: masks of both views and objects, whichever the model gives.
        views: the views of the moment, decibels.
        reading: how the input was read.
        notes: what a reader must know, one sentence each.
    """

    frame_id: str
    grid: RadarGrid
    class_names: tuple[str, ...]
    prediction: RadarPrediction
    views: RadarViews
    reading: str
    notes: tuple[str, ...] = ()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The objects, best first: class, score, range (m), azimuth (degrees), radial velocity (m/s), cell."""
        found = self.prediction.objects
        if found is None:
            return []
        found = found.select(np.argsort(-found.scores, kind="stable"))
        positions = zip(
            found.range_m(self.grid), found.azimuth_deg(self.grid), found.velocity_mps(self.grid), strict=True
        )
        return [
            {
                "class": self.class_names[int(class_id) - 1],
                "score": round(float(score), 4),
                "range_m": round(float(range_m), 3),
                "azimuth_deg": round(float(azimuth), 2),
                "velocity_mps": round(float(velocity), 3),
                "cell": [round(float(value), 2) for value in cell],
            }
            for class_id, score, cell, (range_m, azimuth, velocity) in zip(
                found.class_ids, found.scores, found.cells, positions, strict=True
            )
        ]

    def table(self) -> str:
        """The objects as text, one line each, and the pixels of each class."""
        lines = []
        if self.prediction.objects is not None:
            lines.append("class            score  range (m)  azimuth (deg)  velocity (m/s)")
            lines += [
                f"{o['class']:16s} {o['score']:5.2f} {o['range_m']:10.2f} {o['azimuth_deg']:14.1f} "
                f"{o['velocity_mps']:15.2f}"
                for o in self.objects
            ]
            lines = lines if self.objects else ["no object found"]
        if self.prediction.masks is not None:
            for name in ("range_doppler", "range_angle"):
                counts = np.bincount(getattr(self.prediction.masks, name).ravel(), minlength=1 + len(self.class_names))
                pixels = ", ".join(f"{c} {n}" for c, n in zip(self.class_names, counts[1:], strict=True))
                lines.append(f"{name.replace('_', '-')} pixels: {pixels}")
        return "\n".join(lines)

    def scene(self) -> RadarScene:
        """For the pictures."""
        found = self.prediction.objects
        title = self.frame_id if found is None else f"{self.frame_id}: {len(found)} found"
        return RadarScene(title, self.grid, self.views, self.class_names, self.prediction)

    def write(self, folder: str | Path) -> list[Path]:
        """Write the objects (``.json``), the masks (``.npz``, if there are any) and a picture; returns the files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = safe_name(self.frame_id)
        written = [folder / f"{name}.json"]
        known = self.prediction.objects is not None
        write_json(
            written[0],
            {"frame_id": self.frame_id, "grid": self.grid.to_dict(), "objects": self.objects if known else None},
        )
        masks = self.prediction.masks
        if masks is not None:
            written.append(folder / f"{name}.npz")
            np.savez_compressed(
                written[-1],
                range_doppler=masks.range_doppler,
                range_angle=masks.range_angle,
                classes=np.array(["background", *self.class_names]),
            )
        return [*written, radar_picture(folder / f"{name}.png", self.scene())]


class RadarNetwork:
    """A radar model from a weights file, ready for cubes.

    Args:
        weights: a checkpoint directory or ``.safetensors`` file of a radar model; it says itself what it holds.
        device: ``"cpu"``, ``"cuda"`` or ``None`` for cuda where there is one.

    Attributes:
        model: the model in evaluation mode.
        grid: the cells of its training data; ``None`` if the file does not say.

    Raises:
        FileNotFoundError: if there is nothing at ``weights``.
        CheckpointError: if the file does not hold a radar model.
    """

    def __init__(self, weights: str | Path, device: str | None = None) -> None:
        model = load_model(weights)
        if not isinstance(model, RadarModel):
            raise CheckpointError(f"{weights}: holds a {type(model).__name__}, which is no radar model.")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).eval()
        grid = read_metadata(weights).get("radar_grid")
        self.grid = RadarGrid(**grid) if isinstance(grid, dict) else None

    def __call__(
        self,
        cubes: str | Path | NDArray[Any] | Sequence[str | Path | NDArray[Any]],
        *,
        sensor: str | Path | None = None,
        kind: InputKind = "auto",
        min_score: float = 0.0,
        objects_only: bool = False,
    ) -> RadarInference:
        """What is there at the newest moment.

        Args:
            cubes: a file or an array of one moment or more, or several of them, oldest first: cubes ``(range, azimuth,
                Doppler)``, complex or magnitudes, or raw ADC samples ``(loops, antennas, samples)``; with a leading
                axis for several moments; or TI's ``.bin`` recordings.
            sensor: a sensor file, see ``read_radar_description``; raw samples and cubes in another order or of another
                radar need one.
            kind: ``"cube"`` or ``"adc"`` where the shape leaves it open.
            min_score: objects below are left out (the model has its own threshold besides).
            objects_only: stop after the model's detector: no masks, less time.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: for input that cannot be read, NaN in it, or a radar that the model was not trained for.
        """
        newest = deque(self._moments(cubes, sensor, kind), maxlen=self.model.moments)
        return self._infer(newest, min_score, objects_only)

    def sequence(
        self,
        cubes: str | Path | NDArray[Any] | Sequence[str | Path | NDArray[Any]],
        *,
        sensor: str | Path | None = None,
        kind: InputKind = "auto",
        min_score: float = 0.0,
        objects_only: bool = False,
    ) -> Iterator[RadarInference]:
        """What is there at each moment that has the predecessors that the model looks at (if none has, at the last).

        Arguments and errors are those of a call.
        """
        window: deque[RadarMoment] = deque(maxlen=self.model.moments)
        complete = False
        for moment in self._moments(cubes, sensor, kind):
            window.append(moment)
            if len(window) == self.model.moments:
                complete = True
                yield self._infer(window, min_score, objects_only)
        if not complete:
            yield self._infer(window, min_score, objects_only)

    def _moments(
        self,
        cubes: str | Path | NDArray[Any] | Sequence[str | Path | NDArray[Any]],
        sensor: str | Path | None,
        kind: InputKind,
    ) -> Iterator[RadarMoment]:
        sources = [cubes] if isinstance(cubes, (str, Path, np.ndarray)) else list(cubes)
        description = RadarDescription() if sensor is None else read_radar_description(sensor)
        for moment in read_moments(sources, description, self.grid, kind):
            self._require_grid(moment)
            yield moment

    def _require_grid(self, moment: RadarMoment) -> None:
        if self.grid is None or _alike(self.grid, moment.grid):
            return
        raise ValueError(
            f"{moment.name}: comes from another radar than the model's training data. Input: {moment.grid}; model: "
            f"{self.grid}. Give the sensor file of this recording, or train a model on data of this radar."
        )

    def _infer(self, window: deque[RadarMoment], min_score: float, objects_only: bool) -> RadarInference:
        if not window:
            raise ValueError("there is no radar input: give at least one cube or ADC frame.")
        notes, newest, moments = [], window[-1], self.model.moments
        magnitudes = [moment.magnitude for moment in window]
        other = next((moment for moment in window if moment.grid != newest.grid), None)
        if other is not None:
            raise ValueError(f"{other.name} and {newest.name} come from different radars: {other.grid}, {newest.grid}.")
        missing = moments - len(magnitudes)
        if missing:
            notes.append(
                f"{type(self.model).__name__} looks at {moments} moments, {len(magnitudes)} given: the oldest is "
                f"repeated {missing} times, so nothing seems to move before it. Give {moments} consecutive frames."
            )
            magnitudes = [magnitudes[0]] * missing + magnitudes
        views = RadarViews.processed(np.stack(magnitudes))
        frame = RadarFrame(newest.name, newest.grid, np.stack(magnitudes), views)
        batch = self.model.collate(training=False)([frame]).to(self.device)
        with torch.no_grad():
            found = self._detect(batch) if objects_only else self.model.predict(batch)[0]
        if found.objects is not None:
            found = RadarPrediction(found.masks, found.objects.select(found.objects.scores >= min_score))
        last = RadarViews(views.range_doppler[-1], views.range_angle[-1], views.angle_doppler[-1])
        return RadarInference(
            newest.name, newest.grid, tuple(self.model.class_names), found, last, newest.reading, tuple(notes)
        )

    def _detect(self, batch: RadarBatch) -> RadarPrediction:
        if not isinstance(self.model, _DetectsAlone):
            raise ValueError(
                f"objects_only: {type(self.model).__name__} has no detector of its own; leave the option out."
            )
        return RadarPrediction(objects=self.model.detect(batch)[0])


def holds_radar_model(weights: str | Path) -> bool:
    """Whether a weights file or checkpoint says that it holds a radar model.

    Raises:
        FileNotFoundError: if there is nothing at ``weights``.
    """
    config = read_metadata(weights).get("model_config")
    return isinstance(config, dict) and issubclass(MODELS.find(config), RadarModel)


def _alike(one: RadarGrid, other: RadarGrid) -> bool:
    """The same number of cells, and cells of the same size."""
    sizes = ("range_bin_m", "doppler_bin_mps", "element_spacing")
    return one.shape == other.shape and all(
        abs(getattr(one, name) / getattr(other, name) - 1) <= _SAME for name in sizes
    )
