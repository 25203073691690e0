"""Frames per second of the radar chain: samples to cube and views; whole simulated frames; with all files written.

Run: ``OMP_NUM_THREADS=1 python benchmarks/radar_simulator.py [--frames 40] [--repeats 5]``

More threads of the matrix library make it slower: its products are small. Two cores are used by two processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from adperception.simulation.fmcw import range_azimuth_doppler
from adperception.simulation.radar_sequence import RadarSequence
from adperception.simulation.simulate_carrada import SimulateCARRADA
from adperception.structures.radar_cube import RadarViews


def processor_seconds() -> float:
    """Of this process and the ones it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def measure(work: Callable[[], int], repeats: int) -> str:
    wall, processor = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), processor_seconds()
        frames = work()
        wall.append(frames / (time.perf_counter() - start))
        processor.append(frames / (processor_seconds() - used))
    return (
        f"median {statistics.median(wall):.1f} frames/s by the wall clock ({min(wall):.1f} to {max(wall):.1f}), "
        f"{statistics.median(processor):.1f} per second of processor time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--radar", default="carrada")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    sequence = RadarSequence(0, options.frames, options.radar)
    samples = [frame.adc for frame in sequence]

    def process() -> int:
        for adc in samples:
            RadarViews.processed(range_azimuth_doppler(adc, sequence.radar, options.workers).magnitude())
        return len(samples)

    def simulate() -> int:
        return sum(1 for _ in sequence)

    def write() -> int:
        with tempfile.TemporaryDirectory() as folder:
            SimulateCARRADA(
                Path(folder) / "tree",
                frames=options.frames,
                workers=options.workers,
                sequence_frames=20,
                radar=options.radar,
                splits={"Train": 1.0},
            )()
        frames: int = options.frames
        return frames

    print(f"{options.radar}, cells {sequence.grid.shape}, {options.frames} frames, {options.repeats} repeats")
    chain = measure(process, options.repeats)
    print(f"samples to cube and processed views, {options.workers} threads: {chain}, needed: 8")
    print(f"scene, samples, cube, CFAR labels, one process: {measure(simulate, options.repeats)}")
    print(f"the same and CARRADA's files, {options.workers} processes: {measure(write, options.repeats)}, needed: 3")


if __name__ == "__main__":
    main()
