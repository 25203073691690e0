"""Draw what the network receives: frames after augmentation (LiDAR: cropped and voxelized), with their labels.

    python tools/browse.py configs/ad_l_jepa/ad_l_jepa_small.py --out work_dirs/browse --frames 8

LiDAR, seen from above: each picture shows the mean point of every voxel that goes into the model, the labelled boxes
(not seen by pre-training) and, for a model that hides cells, the hidden ones shaded. Radar: the newest moment in both
views with masks and centres. The draws are those of the first epoch of a training run with the config's seed. Run it
first: labels that do not sit on their objects mean wrong frames of reference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adperception.config import load_config
from adperception.engine.randomness import epoch_order, item_rng, step_generator
from adperception.engine.settings import Settings, parse_settings
from adperception.geometry import RangeCoverage
from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE
from adperception.models.pretrain.ad_l_jepa import ADLJEPA
from adperception.models.pretrain.bev_masking import draw_bev_masks, non_empty_cells
from adperception.models.radar.base import RadarModel
from adperception.registry import DATASETS, MODELS, PREPARATIONS, build
from adperception.visualization.bev import draw_bev
from adperception.visualization.radar_panel import batch_scene, safe_name
from adperception.visualization.radar_views import radar_picture
from adperception.visualization.style import new_figure, save

if TYPE_CHECKING:
    from adperception.structures import LidarBatch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/browse"), help="folder for the pictures")
    parser.add_argument("--frames", type=int, default=8, help="number of frames")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="values of the config"
    )
    options = parser.parse_args(arguments)
    try:
        settings = parse_settings(load_config(options.config, options.cfg_options).values)
        paths = browse(settings, options.out, options.frames)
    except (ValueError, OSError, ImportError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"{len(paths)} pictures in {options.out}")
    return 0


def browse(settings: Settings, folder: Path, frames: int) -> list[Path]:
    """Draw the first frames of the first epoch; returns the files.

    Raises:
        ValueError: if no point of these frames lies in the model's range.
    """
    if settings.prepare is not None:
        build(PREPARATIONS, settings.prepare)()
    model = build(MODELS, settings.model)
    dataset = build(DATASETS, settings.train_dataset)
    if isinstance(model, RadarModel):
        return _browse_radar(settings, model, dataset, folder, frames)
    collate = model.collate(training=True)
    paths, coverage = [], RangeCoverage(model.grid)
    for number, index in enumerate(epoch_order(settings.seed, 0, len(dataset))[:frames]):
        frame = dataset.get(int(index), item_rng(settings.seed, 0, int(index)))
        batch: LidarBatch = collate([frame])
        coverage.add(frame.cloud.xyz)
        figure = new_figure(8, 7)
        axes = figure.subplots()
        points = draw_bev(
            axes,
            batch.voxels.features.numpy(),
            model.grid.point_cloud_range,
            frame.boxes,
            _hidden(model, batch, settings.seed),
        )
        figure.colorbar(points, ax=axes, label="z (m)", shrink=0.7)
        axes.set_title(f"{frame.frame_id}: {len(batch.points[0]):,} points in range, {len(batch.voxels):,} voxels")
        if frame.notes:
            axes.text(0.01, 0.01, "\n".join(frame.notes), transform=axes.transAxes, fontsize="x-small")
        name = frame.frame_id.replace("/", "_")
        paths.append(save(figure, folder / f"{number:03d}_{name}.png"))
    coverage.require_points()
    return paths


def _browse_radar(settings: Settings, model: RadarModel, dataset: Any, folder: Path, frames: int) -> list[Path]:
    paths = []
    for number, index in enumerate(epoch_order(settings.seed, 0, len(dataset))[:frames]):
        frame = dataset.get(int(index), item_rng(settings.seed, 0, int(index)))
        batch = model.collate(training=True)([frame])
        scene = batch_scene(batch, 0, model.class_names)
        paths.append(radar_picture(folder / f"{number:03d}_{safe_name(frame.frame_id)}.png", scene))
    return paths


def _hidden(model: Any, batch: LidarBatch, seed: int) -> NDArray[np.bool_] | None:
    """``(H, W)``: what a masking model hides of the one frame of ``batch``."""
    if not isinstance(model, ADLJEPA):
        return None
    occupied = non_empty_cells(batch.voxels.coordinates, 1, model.context_encoder.bev_shape, BEV_STRIDE)
    masks = draw_bev_masks(occupied, model.mask_ratio, model.mask_per, step_generator(seed, 0, 0))
    return np.asarray(masks.hidden[0].numpy())


if __name__ == "__main__":
    sys.exit(main())
