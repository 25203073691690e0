"""Frames per second per core of the LiDAR simulator, labels and writing included.

Run: ``OMP_NUM_THREADS=1 python benchmarks/lidar_simulator.py [--frames 40] [--repeats 5]``
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.simulate_kitti import simulate_frame, write_frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sensor = LidarSensor()
    wall: list[float] = []
    cpu: list[float] = []
    rays = len(sensor.elevations_deg) * sensor.columns
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("velodyne", "calib", "label_2"):
            (root / "training" / name).mkdir(parents=True)
        write_frame(simulate_frame(0, 1, sensor), root)  # warm-up
        for _ in range(options.repeats):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            for index in range(options.frames):
                write_frame(simulate_frame(index, 0, sensor), root)
            wall.append(options.frames / (time.perf_counter() - wall_start))
            cpu.append(options.frames / (time.process_time() - cpu_start))
    print(f"{rays:,} rays per frame, {options.frames} frames, {options.repeats} repeats, one process")
    for name, values in (("wall clock", wall), ("processor time", cpu)):
        print(
            f"{name}: median {statistics.median(values):.1f} frames/s per core "
            f"(smallest {min(values):.1f}, largest {max(values):.1f}); needed: 8"
        )


if __name__ == "__main__":
    main()
