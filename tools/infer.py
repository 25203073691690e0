"""Find objects in point-cloud files, or in radar cubes and raw radar samples: the weights file says which.

python tools/infer.py --weights work_dirs/second_kitti/weights.safetensors scan.pcd
python tools/infer.py --weights work_dirs/erase_net/weights.safetensors 000000.npy 000001.npy 000002.npy
python tools/infer.py --weights work_dirs/erase_net/weights.safetensors adc_data.bin --sensor sensor.json

Says how it read the files, prints what it found, and writes JSON and pictures. LiDAR: .bin .npy .npz .pcd .ply .las,
each file for itself (docs/inference.md). Radar: cubes and ADC frames in .npy, TI recordings in .bin; several files are
consecutive moments, oldest first; masks are written too (docs/radar_inference.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adperception.engine.inference import Inference

_LIDAR = ("sparse_backend", "channels", "intensity_max", "fill_missing", "sensor_height")
_RADAR = ("sensor", "kind", "objects_only", "animate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 0 also if nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--weights", required=True, type=Path, help="checkpoint directory or .safetensors file")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/infer"), help="folder for JSON and pictures")
    parser.add_argument("--min-score", type=float, default=0.0, help="leave out what scores less")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    lidar = parser.add_argument_group("LiDAR")
    lidar.add_argument(
        "--sparse-backend",
        metavar="NAME",
        help="backend of sparse convolutions; tools/doctor.py lists those of this machine (default: auto)",
    )
    lidar.add_argument("--channels", nargs="+", help="what files without named columns hold: x y z intensity ring")
    lidar.add_argument("--intensity-max", type=float, help="largest intensity the sensor can give, e.g. 255")
    lidar.add_argument("--fill-missing", type=float, help="value for channels that the file lacks, e.g. 0")
    lidar.add_argument("--sensor-height", type=float, help="metres of the sensor above the road")
    radar = parser.add_argument_group("radar")
    radar.add_argument("--sensor", type=Path, help="JSON that describes the radar and how its cubes lie")
    radar.add_argument("--kind", choices=["cube", "adc"], help="what .npy files hold, where the shape leaves it open")
    radar.add_argument("--objects-only", action="store_true", default=None, help="stop after the detector: no masks")
    radar.add_argument("--animate", type=Path, metavar="FILE", help="the moments as an animated .gif or .png")
    options = parser.parse_args(arguments)
    try:
        return _infer(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _infer(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and --help should not.
    from adperception.engine.radar_inference import holds_radar_model

    names = [scan.name for scan in options.scans]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two files are called {twice}; their results would overwrite each other. Give them one by one."
        )
    radar = holds_radar_model(options.weights)
    for name in _LIDAR if radar else _RADAR:
        if getattr(options, name) is not None:
            kind = "radar" if radar else "LiDAR"
            raise ValueError(f"--{name.replace('_', '-')} does not apply: {options.weights} holds a {kind} model.")
    return _infer_radar(options) if radar else _infer_lidar(options)


def _infer_lidar(options: argparse.Namespace) -> int:
    from adperception.engine.inference import Detector
    from adperception.sparse import set_backend

    if options.sparse_backend is not None:
        set_backend(options.sparse_backend)
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


def _infer_radar(options: argparse.Namespace) -> int:
    from adperception.engine.radar_inference import RadarNetwork
    from adperception.visualization.radar_sequence import radar_sequence

    network = RadarNetwork(options.weights, options.device)
    scenes = []
    for result in network.sequence(
        options.scans,
        sensor=options.sensor,
        kind=options.kind or "auto",
        min_score=options.min_score,
        objects_only=bool(options.objects_only),
    ):
        print(f"{result.frame_id}: {result.reading}")
        for note in result.notes:
            print(f"note: {note}")
        print(result.table())
        print(f"wrote {', '.join(str(path) for path in result.write(options.out))}\n")
        if options.animate is not None:
            scenes.append(result.scene())
    if options.animate is not None:
        print(f"wrote {radar_sequence(options.animate, scenes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
