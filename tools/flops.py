"""Parameters and multiply-adds for one frame: python tools/flops.py tmva_net_carrada mv_net_carrada

Names of the zoo, config files, or weights that say which model they hold (pruned ones too). Weights of convolutions and
linear layers are counted once per position; biases and everything else are not. What has weights and could not be
counted (sparse convolutions work on as many voxels as there are) is named.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def main(options: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="zoo names, config files, weights files or checkpoint folders")
    parser.add_argument(
        "--cells",
        nargs=3,
        type=int,
        metavar=("RANGE", "AZIMUTH", "DOPPLER"),
        help="radar: cells of the cube (default: the model's own, or 256 256 64)",
    )
    parser.add_argument("--parts", action="store_true", help="list the parts of each model")
    arguments = parser.parse_args(options)
    try:
        for name in arguments.models:
            print(_describe(name, arguments.cells, arguments.parts), flush=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _describe(name: str, cells: list[int] | None, parts: bool) -> str:
    from adperception.engine.multiply_adds import multiply_adds_of
    from adperception.zoo import create_model, load_model

    stored = name.endswith(".safetensors") or Path(name).is_dir()
    model = load_model(name) if stored else create_model(name)
    parameters = sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    idle = "" if learning == parameters else f" ({learning:,} of them learn)"
    lines = [f"{name}: {type(model).__name__}, {parameters:,} parameters{idle}"]
    counts = multiply_adds_of(model, None if cells is None else (cells[0], cells[1], cells[2]))
    for situation, counted in counts.items():
        lines.append(f"  {counted.total / 1e9:.2f} G multiply-adds{f' with {situation}' if situation else ''}")
        if parts:
            lines += [f"    {part or '(itself)':32s} {n / 1e9:8.3f} G" for part, n in counted.by_part().items()]
    missed = {module for counted in counts.values() for module in counted.not_counted}
    if missed:
        per_part = Counter(module.partition(".")[0] or "(itself)" for module in missed)
        lines.append(f"  not counted: weights of {', '.join(f'{p} ({n})' for p, n in sorted(per_part.items()))}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
