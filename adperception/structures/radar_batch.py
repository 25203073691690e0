"""A batch of radar frames: what radar models are fed with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adperception.structures.radar_frame import RadarFrame
from adperception.structures.radar_grid import RadarGrid
from adperception.structures.radar_labels import RadarMasks, RadarObjects

__all__ = ["RadarBatch"]


@dataclass(frozen=True)
class RadarBatch:
    """B frames with T moments each, oldest first. What the dataset was not asked for, or does not have, is ``None``.

    Attributes:
        frame_ids: B names.
        grid: what the cells mean, the same for all frames.
        cubes: ``(B, T, range, azimuth, Doppler)`` float32 magnitudes, row 0 far.
        range_doppler: ``(B, T, range, Doppler)`` float32 decibels, **row 0 near**.
        range_angle: ``(B, T, range, azimuth)`` float32 decibels, row 0 far.
        angle_doppler: ``(B, T, azimuth, Doppler)`` float32 decibels.
        range_doppler_mask: ``(B, range, Doppler)`` int64 classes, **row 0 near**.
        range_angle_mask: ``(B, range, azimuth)`` int64 classes, row 0 far.
        objects: B sets of labelled objects (numpy), cube coordinates.
    """

    frame_ids: tuple[str, ...]
    grid: RadarGrid
    cubes: Tensor | None = None
    range_doppler: Tensor | None = None
    range_angle: Tensor | None = None
    angle_doppler: Tensor | None = None
    range_doppler_mask: Tensor | None = None
    range_angle_mask: Tensor | None = None
    objects: tuple[RadarObjects, ...] | None = None

    @classmethod
    def from_frames(cls, frames: Sequence[RadarFrame]) -> RadarBatch:
        """Stack frames of one grid.

        Raises:
            ValueError: if the frames differ in grid, in the number of moments, or in what they hold.
        """
        first = frames[0]
        for frame in frames:
            if frame.grid != first.grid:
                raise ValueError(
                    f"frames {first.frame_id} and {frame.frame_id} come from different radars ({first.grid} and "
                    f"{frame.grid}) and cannot be in one batch. Use one dataset per sensor description."
                )
            for name in ("cubes", "views", "masks", "objects"):
                if (getattr(frame, name) is None) != (getattr(first, name) is None):
                    raise ValueError(f"of frames {first.frame_id} and {frame.frame_id} only one has {name}.")

        def stack(select: Callable[[RadarFrame], np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack([select(frame) for frame in frames]))

        views = first.views is not None
        masks = [frame.masks for frame in frames if frame.masks is not None]
        return cls(
            frame_ids=tuple(frame.frame_id for frame in frames),
            grid=first.grid,
            cubes=stack(lambda f: f.cubes) if first.cubes is not None else None,  # type: ignore[arg-type,return-value]
            range_doppler=stack(lambda f: f.views.range_doppler) if views else None,  # type: ignore[union-attr]
            range_angle=stack(lambda f: f.views.range_angle) if views else None,  # type: ignore[union-attr]
            angle_doppler=stack(lambda f: f.views.angle_doppler) if views else None,  # type: ignore[union-attr]
            range_doppler_mask=_classes([m.range_doppler for m in masks]) if masks else None,
            range_angle_mask=_classes([m.range_angle for m in masks]) if masks else None,
            objects=tuple(f.objects for f in frames if f.objects is not None) if first.objects is not None else None,
        )

    def __len__(self) -> int:
        return len(self.frame_ids)

    def masks(self, index: int) -> RadarMasks | None:
        """The pixel labels of frame ``index``."""
        if self.range_doppler_mask is None or self.range_angle_mask is None:
            return None
        return RadarMasks(
            self.range_doppler_mask[index].cpu().numpy().astype(np.uint8),
            self.range_angle_mask[index].cpu().numpy().astype(np.uint8),
        )

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> RadarBatch:
        fields: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed: dict[str, Any] = {n: change(v) if isinstance(v, Tensor) else v for n, v in fields.items()}
        return RadarBatch(**changed)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> RadarBatch:
        """The same batch with its tensors on ``device``."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> RadarBatch:
        """The same batch in page-locked memory (called by the data loader)."""
        return self._with_tensors(Tensor.pin_memory)


def _classes(masks: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(masks).astype(np.int64))
