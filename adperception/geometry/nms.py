"""Non-maximum suppression of rotated boxes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adperception.geometry.rotated_iou import rotated_iou_bev_pairs, touching_pairs

__all__ = ["rotated_nms"]


@torch.no_grad()
def rotated_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    pre_max: int | None = None,
    post_max: int | None = None,
) -> Tensor:
    """Greedy suppression by bird's-eye-view IoU, whatever the class.

    The best box is kept, all boxes whose IoU with it exceeds the threshold go, and so on with what is left. Boxes of
    equal score keep their order. Works through the boxes in blocks: the greedy choice inside a block is made on the
    host, then the kept boxes of the block clear out all later ones at once.

    Args:
        boxes: ``(N, 7)`` x, y, z, length, width, height, yaw (centre, metres, radians), float32 or float64.
        scores: ``(N,)`` higher is better.
        iou_threshold: an IoU above it suppresses.
        pre_max: only the best so many boxes take part; ``None``: all.
        post_max: at most so many are kept; ``None``: no limit.

    Returns:
        Kept positions in ``boxes``, int64, best first.

    Raises:
        ValueError: if there is not one score per box, or a limit is negative.
    """
    if scores.shape != (len(boxes),):
        raise ValueError(f"rotated_nms: {len(boxes)} boxes but scores of shape {tuple(scores.shape)}.")
    for name, limit in (("pre_max", pre_max), ("post_max", post_max)):
        if limit is not None and limit < 0:
            raise ValueError(f"rotated_nms: {name}={limit} is negative; give None for no limit.")
    order = torch.argsort(scores, descending=True, stable=True)[:pre_max]
    limit = len(order) if post_max is None else min(post_max, len(order))
    # A large block means few round trips to a GPU, a small one little work for boxes that go anyway.
    size = 256 if boxes.device.type == "cpu" else 2048
    kept: list[Tensor] = []
    while limit > 0 and len(order):
        block, order = order[:size], order[size:]
        overlaps = _overlap_matrix(boxes[block], boxes[block], iou_threshold)
        chosen = block[torch.from_numpy(_greedy(overlaps.cpu().numpy(), limit)).to(block.device)]
        kept.append(chosen)
        limit -= len(chosen)
        if limit > 0 and len(order):
            order = order[~_overlap_matrix(boxes[chosen], boxes[order], iou_threshold).any(dim=0)]
    return torch.cat(kept) if kept else order[:0]


def _overlap_matrix(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """``(A, B)`` bool: IoU above the threshold."""
    rows, columns = touching_pairs(a, b)
    result = torch.zeros(len(a), len(b), dtype=torch.bool, device=a.device)
    result[rows, columns] = rotated_iou_bev_pairs(a[rows], b[columns]) > threshold
    return result


def _greedy(overlaps: NDArray[np.bool_], limit: int) -> NDArray[np.int64]:
    """Positions kept of boxes sorted by score, at most ``limit``, given their ``(N, N)`` overlaps."""
    alive = np.ones(len(overlaps), dtype=np.bool_)
    kept: list[int] = []
    for position, row in enumerate(overlaps):
        if alive[position]:
            kept.append(position)
            if len(kept) == limit:
                break
            alive &= ~row
    return np.array(kept, dtype=np.int64)
