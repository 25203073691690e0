"""Time of ERASE-Net per frame on a CPU, against TMVA-Net: full geometry, five moments, one frame at a time.

ERASE-Net starts from five cubes in memory; projections, peaks, azimuth search, gathering, patches and merging count.
Nothing is kept from one frame to the next (a recording could keep the projections of four of the five cubes). TMVA-Net
starts from its processed views in memory: making them from cubes is not held against it. Weights are random, which
changes no shape; the number of objects is set by hand. Models take turns, and the ratio of each turn is taken within
it, so that a change of the machine's speed hits all of them.

    python benchmarks/radar_latency.py
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

import adperception  # before torch, as in all tools: sets how long waiting threads spin

BASE = "TMVA-Net"
GOAL = 20.0
COUNTED = ("ERASE-Net small, light, 2 objects", "ERASE-Net small, light, lifted, 2 objects")


def main() -> int:
    """Parse the command line, run all models in turn, print the tables."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of torch, one table each")
    parser.add_argument("--turns", type=int, default=5, help="how often every model runs, after one warm-up turn")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    cases = make_cases()
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(arguments.turns + 1):
            for name, run in cases.items():
                start = time.perf_counter()
                run()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
        table = {name: summary(times, seconds[BASE]) for name, times in seconds.items()}
        figures[str(threads)] = table
        print(f"{platform.processor() or platform.machine()}, {threads} thread(s), median of {arguments.turns}")
        print(f"{'model':40} {'ms per frame':>13} {BASE + ' / it':>15}")
        for name, row in table.items():
            print(f"{name:40} {row['milliseconds']:13.1f} {row['times_faster']:15.1f}")
        print()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))
    least = {name: min(table[name]["times_faster"] for table in figures.values()) for name in COUNTED}
    for name, ratio in least.items():
        verdict = "reached" if ratio >= GOAL else "NOT reached"
        print(f"{name}: at least {ratio:.1f} times faster than {BASE}; the goal of {GOAL:.0f} is {verdict}")
    return 0 if min(least.values()) >= GOAL else 1


def summary(times: list[float], base: list[float]) -> dict[str, float]:
    """Median milliseconds, and the median over the turns of how many times longer the other takes."""
    ratios = [b / t for b, t in zip(base, times, strict=True)]
    return {"milliseconds": 1e3 * statistics.median(times), "times_faster": statistics.median(ratios)}


def make_cases() -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    import numpy as np
    import torch

    from adperception.models.radar.erase_net import ERASENet
    from adperception.models.radar.tmva_net import TMVANet
    from adperception.structures import CARRADA_GRID, RadarBatch

    torch.manual_seed(0)
    moments, shape = 5, CARRADA_GRID.shape
    cubes = torch.from_numpy(np.random.default_rng(0).rayleigh(58, (1, moments, *shape)).astype(np.float32))
    rows, azimuths, dopplers = shape
    batch = RadarBatch(
        frame_ids=("benchmark",),
        grid=CARRADA_GRID,
        cubes=cubes,
        range_doppler=58 + torch.randn(1, moments, rows, dopplers),
        range_angle=56 + torch.randn(1, moments, rows, azimuths),
        angle_doppler=60 + torch.randn(1, moments, azimuths, dopplers),
    )

    def erase_net(size: str, content: str, objects: int, lift: bool = False) -> Callable[[], object]:
        model = ERASENet(
            size=size,
            input=content,  # type: ignore[arg-type]
            lift=lift,
            normalization="carrada_tvt",
            candidates=max(1, objects),
            score_threshold=0.0 if objects else 1.0,
        ).eval()
        windows = []
        model.segmenter.register_forward_pre_hook(lambda _, patches: windows.append(len(patches[0])))  # type: ignore[union-attr]
        model.predict(batch)
        if windows != ([objects] if objects else []):
            raise RuntimeError(f"{windows} windows instead of {objects}")
        return lambda: model.predict(batch)

    tmva_net = TMVANet(normalization="carrada_tvt").eval()
    cases: dict[str, Callable[[], object]] = {BASE: lambda: _predict(tmva_net, batch)}
    for objects in (0, 1, 2):
        name = f"ERASE-Net small, light, {objects} object{'' if objects == 1 else 's'}"
        cases[name] = erase_net("small", "light", objects)
    cases["ERASE-Net small, light, lifted, 2 objects"] = erase_net("small", "light", 2, lift=True)
    cases["ERASE-Net small, channels, 2 objects"] = erase_net("small", "channels", 2)
    cases["ERASE-Net medium, light, 2 objects"] = erase_net("medium", "light", 2)
    return cases


def _predict(model: object, batch: object) -> None:
    import torch

    with torch.no_grad():
        model.predict(batch)  # type: ignore[attr-defined]


if __name__ == "__main__":
    print(f"adperception {adperception.__version__}")
    sys.exit(main())
