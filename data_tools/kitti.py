"""Look at a KITTI object tree, or get it ready for training.

    python data_tools/kitti.py check data/kitti --split train
    python data_tools/kitti.py prepare data/kitti --split train

``check`` reads the frames and reports counts, files that are missing or damaged, NaN points, the share of labelled
boxes that hold points, and whether boxes and points look as if they were in different frames; its exit status is 1 if
it found an error. ``prepare`` writes what can be derived: ``image_shapes.csv`` from the headers of ``image_2`` and the
database of objects for ground-truth sampling.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from adperception.datasets import KITTI
from adperception.datasets.data_check import check_dataset
from adperception.datasets.formats import read_image_shapes, read_image_size, write_image_shapes
from adperception.datasets.object_database import build_object_database, default_database_path
from adperception.structures import VoxelGrid

SUFFIXES = {"calib": (".txt",), "label_2": (".txt",), "image_2": (".png", ".jpg"), "planes": (".txt",)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "prepare"])
    parser.add_argument("root", type=Path, help="folder with training/ and ImageSets/ in it")
    parser.add_argument("--split", default="train", help='file in ImageSets, or "all" for every frame (default: train)')
    parser.add_argument("--points", default="velodyne", choices=["velodyne", "velodyne_reduced"])
    parser.add_argument("--folder", choices=["training", "testing"])
    parser.add_argument("--frames", type=int, help="check: read only so many frames, evenly spread")
    parser.add_argument(
        "--range",
        type=float,
        nargs=6,
        default=[0.0, -40.0, -3.0, 70.4, 40.0, 1.0],
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="check: point_cloud_range in metres (default: the usual one of KITTI)",
    )
    options = parser.parse_args(arguments)
    split = None if options.split == "all" else options.split
    try:
        if options.command == "check":
            return check(options.root, split, options.points, options.folder, options.frames, options.range)
        return prepare(options.root, split, options.points, options.folder)
    except (ValueError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def check(
    root: Path, split: str | None, points: str, folder: str | None, frames: int | None, limits: Sequence[float]
) -> int:
    """Print a report; 1 if there is an error in it."""
    bare = KITTI(root, split, points, folder, labels=False, crop_to_image=False, road_planes=False)
    print(f"{bare.directory}: {len(bare)} frames of split {split or 'all'} have a cloud in {points}/")
    lacking = 0
    for name, suffixes in SUFFIXES.items():
        missing = [f for f in bare.frame_ids if not any((bare.directory / name / (f + s)).is_file() for s in suffixes)]
        some = f"; missing: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}" if missing else ""
        print(f"  {name + '/':<10} {len(bare) - len(missing)} of {len(bare)}{some if len(missing) < len(bare) else ''}")
        lacking += bool(missing) and name in ("calib", "label_2") and len(missing) < len(bare)
    if lacking:
        print("ERROR: frames without calibration or labels beside others that have them; see the lists above.")
        return 1
    dataset = KITTI(root, split, points, folder, crop_to_image=False)
    voxel = [high - low for low, high in zip(limits[:3], limits[3:], strict=True)]  # one voxel: only the range counts
    report = check_dataset(dataset, VoxelGrid.create(limits, voxel), frames)
    print(report.table())
    return 1 if report.errors else 0


def prepare(root: Path, split: str | None, points: str, folder: str | None) -> int:
    """Write ``image_shapes.csv`` and the object database where they can be made and are not there yet."""
    dataset = KITTI(root, split, points, folder, crop_to_image=False)
    images = sorted(p for p in (dataset.directory / "image_2").glob("*") if p.suffix in SUFFIXES["image_2"])
    table = (root if dataset.folder == "training" else dataset.directory) / "image_shapes.csv"
    if images:
        known = read_image_shapes(table) if table.is_file() else {}
        write_image_shapes(table, {**known, **{p.stem: read_image_size(p) for p in images}})
        print(f"{table}: sizes of {len(images)} images")
    if not dataset.labelled:
        print(f"{dataset.directory} has no labels: no object database")
        return 0
    database_path = default_database_path(dataset)
    if (database_path / "index.json").is_file():
        print(f"{database_path} is there already (delete it to build it anew)")
        return 0
    database = build_object_database(dataset, database_path)
    print(f"{database_path}: {len(database)} objects of {', '.join(database.classes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
