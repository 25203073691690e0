"""SECOND on recorded KITTI frames, through the whole pipeline.

    python benchmarks/second_on_kitti.py --data ../shared/data/lidar/kitti              # learn these frames by heart
    python benchmarks/second_on_kitti.py --data ../shared/data/lidar/kitti --simulated  # train on simulated ones only

The first trains on the labelled frames without augmentation, evaluates on the same frames, and compares the moderate
car AP with what the labels themselves score when they are fed back as predictions; limit: 95 % of it. It shows that
voxels, targets, losses, decoding, suppression and metric fit together; it says nothing about other frames. The second
trains on frames of the simulator and evaluates on the recorded ones; there is no limit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import adperception  # noqa: F401  before torch: how its threads wait
from adperception.config import Config, load_config
from adperception.datasets.kitti import KITTI
from adperception.engine.console import show_log_messages
from adperception.engine.evaluate import evaluate_weights
from adperception.engine.results import write_json
from adperception.engine.run import RunOptions, train
from adperception.evaluation.kitti_ap import KittiAP
from adperception.registry import DATASETS, build
from adperception.structures import Detections
from adperception.zoo import config_directory

METRIC = "Car_3d_R40_moderate"
LIMIT = 0.95
CLASSES = ("Car", "Pedestrian", "Cyclist")


def main() -> int:
    """Run the command line; 1 if the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="KITTI tree with velodyne_reduced and labels")
    parser.add_argument("--split", default="trainval_reduced", help="name of a file in ImageSets")
    parser.add_argument("--simulated", action="store_true", help="train on simulated frames only")
    parser.add_argument("--simulated-data", default="data/simulated_kitti", help="where they are, or will be made")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/second_on_kitti/<kind>")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    kind = "simulated" if arguments.simulated else "overfit"
    work_dir: Path = arguments.work_dir or Path("work_dirs/second_on_kitti") / kind
    show_log_messages(True)
    real = [f"val_dataset.root={arguments.data}", f"val_dataset.split={arguments.split}"]
    if arguments.simulated:
        path = config_directory() / "second" / "second_simulated.py"
        sets = [f"{part}.root={arguments.simulated_data}" for part in ("prepare", "train_dataset")]
    else:
        path = config_directory() / "second" / "second_kitti_overfit.py"
        sets = [f"train_dataset.root={arguments.data}", f"train_dataset.split={arguments.split}"]
    config = load_config(path, [*sets, *real, *arguments.cfg_options])
    if not (work_dir / "weights.safetensors").is_file():
        train(config, RunOptions(work_dir, resume=(work_dir / "checkpoints").is_dir()))
    found = evaluate(config, work_dir)
    ceiling = labels_as_predictions(config)
    share = found[METRIC] / ceiling[METRIC]
    print(f"{METRIC}: labels fed back {ceiling[METRIC]:.2f}, model {found[METRIC]:.2f}: {100 * share:.1f} %")
    write_json(work_dir / "second_on_kitti.json", {"labels": ceiling, "model": found, "share": share})
    return 0 if arguments.simulated or share >= LIMIT else 1


def evaluate(config: Config, work_dir: Path) -> dict[str, float]:
    """Metrics of the finished run."""
    import torch

    return evaluate_weights(config, work_dir / "weights.safetensors", work_dir / "test", torch.device("cpu"))


def labels_as_predictions(config: Config) -> dict[str, float]:
    """What the labels score as predictions: the most that any detector can reach on these frames."""
    import numpy as np

    dataset: KITTI = build(DATASETS, config.values["val_dataset"])
    predictions = {}
    for index, frame_id in enumerate(dataset.frame_ids):
        boxes = dataset.read(index).boxes
        assert boxes is not None
        boxes = boxes.select([i for i, name in enumerate(boxes.names) if name in CLASSES])
        predictions[frame_id] = Detections(boxes, np.ones(len(boxes), dtype=np.float32))
    metric = KittiAP(classes=CLASSES)
    metric.bind(dataset)
    return metric.score(predictions)


if __name__ == "__main__":
    sys.exit(main())
