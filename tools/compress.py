"""How much of a radar network can go? python tools/compress.py CONFIG --weights W [W ...] --method structured

Removes a share of the parameters, fine-tunes, evaluates, removes more, and so on; writes a table and a plot. Give the
weights of several training seeds to learn what a difference is worth. Finished rounds are skipped: start it again until
it is done. --method int8 quantises an exported network instead, without training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 if the study is complete, 75 if it has to go on later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="config of the networks, e.g. configs/erase_net/erase_net_tiny.py")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="weights, one file per training seed")
    parser.add_argument("--method", choices=["structured", "unstructured", "none", "int8"], default="structured")
    parser.add_argument(
        "--steps",
        type=float,
        nargs="+",
        default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
        metavar="SHARE",
        help="shares of the parameters that are gone after each round (default: 0.1 to 0.8)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--finetune-epochs", type=int, help="passes over the training frames per round (default: 10)")
    length.add_argument("--finetune-steps", type=int, help="optimizer steps per round; 0: none")
    parser.add_argument("--lr", type=float, default=1e-5, help="learning rate of fine-tuning, constant")
    parser.add_argument("--split", help="split of val_dataset to evaluate on (default: the config's)")
    parser.add_argument("--calibration", type=int, default=64, metavar="FRAMES", help="training frames for int8")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/compress_<config name>_<method>")
    parser.add_argument(
        "--beside", type=Path, nargs="+", default=[], metavar="RESULTS.JSON", help="other studies for the same figure"
    )
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="stop cleanly after this long")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _run(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and a misspelt option should not.
    from adperception.config import load_config
    from adperception.engine.compression import CompressionRun, run_compression
    from adperception.engine.compression_plan import Compression
    from adperception.engine.quantization_study import run_quantization

    config = load_config(options.config, options.cfg_options)
    work_dir = options.work_dir or Path("work_dirs") / f"compress_{options.config.stem}_{options.method}"
    command = ["python", *sys.argv]
    if options.method == "int8":
        report = run_quantization(config, options.weights, work_dir, options.calibration, options.split, command)
        print("\n" + report, flush=True)
        return 0
    epochs: int | None = options.finetune_epochs
    if epochs is None and options.finetune_steps is None:
        epochs = 10
    study = Compression(
        config=config,
        weights=tuple(options.weights),
        method=options.method,
        shares=tuple(options.steps),
        steps=options.finetune_steps,
        epochs=epochs,
        rate=options.lr,
        split=options.split,
    )
    run = CompressionRun(
        work_dir=work_dir,
        device=options.device,
        time_limit_minutes=options.time_limit,
        beside=tuple(options.beside),
        command=command,
    )
    results = run_compression(study, run)
    print("\n" + (work_dir / "results.md").read_text(encoding="utf-8"), flush=True)
    return 0 if results.is_complete else 75


if __name__ == "__main__":
    sys.exit(main())
