"""What ERASE-Net's windows are as objects."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adperception.models.radar.patch_segmenter import PatchScores
from adperception.models.radar.window_gather import Windows
from adperception.structures import RadarObjects

__all__ = ["object_scores", "objects_of_windows"]


def object_scores(detector: Tensor, found: PatchScores) -> Tensor:
    """``(N, C)`` scores of the classes: the detector's, or its best one shared out by the object class head."""
    if found.objects is None:
        return detector
    return detector.amax(dim=1, keepdim=True) * found.objects.softmax(dim=1)[:, 1:]


def objects_of_windows(windows: Windows, places: Tensor, scores: Tensor, batch_size: int) -> list[RadarObjects]:
    """Objects per frame, best first, with the likeliest class of each; extents are not predicted."""
    best, classes = scores.max(dim=1)
    cells = torch.stack([places[:, 0], windows.azimuths.to(places.dtype), places[:, 1]], dim=1)
    every = RadarObjects(
        cells.cpu().numpy(), np.zeros((len(cells), 3), np.float32), (classes + 1).cpu().numpy(), best.cpu().numpy()
    )
    frames = windows.frames.cpu().numpy()
    found = []
    for frame in range(batch_size):
        mine = np.flatnonzero(frames == frame)
        found.append(every.select(mine[np.argsort(-every.scores[mine], kind="stable")]))
    return found
