"""What training costs: writes docs/costs.md from measured steps and from what the configs say.

    python benchmarks/cost_table.py                          # the page, from the figures in docs/results
    python benchmarks/cost_table.py --gpu gpu_benchmarks     # takes in what benchmarks/gpu.py measured
    python benchmarks/cost_table.py --measure-cpu            # takes in the steps of the small configs on this machine

Figures are kept in ``docs/results/training_costs.json``. Steps and samples follow from the configs, multiply-adds are
counted (``engine/multiply_adds.py``; those of sparse convolutions on simulated frames). What was not measured is said
not to be.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_timing import describe_device, time_in_turns, versions
from simulated_batches import kitti_frames, radar_frames, waymo_frames
from sparse_cases import layer_cases
from training_steps import EngineStep

from adperception.config import load_config
from adperception.engine.multiply_adds import multiply_adds_of
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.zoo import create_model, load_model_config

__all__ = ["TrainingSize", "cpu_rows", "gpu_rows", "page", "training_size"]

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "results" / "training_costs.json"
PAGE = ROOT / "docs" / "costs.md"

FULL = (
    *("ad_l_jepa_kitti", "ad_l_jepa_waymo", "ad_l_jepa_once", "bev_mae_kitti", "occupancy_mae_kitti"),
    *("second_kitti", "second_once", "pv_rcnn_kitti", "centerpoint_waymo", "centerpoint_waymo_residual"),
    *("erase_net_carrada", "tmva_net_carrada", "mv_net_carrada", "pkcin_net_carrada"),
)
SMALL = ("quickstart", "ad_l_jepa_tiny", "second_small", "second_tiny", "pv_rcnn_small", "bev_mae_small")
SMALL_RADAR = ("quickstart_radar", "erase_net_tiny", "tmva_net_tiny", "mv_net_tiny", "pkcin_net_tiny")

TRAINING_FRAMES: dict[tuple[str, str, int], tuple[int, bool]] = {
    ("KITTI", "train", 1): (3_712, True),
    ("Waymo", "training", 5): (31_600, False),
    ("ONCE", "raw_small", 1): (100_000, True),
    ("ONCE", "train", 1): (5_000, False),
}
"""Frames of a split by (dataset, split, interval), and whether the number is exact. Others depend on the recordings."""

MEASURED_AS = {
    "ours, bf16": "bf16",
    "ours, float32": "float32",
    "float32": "float32",
    "bf16": "bf16",
    "bf16, compiled": "bf16, compiled",
}
"""Cases of the step benchmarks that enter the table, and what the table calls them."""

NO_GPU = (
    "**No GPU figure has been measured yet.** With a GPU of the Hopper class, one command measures them and another "
    "puts them into this page:"
)
TEMPLATE = """\
# What training costs

<!-- Written by benchmarks/cost_table.py; change that, not this page. -->

## On a GPU

{gpu_state}

```bash
python benchmarks/gpu.py --minutes 8 --out gpu_benchmarks
python benchmarks/cost_table.py --gpu gpu_benchmarks
```

{gpu_rows}

GPU-hours are samples / (samples per second) on one GPU, without evaluations, for data that arrive in time;
[gpu_benchmarks.md](gpu_benchmarks.md) says how samples per second are measured, and at which batch. The batch of this
table is the frames of one optimizer step of one process. How many frames CARRADA's training split has depends on which
recordings are there, so its hours are per million samples. Hours that papers print are in the pages of the methods.

## Size of the models

Per frame, forward only. Dense layers are counted as in [multiply_adds.md](multiply_adds.md): ERASE-Net with two
objects, of a pre-training method the whole forward pass. Sparse convolutions multiply as many pairs of sites as there
are: means over four simulated frames with the config's voxel limit, for one encoder that sees all voxels. A training
step costs about three times a forward pass.

{model_rows}

## On a CPU

