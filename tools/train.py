"""Train a model: python tools/train.py CONFIG. Several processes: torchrun --nproc-per-node=N tools/train.py CONFIG.

With a "distributed" section in the config they train apart and meet in rounds; see docs/distributed_training.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from pathlib import Path


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="config file, e.g. configs/quickstart.py")
    parser.add_argument("--work-dir", type=Path, help="where everything is written (default: work_dirs/<config name>)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest complete checkpoint in --work-dir")
    parser.add_argument(
        "--resume-consensus",
        action="store_true",
        help="go on from the consensus model, with any number of workers and fresh local optimizers",
    )
    parser.add_argument("--store", metavar="HOST:PORT", help="of tools/store.py, if every worker has its own launcher")
    parser.add_argument("--worker", metavar="I/N", help="which of how many workers this is, with --store: 0/4 to 3/4")
    parser.add_argument("--allow-config-change", action="store_true", help="resume although the config differs")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="e.g. train.steps=20"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument(
        "--sparse-backend",
        metavar="NAME",
        help="backend of sparse convolutions; tools/doctor.py lists those of this machine (default: auto)",
    )
    parser.add_argument("--seed", type=int, help="replaces the config's seed")
    parser.add_argument("--deterministic", action="store_true", help="fail on operations that are not deterministic")
    arguments = parser.parse_args()
    work_dir: Path = arguments.work_dir or Path("work_dirs") / arguments.config.stem
    rank = os.environ.get("RANK", "0") if arguments.worker is None else arguments.worker.partition("/")[0]
    is_main = rank == "0"
    if is_main:
        print(f"{arguments.config} -> {work_dir}", flush=True)
    try:
        return _train(arguments, work_dir, is_main)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        _keep_traceback(work_dir, rank)
        return 1


def _train(arguments: argparse.Namespace, work_dir: Path, is_main: bool) -> int:
    # Imported here: torch takes seconds, and the first line and a misspelt config should not.
    from adperception.config import load_config
    from adperception.engine.settings import parse_settings

    overrides = list(arguments.cfg_options)
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    config = load_config(arguments.config, overrides)
    if is_main:
        for line in config.overrides:
            print(line, flush=True)
    parse_settings(config.values)

    from adperception.engine.run import RunOptions, train
    from adperception.engine.workers import StoreAddress
    from adperception.optim.communication_errors import CommunicatorError
    from adperception.sparse import set_backend

    if arguments.sparse_backend is not None:
        set_backend(arguments.sparse_backend)
    options = RunOptions(
        work_dir=work_dir,
        resume=arguments.resume,
        allow_config_change=arguments.allow_config_change,
        device=arguments.device,
        deterministic=arguments.deterministic,
        resume_consensus=arguments.resume_consensus,
        address=None if arguments.store is None else StoreAddress.parse(arguments.store, arguments.worker),
    )
    try:
        trainer = train(config, options)
    except CommunicatorError as error:
        raise ConnectionError(str(error)) from error
    # The shell's convention for a process that a signal ended.
    return 0 if trainer.is_done else 128 + trainer.stop_signal


def _keep_traceback(work_dir: Path, rank: str) -> None:
    """For the developer; the message is for the user."""
    path = work_dir / f"error_process_{rank}.log"
    with contextlib.suppress(OSError):  # no work directory yet, or a full disk
        path.write_text(traceback.format_exc(), encoding="utf-8")
        print(f"(traceback: {path})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
