"""What can be read off encoders without fine-tuning: python tools/probe.py CONFIG random A.safetensors B.safetensors

CONFIG (of a detector) names labelled frames, classes and geometry. Every encoder is a checkpoint or weights file of any
pre-training or detector with that encoder, or "random".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="config of a detector, e.g. configs/second/second_small.py")
    parser.add_argument("encoders", nargs="+", help='weights files, checkpoint folders, or "random"')
    parser.add_argument("--train-frames", type=int, default=500, help="training frames for the bank")
    parser.add_argument("--val-frames", type=int, default=500, help="validation frames for the queries")
    parser.add_argument("--features-per-class", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of random encoders and of which features are drawn")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--workers", type=int, default=0, help="data-loading processes")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    try:
        return _probe(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _probe(arguments: argparse.Namespace) -> int:
    from adperception.config import load_config
    from adperception.engine.distributed import start_processes
    from adperception.engine.probe import ProbeOptions, probe_data, probe_encoder
    from adperception.engine.results import write_json

    options = ProbeOptions(
        train_frames=arguments.train_frames,
        val_frames=arguments.val_frames,
        features_per_class=arguments.features_per_class,
        seed=arguments.seed,
    )
    config = load_config(arguments.config, arguments.cfg_options)
    data = probe_data(config, options, start_processes(arguments.device).device, arguments.workers)
    found = {}
    for name in dict.fromkeys(arguments.encoders):
        found[name] = probe_encoder(data, name, options)
        print(f"\n{name}", flush=True)
        for key, value in found[name].items():
            print(f"  {key:28s} {'n/a' if value != value else f'{value:.4g}'}", flush=True)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        about = {"config": config.name, "train_frames": len(data.bank.frames), "val_frames": len(data.queries.frames)}
        write_json(arguments.output, {**about, "seed": options.seed, "encoders": found})
        print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
