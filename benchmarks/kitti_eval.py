"""Time of KITTI's metrics over a validation set: 3,769 frames, tiled from frames stored as text files.

Every case computes all metrics of Car, Pedestrian and Cyclist: 2D, bird's-eye view and 3D at strict and loose overlaps,
orientation similarity, three difficulties, R11 and R40.

    python benchmarks/kitti_eval.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import adperception  # before torch, as in all tools: sets how long waiting threads spin

FRAMES, CROWD = 3769, 10


def main() -> int:
    """Parse the command line, run all cases in turn, print the table."""
    import torch

    golden = Path(os.environ.get("ADPERCEPTION_GOLDEN", "../shared/golden"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, default=golden / "kitti_eval", help="folder with label_2/ and results/")
    parser.add_argument("--turns", type=int, default=5, help="how often every case runs, after one warm-up turn")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not (arguments.frames / "label_2").is_dir():
        print(f"{arguments.frames} has no label_2/; name a folder with label_2/ and results/ by --frames")
        return 2
    cases = make_cases(arguments.frames)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(arguments.turns + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    table = {
        name: {"seconds": statistics.median(times), "minimum": min(times), "maximum": max(times)}
        for name, times in seconds.items()
    }
    print(
        f"{FRAMES:,} frames, {platform.processor() or platform.machine()}, {arguments.threads} thread(s), "
        f"{arguments.turns} turns"
    )
    print(f"{'case':44} {'median s':>9} {'(min..max)':>14}")
    for name, row in table.items():
        spread = f"({row['minimum']:.2f}..{row['maximum']:.2f})"
        print(f"{name:44} {row['seconds']:9.2f} {spread:>14}")
    if arguments.json:
        record: dict[str, Any] = {"machine": platform.platform(), "adperception": adperception.__version__}
        record |= {"frames": FRAMES, "threads": arguments.threads, "turns": arguments.turns, "table": table}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def make_cases(folder: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    import numpy as np

    from adperception.datasets.formats.kitti_label import read_labels
    from adperception.evaluation.kitti_precision import kitti_average_precision
    from adperception.evaluation.kitti_results import read_kitti_results

    stems = sorted(path.stem for path in (folder / "label_2").glob("*.txt"))
    names = [stems[i % len(stems)] for i in range(FRAMES)]
    labels = {name: read_labels(folder / f"label_2/{name}.txt") for name in stems}
    results = read_kitti_results(folder / "results", stems)
    rng = np.random.default_rng(0)
    # Weak copies of the detections, as a detector gives them with a low score limit.
    crowded = {
        name: [
            replace(o, location=tuple(rng.normal(o.location, 0.5 * copy)), score=(o.score or 0.0) * 0.9**copy)
            for copy in range(CROWD)
            for o in objects
        ]
        for name, objects in results.items()
    }

    def read_and_evaluate() -> object:
        truth = [read_labels(folder / f"label_2/{name}.txt") for name in names]
        found = [read_kitti_results(folder / "results", [name])[name] for name in names]
        return kitti_average_precision(truth, found)

    def evaluate(detections: dict[str, Any]) -> Callable[[], object]:
        return lambda: kitti_average_precision([labels[n] for n in names], [detections[n] for n in names])

    def count(objects: dict[str, Any]) -> str:
        return f"{sum(len(objects[n]) for n in names):,}"

    return {
        f"{count(labels)} labels, {count(results)} detections": evaluate(results),
        "the same, text files read as well": read_and_evaluate,
        f"the labels, {count(crowded)} detections": evaluate(crowded),
    }


if __name__ == "__main__":
    sys.exit(main())
