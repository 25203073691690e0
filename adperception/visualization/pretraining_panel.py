"""One picture of a pre-training run: is it learning, has it collapsed, what does it predict?

All maps have x (forward) to the right and y (left) upwards, in metres, one pixel per BEV cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adperception.evaluation.batch_norm_statistics import mask_generator, untouched_rng
from adperception.evaluation.pretraining_model import as_pretraining_model
from adperception.evaluation.representation import binary_iou
from adperception.structures import LidarBatch, VoxelGrid
from adperception.visualization.style import BLUE, GREY, ORANGE, PURPLE, VERMILION, new_figure, save
from adperception.visualization.training_curves import (
    PRETRAINING_CURVES,
    TrainingLog,
    draw_curves,
    read_log,
    write_training_curves,
)

__all__ = ["BevPictures", "bev_pictures", "pca_colors", "write_pretraining_panel", "write_run_pictures"]

_EMPTY_COSINE = 0.5


@dataclass(frozen=True)
class BevPictures:
    """The maps of one frame; all ``(H, W)``, H along y, W along x.

    Attributes:
        frame_id: name of the frame.
        points: ``(N, 2)`` x, y of its points in metres.
        masks: 0 visible empty, 1 hidden empty, 2 visible occupied, 3 hidden occupied.
        calls: at hidden cells 1 empty called empty, 2 occupied called occupied, 3 occupied called empty, 4 empty
            called occupied; 0 at visible cells. A cell is called empty if cos(prediction, empty token) > 0.5.
        cosines: cosine of prediction and target at hidden cells, NaN at visible ones.
        colors: ``(H, W, 3)`` in 0..1, see :func:`pca_colors`; white at cells without points.
        explained: share of the variance that the three colours carry.
    """

    frame_id: str
    points: NDArray[np.float32]
    masks: NDArray[np.int64]
    calls: NDArray[np.int64]
    cosines: NDArray[np.float32]
    colors: NDArray[np.float64]
    explained: float


def pca_colors(embeddings: Tensor) -> tuple[NDArray[np.float64], float]:
    """Colours that are alike where embeddings point in like directions.

    Args:
        embeddings: ``(N, C)``.

    Returns:
        ``(N, 3)`` red, green, blue in 0..1: the first three principal components of the unit vectors, each stretched
        from its 2nd to its 98th percentile; and the share of the variance they carry.
    """
    rows = functional.normalize(embeddings.double().cpu(), dim=1).numpy()
    if len(rows) < 2:
        return np.full((len(rows), 3), 0.5), float("nan")
    centred = rows - rows.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, ::-1][:, :3]
    # An eigenvector's sign is arbitrary: the largest entry is made positive, so that two runs compare.
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    scores = centred @ directions
    low, high = np.percentile(scores, [2, 98], axis=0)
    colors = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    total = variances.sum()
    return colors, float(variances[::-1][:3].sum() / total) if total > 0 else float("nan")


@torch.no_grad()
def bev_pictures(model: nn.Module, batch: LidarBatch, *, frame: int = 0, mask_seed: int = 0) -> BevPictures:
    """Compute the maps of one frame of ``batch``.

    Args:
        model: joint-embedding model in evaluation mode, with batch-norm statistics that belong to its weights (see
            :func:`adperception.evaluation.batch_norm_statistics.with_reestimated_batch_norm`).
        batch: frames on the model's device.
        frame: which one.
        mask_seed: seed of the masks.
    """
    measured = as_pretraining_model(model)
    embeddings = measured.embed(batch, mask_generator(mask_seed, 0, 0))
    masks = embeddings.masks
    context_cells, target_cells, target_empty = (
        m[frame].cpu().numpy() for m in (masks.context_cells, masks.target_cells, masks.target_empty)
    )
    prediction, target = embeddings.prediction[frame].float(), embeddings.target[frame].float()
    hidden = target_cells | target_empty
    empty = functional.cosine_similarity(prediction, measured.empty_token[0].float(), dim=0) > _EMPTY_COSINE
    called_empty = empty.cpu().numpy()
    calls = np.where(target_cells, np.where(called_empty, 3, 2), np.where(called_empty, 1, 4))
    cosines = functional.cosine_similarity(prediction, target, dim=0).cpu().numpy()

    bev = measured.encode(batch.points[frame])[0].float()
    occupied = context_cells | target_cells
    colors = np.ones((*occupied.shape, 3))
    colors[occupied], explained = pca_colors(bev.movedim(0, -1)[torch.from_numpy(occupied).to(bev.device)])
    return BevPictures(
        frame_id=batch.frame_ids[frame],
        points=batch.points[frame][:, :2].cpu().numpy(),
        masks=np.where(context_cells, 2, np.where(target_cells, 3, np.where(target_empty, 1, 0))),
        calls=np.where(hidden, calls, 0),
        cosines=np.where(hidden, cosines, np.float32(np.nan)),
        colors=colors,
        explained=explained,
    )


def write_pretraining_panel(
    model: nn.Module,
    batch: LidarBatch,
    log_path: str | Path,
    out_path: str | Path,
    *,
    frame: int = 0,
    mask_seed: int = 0,
    title: str = "Pre-training",
) -> Path:
    """Write the panel of a run: curves above, maps of one frame below.

    Args:
        model: see :func:`bev_pictures`.
        batch: frames on the model's device.
        log_path: the run's ``log.jsonl``.
        out_path: the PNG.
        frame: which frame of the batch to show.
        mask_seed: seed of the masks.
        title: heading, e.g. the name of the config.
    """
    log = read_log(log_path)
    pictures = bev_pictures(model, batch, frame=frame, mask_seed=mask_seed)
    return save(_panel(pictures, log, as_pretraining_model(model).grid, title), out_path)


def write_run_pictures(
    model: nn.Module,
    batches: Iterable[LidarBatch],
    log_path: str | Path,
    folder: str | Path,
    *,
    device: torch.device | str,
    mask_seed: int = 0,
    title: str = "Pre-training",
) -> list[Path]:
    """Everything to be drawn at the end of a pre-training run: ``pretraining_panel.png``, ``training_curves.png``.

    Args:
        model: a joint-embedding model on ``device``, in evaluation mode with the batch-norm statistics to show it with.
        batches: iterable of validation batches; the first frame of the first one is shown.
        log_path: the run's ``log.jsonl``.
        folder: where to write.
        device: where to compute.
        mask_seed: see ``RepresentationEvaluation``.
        title: heading of the panel.

    Returns:
        The files written.
    """
    as_pretraining_model(model)
    device = torch.device(device)
    panel = Path(folder) / "pretraining_panel.png"
    with untouched_rng(device):
        batch = next(iter(batches)).to(device)
        written = [write_pretraining_panel(model, batch, log_path, panel, mask_seed=mask_seed, title=title)]
    return [*written, write_training_curves(log_path, Path(folder) / "training_curves.png")]


def _panel(pictures: BevPictures, log: TrainingLog, grid: VoxelGrid, title: str) -> Any:
    figure = new_figure(18, 9.4)
    figure.suptitle(f"{title}: curves of the run, and frame {pictures.frame_id} at its end", fontsize=14)
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.55])
    for axes, group in zip(top.subplots(1, 3), PRETRAINING_CURVES, strict=True):
        draw_curves(axes, log, group)
    # Explanations have a row of their own, so that the four maps keep one size.
    maps, notes = bottom.subplots(2, 4, height_ratios=[1, 0.13])
    for axes in notes:
        axes.axis("off")

    _categories(
        (maps[0], notes[0]),
        pictures.masks,
        grid,
        ("visible, empty", "hidden, empty", "visible, occupied", "hidden, occupied"),
        ("#FFFFFF", GREY, BLUE, ORANGE),
    )
    maps[0].set_title("Masks: what the context encoder\nsees and what is hidden", fontsize=11)
    shown = pictures.points[:: max(1, len(pictures.points) // 20_000)]
    maps[0].scatter(shown[:, 0], shown[:, 1], s=0.15, c="black", alpha=0.35, linewidths=0)

    hidden_occupied, called_occupied = np.isin(pictures.calls, (2, 3)), np.isin(pictures.calls, (2, 4))
    iou = binary_iou(torch.from_numpy(called_occupied), torch.from_numpy(hidden_occupied))
    _categories(
        (maps[1], notes[1]),
        pictures.calls,
        grid,
        ("visible", "empty, called empty", "occupied, called so", "occupied, called empty", "empty, called occupied"),
        ("#FFFFFF", GREY, BLUE, VERMILION, PURPLE),
    )
    maps[1].set_title(
        f"Predicted empty: cos(prediction, empty token) > {_EMPTY_COSINE}\nIoU of occupied cells {iou:.2f}", fontsize=11
    )

    picture = _map(maps[2], pictures.cosines, grid, cmap="cividis", vmin=0, vmax=1)
    mean = np.nanmean(pictures.cosines) if np.isfinite(pictures.cosines).any() else float("nan")
    maps[2].set_title(f"Cosine of prediction and target\nat hidden cells, mean {mean:.2f}", fontsize=11)
    bar = bottom.colorbar(picture, cax=notes[2].inset_axes((0.1, 0.7, 0.8, 0.2)), orientation="horizontal")
    bar.set_label("cosine (white: visible cell)", fontsize=9)

    _map(maps[3], pictures.colors, grid)
    maps[3].set_title("Embedding of the whole frame\n(context encoder, nothing hidden)", fontsize=11)
    notes[3].text(
        0.5,
        0.95,
        "Red, green, blue: first three principal components,\n"
        f"{pictures.explained:.0%} of the variance. Like colours are like embeddings.",
        ha="center",
        va="top",
        fontsize=9,
    )
    return figure


def _map(axes: Any, values: NDArray[Any], grid: VoxelGrid, **options: Any) -> Any:
    """Draw an ``(H, W)`` or ``(H, W, 3)`` map with axes in metres."""
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    axes.set_xlabel("x forward (m)")
    axes.set_ylabel("y left (m)")
    return axes.imshow(
        values, origin="lower", extent=(x_min, x_max, y_min, y_max), interpolation="nearest", aspect="equal", **options
    )


def _categories(
    axes: tuple[Any, Any], values: NDArray[np.int64], grid: VoxelGrid, names: Sequence[str], colors: Sequence[str]
) -> None:
    """Draw a map of categories 0, 1, ... into the first axis, and a legend that counts their cells into the second."""
    _map(axes[0], values, grid, cmap=ListedColormap(colors), vmin=-0.5, vmax=len(names) - 0.5)
    handles = [
        Patch(facecolor=color, edgecolor="0.5", linewidth=0.5, label=f"{name} ({int((values == k).sum()):,})")
        for k, (name, color) in enumerate(zip(names, colors, strict=True))
    ]
    legend = axes[1].legend(handles=handles, loc="upper center", ncols=2, fontsize=9, frameon=False)
    legend.set_in_layout(False)  # a wide legend must not make its map's column wider than the others
