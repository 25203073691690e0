"""Draw predictions and labels of a dataset's frames without a screen: LiDAR from above, radar in both views.

    python tools/visualize.py configs/second/second_kitti.py --predictions work_dirs/second_kitti/test/predictions.jsonl
    python tools/visualize.py CONFIG --predictions work_dirs/CONFIG/test/predictions.npz --animate sequence.gif

LiDAR: labels are black and dashed, detections have the colour of their class and their score; --viewer opens each frame
in an open3d window instead. Radar: labelled pixels are outlined, found ones filled; --animate makes one animated
picture of the frames. Without --predictions only the labels are drawn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adperception.datasets.radar_dataset import RadarDataset
    from adperception.structures import Detections, LidarFrame


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--predictions", type=Path, help="predictions of tools/test.py, or a LiDAR JSON of tools/infer.py"
    )
    parser.add_argument("--split", choices=["train", "val"], default="val", help="which dataset of the config")
    parser.add_argument("--frames", nargs="+", help="names of frames; default: the first --count")
    parser.add_argument("--count", type=int, default=8, help="number of frames")
    parser.add_argument("--min-score", type=float, default=0.0, help="leave out detections below")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/visualize"), help="folder for the pictures")
    parser.add_argument(
        "--viewer", action="store_true", help="windows instead of files (pip install adperception[viz])"
    )
    parser.add_argument("--animate", type=Path, metavar="FILE", help="radar: one animated .gif or .png of the frames")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="values of the config"
    )
    options = parser.parse_args(arguments)
    try:
        return _visualize(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _visualize(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and --help should not.
    from adperception.config import load_config
    from adperception.datasets.radar_dataset import RadarDataset
    from adperception.engine.settings import parse_settings
    from adperception.evaluation.predictions import read_predictions
    from adperception.registry import DATASETS, PREPARATIONS, build

    settings = parse_settings(load_config(options.config, options.cfg_options).values)
    section = settings.val_dataset if options.split == "val" else settings.train_dataset
    if section is None:
        raise ValueError(f"{options.config}: has no val_dataset. Give --split train.")
    if settings.prepare is not None:
        build(PREPARATIONS, settings.prepare)()
    dataset = build(DATASETS, section)
    if isinstance(dataset, RadarDataset):
        if options.viewer:
            raise ValueError("--viewer shows LiDAR frames; radar frames are drawn into files.")
        return _visualize_radar(options, dataset)
    if options.animate is not None:
        raise ValueError("--animate is for radar frames.")
    found = None if options.predictions is None else read_predictions(options.predictions)
    limits = settings.model["point_cloud_range"]
    for name, index in _chosen(options, dataset, found).items():
        detections = None if found is None else found.get(name)
        if detections is not None:
            detections = detections.select(detections.scores >= options.min_score)
        _show(options, dataset.read(index), detections, limits)
    return 0


def _visualize_radar(options: argparse.Namespace, dataset: RadarDataset) -> int:
    from adperception.evaluation.radar_predictions import RadarPredictions
    from adperception.models.radar.base import RadarPrediction
    from adperception.structures import RadarBatch
    from adperception.visualization.radar_panel import batch_scene, safe_name
    from adperception.visualization.radar_sequence import radar_sequence
    from adperception.visualization.radar_views import RadarScene, radar_picture

    stored = None if options.predictions is None else RadarPredictions(options.predictions)
    if stored is not None and (stored.grid != dataset.grid or stored.class_names != tuple(dataset.class_names)):
        raise ValueError(f"{options.predictions}: made for another radar or other classes than this dataset's.")

    def scene(index: int) -> RadarScene:
        batch = RadarBatch.from_frames([dataset.read(index)])
        found = None if stored is None else stored.get(batch.frame_ids[0])
        if found is not None and found.objects is not None:
            confident = found.objects.select(found.objects.scores >= options.min_score)
            found = RadarPrediction(found.masks, confident)
        return batch_scene(batch, 0, dataset.class_names, found)

    chosen = _chosen(options, dataset, stored)
    if options.animate is not None:
        print(f"wrote {radar_sequence(options.animate, map(scene, chosen.values()))}")
        return 0
    for name, index in chosen.items():
        print(f"wrote {radar_picture(options.out / f'{safe_name(name)}.png', scene(index))}")
    return 0


def _chosen(options: argparse.Namespace, dataset: Any, found: Mapping[str, object] | None) -> dict[str, int]:
    """Positions in the dataset of the frames to draw, by name: of those with predictions, if there are any."""
    position = {name: index for index, name in enumerate(dataset.frame_ids)}
    if options.frames:
        unknown = [name for name in options.frames if name not in position]
        if unknown:
            raise ValueError(f"--frames {unknown[0]}: the {options.split} dataset has no such frame.")
        return {name: position[name] for name in options.frames}
    names = [name for name in dataset.frame_ids if found is None or name in found]
    if not names:
        raise ValueError(
            f"{options.predictions}: none of its {len(found or {})} frames is in the {options.split} dataset. Give the "
            "config and --split that the predictions were made with."
        )
    return {name: position[name] for name in names[: options.count]}


def _show(
    options: argparse.Namespace, frame: LidarFrame, detections: Detections | None, limits: Sequence[float]
) -> None:
    from adperception.structures import Detections
    from adperception.visualization.detections_bev import detections_picture
    from adperception.visualization.viewer import show_frame

    drawn = Detections.empty() if detections is None else detections
    labels = "not labelled" if frame.boxes is None else f"{len(frame.boxes)} labelled"
    title = f"{frame.frame_id}: {labels}" + ("" if detections is None else f", {len(detections)} found")
    if options.viewer:
        show_frame(frame.cloud.xyz, (limits[2], limits[5]), drawn.boxes, frame.boxes, title)
        return
    path = options.out / f"{frame.frame_id.replace('/', '_')}.png"
    detections_picture(path, frame.cloud.xyz, limits, drawn, frame.boxes, title)
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
