"""Choosing points: far apart from each other, or near given centres. Vectorised, on any device.

Shape legend: N points, M centres, B frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["ball_query", "farthest_point_sample", "farthest_point_sample_frames"]

MAX_CANDIDATES = 1 << 22
"""Pairs of centre and point that ``ball_query`` measures at once, to bound its memory."""


def farthest_point_sample(xyz: Tensor, n: int) -> Tensor:
    """``n`` points that cover a cloud: the first one, then again and again the one farthest from all chosen ones.

    Of equally far points the first is taken. If there are fewer than ``n`` points, all of them are chosen, and the
    choice is repeated in its order.

    Args:
        xyz: ``(N, 3)`` positions, at least one.
        n: how many to choose.

    Returns:
        ``(n,)`` int64 positions in ``xyz``.

    Raises:
        ValueError: if there is no point, or ``n`` is not positive.

    Source: Qi et al., "PointNet++", NeurIPS 2017, section 3.2.
    """
    return farthest_point_sample_frames([xyz], n)[0]


@torch.no_grad()
def farthest_point_sample_frames(clouds: Sequence[Tensor], n: int) -> Tensor:
    """``(B, n)`` the choice of ``farthest_point_sample`` in each of B clouds ``(N_b, 3)``, all at the same time."""
    counts = [len(cloud) for cloud in clouds]
    if n < 1:
        raise ValueError(f"farthest_point_sample: n={n} must be at least 1.")
    if not counts or min(counts) < 1:
        raise ValueError("farthest_point_sample: there is a cloud without a point; leave it out.")
    # Axis by axis, padded to the longest cloud. Padding has distance -1 and is never the farthest.
    axes = torch.nn.utils.rnn.pad_sequence([cloud[:, :3] for cloud in clouds], batch_first=True).permute(2, 0, 1)
    x, y, z = (axis.contiguous() for axis in axes)
    columns = torch.arange(x.shape[1], device=x.device)
    padding = columns >= torch.tensor(counts, device=x.device)[:, None]
    nearest = torch.full_like(x, torch.inf).masked_fill_(padding, -1.0)
    distance, step = torch.empty_like(x), torch.empty_like(x)
    rounds = min(n, max(counts))
    chosen = torch.zeros(len(counts), rounds, dtype=torch.int64, device=x.device)
    last = chosen[:, :1]
    for number in range(1, rounds):
        torch.sub(x, x.gather(1, last), out=distance).square_()
        for axis in (y, z):
            torch.sub(axis, axis.gather(1, last), out=step)
            distance.addcmul_(step, step)
        torch.minimum(nearest, distance, out=nearest)
        last = nearest.argmax(dim=1, keepdim=True)
        chosen[:, number : number + 1] = last
    order = torch.arange(n, device=x.device) % torch.tensor(counts, device=x.device)[:, None]
    return chosen.gather(1, order)


@torch.no_grad()
def ball_query(
    centres: Tensor,
    xyz: Tensor,
    radius: float,
    n: int,
    *,
    centre_frames: Tensor | None = None,
    xyz_frames: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The first ``n`` points nearer than ``radius`` to each centre, in the order of the points.

    Points are sorted into cells a little larger than the radius; a centre looks into the 27 cells around it only.

    Args:
        centres: ``(M, 3)`` positions in metres; one that is not finite has no neighbour.
        xyz: ``(N, 3)`` finite positions in metres.
        radius: metres; a distance equal to it is outside.
        n: neighbours per centre.
        centre_frames: ``(M,)`` int64 frame of each centre, for several frames at once; ``None``: all are one frame.
        xyz_frames: ``(N,)`` int64 frame of each point. Neighbours are of the same frame.

    Returns:
        ``(M, n)`` int64 positions in ``xyz``, the first neighbour repeated where there are fewer than ``n`` (0 where
        there is none), and ``(M,)`` bool: there is none.

    Raises:
        ValueError: if ``radius`` or ``n`` is not positive.
    """
    if not (radius > 0 and n > 0):
        raise ValueError(f"ball_query: radius={radius} and n={n} must be positive.")
    indices = torch.zeros(len(centres), n, dtype=torch.int64, device=centres.device)
    found = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
    if not len(centres) or not len(xyz):
        return indices, found == 0
    starts, ends, by_cell = _columns(centres, xyz, radius, centre_frames, xyz_frames)
    lengths = ends - starts
    for rows in _row_blocks(lengths.sum(dim=1)):
        block = torch.arange(rows.start, rows.stop, device=centres.device)
        length = lengths[rows].flatten()
        centre = block.repeat_interleave(lengths[rows].sum(dim=1))
        first = (starts[rows].flatten() - (length.cumsum(0) - length)).repeat_interleave(length)
        point = by_cell[first + torch.arange(len(first), device=first.device)]
        near = (centres[centre] - xyz[point]).square_().sum(dim=1) < radius * radius
        # Neighbours of a centre in the order of the points: centre first, then point.
        pairs = (centre[near] * len(xyz) + point[near]).sort().values
        centre, point = pairs // len(xyz), pairs % len(xyz)
        count = torch.bincount(centre - rows.start, minlength=len(block))
        rank = torch.arange(len(pairs), device=pairs.device)
        rank -= (count.cumsum(0) - count)[centre - rows.start]
        kept = rank < n
        indices[centre[kept], rank[kept]] = point[kept]
        found[rows] = count
    beyond = torch.arange(n, device=found.device) >= found[:, None]
    return torch.where(beyond, indices[:, :1], indices), found == 0


