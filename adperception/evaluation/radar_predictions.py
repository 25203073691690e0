"""Predictions of a radar model, and the file they are kept in.

One compressed ``.npz`` file (a zip of plain arrays, nothing is ever unpickled), written and read frame by frame::

    description                 JSON text: classes, grid
    <frame>/range_doppler       (range, Doppler) uint8 classes, row 0 near
    <frame>/range_angle         (range, azimuth) uint8 classes, row 0 far
    <frame>/objects             (N, 8) float32: row, azimuth column, Doppler column, three extents, class id, score

A frame without masks, or without objects, has no such entry.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.models.radar.base import RadarPrediction
from adperception.structures import RadarGrid, RadarMasks, RadarObjects

__all__ = ["RadarPredictionWriter", "RadarPredictions"]

_DESCRIPTION = "description"
_PARTS = ("range_doppler", "range_angle", "objects")
_UNREADABLE = (
    *(ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, EOFError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)


class RadarPredictionWriter:
    """Writes predictions frame by frame; the file takes its name when it is complete. Use it with ``with``.

    Args:
        path: the ``.npz`` file; its folder is made.
        class_names: foreground classes of the model.
        grid: what the cells mean.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str], grid: RadarGrid) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._frames: set[str] = set()
        self._zip = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self._write(_DESCRIPTION, np.asarray(json.dumps({"classes": list(class_names), "grid": grid.to_dict()})))

    def __enter__(self) -> RadarPredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        if kind is None:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)

    def add(self, frame_id: str, found: RadarPrediction) -> None:
        """Append one frame.

        Raises:
            ValueError: if the frame is there already, the prediction is empty, or an object has a number that is not
                finite.
        """
        if frame_id in self._frames:
            raise ValueError(
                f"frame {frame_id} comes twice, so it would count twice. Oversampling is for training frames only."
            )
        self._frames.add(frame_id)
        if found.masks is not None:
            self._write(f"{frame_id}/range_doppler", found.masks.range_doppler.astype(np.uint8, copy=False))
            self._write(f"{frame_id}/range_angle", found.masks.range_angle.astype(np.uint8, copy=False))
        if found.objects is not None:
            table = _table(found.objects)
            if not np.isfinite(table).all():
                raise ValueError(f"frame {frame_id}: a predicted object has a number that is not finite.")
            self._write(f"{frame_id}/objects", table)
        if found.masks is None and found.objects is None:
            raise ValueError(f"frame {frame_id}: the model predicted neither masks nor objects.")

    def _write(self, name: str, array: NDArray[Any]) -> None:
        with self._zip.open(f"{name}.npy", "w") as stream:
            np.lib.format.write_array(stream, array, allow_pickle=False)


class RadarPredictions(Mapping[str, RadarPrediction]):
    """Stored predictions by frame name, read from the file when they are asked for.

    Attributes:
        path: the file.
        class_names: foreground classes of the model that made them.
        grid: what the cells mean.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a file of radar predictions.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: there are no predictions here.")
        try:
            # Not kept open by numpy's lazy reader alone: the zip directory is read once, arrays when needed.
            self._arrays: Any = np.load(self.path, allow_pickle=False)
            description = json.loads(str(self._arrays[_DESCRIPTION]))
            self.class_names = tuple(str(name) for name in description["classes"])
            self.grid = RadarGrid(**description["grid"])
        except _UNREADABLE as error:
            raise ValueError(
                f"{self.path}: not a file of radar predictions ({type(error).__name__}: {error}). tools/test.py "
                "--weights writes one."
            ) from error
        self._parts: dict[str, set[str]] = {}
        for name in self._arrays.files:
            frame_id, _, part = name.rpartition("/")
            if part in _PARTS:
                self._parts.setdefault(frame_id, set()).add(part)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __getitem__(self, frame_id: str) -> RadarPrediction:
        parts = self._parts[frame_id]
        masks = objects = None
        if "objects" in parts:
            objects = self._objects(frame_id)
        if {"range_doppler", "range_angle"} <= parts:
            masks = RadarMasks(self._mask(frame_id, "range_doppler"), self._mask(frame_id, "range_angle"))
        return RadarPrediction(masks, objects)

    def _array(self, frame_id: str, part: str) -> NDArray[Any]:
        try:
            array: NDArray[Any] = self._arrays[f"{frame_id}/{part}"]
        except _UNREADABLE as error:
            raise ValueError(f"{self.path}: {part} of frame {frame_id} cannot be read ({error}).") from error
        return array

    def _mask(self, frame_id: str, part: str) -> NDArray[np.uint8]:
        rows, azimuths, dopplers = self.grid.shape
        mask = self._array(frame_id, part)
        expected = (rows, dopplers if part == "range_doppler" else azimuths)
        if mask.shape != expected or mask.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: {part} of frame {frame_id} is {mask.dtype} {mask.shape}, the grid says uint8 {expected}."
            )
        return mask

    def _objects(self, frame_id: str) -> RadarObjects:
        table = self._array(frame_id, "objects")
        if table.ndim != 2 or table.shape[1] != 8 or not np.isfinite(table).all():
            raise ValueError(
                f"{self.path}: objects of frame {frame_id} are {table.dtype} {table.shape}; finite numbers (N, 8) "
                "are expected."
            )
        table = table.astype(np.float32, copy=False)
        return RadarObjects(table[:, :3], table[:, 3:6], table[:, 6].astype(np.int64), table[:, 7])


def _table(objects: RadarObjects) -> NDArray[np.float32]:
    table: NDArray[np.float32] = np.column_stack(
        [objects.cells, objects.sizes, objects.class_ids, objects.scores]
    ).astype(np.float32)
    return table
