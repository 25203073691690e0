"""Time of rotated IoU and suppression, against polygon clipping by shapely (GEOS, compiled, one core).

Cases take turns, and the ratio of each turn is taken within it, so that a change of the machine's speed hits both
sides. Shapely clips with its polygons already built, in full floating point.

    pip install "shapely>=2.0"
    python benchmarks/rotated_iou.py --threads 1
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adperception  # before torch, as in all tools: sets how long waiting threads spin

PAIRS, NMS_BOXES = 100_000, 4096
BASE = "shapely intersection"


def main() -> int:
    """Parse the command line, run all cases in turn, print the table."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="how often every case runs, after one warm-up turn")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        cases = make_cases(torch.device(arguments.device))
    except ImportError as error:
        print(f'{error}: the comparison needs shapely: pip install "shapely>=2.0"')
        return 2
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(arguments.turns + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    table = {name: summary(name, times, seconds[BASE]) for name, times in seconds.items()}
    print(f"{platform.processor() or platform.machine()}, {arguments.device}, {arguments.threads} thread(s)")
    print(f"{'case':44} {'median ms':>10} {'ns per pair':>12} {'shapely / ours':>15}")
    for name, row in table.items():
        per_pair = f"{row['nanoseconds_per_pair']:.0f}" if "nanoseconds_per_pair" in row else ""
        ratio = f"{row['speed_up']:.1f}" if "speed_up" in row else ""
        print(f"{name:44} {row['milliseconds']:10.1f} {per_pair:>12} {ratio:>15}")
    if arguments.json:
        about = {"machine": platform.platform(), "device": arguments.device, "threads": arguments.threads}
        arguments.json.write_text(
            json.dumps({**about, "adperception": adperception.__version__, "table": table}, indent=1) + "\n"
        )
    return 0


def summary(name: str, times: list[float], base: list[float]) -> dict[str, float]:
    """Median time of a case; for the cases on ``PAIRS`` pairs also the ratio to shapely, turn by turn."""
    row = {"milliseconds": 1e3 * statistics.median(times)}
    if "nms" not in name:
        row["nanoseconds_per_pair"] = 1e9 * statistics.median(times) / PAIRS
        row["speed_up"] = statistics.median(b / t for t, b in zip(times, base, strict=True))
    return row


def make_cases(device: Any) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    import numpy as np
    import shapely
    import torch

    from adperception.geometry.nms import rotated_nms
    from adperception.geometry.rotated_iou import rotated_iou_3d_pairs, rotated_iou_bev_pairs

    rng = np.random.default_rng(0)
    a, b = (vehicles(rng, np.zeros((PAIRS, 2)), 1.5) for _ in range(2))
    first, second = (shapely.polygons(corners(boxes)) for boxes in (a, b))
    cases: dict[str, Callable[[], object]] = {
        BASE: lambda: shapely.area(shapely.intersection(first, second)),
    }
    for dtype in (torch.float32, torch.float64):
        pair = [torch.from_numpy(boxes).to(device, dtype) for boxes in (a, b)]
        kind = str(dtype).removeprefix("torch.")
        cases[f"rotated_iou_bev_pairs, {kind}"] = lambda pair=pair: rotated_iou_bev_pairs(*pair)  # type: ignore[misc]
        cases[f"rotated_iou_3d_pairs, {kind}"] = lambda pair=pair: rotated_iou_3d_pairs(*pair)  # type: ignore[misc]
    spread = rng.uniform([0, -40], [70, 40], (NMS_BOXES, 2))
    crowded = rng.uniform([0, -40], [70, 40], (30, 2))[rng.integers(0, 30, NMS_BOXES)]
    scores = torch.from_numpy(rng.uniform(0, 1, NMS_BOXES)).float().to(device)
    for place, centres, sigma in (("everywhere", spread, 0.0), ("around 30 objects", crowded, 0.5)):
        boxes = torch.from_numpy(vehicles(rng, centres, sigma)).float().to(device)
        for threshold in (0.01, 0.7):
            cases[f"rotated_nms {threshold}, {NMS_BOXES} boxes {place}"] = (
                lambda boxes=boxes, threshold=threshold: rotated_nms(boxes, scores, threshold)  # type: ignore[misc]
            )
    return cases


def vehicles(rng: Any, centres: Any, sigma: float) -> Any:
    """``(N, 7)`` boxes of cars, ``sigma`` metres around ``(N, 2)`` centres, in any direction."""
    import numpy as np

    n = len(centres)
    position = np.column_stack([centres + rng.normal(0, sigma, (n, 2)), rng.normal(-1, 0.2, n)])
    return np.column_stack([position, rng.uniform([3.5, 1.5, 1.4], [4.5, 1.9, 1.7], (n, 3)), rng.uniform(-4, 4, n)])


def corners(boxes: Any) -> Any:
    """``(N, 4, 2)`` corners seen from above."""
    import numpy as np

    local = np.array([[0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]]) * boxes[:, None, 3:5]
    cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    x, y = local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos
    return np.stack([x, y], axis=-1) + boxes[:, None, :2]


if __name__ == "__main__":
    sys.exit(main())
