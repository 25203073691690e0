"""Find objects in point-cloud files.

python tools/infer.py --weights work_dirs/second_kitti/weights.safetensors scan.pcd

Reads .bin .npy .npz .pcd .ply .las, says how it read them, prints what it found, and writes for each scan a JSON file
(frame_id, names, scores, boxes) and a picture from above. See docs/inference.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adperception.engine.inference import Inference


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 0 also if nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCAN")
    parser.add_argument("--weights", required=True, type=Path, help="checkpoint directory or .safetensors file")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/infer"), help="folder for JSON and pictures")
    parser.add_argument("--channels", nargs="+", help="what files without named columns hold: x y z intensity ring")
    parser.add_argument("--intensity-max", type=float, help="largest intensity the sensor can give, e.g. 255")
    parser.add_argument("--fill-missing", type=float, help="value for channels that the file lacks, e.g. 0")
    parser.add_argument("--sensor-height", type=float, help="metres of the sensor above the road")
    parser.add_argument("--min-score", type=float, default=0.0, help="leave out what scores less")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    options = parser.parse_args(arguments)
    try:
        return _infer(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _infer(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and --help should not.
    from adperception.engine.inference import Detector

    names = [scan.name for scan in options.scans]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two scans are called {twice}; their results would overwrite each other. Give them one by one."
        )
    detector = Detector(options.weights, options.device)
    for scan in options.scans:
        result = detector(
            scan,
            channels=options.channels,
            intensity_max=options.intensity_max,
            fill_missing=options.fill_missing,
            sensor_height=options.sensor_height,
            min_score=options.min_score,
        )
        _report(result, scan, options.out)
    return 0


def _report(result: Inference, scan: Path, out: Path) -> None:
    from adperception.evaluation.predictions import write_predictions
    from adperception.visualization.detections_bev import detections_picture

    print(f"{scan}: {result.reading}")
    for warning in result.warnings:
        print(f"note: {warning}")
    print(result.table())
    json_file, picture = out / f"{scan.name}.json", out / f"{scan.name}.png"
    write_predictions(json_file, {result.frame_id: result.detections})
    title = f"{result.frame_id}: {len(result.detections)} objects"
    detections_picture(picture, result.cloud.xyz, result.point_cloud_range, result.detections, title=title)
    print(f"wrote {json_file} and {picture}\n")


if __name__ == "__main__":
    sys.exit(main())
