"""AD-L-JEPA's training step on a GPU: samples per second and peak memory, against the step of the released code.

    python benchmarks/pretrain_step.py --json pretrain_step.json
    python benchmarks/pretrain_step.py --device cpu --small      # only to see that it runs

KITTI at batch 16 (``ad_l_jepa_kitti``), simulated frames. Ours is the engine's own step, in bf16 and in float32; the
other is ``upstream_step.py``, with cuDNN's TF32 as PyTorch allows it by default, and without. All take turns in one
run, several steps at a time, and ratios are taken turn by turn. Peak memory is of each step alone on the GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gpu_timing import Deadline, Report, Timings, add_options, free_memory
from simulated_batches import SMALL_RANGE, kitti_dataset, kitti_frames
from step_table import Step, measure_steps, print_header
from training_steps import (
    EngineStep,
    cudnn_tf32,
    own_backend,
    share_of_waiting,
    upstream_backend,
)
from upstream_step import UpstreamStep

from adperception.models.pretrain.ad_l_jepa import ADLJEPA
from adperception.registry import MODELS, build
from adperception.zoo import load_model_config

BF16, FLOAT32 = "ours, bf16", "ours, float32"
UPSTREAM, UPSTREAM_NO_TF32 = "upstream's, float32", "upstream's, float32, no TF32"
SPEED, MEMORY = 2.5, 0.5


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, turns=5)
    parser.add_argument("--steps", type=int, default=5, help="steps of a case in every turn")
    arguments = parser.parse_args()
    device, small = torch.device(arguments.device), arguments.small
    report = Report("pretrain_step", device, small, arguments.json)
    deadline = Deadline(arguments.seconds)
    batch_size = 2 if small else 16
    config: Mapping[str, Any] = load_model_config("ad_l_jepa_tiny" if small else "ad_l_jepa_kitti").values
    if small:
        config = {**config, "model": {**config["model"], "point_cloud_range": SMALL_RANGE}}
    frames = kitti_frames(config["train_dataset"], 2 * batch_size, small=small)
    cases = make_cases(config, frames, batch_size, device, report)
    print_header("AD-L-JEPA step")
    timings, steps = measure_steps(
        cases, batch_size, device, report, arguments, deadline, config="ad_l_jepa_tiny" if small else "ad_l_jepa_kitti"
    )
    measure_waiting(report, steps, config, device, small)
    judge(report, timings)
    report.finish()
    return 0


def make_cases(
    config: Mapping[str, Any], frames: list[Any], batch_size: int, device: torch.device, report: Report
) -> dict[str, Callable[[], Step]]:
    """How to build each step, by name."""
    ours, theirs = own_backend(device), upstream_backend(device)
    report.notes.append(f'our sparse convolutions: "{ours}"; upstream\'s: "{theirs}"')
    if theirs != "spconv":
        report.notes.append("spconv cannot be used here: the upstream-equivalent step is not upstream's in this run")

    def engine(train: Mapping[str, Any]) -> Callable[[], Step]:
        return lambda: EngineStep(config, frames, batch_size, device, backend=ours, train=train)

    cases = {BF16: engine({"amp": "bf16"}), FLOAT32: engine({"amp": "off"})}

    def upstream(tf32: bool) -> Step:
        torch.manual_seed(0)
        model: ADLJEPA = build(MODELS, config["model"])
        collate = model.collate(training=True)
        batches = [collate(frames[i : i + batch_size]) for i in range(0, len(frames), batch_size)]
        batches = [batch.pin_memory() if device.type == "cuda" else batch for batch in batches]
        step = UpstreamStep(model, batches, device, backend=theirs)

        def run(**options: Any) -> torch.Tensor:
            with cudnn_tf32(tf32):
                return step(**options)

        return run

    cases[UPSTREAM] = lambda: upstream(True)
    cases[UPSTREAM_NO_TF32] = lambda: upstream(False)
    return cases


def measure_waiting(
    report: Report, steps: Mapping[str, Step], config: Mapping[str, Any], device: torch.device, small: bool
) -> None:
    """The share of time that our step waits for the real loader."""
    name = BF16 if BF16 in steps else FLOAT32
    step = steps.get(name)
    if not isinstance(step, EngineStep):
        return
    dataset = kitti_dataset(config["train_dataset"], 4 if small else 64, small=small)
    waiting = share_of_waiting(step, dataset, workers=1 if small else 8, steps=2 if small else 20)
    report.extra["waiting"] = {"case": name, **waiting}
    report.notes.append(
        f"with the real loader ({waiting['workers']} workers, {name}): {waiting['samples_per_second']:.1f} samples/s, "
        f"{100 * waiting['share']:.1f} % of the time waiting for data"
    )
    free_memory(device)


def judge(report: Report, timings: Timings) -> None:
    """Hold ratios against what has to be reached."""
    memory = {row["case"]: row["peak_memory_mib"] for row in report.rows}
    report.judge(3, f"samples per second, {BF16} over {UPSTREAM}", timings.ratio(UPSTREAM, BF16), SPEED)
    mine, theirs = memory.get(BF16), memory.get(UPSTREAM)
    share = None if mine is None or not theirs else mine / theirs
    report.judge(3, f"peak memory, {BF16} over {UPSTREAM}", share, MEMORY, at_least=False)
    for other, base in ((FLOAT32, UPSTREAM), (FLOAT32, UPSTREAM_NO_TF32), (BF16, UPSTREAM_NO_TF32)):
        value = timings.ratio(base, other)
        if value is not None:
            report.notes.append(f"samples per second, {other} over {base}: {value:.2f}")


if __name__ == "__main__":
    sys.exit(main())
