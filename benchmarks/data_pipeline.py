"""Frames per second and core, from files on disk to voxels: a table per stage and JSON.

    python benchmarks/data_pipeline.py --root ../shared/data/lidar/kitti

Every stage that a training frame goes through on one CPU core is timed by itself: reading and cutting to the camera
image, each transform, and voxelization into a batch of one. The medians are over ``--repeats`` passes over the frames,
after a pass that is not counted (so files come from the operating system's cache: this measures the work of the
processor, not the disk). Both forms of KITTI's clouds are measured, the range and voxel size are those of
``configs/ad_l_jepa/ad_l_jepa_kitti.py``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adperception.datasets import KITTI
from adperception.datasets.transforms import PointShuffle, RandomWorldFlip, RandomWorldRotation, RandomWorldScaling
from adperception.geometry import VoxelCollate, Voxelizer
from adperception.structures import VoxelGrid

GRID = VoxelGrid.create((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1))
MAX_VOXELS = 16_000
TRANSFORMS = (RandomWorldFlip(), RandomWorldRotation(), RandomWorldScaling(), PointShuffle())


def measure(dataset: KITTI, repeats: int) -> dict[str, Any]:
    """Milliseconds per frame of each stage, and what the frames hold."""
    collate = VoxelCollate(Voxelizer(GRID, max_points_per_voxel=5, max_voxels=MAX_VOXELS), in_channels=4)
    stages: dict[str, list[float]] = defaultdict(list)
    totals: list[float] = []
    on_disk, points, voxels = [], [], []
    for repeat in range(repeats + 1):
        for index in range(len(dataset)):
            rng = np.random.default_rng((repeat, index))
            times = [time.perf_counter()]
            frame = dataset.read(index)
            times.append(time.perf_counter())
            for transform in TRANSFORMS:
                frame = transform(frame, rng)
                times.append(time.perf_counter())
            batch = collate([frame])
            times.append(time.perf_counter())
            if repeat == 0:  # warm up: imports, file cache
                path = dataset.directory / dataset.points / f"{dataset.frame_ids[index]}.bin"
                on_disk.append(path.stat().st_size // 16)
                points.append(len(frame.cloud))
                voxels.append(len(batch.voxels))
                continue
            names = ("read", *(type(t).__name__ for t in TRANSFORMS), "voxelize")
            for name, milliseconds in zip(names, np.diff(times) * 1e3, strict=True):
                stages[name].append(float(milliseconds))
            totals.append((times[-1] - times[0]) * 1e3)
    return {
        "frames": len(dataset),
        "points_on_disk": round(float(np.mean(on_disk))),
        "points_after_transforms": round(float(np.mean(points))),
        "voxels": round(float(np.mean(voxels))),
        "stages_ms": {name: round(float(np.median(values)), 3) for name, values in stages.items()},
        "total_ms": round(float(np.median(totals)), 3),
        "total_ms_p95": round(float(np.percentile(totals, 95)), 3),
        "frames_per_second_and_core": round(1e3 / float(np.median(totals)), 1),
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="KITTI object tree")
    parser.add_argument("--split", default=None, help="file in ImageSets (default: every frame with a cloud)")
    parser.add_argument("--repeats", type=int, default=10, help="passes over the frames that count")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": platform.machine(), "torch": torch.__version__, "numpy": np.__version__}
    for points in ("velodyne_reduced", "velodyne"):
        if not (options.root / "training" / points).is_dir():
            continue
        result = measure(KITTI(options.root, options.split, points=points), options.repeats)
        results[points] = result
        print(
            f"{points}: {result['frames']} frames; per frame {result['points_on_disk']:,} points on disk, "
            f"{result['points_after_transforms']:,} after the transforms, {result['voxels']:,} voxels"
        )
        for name, milliseconds in result["stages_ms"].items():
            print(f"  {name:<22}{milliseconds:>9.2f} ms")
        print(
            f"  {'total (median)':<22}{result['total_ms']:>9.2f} ms   95th percentile {result['total_ms_p95']:.2f} ms"
        )
        print(f"  {'frames/s and core':<22}{result['frames_per_second_and_core']:>9.1f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
