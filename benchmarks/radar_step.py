"""Training steps of the radar models on a GPU: float32, bf16, compiled, and with CUDA graphs.

    python benchmarks/radar_step.py --json radar_step.json
    python benchmarks/radar_step.py --device cpu --small         # only to see that it runs

ERASE-Net, TMVA-Net and MV-Net with the batch and the shapes of their CARRADA configs, one simulated recording, the
engine's own step. ERASE-Net is measured in the last of its three phases, which does the most. The cases of a model take
turns in one run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gpu_timing import Deadline, Report, add_options, free_memory
from simulated_batches import radar_frames
from step_table import measure_steps, print_header
from training_steps import EngineStep

from adperception.zoo import load_model_config

MODELS = {"ERASE-Net": "erase_net_carrada", "TMVA-Net": "tmva_net_carrada", "MV-Net": "mv_net_carrada"}
SMALL = {"ERASE-Net": "erase_net_tiny", "TMVA-Net": "tmva_net_tiny", "MV-Net": "mv_net_tiny"}
CASES: dict[str, dict[str, Any]] = {
    "float32": {"amp": "off", "compile": False},
    "bf16": {"amp": "bf16", "compile": False},
    "bf16, compiled": {"amp": "bf16", "compile": True},
    "bf16, reduce-overhead": {"amp": "bf16", "compile": "reduce-overhead"},
}


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, turns=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--steps", type=int, default=4, help="steps of a case in every turn")
    arguments = parser.parse_args()
    device, small = torch.device(arguments.device), arguments.small
    report = Report("radar_step", device, small, arguments.json)
    deadline = Deadline(arguments.seconds)
    print_header("radar training step")
    for model in arguments.models:
        if deadline.left < 0:
            report.leave_out(model, "out of time")
            continue
        name = (SMALL if small else MODELS)[model]
        config = load_model_config(name).values
        batch_size = 2 if small else config["train"]["batch_size"]
        frames = radar_frames(batch_size, config["train_dataset"]["moments"], "carrada_small" if small else "carrada")
        makers = make_cases(model, config, frames, batch_size, device, report, small)
        measure_steps(makers, batch_size, device, report, arguments, deadline, model=model, config=name)
        free_memory(device)
    report.finish()
    return 0


def make_cases(
    model: str,
    config: Mapping[str, Any],
    frames: list[Any],
    batch_size: int,
    device: torch.device,
    report: Report,
    small: bool,
) -> dict[str, Callable[[], EngineStep]]:
    """How to build each step, by name; compiling on a CPU is left out, since it takes longer than everything else."""
    options = {"phases": [0.0, 0.0, 1.0]} if model == "ERASE-Net" else {}

    def engine(train: Mapping[str, Any]) -> Callable[[], EngineStep]:
        return lambda: EngineStep(config, frames, batch_size, device, train=train, model=options)

    makers: dict[str, Callable[[], EngineStep]] = {}
    for name, train in CASES.items():
        if small and train.get("compile"):
            report.leave_out(f"{model}, {name}", "not in small runs")
        else:
            makers[name] = engine(train)
    return makers


if __name__ == "__main__":
    sys.exit(main())
