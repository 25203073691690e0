"""Evaluate a model: python tools/test.py CONFIG --weights W, or again from what it predicted, without the model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="config with val_dataset and evaluations")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", type=Path, help="checkpoint directory or .safetensors file of the model")
    source.add_argument("--from-predictions", type=Path, metavar="FILE", help="predictions.jsonl or .npz of before")
    parser.add_argument("--output", type=Path, help="folder for results (default: work_dirs/<config name>/test)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument(
        "--sparse-backend",
        metavar="NAME",
        help="backend of sparse convolutions; tools/doctor.py lists those of this machine (default: auto)",
    )
    parser.add_argument("--workers", type=int, default=0, help="data-loading processes")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="e.g. val_dataset.split=test"
    )
    options = parser.parse_args(arguments)
    try:
        return _test(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _test(options: argparse.Namespace) -> int:
    from adperception.config import load_config
    from adperception.engine.console import show_log_messages
    from adperception.engine.distributed import start_processes
    from adperception.engine.evaluate import evaluate_predictions, evaluate_weights
    from adperception.sparse import set_backend

    if options.sparse_backend is not None:
        set_backend(options.sparse_backend)
    show_log_messages(True)
    config = load_config(options.config, options.cfg_options)
    folder: Path = options.output or Path("work_dirs") / options.config.stem / "test"
    if options.from_predictions is not None:
        evaluate_predictions(config, options.from_predictions, folder)
    else:
        device = start_processes(options.device).device
        evaluate_weights(config, options.weights, folder, device, options.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