{cpu}
"""


@dataclass(frozen=True)
class TrainingSize:
    """How much a config trains.

    Attributes:
        batch_size: frames per optimizer step.
        epochs: passes over the frames; ``None`` if the config counts steps.
        frames: of the training split; ``None`` if that is not known without the data.
        steps: optimizer steps; ``None`` likewise.
        samples: frames seen; ``None`` likewise.
        exact: whether the number of frames is.
    """

    batch_size: int
    epochs: int | None
    frames: int | None
    steps: int | None
    samples: int | None
    exact: bool


def training_size(config: Mapping[str, Any]) -> TrainingSize:
    """Steps and samples of a config, on one process."""
    train, data = config["train"], config["train_dataset"]
    batch_size = train["batch_size"] * train.get("accumulate_steps", 1)
    if train.get("steps") is not None:
        return TrainingSize(batch_size, None, None, train["steps"], train["steps"] * batch_size, True)
    key = (data["type"], str(data.get("split")), data.get("interval", 1))
    frames, exact = TRAINING_FRAMES.get(key, (None, True))
    if frames is None:
        return TrainingSize(batch_size, train["epochs"], None, None, None, exact)
    steps = train["epochs"] * math.ceil(frames / batch_size)
    return TrainingSize(batch_size, train["epochs"], frames, steps, train["epochs"] * frames, exact)


def main() -> int:
    """Parse the command line, take in figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=Path, help="folder that benchmarks/gpu.py has written")
    parser.add_argument("--measure-cpu", action="store_true", help="measure the small configs' steps on this CPU")
    parser.add_argument("--turns", type=int, default=5, help="steps of a small config that count")
    arguments = parser.parse_args()
    figures: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    if arguments.gpu is not None:
        figures["gpu"] = gpu_figures(arguments.gpu)
    if arguments.measure_cpu:
        figures["cpu"] = measure_cpu(arguments.turns)
    figures["models"] = {name: model_figures(name) for name in FULL}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(figures), encoding="utf-8")
    print(f"{PAGE}\n{FIGURES}")
    return 0