def _columns(
    centres: Tensor, xyz: Tensor, radius: float, centre_frames: Tensor | None, xyz_frames: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where to look: for each centre 3 x 3 columns of three cells each, which are runs of the points sorted by cell.

    Returns:
        ``(M, 9)`` starts and ends of the runs, and ``(N,)`` the points sorted by cell.
    """
    # Larger than the radius by more than float32 rounds, so that a neighbour is never two cells away.
    size = radius * 1.001
    low = xyz.min(dim=0).values
    cells = torch.floor((xyz - low) / size).long() + 2  # two empty layers around: no column reaches into another one
    counts = cells.max(dim=0).values + 3
    keys = _keys(cells, counts, xyz_frames)
    by_key, by_cell = keys.sort(stable=True)
    far = torch.floor((centres - low) / size).nan_to_num(-2.0, -2.0, -2.0)
    home = torch.minimum((far.clamp(min=-2.0) + 2).clamp(max=2.0**40).long(), counts - 2).clamp(min=1)
    steps = torch.tensor([-1, 0, 1], device=xyz.device)
    column = torch.cartesian_prod(steps, steps)
    around = torch.cat([home[:, None, :2] + column, home[:, None, 2:].expand(-1, 9, -1)], dim=2)
    frames = None if centre_frames is None else centre_frames[:, None]
    middle = _keys(around, counts, frames)
    return torch.searchsorted(by_key, middle - 1), torch.searchsorted(by_key, middle + 1, right=True), by_cell


def _keys(cells: Tensor, counts: Tensor, frames: Tensor | None) -> Tensor:
    """Numbers of cells ``(..., 3)``, z running fastest."""
    x, y, z = cells.unbind(-1)
    first = x if frames is None else frames * counts[0] + x
    return (first * counts[1] + y) * counts[2] + z


def _row_blocks(candidates: Tensor) -> list[slice]:
    """Runs of rows with at most ``MAX_CANDIDATES`` candidates (or a single row with more)."""
    total = candidates.cumsum(0)
    count = int(total[-1])
    if count <= MAX_CANDIDATES:
        return [slice(0, len(candidates))]
    limits = torch.arange(MAX_CANDIDATES, count + MAX_CANDIDATES, MAX_CANDIDATES, device=total.device)
    edges = [0, *torch.unique(torch.searchsorted(total, limits, right=True)).tolist(), len(candidates)]
    return [slice(a, b) for a, b in pairwise(edges) if b > a]
