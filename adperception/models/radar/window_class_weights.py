"""Class weights of ERASE-Net's cross-entropies: of the cells in its windows, and of the objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from adperception.models.radar.merge_windows import flip_range_doppler
from adperception.models.radar.radar_center_targets import labelled_centers
from adperception.models.radar.training_windows import object_masks, window_labels
from adperception.models.radar.window_gather import WindowCells, Windows, WindowSize
from adperception.structures import RadarFrame

__all__ = ["WindowClassWeights"]


class WindowClassWeights(nn.Module):
    """One weight per class and view; the weights of a view add up to 1.

    Full maps hold 5,000 times more background than windows do, so the published weights of full maps do not fit.

    Args:
        class_count: classes without background.
        source: ``"windows"``: inverse frequencies in windows of the training frames; ``"equal"``; or one number per
            class, background first, for both views.
        balance_objects: weight the objects' classes by inverse frequency among the training frames (clutter and a
            class as frequent as the others get 1); otherwise all weigh 1.

    Attributes:
        weights: ``(2, 1 + C)`` of the cells in the range-Doppler and in the range-angle view.
        objects: ``(1 + C,)`` of the objects.
    """

    weights: Tensor
    objects: Tensor

    def __init__(self, class_count: int, source: str | Sequence[float], balance_objects: bool) -> None:
        super().__init__()
        self.balance_objects = balance_objects
        objects = torch.full((class_count + 1,), torch.nan) if balance_objects else torch.ones(class_count + 1)
        self.register_buffer("objects", objects)
        self.from_windows = source == "windows"
        weights = torch.full((2, class_count + 1), torch.nan)
        if source == "equal":
            weights.fill_(1 / (class_count + 1))
        elif not isinstance(source, str):
            if len(source) != class_count + 1 or min(source) <= 0:
                raise ValueError(
                    f"ERASENet: class_weights={list(source)} must be {class_count + 1} positive numbers, "
                    "background first."
                )
            weights[:] = torch.tensor(source) / sum(source)
        elif not self.from_windows:
            raise ValueError(f'ERASENet: class_weights="{source}" is unknown. Available: windows, equal, or numbers.')
        self.register_buffer("weights", weights)

    def observe(self, frames: Iterable[RadarFrame], size: WindowSize, clutter_share: float) -> Iterator[RadarFrame]:
        """Pass ``frames`` on; after the last one the weights are set, as far as they are to come from training frames.

        Args:
            frames: training frames.
            size: of the windows around their objects.
            clutter_share: windows per frame that hold background only.

        Raises:
            ValueError: if a frame lacks masks or objects.
        """
        counts = torch.zeros_like(self.weights, dtype=torch.float64)
        objects = torch.zeros_like(self.objects, dtype=torch.float64)
        for frame in frames:
            if self.from_windows:
                counts += _count(frame, counts.shape[1], size, clutter_share)
            if self.balance_objects and frame.objects is not None:
                objects += torch.bincount(torch.from_numpy(frame.objects.class_ids), minlength=len(objects))
            yield frame
        if self.balance_objects:
            present = objects[1:] > 0
            share = objects[1:] * present.sum() / objects.sum().clamp(min=1)
            self.objects[0] = 1
            self.objects[1:] = torch.where(present, 1 / share, torch.ones_like(share))
        if self.from_windows:
            inverse = counts.sum(dim=1, keepdim=True) / counts.clamp(min=1)
            inverse = torch.where(counts > 0, inverse, torch.ones_like(inverse))  # a class that never occurs
            self.weights.copy_(inverse / inverse.sum(dim=1, keepdim=True))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Weights of the range-Doppler and of the range-angle view, ``(1 + C,)`` each.

        Raises:
            ValueError: if they are not known yet.
        """
        if not bool(torch.isfinite(self.weights).all() & torch.isfinite(self.objects).all()):
            raise ValueError(
                'ERASENet: class_weights="windows" and balance_objects=True take weights from the training frames at '
                "the start of a run, which has not happened. Call before_training, load trained weights, or choose "
                'class_weights="equal" and balance_objects=False.'
            )
        doppler, angle = self.weights
        return doppler, angle


def _count(frame: RadarFrame, classes: int, size: WindowSize, clutter_share: float) -> Tensor:
    """Cells of each class in windows around the objects of ``frame``, both views, ``(2, classes)``."""
    if frame.masks is None or frame.objects is None:
        raise ValueError(
            f"frame {frame.frame_id} has no masks or no objects, which ERASENet is trained with. Use phases=[1, 0, 0] "
            "to train its detector on data without masks."
        )
    centers = labelled_centers([frame.objects], torch.device("cpu"))
    doppler_mask = flip_range_doppler(torch.from_numpy(frame.masks.range_doppler[None].astype("int64")))
    angle_mask = torch.from_numpy(frame.masks.range_angle[None].astype("int64"))
    masks = object_masks(doppler_mask, angle_mask, centers)
    shape = (angle_mask.shape[1], angle_mask.shape[2], doppler_mask.shape[2])
    cells = centers.cells.round().long()
    windows = Windows(centers.frames, cells[:, 0], cells[:, 1], cells[:, 2] % shape[2], cells.new_zeros(len(cells), 0))
    owners = torch.arange(len(cells))
    labels = window_labels(masks, owners, WindowCells.of(windows, size, shape))
    counts = torch.stack([torch.bincount(view.flatten(), minlength=classes) for view in labels]).double()
    counts[0, 0] += clutter_share * size.rows * size.dopplers
    counts[1, 0] += clutter_share * size.rows * shape[1]
    return counts
