"""Training steps of SECOND and CenterPoint on a GPU: samples per second and peak memory, bf16 against float32 spconv.

    python benchmarks/train_step.py --json train_step.json
    python benchmarks/train_step.py --device cpu --small         # only to see that it runs

``second_kitti`` and ``centerpoint_waymo`` at batch 16, simulated labelled frames, the engine's own step. The float32
step on spconv has PyTorch's defaults (cuDNN may use TF32). All cases of a model take turns in one run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gpu_timing import Deadline, Report, Timings, add_options, free_memory
from simulated_batches import SMALL_RANGE, kitti_frames, waymo_frames
from step_table import measure_steps, print_header
from training_steps import EngineStep, own_backend, upstream_backend

from adperception.zoo import load_model_config

BF16, FLOAT32, SPCONV = "ours, bf16", "ours, float32", "spconv, float32"
MODELS = {"SECOND": "second_kitti", "CenterPoint": "centerpoint_waymo"}
SMALL = {"SECOND": "second_tiny", "CenterPoint": "centerpoint_waymo"}
FASTER, SAMPLES_PER_SECOND = 2.0, 40.0


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, turns=5)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--steps", type=int, default=4, help="steps of a case in every turn")
    arguments = parser.parse_args()
    device, small = torch.device(arguments.device), arguments.small
    report = Report("train_step", device, small, arguments.json)
    deadline = Deadline(arguments.seconds)
    batch_size = 2 if small else 16
    print_header(f"training step, batch {batch_size}")
    for model in arguments.models:
        if deadline.left < 0:
            report.leave_out(model, "out of time")
            continue
        timings = measure(model, batch_size, device, report, arguments, deadline)
        if model == "SECOND":
            judge(report, timings, batch_size)
        free_memory(device)
    report.finish()
    return 0


def measure(
    model: str, batch_size: int, device: torch.device, report: Report, arguments: argparse.Namespace, deadline: Deadline
) -> Timings:
    """All cases of one model."""
    small = arguments.small
    config = load_model_config((SMALL if small else MODELS)[model]).values
    options: dict[str, Any] = {}
    if small:
        narrow = {"bev_layers": [1, 1], "bev_filters": [16, 16], "bev_upsample_filters": [16, 16]}
        around = [-6.4, -6.4, -2.0, 6.4, 6.4, 4.0]
        options = {"point_cloud_range": SMALL_RANGE if model == "SECOND" else around, **narrow}
    if config["train_dataset"]["type"] == "Waymo":
        frames = waymo_frames(config["train_dataset"], batch_size, small=small)
    else:
        frames = kitti_frames(config["train_dataset"], 2 * batch_size, small=small)
    cases = make_cases(model, config, options, frames, batch_size, device, report)
    timings, _ = measure_steps(
        cases,
        batch_size,
        device,
        report,
        arguments,
        deadline,
        model=model,
        config=(SMALL if small else MODELS)[model],
    )
    return timings


def make_cases(
    model: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    frames: list[Any],
    batch_size: int,
    device: torch.device,
    report: Report,
) -> dict[str, Callable[[], EngineStep]]:
    """How to build each step, by name."""

    def engine(backend: str, train: Mapping[str, Any]) -> Callable[[], EngineStep]:
        return lambda: EngineStep(
            config, frames, batch_size, device, backend=backend, train=train, model={**config["model"], **options}
        )

    ours = own_backend(device)
    cases = {BF16: engine(ours, {"amp": "bf16"}), FLOAT32: engine(ours, {"amp": "off"})}
    if upstream_backend(device) == "spconv":
        cases[SPCONV] = engine("spconv", {"amp": "off", "compile": False})
    else:
        report.leave_out(f"{model}, {SPCONV}", "spconv cannot be used here")
    return cases


def judge(report: Report, timings: Timings, batch_size: int) -> None:
    """Hold SECOND's figures against what has to be reached."""
    report.judge(4, f"SECOND, samples per second, {BF16} over {SPCONV}", timings.ratio(SPCONV, BF16), FASTER)
    seconds = timings.median(BF16)
    value = None if seconds is None else batch_size / seconds
    report.judge(4, f"SECOND, samples per second, {BF16}", value, SAMPLES_PER_SECOND)


if __name__ == "__main__":
    sys.exit(main())
