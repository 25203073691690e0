"""AD-L-JEPA pre-training by several processes that train apart, stopped and resumed, beside data-parallel training.

    python benchmarks/pretrain_with_strategies.py --work-dir work_dirs/strategies --out docs/results

For each method and number of processes (one thread each, CPU) there are two runs on the same simulated frames. The
first goes through and is evaluated every epoch: validation loss, collapse monitor, k-means probe, of the consensus
model where processes train apart. The second has no evaluations, gets SIGTERM at half, is resumed, and has to end with
the same tensors as the first, to the bit, on every process. All runs see equally many frames, so more processes make
fewer steps. Finished runs are not made again. Exits with 1 if a tensor differs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from adperception.checkpoint.load import read_metadata
from adperception.engine.results import write_json
from adperception.evaluation.representation_evaluation import ALARM_EFFECTIVE_RANK
from adperception.visualization.style import SERIES, VERMILION, new_figure, save

REPOSITORY = Path(__file__).resolve().parent.parent
METHODS = {"DDP": (), "LSGD": ("LSGD",), "LGRAWA": ("LGRAWA",), "ALDSGD": ("ALDSGD",)}
MEASURES = {"val_loss": "validation loss", "effective_rank": "effective rank", "k_means_foreground_iou": "k-means IoU"}
LIMIT_SECONDS = 1200.0
NAME = "pretraining_strategies"


@dataclass(frozen=True)
class Plan:
    """One method with one number of processes.

    Attributes:
        method: key of ``METHODS``.
        workers: processes.
        steps: of each process.
        batch_size: frames of one process and step.
        options: for ``--cfg-options``.
        folder: of its runs.
    """

    method: str
    workers: int
    steps: int
    batch_size: int
    options: tuple[str, ...]
    folder: Path


def main() -> int:
    """Make the runs that are missing, compare, write table, JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs/ad_l_jepa/ad_l_jepa_tiny.py")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--workers", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--samples", type=int, default=96, help="frames of one run, of all processes together")
    parser.add_argument("--batch-size", type=int, default=1, help="frames of one process and step")
    parser.add_argument("--sync-every-steps", type=int, default=4)
    parser.add_argument("--frames", type=int, default=30, help="simulated frames; four of five train")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/pretrain_with_strategies"))
    parser.add_argument("--out", type=Path, help="folder for table and JSON (default: --work-dir)")
    parser.add_argument("--picture", type=Path, help="default: beside the table")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    results = [measure(make_plan(arguments, m, w), arguments) for w in arguments.workers for m in arguments.methods]
    out = arguments.out or arguments.work_dir
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{NAME}.json", {"settings": settings(arguments), "runs": results})
    table = "\n".join(table_rows(results)) + "\n"
    (out / f"{NAME}.md").write_text(table, encoding="utf-8")
    print(table)
    print(f"wrote {draw(results, arguments.picture or out / f'{NAME}.png')}")
    return 1 if any(r["different_tensors"] for r in results) else 0


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What all runs have in common."""
    names = ("samples", "batch_size", "sync_every_steps", "frames")
    return {"config": arguments.config.stem, "torch": torch.__version__, **{n: getattr(arguments, n) for n in names}}


def make_plan(arguments: argparse.Namespace, method: str, workers: int) -> Plan:
    """Equal samples for any number of workers."""
    steps, rest = divmod(arguments.samples, arguments.batch_size * workers)
    if rest:
        raise SystemExit(f"--samples {arguments.samples} is not a whole number of steps of {workers} processes")
    data = arguments.work_dir / "data"
    options = [f"{section}.root={data}" for section in ("prepare", "train_dataset", "val_dataset")]
    options += [
        f"prepare.frames={arguments.frames}",
        f"train.steps={steps}",
        f"train.batch_size={arguments.batch_size}",
    ]
    options += ["train.workers=0", "checkpoint.every_steps=100000", f"log.every_steps={max(1, 4 // workers)}"]
    for strategy in METHODS[method]:
        options += [f"distributed.type={strategy}", f"distributed.sync_every_steps={arguments.sync_every_steps}"]
        options += ["distributed.round_timeout_seconds=300"]  # four processes on two cores are uneven
    folder = arguments.work_dir / f"{method}_{workers}"
    return Plan(method, workers, steps, arguments.batch_size, (*options, *arguments.cfg_options), folder)


def measure(plan: Plan, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both runs of a plan; what they say."""
    whole, stopped = plan.folder / "whole", plan.folder / "stopped"
    command = [sys.executable, str(REPOSITORY / "tools/train.py"), str(arguments.config), "--device", "cpu"]
    began = time.perf_counter()
    if not (whole / "results.json").is_file():
        end([*command, "--work-dir", str(whole), "--cfg-options", *plan.options], plan, 0)
    silent = [
        *command,
        "--work-dir",
        str(stopped),
        "--cfg-options",
        *plan.options,
        "evaluations=[]",
        "checkpoint.best=None",
    ]
    note = stopped / "stopped_at"
    if not note.is_file():
        end(silent, plan, 128 + signal.SIGTERM, lambda: newest_step(stopped) >= plan.steps // 2)
        note.write_text(str(newest_step(stopped)), encoding="utf-8")
    if not (stopped / "results.json").is_file():
        end([*silent, "--resume"], plan, 0)
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    per_step = plan.batch_size * plan.workers
    evaluations = [line for line in log if line["kind"] == "evaluation"]
    training = [line for line in log if line["kind"] == "train"]
    found = {
        "method": plan.method,
        "workers": plan.workers,
        "steps": plan.steps,
        "stopped_at": int(note.read_text(encoding="utf-8")),
        "different_tensors": different_tensors(whole, stopped, plan),
        "compared_tensors": len(all_tensors(whole, plan)),
        "bytes_sent": bytes_sent(whole, plan),
        "rounds": training[-1].get("rounds"),
        "step_seconds": sum(line["step_seconds"] for line in training) / len(training),
        "training_loss": {"samples": [e["step"] * per_step for e in training], "loss": [e["loss"] for e in training]},
        "evaluations": {
            "samples": [line["step"] * per_step for line in evaluations],
            **{name: [line[name] for line in evaluations] for name in MEASURES},
        },
    }
    print(f"{plan.method}, {plan.workers} processes: {time.perf_counter() - began:.0f} s", flush=True)
    return found


def end(command: Sequence[str], plan: Plan, code: int, stop: Callable[[], bool] | None = None) -> None:
    """Start a process per worker, send all of them SIGTERM once ``stop`` holds, and wait for the exit code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    plan.folder.mkdir(parents=True, exist_ok=True)
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(plan.workers), "MASTER_PORT": port}
    common |= {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(REPOSITORY)}
    with (plan.folder / "output.txt").open("a", encoding="utf-8") as output:
        processes = [
            subprocess.Popen(
                command,
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for rank in range(plan.workers)
        ]
        deadline = time.monotonic() + LIMIT_SECONDS
        try:
            while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
                if stop is not None and stop():
                    for process in processes:
                        process.send_signal(signal.SIGTERM)
                    stop = None
                time.sleep(0.2)
            codes = [process.poll() for process in processes]
        finally:
            for process in processes:
                process.kill()
    if codes != [code] * plan.workers:
        raise SystemExit(f"exit codes {codes} instead of {code}; see {plan.folder / 'output.txt'}")


def newest_step(work_dir: Path) -> int:
    """The newest step in the log of a run."""
    path = work_dir / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def all_tensors(work_dir: Path, plan: Plan) -> dict[str, torch.Tensor]:
    """All of the last checkpoint, of all processes, but for global random generators, which training never uses."""
    folder = work_dir / f"checkpoints/step_{plan.steps:08d}"
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= {f"{file.stem}/{k}": v for k, v in load_file(file).items() if not k.startswith("random/")}
    return tensors


def different_tensors(whole: Path, stopped: Path, plan: Plan) -> list[str]:
    """Names of tensors that are not equal to the bit."""
    one, two = all_tensors(whole, plan), all_tensors(stopped, plan)
    return [
        name for name in sorted({*one, *two}) if name not in one or name not in two or not equal(one[name], two[name])
    ]


def equal(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Same shape, type and bits of all values (a NaN equals itself)."""
    return one.dtype == two.dtype and torch.equal(one.nan_to_num(7.0), two.nan_to_num(7.0))


def bytes_sent(work_dir: Path, plan: Plan) -> list[int]:
    """By each worker in rounds, as counted; with DDP computed: a ring all-reduce of the gradients in every step."""
    folder = work_dir / f"checkpoints/step_{plan.steps:08d}"
    if METHODS[plan.method]:
        files = sorted(folder.glob("rank_*.safetensors"))
        return [int(read_metadata(file)["strategy"]["bytes_sent"]) for file in files]
    moments = load_file(folder / "optimizer.safetensors")
    gradient = sum(4 * tensor.numel() for name, tensor in moments.items() if name.endswith("/exp_avg"))
    return [round(plan.steps * 2 * (plan.workers - 1) / plan.workers * gradient)] * plan.workers


def mebibytes(result: dict[str, Any]) -> float:
    """Mean over the workers."""
    return float(sum(result["bytes_sent"]) / len(result["bytes_sent"]) / 2**20)


def table_rows(results: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown."""
    head = ["method", "processes", "steps", "MiB sent per worker", "share of DDP's", "training loss, first and last"]
    head += [f"{name}, before and after" for name in MEASURES.values()] + ["stopped at", "resumed equal"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    reference = {r["workers"]: mebibytes(r) for r in results if r["method"] == "DDP"}
    for r in results:
        losses = r["training_loss"]["loss"]
        share = f"{mebibytes(r) / reference[r['workers']]:.0%}" if r["workers"] in reference else "n/a"
        cells = [
            r["method"],
            r["workers"],
            r["steps"],
            f"{mebibytes(r):,.0f}",
            share,
            f"{losses[0]:.3f}, {losses[-1]:.3f}",
        ]
        cells += [f"{values[0]:.3g}, {values[-1]:.3g}" for values in (r["evaluations"][name] for name in MEASURES)]
        same = f"{r['compared_tensors']:,} of {r['compared_tensors']:,} tensors"
        cells += [r["stopped_at"], f"{len(r['different_tensors'])} differ" if r["different_tensors"] else same]
        rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return rows


def draw(results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Losses and effective rank against frames seen; a row per number of processes."""
    counts = sorted({r["workers"] for r in results})
    figure = new_figure(12, 3.6 * len(counts))
    axes = figure.subplots(len(counts), 3, squeeze=False)
    panels = (
        ("training loss", None),
        ("validation loss, fixed masks", "val_loss"),
        ("effective rank", "effective_rank"),
    )
    for row, workers in zip(axes, counts, strict=True):
        for axis, (label, measure_name) in zip(row, panels, strict=True):
            for color, r in zip(SERIES, (r for r in results if r["workers"] == workers), strict=False):
                curve = r["training_loss"] if measure_name is None else r["evaluations"]
                name = f"{r['method']}, {mebibytes(r):,.0f} MiB"
                marker = None if measure_name is None else "o"
                axis.plot(curve["samples"], curve[measure_name or "loss"], color=color, label=name, marker=marker, ms=4)
            axis.set_ylabel(label)
            axis.set_xlabel("frames seen by all processes")
            axis.set_title(f"{workers} processes", fontsize=11)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        row[2].axhline(ALARM_EFFECTIVE_RANK, color=VERMILION, linestyle="--", linewidth=1)
        row[2].text(0, ALARM_EFFECTIVE_RANK + 1, f"alarm below {ALARM_EFFECTIVE_RANK:g}", color=VERMILION, fontsize=8)
        row[2].set_ylim(0, None)
        row[0].legend(fontsize=8, frameon=False, title="sent per worker", title_fontsize=8)
    return save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
