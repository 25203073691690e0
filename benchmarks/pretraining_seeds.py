"""A pre-training config with several seeds: mean and standard deviation of what it reaches, before against after.

    python benchmarks/pretraining_seeds.py configs/quickstart.py --seeds 0 1 2
    python benchmarks/pretraining_seeds.py configs/ad_l_jepa/ad_l_jepa_small.py --cfg-options train_dataset.root=...

Finished seeds are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROWS = {
    "val_loss": "validation loss",
    "effective_rank": "effective rank",
    "k_means_foreground_iou": "k-means foreground IoU",
}


def main() -> int:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/seeds/<config name>")
    parser.add_argument("--cfg-options", nargs="+", default=[])
    arguments = parser.parse_args()
    root = arguments.work_dir or Path("work_dirs/seeds") / arguments.config.stem
    runs = [run(arguments.config, seed, root / f"seed_{seed}", arguments.cfg_options) for seed in arguments.seeds]
    print(f"{arguments.config}, seeds {arguments.seeds}: mean ± standard deviation")
    for key, name in ROWS.items():
        before, after = (
            [line[key] for line in evaluations] for evaluations in zip(*(r["ends"] for r in runs), strict=True)
        )
        print(f"{name:34} {spread(before)} -> {spread(after)}")
    print(f"{'training loss, last tenth / first 5':34} {spread([r['loss_ratio'] for r in runs])}")
    print(f"{'seconds per step':34} {spread([r['step_seconds'] for r in runs])}")
    print(f"{'peak memory, MiB':34} {spread([r['peak_memory_mib'] for r in runs], 0)}")
    return 0


def run(config: Path, seed: int, folder: Path, options: list[str]) -> dict[str, Any]:
    """One seed: what its log says at the beginning and at the end."""
    if not (folder / "weights.safetensors").is_file():
        tool = Path(__file__).resolve().parent.parent / "tools/train.py"
        command = [sys.executable, str(tool), str(config), "--seed", str(seed), "--work-dir", str(folder)]
        subprocess.run([*command, "--cfg-options", "log.every_steps=1", *options], check=True)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    steps = [line for line in lines if line["kind"] == "train"]
    losses = [line["loss"] for line in steps]
    tenth = max(1, len(losses) // 10)
    return {
        "ends": (evaluations[0], evaluations[-1]),
        "loss_ratio": statistics.mean(losses[-tenth:]) / statistics.mean(losses[:5]),
        "step_seconds": statistics.median(line["step_seconds"] for line in steps),
        "peak_memory_mib": max(line["peak_memory_mib"] for line in steps),
    }


def spread(values: list[float], digits: int = 3) -> str:
    """``mean ± standard deviation``."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