def gpu_figures(folder: Path) -> dict[str, Any]:
    """What the step benchmarks measured: per config and case, samples per second and peak memory.

    Raises:
        ValueError: if there is nothing, or what there is does not come from a GPU at full size.
    """
    steps, device, software = [], {}, {}
    for path in sorted(folder.glob("*_step*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["small"] or content["device"]["kind"] != "cuda":
            raise ValueError(f"{path}: small sizes or a CPU; the table takes full sizes on a GPU only.")
        device, software = content["device"], content["versions"]
        for row in content["rows"]:
            if row["case"] in MEASURED_AS:
                kept = {key: row[key] for key in ("config", "samples_per_second", "peak_memory_mib", "batch_size")}
                steps.append({**kept, "case": MEASURED_AS[row["case"]]})
    if not steps:
        raise ValueError(f"{folder}: holds no figures of training steps. Run benchmarks/gpu.py --out {folder} first.")
    return {"device": device, "versions": software, "steps": steps}


def model_figures(name: str) -> dict[str, Any]:
    """Parameters and multiply-adds of a config's model, per frame."""
    config = load_model_config(name).values
    model = create_model(name)
    counted = multiply_adds_of(model)
    situation = "2 objects" if "2 objects" in counted else next(iter(counted))
    encoders = [module for module in model.modules() if isinstance(module, VoxelBackBone8x)]
    sparse = None
    section = config["train_dataset"]
    if encoders and section["type"] in ("KITTI", "Waymo"):
        frames = (waymo_frames if section["type"] == "Waymo" else kitti_frames)(section, 4)
        voxels = model.collate(training=True)(frames).voxels
        cases = layer_cases(encoders[0], voxels)
        sparse = sum(case.layers * case.operations // 2 for case in cases) / len(frames)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "dense_multiply_adds": counted[situation].total,
        "sparse_multiply_adds": sparse,
    }


def measure_cpu(turns: int) -> dict[str, Any]:
    """Seconds per step of the small configs on this machine's CPU."""
    device = torch.device("cpu")
    rows = []
    for name in (*SMALL, *SMALL_RADAR):
        config = _small_config(name)
        batch_size = config["train"]["batch_size"]
        data = config["train_dataset"]
        if name in SMALL_RADAR:
            frames: list[Any] = radar_frames(batch_size, data["moments"], "carrada_small")
        else:
            frames = list(kitti_frames(data, batch_size))
        step = EngineStep(config, frames, batch_size, device)
        timings = time_in_turns({name: step}, device, turns=turns, calls=1, warm_up=2)
        row = {"config": name, "batch_size": batch_size, "step_ms": timings.summary(name)}
        rows.append({**row, "steps": config["train"]["steps"]})
        print(f"{name}: {row['step_ms']['median']:.0f} ms per step of {batch_size}", flush=True)
    return {"device": describe_device(device), "versions": versions(), "platform": platform.platform(), "steps": rows}


def _small_config(name: str) -> Mapping[str, Any]:
    if name.startswith("quickstart"):
        return load_config(ROOT / "configs" / f"{name}.py").values
    return load_model_config(name).values


def gpu_rows(figures: Mapping[str, Any]) -> list[str]:
    """The table of the full-size configs."""
    measured: dict[str, list[Mapping[str, Any]]] = {}
    for step in figures.get("gpu", {}).get("steps", ()):
        measured.setdefault(step["config"], []).append(step)
    lines = [
        "| config | frames x epochs | batch | steps | samples | precision | samples/s | GPU-hours | peak GPU memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in FULL:
        size = training_size(load_model_config(name).values)
        about = "" if size.exact else "about "
        frames = "those recorded" if size.frames is None else f"{about}{size.frames:,}"
        amount = f"{frames} x {size.epochs}"
        steps = "-" if size.steps is None else f"{about}{size.steps:,}"
        samples = "-" if size.samples is None else f"{about}{size.samples:,}"
        start = f"| `{name}` | {amount} | {size.batch_size} | {steps} | {samples}"
        for step in measured.get(name, ()):
            rate = step["samples_per_second"]
            hours = f"{1e6 / rate / 3600:.1f} per million samples"
            if size.samples is not None:
                hours = f"{size.samples / rate / 3600:.1f}"
            memory = f"{step['peak_memory_mib'] / 1024:.1f} GiB at batch {step['batch_size']}"
            lines.append(f"{start} | {step['case']} | {rate:.1f} | {hours} | {memory} |")
        if name not in measured:
            lines.append(f"{start} | - | not measured | not measured | not measured |")
    return lines


def cpu_rows(figures: Mapping[str, Any]) -> list[str]:
    """The table of the small configs on a CPU."""
    lines = [
        "| config | batch | seconds per step, median (min..max) | steps | hours of all steps |",
        "|---|---|---|---|---|",
    ]
    for row in figures["cpu"]["steps"]:
        step = {key: value / 1e3 for key, value in row["step_ms"].items()}
        spread = f"{step['median']:.2f} ({step['min']:.2f}..{step['max']:.2f})"
        hours = row["steps"] * step["median"] / 3600
        lines.append(f"| `{row['config']}` | {row['batch_size']} | {spread} | {row['steps']:,} | {hours:.2f} |")
    return lines


def _model_rows(figures: Mapping[str, Any]) -> list[str]:
    lines = [
        "| config | parameters | multiply-adds of dense layers | of sparse convolutions, one encoder |",
        "|---|---|---|---|",
    ]
    for name, model in figures["models"].items():
        sparse = model["sparse_multiply_adds"]
        text = "-" if sparse is None else f"{sparse / 1e9:.2f} G"
        lines.append(f"| `{name}` | {model['parameters']:,} | {model['dense_multiply_adds'] / 1e9:.2f} G | {text} |")
    return lines


def page(figures: Mapping[str, Any]) -> str:
    """The text of docs/costs.md."""
    gpu, cpu = figures.get("gpu"), figures.get("cpu")
    if gpu is None:
        gpu_state = NO_GPU
    else:
        device, software = gpu["device"], gpu["versions"]
        gpu_state = (
            f"Measured on {device['name']} (driver {device['driver']}): torch {software['torch']}, CUDA "
            f"{software['cuda']}, triton {software['triton']}. Simulated frames, one process. Again:"
        )
    if cpu is None:
        cpu_text = "Not measured yet: `python benchmarks/cost_table.py --measure-cpu`."
    else:
        device, software = cpu["device"], cpu["versions"]
        cpu_state = (
            f"`python benchmarks/cost_table.py --measure-cpu` on {device['name']}, {device['threads']} thread(s), "
            f"torch {software['torch']}, Python {software['python']}, beside other work: whole steps of the engine on "
            "simulated frames that are in memory, without evaluations."
        )
        cpu_text = "\n".join([*_wrapped(cpu_state), "", *cpu_rows(figures)])
    return TEMPLATE.format(
        gpu_state="\n".join(_wrapped(gpu_state)),
        gpu_rows="\n".join(gpu_rows(figures)),
        model_rows="\n".join(_model_rows(figures)),
        cpu=cpu_text,
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 118, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())
