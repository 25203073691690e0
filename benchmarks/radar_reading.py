"""Reading and packing CARRADA windows: loose .npy files against HDF5 files, warm and cold.

    python benchmarks/radar_reading.py --out /tmp/radar_reading
    python benchmarks/radar_reading.py --out /tmp/radar_reading --radar carrada_small --frames 200

A tree is simulated once (the speed of that is printed: ADC samples, cube, views, labels and files), then every form is
read through the ``CARRADA`` dataset in random order: windows of ``--moments`` frames with masks and objects. "cold" has
the operating system drop a window's files from its cache before each read (posix_fadvise, Linux); files are written
out first, for what is not on the disk yet cannot be dropped. Times are medians over windows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adperception.datasets import CARRADA
from adperception.datasets.formats.carrada import frame_range, read_frames
from adperception.datasets.formats.carrada_files import CarradaFiles
from adperception.datasets.formats.carrada_pack import Coding, Compression, pack_file, pack_sequence
from adperception.simulation.simulate_carrada import SimulateCARRADA

PACKINGS: tuple[tuple[Coding, Compression], ...] = (
    ("lossless", "none"),
    ("lossless", "lzf"),
    ("lossless", "gzip"),
    ("log_float16", "none"),
    ("log_float16", "lzf"),
    ("log_float16", "gzip"),
)


def drop_from_cache(paths: Sequence[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def files_of(dataset: CARRADA, index: int, rad_root: Path) -> list[Path]:
    """The files that a window is read from."""
    sequence, _, frame = dataset.frame_ids[index].rpartition("/")
    if not isinstance(dataset.storage, CarradaFiles):
        return [pack_file(rad_root, sequence)]
    window = frame_range(frame, dataset.moments)
    folders = [folder for part in dataset.load for folder in dataset.storage.folders(sequence, part)]
    masks = dataset.storage.folders(sequence, dataset.annotation)[0] / frame
    return [folder / f"{name}.npy" for folder in folders for name in window] + sorted(masks.iterdir())


def windows_per_second(dataset: CARRADA, rad_root: Path, repeats: int, *, cold: bool) -> float:
    seconds = []
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        for index in rng.permutation(len(dataset)):
            if cold:
                drop_from_cache(files_of(dataset, int(index), rad_root))
            started = time.perf_counter()
            dataset.read(int(index))
            seconds.append(time.perf_counter() - started)
    return 1 / float(np.median(seconds))


def measure(root: Path, rad_root: Path, options: argparse.Namespace) -> dict[str, Any]:
    os.sync()
    speeds = {}
    for load in (("cubes",), ("views",), ("cubes", "views")):
        dataset = CARRADA(root, rad_root=rad_root, moments=options.moments, load=load)
        for temperature in ("warm", "cold"):
            speed = windows_per_second(dataset, rad_root, options.repeats, cold=temperature == "cold")
            speeds[f"{'+'.join(load)} {temperature}"] = round(speed, 1)
    return speeds


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the trees")
    parser.add_argument("--radar", default="carrada", help="preset (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=24, help="frames (default: %(default)s)")
    parser.add_argument("--moments", type=int, default=5, help="frames per window (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="passes over the windows (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    tree = options.out / options.radar
    simulation = SimulateCARRADA(
        tree, options.frames, radar=options.radar, sequence_frames=options.frames, splits={"Train": 1.0}
    )
    simulation()
    root, loose = tree / "Carrada", tree / "Carrada_RAD"
    if simulation.frames_per_second_per_core is not None:
        print(f"simulated and written: {simulation.frames_per_second_per_core:.1f} frames/s, one process")
    ((sequence, frames),) = read_frames(root).items()
    rows: dict[str, dict[str, Any]] = {}
    size = sum(p.stat().st_size for folder in (root, loose) for p in folder.rglob("*.npy") if "_raw" not in str(p))
    rows["loose .npy"] = {"MB/frame": round(size / len(frames) / 1e6, 3), **measure(root, loose, options)}
    for coding, compression in PACKINGS:
        folder = options.out / f"{options.radar}_{coding}_{compression}"
        started = time.perf_counter()
        files = CarradaFiles(root, loose, simulation.radar.grid)
        error = pack_sequence(files, folder, sequence, frames, coding, compression)
        elapsed = time.perf_counter() - started
        rows[f"{coding} {compression}"] = {
            "MB/frame": round(pack_file(folder, sequence).stat().st_size / len(frames) / 1e6, 3),
            **measure(root, folder, options),
            "packed frames/s": round(len(frames) / elapsed, 1),
            "error dB": round(error, 5),
        }
    columns = list(rows["lossless none"])
    print(f"{platform.processor() or platform.machine()}, {options.radar}, windows of T = {options.moments} per second")
    print(f"{'':<18}" + "".join(f"{c:>18}" for c in columns))
    for name, row in rows.items():
        print(f"{name:<18}" + "".join(f"{row.get(c, ''):>18}" for c in columns))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
