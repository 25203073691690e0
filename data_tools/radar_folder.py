"""Get a folder of radar cubes ready for ``RadarFolder``: describe the sensor, look at the data, process raw samples.

    python data_tools/radar_folder.py init data/mine --preset carrada --range-order near_first
    python data_tools/radar_folder.py init data/mine --cells 256 128 64 --range-bin 0.2 --doppler-bin 0.15
    python data_tools/radar_folder.py check data/mine --classes pedestrian car --masks --objects objects.csv
    python data_tools/radar_folder.py process recordings/ data/mine --radar radar.json

``init`` writes ``sensor.json``. ``check`` reads the frames and reports what is damaged, how strong the cubes are, and
signs of a wrong orientation; its exit status is 1 if it found an error. ``process`` turns raw ADC samples into cubes
(magnitudes) and ``sensor.json``: ``.npy`` of (loops, antennas, samples), with or without frames in front, or ``.bin``
of Texas Instruments' capture card (``adperception/datasets/formats/ti_adc.py``). Every recording becomes a sequence.
The sensor file of ``--radar`` holds the fields of ``FMCWRadar``, e.g. ``{"preset": "ti_indoor", "lanes": 2}``.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from adperception.datasets import RadarFolder
from adperception.datasets.formats.radar_cube_files import CUBE_SUFFIXES, read_stored_cube
from adperception.datasets.formats.radar_sensor import AXES, SENSOR_FILE, RadarSensor
from adperception.datasets.radar_folder import list_sequences
from adperception.engine.radar_input import RadarDescription, read_moments, read_radar_description
from adperception.simulation.fmcw import FMCWRadar
from adperception.structures import RadarFrame, RadarGrid

_SHOWN = 20
_ADC_SUFFIXES = (".npy", ".bin")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_init(commands.add_parser("init", help="write sensor.json"))
    _add_check(commands.add_parser("check", help="read the frames and report"))
    _add_process(commands.add_parser("process", help="make cubes of raw ADC samples"))
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (ValueError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def init(options: argparse.Namespace) -> int:
    """Write ``sensor.json``, unless a cube that is there does not fit it."""
    path = options.root / SENSOR_FILE
    if path.is_file() and not options.overwrite:
        raise ValueError(f"{path} is there already. Correct it by hand, or make it anew with --overwrite.")
    if not options.root.is_dir():
        raise FileNotFoundError(f"{options.root} does not exist. Make the folder, one subfolder per sequence in it.")
    by_hand = (options.cells, options.range_bin, options.doppler_bin)
    if (None in by_hand) if options.preset is None else any(value is not None for value in by_hand):
        raise ValueError("init needs either --preset, or all of --cells, --range-bin and --doppler-bin.")
    if options.preset is None:
        radar = None
        rows, azimuths, dopplers = options.cells
        grid = RadarGrid(rows, azimuths, dopplers, options.range_bin, options.doppler_bin, options.spacing)
    else:
        radar = FMCWRadar.preset(options.preset)
        grid = radar.grid
    sensor = RadarSensor(
        grid,
        tuple(options.axes),
        options.range_order,
        options.azimuth_order,
        options.doppler_order,
        options.label_axis,
        {} if radar is None else radar.to_dict(),
    )
    first = next((p for p in sorted(options.root.rglob("*")) if p.suffix in CUBE_SUFFIXES), None)
    if first is not None:
        read_stored_cube(first, sensor)
        print(f"{first} fits")
    sensor.write(path)
    print(f"{path}: cubes of {sensor.stored_shape} ({', '.join(sensor.axes)}), {_reach(grid)}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Print a report; 1 if there is an error in it."""
    dataset = RadarFolder(
        options.root,
        class_names=options.classes,
        masks=options.masks,
        objects=options.objects,
        unlisted_frames=options.unlisted_frames,
    )
    count = len(dataset) if options.frames is None else min(options.frames, len(dataset))
    indices = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    sequences = len(list_sequences(options.root))
    print(f"{options.root}: {len(dataset)} frames of {sequences} sequences; {_reach(dataset.grid)}")
    statistics, errors = _Statistics(dataset), []
    for index in tqdm(indices, desc="reading", unit="frame", disable=None):
        try:
            statistics.add(dataset.read(index))
        except (ValueError, OSError) as error:  # one bad frame must not hide the others
            errors.append(str(error))
    print("\n".join(statistics.lines()))
    _print_errors(errors)
    return 1 if errors else 0


