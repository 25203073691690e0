"""Time of VoxelBackBone8x on a CPU: our ``torch`` backend against spconv's CPU build.

Every case runs in a child process with its own number of threads; spconv gets one, the only number with which its CPU
build computes correct results. Rulebooks and the dense output map count on both sides. Cases take turns, and ratios
are taken within a turn, so that a change of the machine's speed hits both.

    pip install spconv==2.3.8
    python benchmarks/sparse_conv_cpu.py --scan path/to/kitti/training/velodyne_reduced/000008.bin
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adperception  # before torch, as in all tools: sets how long waiting threads spin

CASES = {
    # name: (threads, library, what)
    "spconv forward": (1, "spconv", "forward"),
    "torch forward": (2, "torch", "forward"),
    "torch forward, 1 thread": (1, "torch", "forward"),
    "torch forward + backward": (2, "torch", "train"),
    "torch forward + backward, 1 thread": (1, "torch", "train"),
}
BASE = "spconv forward"
RANGE, VOXEL = [0.0, -40.0, -3.0, 70.4, 40.0, 1.0], [0.05, 0.05, 0.1]


def main() -> int:
    """Parse the command line and run."""
    data = Path(os.environ.get("ADPERCEPTION_REAL_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, default=data / "lidar/kitti/training/velodyne_reduced/000008.bin")
    parser.add_argument("--turns", type=int, default=5, help="how often every case runs")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes of one turn, after two warm-up passes")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--child", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.scan, arguments.child, arguments.repeats)))
        return 0
    return report(arguments)


def report(arguments: argparse.Namespace) -> int:
    """Run all cases in turn, print the table."""
    if not arguments.scan.is_file():
        print(f"{arguments.scan}: no such scan; name one with --scan (KITTI's velodyne_reduced/000008.bin)")
        return 2
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    for _ in range(arguments.turns):
        for name, (threads, _, _) in CASES.items():
            command = [sys.executable, __file__, "--child", name, "--scan", str(arguments.scan)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            done = subprocess.run(
                [*command, "--repeats", str(arguments.repeats)], capture_output=True, text=True, env=environment
            )
            if done.returncode:
                print(done.stderr.strip().splitlines()[-1])
                print("The comparison needs spconv's CPU build: pip install spconv==2.3.8")
                return 2
            results[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    table = {name: summary(turns, results[BASE]) for name, turns in results.items()}
    print(
        f"{results[BASE][0]['voxels']:,} voxels, {platform.processor() or platform.machine()}, {arguments.turns} turns"
    )
    print(f"{'case':36} {'threads':>7} {'median ms':>10} {'ratio':>7} {'(min..max)':>14} {'peak MiB':>9}")
    for name, row in table.items():
        spread = f"({row['ratio_min']:.2f}..{row['ratio_max']:.2f})"
        print(
            f"{name:36} {CASES[name][0]:7d} {row['milliseconds']:10.1f} {row['ratio']:7.2f} {spread:>14} "
            f"{row['peak_mib']:9.0f}"
        )
    difference = results["torch forward"][0]["checksum"] / results[BASE][0]["checksum"] - 1
    print(f"sum of |output|, torch against spconv: relative difference {difference:.1e}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {"machine": platform.platform(), "adperception": adperception.__version__, "table": table}, indent=1
            )
            + "\n"
        )
    return 0


def summary(turns: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, float]:
    """Median time and the ratios to the base case, turn by turn."""
    ratios = [t["milliseconds"] / b["milliseconds"] for t, b in zip(turns, base, strict=True)]
    return {
        "milliseconds": statistics.median(t["milliseconds"] for t in turns),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "peak_mib": max(t["peak_mib"] for t in turns),
    }


def measure(scan: Path, case: str, repeats: int) -> dict[str, Any]:
    """One turn of one case, in this process."""
    import numpy as np
    import torch

    from adperception.geometry.voxelization import VoxelCollate, Voxelizer
    from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
    from adperception.structures import LidarFrame, PointCloud, VoxelGrid

    threads, library, what = CASES[case]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    grid = VoxelGrid.create(RANGE, VOXEL)
    cloud = PointCloud(np.fromfile(scan, np.float32).reshape(-1, 4))
    batch = VoxelCollate(Voxelizer(grid, 5, None), 4)([LidarFrame("a", cloud), LidarFrame("b", cloud)])
    encoder = VoxelBackBone8x(4, grid)
    encoder.train(what == "train")
    before = peak_mib()
    run: Callable[[], torch.Tensor]
    if library == "spconv":
        run = spconv_network(encoder, batch.voxels)
    else:

        def run() -> torch.Tensor:
            return encoder(batch.voxels)  # type: ignore[no-any-return]

    seconds, checksum = [], 0.0
    for _ in range(repeats + 2):
        start = time.perf_counter()
        if what == "train":
            encoder.zero_grad()
            output = run()
            output.sum().backward()
        else:
            with torch.no_grad():
                output = run()
        seconds.append(time.perf_counter() - start)
        checksum = float(output.detach().abs().sum())
    return {
        "voxels": len(batch.voxels),
        "milliseconds": 1e3 * statistics.median(seconds[2:]),
        "peak_mib": peak_mib() - before,
        "checksum": checksum,
    }


def spconv_network(encoder: Any, voxels: Any) -> Callable[[], Any]:
    """The encoder's layers and weights as spconv modules."""
    import spconv.pytorch as spconv
    import torch

    from adperception.sparse import SparseConvolution

    blocks = []
    ours: list[Any] = [m for m in encoder.modules() if isinstance(m, torch.nn.Sequential)]
    for conv, norm, _ in [m for m in ours if isinstance(m[0], SparseConvolution)]:
        size = list(conv.kernel.size)
        options: dict[str, Any] = {"bias": False, "indice_key": conv.key}
        if conv.submanifold:
            module = spconv.SubMConv3d(conv.in_channels, conv.out_channels, size, **options)
        else:
            options.update(stride=list(conv.kernel.stride), padding=list(conv.kernel.padding))
            module = spconv.SparseConv3d(conv.in_channels, conv.out_channels, size, **options)
        module.weight = torch.nn.Parameter(conv.weight.detach().clone())
        blocks.append(spconv.SparseSequential(module, torch.nn.BatchNorm1d(norm.num_features, 1e-3), torch.nn.ReLU()))
    network = spconv.SparseSequential(*blocks).eval()
    shape = list(encoder.grid.sparse_shape)

    def run() -> torch.Tensor:
        tensor = spconv.SparseConvTensor(voxels.features, voxels.coordinates, shape, voxels.batch_size)
        dense = network(tensor).dense()
        return dense.view(dense.shape[0], -1, *dense.shape[3:])  # type: ignore[no-any-return]

    return run


def peak_mib() -> float:
    """Largest resident set of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
