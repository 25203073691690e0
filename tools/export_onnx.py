"""Write the dense part of a detector (BEV backbone and head) as ONNX and compare it with torch in onnxruntime.

python tools/export_onnx.py --weights work_dirs/second_kitti/weights.safetensors

The sparse encoder before it cannot be represented in ONNX; docs/export.md says what to do instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint directory or .safetensors file")
    parser.add_argument("--out", type=Path, help="default: <name>_dense.onnx beside the weights")
    options = parser.parse_args(arguments)
    try:
        return _export(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _export(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and --help should not.
    from adperception.engine.export_onnx import export_dense_part
    from adperception.zoo import load_model

    weights: Path = options.weights
    model = load_model(weights)
    name = type(model).__name__.lower()
    out: Path = options.out or weights.parent / f"{weights.stem}_dense.onnx"
    print(export_dense_part(model, out).text(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