def process(options: argparse.Namespace) -> int:
    """Make cubes of raw samples; 1 if a file could not be used."""
    description = _description(options.radar)
    files = _recordings(options.source)
    sensor = options.out / SENSOR_FILE
    if sensor.is_file() and not options.overwrite:
        raise ValueError(f"{sensor} is there already. Choose another folder, or --overwrite.")
    options.out.mkdir(parents=True, exist_ok=True)
    errors = []
    for path in files:
        folder, count = options.out / path.stem, 0
        try:
            for moment in tqdm(
                read_moments([path], description, kind="adc"), desc=path.name, unit="frame", disable=None
            ):
                folder.mkdir(exist_ok=True)
                np.save(folder / f"{count:06d}.npy", moment.magnitude)
                count += 1
        except (ValueError, OSError) as error:  # one bad file must not hide the others
            errors.append(str(error))
        if count:
            print(f"{folder}: {count} cubes")
    if description.radar is not None:
        RadarSensor(description.radar.grid, radar=description.radar.to_dict()).write(sensor)
    _print_errors(errors)
    return 1 if errors else 0


class _Statistics:
    """What the frames so far look like."""

    def __init__(self, dataset: RadarFolder) -> None:
        self.dataset = dataset
        self.means: list[float] = []
        rows, _, dopplers = dataset.grid.shape
        self.doppler, self.range = np.zeros(dopplers), np.zeros(rows)
        self.objects: Counter[str] = Counter()
        self.pixels: Counter[str] = Counter()
        self.empty = 0

    def add(self, frame: RadarFrame) -> None:
        assert frame.cubes is not None
        power = np.square(frame.cubes[-1], dtype=np.float64)
        self.means.append(float(np.mean(10 * np.log10(power + 1))))
        self.doppler += power.sum(axis=(0, 1)) / power.sum()
        self.range += power.sum(axis=(1, 2)) / power.sum()
        names = self.dataset.class_names
        if frame.objects is not None:
            self.objects.update(names[c - 1] for c in frame.objects.class_ids.tolist())
            self.empty += not len(frame.objects)
        if frame.masks is not None:
            for mask in (frame.masks.range_doppler, frame.masks.range_angle):
                counts = np.bincount(mask.ravel(), minlength=len(names) + 1)[1:]
                self.pixels.update(dict(zip(names, counts.tolist(), strict=True)))

    def lines(self) -> list[str]:
        if not self.means:
            return ["no frame was readable"]
        lines = [
            f"{len(self.means)} frames read: 10 log10(X^2 + 1) averages {np.mean(self.means):.1f} dB (frames: "
            f"{min(self.means):.1f} to {max(self.means):.1f}; CARRADA: 32.1)",
            *self._orientation(),
        ]
        lines += [
            f"  {name:<12}{self.objects[name]:>7} objects{self.pixels[name]:>10} pixels in both views"
            for name in self.dataset.class_names
        ]
        if self.dataset.class_names:
            lines.append(f"  {self.empty} frames without an object in the table")
        return lines

    def _orientation(self) -> list[str]:
        """Standing things are at standstill, and near ones are strong: hints at a wrong sensor.json."""
        strongest, middle = int(self.doppler.argmax()), len(self.doppler) // 2
        lines = [f"most power in Doppler column {strongest} (standstill is {middle})"]
        if strongest in (0, len(self.doppler) - 1):
            lines.append(
                "  hint: that is the end of the axis. Is the Doppler transform not shifted (numpy.fft.fftshift)?"
            )
        half = len(self.range) // 2
        near = 100 * self.range[half:].sum() / self.range.sum()
        lines.append(f"{near:.0f} % of the power in the near half of the range")
        if near < 50:
            lines.append("  hint: near things are usually stronger. Is range_order in sensor.json right?")
        return lines


