"""Ground truth as heads want it: tensors of the classes they know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adperception.geometry import in_range
from adperception.structures import LidarBatch, VoxelGrid

__all__ = ["LabelledBoxes", "labelled_boxes"]


@dataclass(frozen=True)
class LabelledBoxes:
    """The objects of one frame.

    Attributes:
        boxes: ``(M, 7)`` x, y, z, length, width, height, yaw (metres, radians, LiDAR frame).
        labels: ``(M,)`` int64 positions in the model's ``class_names``.
        numbers: the labels once more, for the host; ``None`` where nobody noted them.
    """

    boxes: Tensor
    labels: Tensor
    numbers: tuple[int, ...] | None = None

    @property
    def host_labels(self) -> tuple[int, ...]:
        """The labels as the host sees them; it waits for the device only if nobody noted them."""
        return tuple(self.labels.tolist()) if self.numbers is None else self.numbers

    def __len__(self) -> int:
        return len(self.labels)


def labelled_boxes(batch: LidarBatch, class_names: Sequence[str], grid: VoxelGrid) -> list[LabelledBoxes]:
    """The objects to be found in each frame, on the device of the batch; all frames' in one copy, without a wait.

    Objects of other classes are ignored, and those with no corner in the range, of which nothing can be seen.

    Raises:
        ValueError: if the batch has no labels, or a box has no volume.
    """
    if batch.boxes is None:
        raise ValueError(
            f"frames {', '.join(batch.frame_ids)}: at least one has no labels, and a detector is trained with labels. "
            "Give train_dataset a labelled split (an empty label file stands for a frame without objects)."
        )
    numbers = {name: number for number, name in enumerate(class_names)}
    boxes, labels = [], []
    for frame_id, objects in zip(batch.frame_ids, batch.boxes, strict=True):
        known = objects.select(np.array([name in numbers for name in objects.names], dtype=bool))
        inside = in_range(known.corners().reshape(-1, 3), grid.point_cloud_range).reshape(-1, 8).any(axis=1)
        known = known.select(np.flatnonzero(inside))
        flat = np.flatnonzero(~(known.boxes[:, 3:6] > 0).all(axis=1))
        if len(flat):
            first = int(flat[0])
            raise ValueError(
                f"frame {frame_id}: a {known.names[first]} measures {known.boxes[first, 3:6].tolist()} m (length, "
                "width, height). Correct the label or remove it."
            )
        boxes.append(known.boxes)
        labels.append(tuple(numbers[name] for name in known.names))
    packed = np.empty((sum(len(frame) for frame in labels), 8), dtype=np.float32)
    packed[:, :7] = np.concatenate(boxes)
    packed[:, 7] = [label for frame in labels for label in frame]  # small numbers: exact in float32
    device = batch.voxels.features.device
    moved = torch.from_numpy(packed).to(device, non_blocking=True)
    counts = [len(frame) for frame in labels]
    return [
        LabelledBoxes(own[:, :7], own[:, 7].long(), known_labels)
        for own, known_labels in zip(torch.split(moved, counts), labels, strict=True)
    ]
