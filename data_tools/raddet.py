"""Convert RADDet's labels once, or look at a tree of RADDet.

    python data_tools/raddet.py convert data/raddet
    python data_tools/raddet.py check data/raddet --frames 100

``convert`` writes a JSON file beside every pickled label file; training reads only those. The pickles are read by an
interpreter that knows plain values and numpy arrays and refuses anything else by name; nothing in them is executed, and
they stay where they are. JSON files that are there already are kept (``--overwrite`` makes them anew). ``check`` counts
cubes and labels, reads frames, and reports damaged files, boxes outside of the cube and sizes per class. The exit
status is 1 if there was an error.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from adperception.datasets.formats.radar_sensor import SENSOR_FILE, read_radar_sensor
from adperception.datasets.formats.raddet import (
    CLASSES,
    FOLDERS,
    RADDetLabels,
    cube_file,
    label_file,
    list_frames,
    read_cube,
    read_labels,
    read_pickled_labels,
    write_labels,
)
from adperception.structures import CARRADA_GRID, RadarGrid

_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["convert", "check"])
    parser.add_argument("root", type=Path, help="folder with train/ and test/ in it")
    parser.add_argument("--overwrite", action="store_true", help="convert: make JSON files anew that are there already")
    parser.add_argument("--frames", type=int, help="check: read only so many cubes, evenly spread (labels: all)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "convert":
            return convert(options.root, options.overwrite)
        return check(options.root, options.frames)
    except (ValueError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def convert(root: Path, overwrite: bool = False) -> int:
    """Write a JSON file beside every pickle; 1 if one could not be read."""
    pickles = [path for folder in FOLDERS for path in sorted((root / folder / "gt").glob("*/*.pickle"))]
    if not pickles:
        raise FileNotFoundError(
            f"{root} holds no {'|'.join(FOLDERS)}/gt/part*/000000.pickle. Unpack the labels of RADDet there."
        )
    written, kept, errors = 0, 0, []
    for path in tqdm(pickles, desc="converting", unit="file"):
        target = path.with_suffix(".json")
        if target.is_file() and not overwrite:
            kept += 1
            continue
        try:
            write_labels(target, read_pickled_labels(path))
            written += 1
        except (ValueError, OSError) as error:  # one bad file must not hide the others
            errors.append(str(error))
    print(f"{root}: {written} label files written, {kept} there already, {len(errors)} not readable")
    _print_errors(errors)
    return 1 if errors else 0


def check(root: Path, frames: int | None = None) -> int:
    """Print a report; 1 if there is an error in it."""
    sensor = root / SENSOR_FILE
    grid = read_radar_sensor(sensor).grid if sensor.is_file() else CARRADA_GRID
    errors: list[str] = []
    for folder in FOLDERS:
        if not (root / folder).is_dir():
            print(f"{root / folder}: not there")
            continue
        names = list_frames(root, folder)
        labelled = {f"{folder}/{p.parent.name}/{p.stem}" for p in (root / folder / "gt").glob("*/*.json")}
        orphans = sorted(labelled - set(names))
        errors += [f"{label_file(root, name)}: labels of a frame without a cube." for name in orphans]
        labels = _read_all_labels(root, names, grid, errors)
        print(f"{root / folder}: {len(names)} cubes, {len(labels)} with readable labels")
        print(_class_table(labels))
        print(_read_cubes(root, names, grid, frames, errors))
    _print_errors(errors)
    return 1 if errors else 0


def _read_all_labels(root: Path, names: Sequence[str], grid: RadarGrid, errors: list[str]) -> list[RADDetLabels]:
    labels = []
    for name in names:
        path = label_file(root, name)
        try:
            labels.append(read_labels(path))
        except (ValueError, OSError) as error:
            errors.append(str(error))
            continue
        outside = _outside(labels[-1].boxes, grid)
        if len(outside):
            errors.append(f"{path}: box {outside[0].tolist()} lies outside of the cube {grid.shape}.")
    return labels


def _outside(boxes: np.ndarray, grid: RadarGrid) -> np.ndarray:
    """Boxes whose centre is outside in range or azimuth, or more than a turn away in Doppler."""
    rows, columns, dopplers = grid.shape
    centre = boxes[:, :3]
    low, high = (0, 0, -dopplers), (rows, columns, 2 * dopplers)
    return np.asarray(boxes[((centre < low) | (centre > high)).any(axis=1)])


def _class_table(labels: Sequence[RADDetLabels]) -> str:
    """Boxes per class and their median sizes."""
    counts = Counter(name for frame in labels for name in frame.classes)
    lines = [f"  {'class':<12}{'boxes':>8}   median size in cells (range, azimuth, Doppler)"]
    for name in CLASSES:
        sizes = np.array(
            [b[3:] for frame in labels for n, b in zip(frame.classes, frame.boxes, strict=True) if n == name]
        )
        middle = ", ".join(f"{v:.0f}" for v in np.median(sizes, axis=0)) if len(sizes) else "-"
        lines.append(f"  {name:<12}{counts[name]:>8}   {middle}")
    return "\n".join(lines)


def _read_cubes(root: Path, names: Sequence[str], grid: RadarGrid, frames: int | None, errors: list[str]) -> str:
    count = len(names) if frames is None else min(frames, len(names))
    means, strongest = [], []
    for index in np.linspace(0, len(names) - 1, count).round().astype(int):
        try:
            magnitude = read_cube(cube_file(root, names[index]), grid)
        except (ValueError, OSError) as error:
            errors.append(str(error))
            continue
        decibels = 10 * np.log10(np.square(magnitude) + 1)
        means.append(decibels.mean())
        doppler = np.square(magnitude).sum(axis=(0, 1))
        strongest.append(int(doppler.argmax()))
    if not means:
        return "  no cube was readable"
    usual = Counter(strongest).most_common(1)[0][0]
    return (
        f"  {len(means)} cubes read: 10 log10(X^2 + 1) averages {np.mean(means):.1f} dB (RADDet: 32.4); most power "
        f"lies in Doppler column {usual} (standstill is {grid.doppler_bins // 2})"
    )


def _print_errors(errors: Sequence[str]) -> None:
    for problem in errors[:_SHOWN]:
        print(f"ERROR: {problem}")
    if len(errors) > _SHOWN:
        print(f"ERROR: ... and {len(errors) - _SHOWN} more")


if __name__ == "__main__":
    sys.exit(main())
