"""Look at a tree of ONCE.

    python data_tools/once.py check data/once --split train --frames 200
    python data_tools/once.py prepare data/once

``check`` reads frames and reports counts, files that are missing or damaged, NaN points, the share of labelled boxes
that hold points, and whether boxes and points look as if they were in different frames; its exit status is 1 if it
found an error. ``prepare`` writes split files for a tree that has none: sequences with annotations into ``train.txt``,
the others into ``raw_small.txt``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adperception.datasets import ONCE
from adperception.datasets.data_check import check_dataset
from adperception.datasets.formats.once_json import read_sequence
from adperception.datasets.once import list_sequences
from adperception.structures import VoxelGrid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "prepare"])
    parser.add_argument("root", type=Path, help="folder with data/ and ImageSets/ in it")
    parser.add_argument(
        "--split", default="train", help='file in ImageSets, or "all" for every sequence (default: train)'
    )
    parser.add_argument("--frames", type=int, help="check: read only so many frames, evenly spread")
    parser.add_argument(
        "--range",
        type=float,
        nargs=6,
        default=[-75.2, -75.2, -5.0, 75.2, 75.2, 3.0],
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="check: point_cloud_range in metres (default: the usual one of ONCE)",
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            return check(options.root, None if options.split == "all" else options.split, options.frames, options.range)
        return prepare(options.root)
    except (ValueError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def check(root: Path, split: str | None, frames: int | None, limits: Sequence[float]) -> int:
    """Print a report; 1 if there is an error in it."""
    sequences = list_sequences(root, split)
    whole, errors = [], []
    for sequence in sequences:
        try:
            ONCE(root, [sequence])
            whole.append(sequence)
        except (ValueError, OSError) as error:  # one bad sequence must not hide the others
            errors.append(str(error))
    print(f"{root}: split {split or 'all'}: {len(whole)} of {len(sequences)} sequences are whole")
    if whole:
        dataset = ONCE(root, whole)
        print(f"  {len(dataset)} {'annotated frames' if dataset.labelled else 'frames, not annotated'}")
        voxel = [high - low for low, high in zip(limits[:3], limits[3:], strict=True)]  # one voxel: the range counts
        report = check_dataset(dataset, VoxelGrid.create(limits, voxel), frames)
        print(replace(report, errors=()).table())
        errors += report.errors
    for problem in errors:
        print(f"ERROR: {problem}")
    return 1 if errors else 0


def prepare(root: Path) -> int:
    """Write split files where there are none."""
    folder = root / "ImageSets"
    present = sorted(p.stem for p in folder.glob("*.txt"))
    if present:
        print(f"{folder} has splits already: {', '.join(present)}")
        return 0
    splits: dict[str, list[str]] = {"train": [], "raw_small": []}
    for sequence in list_sequences(root, None):
        annotated = any(f.boxes is not None for f in read_sequence(root / "data" / sequence / f"{sequence}.json"))
        splits["train" if annotated else "raw_small"].append(sequence)
    folder.mkdir(exist_ok=True)
    for name, sequences in splits.items():
        if sequences:
            (folder / f"{name}.txt").write_text("".join(f"{s}\n" for s in sequences), encoding="utf-8", newline="\n")
            print(f"{folder / name}.txt: {len(sequences)} sequences")
    return 0


if __name__ == "__main__":
    sys.exit(main())
