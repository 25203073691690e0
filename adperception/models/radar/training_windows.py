"""Which windows ERASE-Net's segmenter is trained on, and what they should show.

Shape legend: B frames, K candidates per frame, M labelled objects, N windows, C classes, R x A x D cube cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adperception.models.radar.center_peaks import Candidates, find_azimuths
from adperception.models.radar.radar_center_targets import LabelledCenters
from adperception.models.radar.window_gather import WindowCells, Windows, gather_map

__all__ = ["Jitter", "ObjectMasks", "TrainingWindows", "draw_training_windows", "object_masks", "window_labels"]


@dataclass(frozen=True)
class Jitter:
    """How far, in cells, windows around true centres are moved at most.

    Attributes:
        rows: along range.
        azimuths: along azimuth.
        dopplers: along Doppler.
    """

    rows: int
    azimuths: int
    dopplers: int

    @classmethod
    def for_shape(cls, shape: tuple[int, int, int]) -> Jitter:
        """+-4 range, +-8 azimuth and +-3 Doppler cells of a 256 x 256 x 64 cube, scaled to cubes of ``shape``."""
        rows, azimuths, dopplers = shape
        return cls(max(1, round(4 * rows / 256)), max(1, round(8 * azimuths / 256)), max(1, round(3 * dopplers / 64)))


@dataclass(frozen=True)
class TrainingWindows:
    """Windows and the object in the middle of each.

    Attributes:
        windows: N windows.
        owners: ``(N,)`` int64 index of the object, -1 for clutter.
    """

    windows: Windows
    owners: Tensor


def draw_training_windows(
    cubes: Tensor,
    candidates: Candidates,
    found: Tensor,
    centers: LabelledCenters,
    center_scores: Tensor,
    jitter: Jitter,
    beam: int,
    clutter_share: float,
    use_candidates: bool,
    generator: torch.Generator | None,
) -> TrainingWindows:
    """True centres, moved about; clutter; and, if asked for, what the detector found.

    Args:
        cubes: ``(B, R, A, D)`` magnitudes of the newest moment.
        candidates: the detector's, without gradient.
        found: ``(B, K)`` boolean, which of them it would report.
        centers: the M labelled objects.
        center_scores: ``(M, C)`` the detector's scores at their centres.
        jitter: how far true windows are moved.
        beam: width of the antenna's beam in azimuth columns.
        clutter_share: probability that a frame gives a window at its best candidate that is no object (one of the
            reported ones if there is any; else any).
        use_candidates: the reported candidates are windows, and true centres only where an object was missed; otherwise
            all true centres are.
        generator: of all chance (on the CPU).
    """
    device = cubes.device
    _, range_bins, azimuth_bins, doppler_bins = cubes.shape
    batch = len(found)
    nearest = _nearest_object(candidates.places, centers, jitter, doppler_bins)  # (B, K), -1: none
    real = candidates.best > 0

    missed = torch.ones(len(centers.frames), dtype=torch.bool, device=device)
    taken = found & use_candidates
    if use_candidates:
        missed[nearest[found & (nearest >= 0)]] = False
    drawn = (torch.rand(batch, generator=generator) < clutter_share).to(device, non_blocking=True)
    clutter = real & (nearest < 0) & ~taken
    first = clutter & (clutter.cumsum(dim=1) == 1)  # candidates come best first
    taken = taken | (first & drawn[:, None])

    frames, number = taken.nonzero(as_tuple=True)
    places = candidates.places[frames, number]
    reach = torch.tensor([jitter.rows, jitter.dopplers, jitter.azimuths], dtype=places.dtype)
    moves = ((torch.rand(len(missed), 3, generator=generator) * 2 - 1) * reach).to(device, non_blocking=True)[missed]
    true_places = centers.cells[missed][:, ::2]
    # Where the echo is brightest is asked at the true place; the label's own azimuth may follow another convention.
    row = torch.cat([places[:, 0], true_places[:, 0]]).round().long()
    doppler = torch.cat([places[:, 1], true_places[:, 1]]).round().long() % doppler_bins
    frame = torch.cat([frames, centers.frames[missed]])
    azimuth = find_azimuths(cubes, frame, row, doppler, beam)
    moves = torch.cat([moves.new_zeros(len(frames), 3), moves]).round().long()
    windows = Windows(
        frames=frame,
        rows=(row + moves[:, 0]).clamp(0, range_bins - 1),
        azimuths=(azimuth + moves[:, 2]) % azimuth_bins,
        dopplers=(doppler + moves[:, 1]) % doppler_bins,
        scores=torch.cat([candidates.scores[frames, number], center_scores[missed]]),
    )
    return TrainingWindows(windows, torch.cat([nearest[frames, number], missed.nonzero()[:, 0]]))


def _nearest_object(places: Tensor, centers: LabelledCenters, jitter: Jitter, doppler_bins: int) -> Tensor:
    """``(B, K)``: index of the nearest object of the frame, up to twice the jitter away; -1 if there is none."""
    batch, count, _ = places.shape
    if not len(centers.frames):
        return torch.full((batch, count), -1, dtype=torch.int64, device=places.device)
    row = (places[..., 0, None] - centers.cells[:, 0]).abs() / (2 * jitter.rows)
    doppler = (places[..., 1, None] - centers.cells[:, 2]).abs()
    doppler = torch.minimum(doppler, doppler_bins - doppler) / (2 * jitter.dopplers)
    distance = torch.maximum(row, doppler)
    same_frame = torch.arange(batch, device=places.device)[:, None, None] == centers.frames
    distance, index = distance.masked_fill(~same_frame, torch.inf).min(dim=2)
    return torch.where(distance <= 1, index, torch.full_like(index, -1))


@dataclass(frozen=True)
class ObjectMasks:
    """The labelled cells of each object, then one empty map for clutter.

    Attributes:
        range_doppler: ``(M + 1, R, D)`` int64 classes, row 0 far.
        range_angle: ``(M + 1, R, A)``.
    """

    range_doppler: Tensor
    range_angle: Tensor


def object_masks(range_doppler: Tensor, range_angle: Tensor, centers: LabelledCenters) -> ObjectMasks:
    """Share the labelled cells out among the objects: to the nearest of the cell's class, in units of its extent.

    Args:
        range_doppler: ``(B, R, D)`` int64 classes, **row 0 far**.
        range_angle: ``(B, R, A)``.
        centers: the M objects of the B frames.
    """
    return ObjectMasks(_shared_out(range_doppler, centers, 2), _shared_out(range_angle, centers, 1))


def _shared_out(masks: Tensor, centers: LabelledCenters, axis: int) -> Tensor:
    batch, rows, columns = masks.shape
    device = masks.device
    half = centers.sizes[:, 0 : axis + 1 : axis] / 2 + 1
    row = (torch.arange(rows, device=device) - centers.cells[:, :1]).abs() / half[:, :1]
    column = (torch.arange(columns, device=device) - centers.cells[:, axis : axis + 1]).abs()
    column = torch.minimum(column, columns - column) / half[:, 1:]
    distance = torch.maximum(row[:, :, None], column[:, None, :])  # (M, R, columns)
    own_class = masks[centers.frames] == centers.classes[:, None, None]
    distance = distance.masked_fill(~own_class, torch.inf)
    nearest = distance.new_full((batch, rows, columns), torch.inf)
    nearest.scatter_reduce_(0, centers.frames[:, None, None].expand_as(distance), distance, "amin")
    own = own_class & (distance <= nearest[centers.frames])
    return torch.cat([own * centers.classes[:, None, None], masks.new_zeros(1, rows, columns)])


def window_labels(masks: ObjectMasks, owners: Tensor, cells: WindowCells) -> tuple[Tensor, Tensor]:
    """What the windows should show of their object: ``(N, h, w)`` and ``(N, h, A)`` int64 classes."""
    empty = len(masks.range_doppler) - 1
    of_object = WindowCells(
        torch.where(owners >= 0, owners, torch.full_like(owners, empty))[:, None, None],
        cells.rows,
        cells.dopplers,
        cells.inside,
    )
    return (
        gather_map(masks.range_doppler, of_object, "range_doppler"),
        gather_map(masks.range_angle, of_object, "range_angle"),
    )