def _description(source: str) -> RadarDescription:
    """Of a sensor file, or of the preset of this name."""
    if not source.endswith(".json"):
        return RadarDescription(radar=FMCWRadar.preset(source))
    description = read_radar_description(source)
    if description.radar is None:
        raise ValueError(f"{source}: describes no radar: raw samples need the fields of FMCWRadar, or a preset.")
    return description


def _recordings(source: Path) -> list[Path]:
    files = sorted(p for p in source.iterdir() if p.suffix in _ADC_SUFFIXES) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"{source}: there is no {' or '.join(_ADC_SUFFIXES)} recording here.")
    stems = Counter(path.stem for path in files)
    if max(stems.values()) > 1:
        raise ValueError(f"{source}: {stems.most_common(1)[0][0]} is there as .npy and as .bin. Remove one of them.")
    return files


def _reach(grid: RadarGrid) -> str:
    velocity = grid.doppler_bins / 2 * grid.doppler_bin_mps
    return f"{grid.max_range_m:.4g} m, +-{velocity:.4g} m/s"


def _print_errors(errors: Sequence[str]) -> None:
    for problem in errors[:_SHOWN]:
        print(f"ERROR: {problem}")
    if len(errors) > _SHOWN:
        print(f"ERROR: ... and {len(errors) - _SHOWN} more")


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=init)
    parser.add_argument("root", type=Path, help="folder with one subfolder of cubes per sequence")
    parser.add_argument("--preset", help="a known radar: carrada, carrada_small, ti_indoor, rod2021, radial")
    parser.add_argument("--cells", type=int, nargs=3, metavar=("RANGE", "AZIMUTH", "DOPPLER"), help="numbers of cells")
    parser.add_argument("--range-bin", type=float, help="metres per range cell")
    parser.add_argument("--doppler-bin", type=float, help="metres per second per Doppler cell")
    parser.add_argument(
        "--spacing", type=float, default=1.0, help="distance of virtual antennas in half wavelengths (default: 1)"
    )
    parser.add_argument("--axes", nargs=3, default=list(AXES), choices=AXES, help="order of the axes in the files")
    parser.add_argument("--range-order", default="far_first", choices=["far_first", "near_first"])
    parser.add_argument("--azimuth-order", default="ascending", choices=["ascending", "descending"])
    parser.add_argument(
        "--doppler-order", default="approaching_last", choices=["approaching_last", "approaching_first"]
    )
    parser.add_argument("--label-axis", default="sin", choices=["sin", "angle", "unknown"])
    parser.add_argument("--overwrite", action="store_true", help="replace a sensor.json that is there")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=check)
    parser.add_argument("root", type=Path, help="folder with sensor.json in it")
    parser.add_argument("--classes", nargs="+", default=[], help="class names, in the order of the ids in the masks")
    parser.add_argument("--masks", action="store_true", help="frames have masks")
    parser.add_argument("--objects", help="table of objects, .csv or .jsonl; below root or elsewhere")
    parser.add_argument("--unlisted-frames", default="error", choices=["error", "empty", "skip"])
    parser.add_argument("--frames", type=int, help="read only so many frames, evenly spread")


def _add_process(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=process)
    parser.add_argument("source", type=Path, help="a recording, or a folder of recordings")
    parser.add_argument("out", type=Path, help="folder to write, for RadarFolder")
    parser.add_argument("--radar", required=True, help="sensor file (.json) or name of a preset")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that has a sensor.json")


if __name__ == "__main__":
    sys.exit(main())
