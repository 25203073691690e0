"""Write a model as ONNX and compare it with torch in onnxruntime.

python tools/export.py --weights work_dirs/erase_net_tiny/weights.safetensors
python tools/export.py --weights work_dirs/second_kitti/weights.safetensors

Radar models are exported whole. Of a detector the dense part (BEV backbone and head) is: the sparse encoder before it
cannot be represented in ONNX; docs/export.md says what to do instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

FRAMES = 8
"""Recorded frames that are compared on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint directory or .safetensors file")
    parser.add_argument("--out", type=Path, help="default: <name>.onnx, or <name>_dense.onnx, beside the weights")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        metavar=("RANGE", "AZIMUTH", "DOPPLER"),
        help="cells of a radar's cubes (default: those of the frames that the weights were trained on)",
    )
    parser.add_argument("--config", type=Path, help="radar: compare on frames of its val_dataset, not generated ones")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        return _export(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _export(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and --help should not.
    from adperception.checkpoint.load import read_metadata
    from adperception.config import load_config
    from adperception.engine.export import export_dense_part, export_radar_model
    from adperception.engine.radar_graph import radar_graph, recorded_inputs
    from adperception.models.radar.base import RadarModel
    from adperception.zoo import load_model

    weights: Path = options.weights
    model = load_model(weights)
    if not isinstance(model, RadarModel):
        print(export_dense_part(model, options.out or weights.parent / f"{weights.stem}_dense.onnx"))
        return 0
    shape: Sequence[int] | None = options.shape
    if shape is None:
        grid = read_metadata(weights).get("radar_grid")
        if grid is None:
            raise ValueError(
                f"{weights}: does not say how many cells its cubes had; give --shape RANGE AZIMUTH DOPPLER."
            )
        shape = [grid["range_bins"], grid["azimuth_bins"], grid["doppler_bins"]]
    rows, azimuths, dopplers = shape
    frames = None
    if options.config is not None:
        config = load_config(options.config, options.cfg_options)
        frames = recorded_inputs(radar_graph(model), config.values["val_dataset"], FRAMES)
    print(export_radar_model(model, options.out or weights.with_suffix(".onnx"), (rows, azimuths, dopplers), frames))
    return 0


if __name__ == "__main__":
    sys.exit(main())
