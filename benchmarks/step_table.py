"""Measuring several training steps against each other, and the table and JSON rows of it."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gpu_timing import Deadline, Report, Timings, build_and_weigh, free_memory, time_in_turns
from training_steps import EngineStep, PhaseClock, host_reads

__all__ = ["PHASES", "Step", "measure_steps", "print_header"]

Step = Callable[..., torch.Tensor]
PHASES = ("copy", "forward", "backward", "checks", "optimizer", "after step")


def print_header(what: str) -> None:
    """The first line of the table."""
    columns = "".join(f"{phase:>11}" for phase in PHASES)
    print(f"{what:34} {'samples/s':>9} {'ms':>8} {'(min..max)':>18} {'peak MiB':>9}{columns} {'reads':>6}")


def measure_steps(
    makers: Mapping[str, Callable[[], Step]],
    batch_size: int,
    device: torch.device,
    report: Report,
    arguments: argparse.Namespace,
    deadline: Deadline,
    **labels: str,
) -> tuple[Timings, dict[str, Step]]:
    """Peak memory that every step adds, their times in turns, their phases and host reads.

    Args:
        makers: how to build each step, by name of the case.
        batch_size: frames per step.
        device: where they run.
        report: gets a row per case.
        arguments: ``turns``, ``steps`` and ``small`` of the command line.
        deadline: no further turn begins after it.
        labels: what the rows say beside the case, e.g. ``model="SECOND"``.

    Returns:
        The times, and the steps that were built.
    """
    small = arguments.small
    name_of_model = labels.get("model", "")
    steps: dict[str, Step] = {}
    memory: dict[str, float | None] = {}
    for name, make in makers.items():
        try:
            steps[name], memory[name] = build_and_weigh(make, device)
        except Exception as error:
            report.leave_out(f"{name_of_model} {name}".strip(), error)
            free_memory(device)
    timings = time_in_turns(
        steps,
        device,
        turns=arguments.turns,
        calls=1 if small else arguments.steps,
        warm_up=1 if small else 5,
        wall=True,
        deadline=deadline,
    )
    for name, reason in timings.failures.items():
        report.leave_out(f"{name_of_model} {name}".strip(), reason)
    for name in timings.seconds:
        reads = host_reads(steps[name], 1 if small else 3)
        row = {
            **labels,
            "case": name,
            "batch_size": batch_size,
            "samples_per_second": batch_size / statistics.median(timings.seconds[name]),
            "step_ms": timings.summary(name),
            "peak_memory_mib": memory[name],
            "phases_ms": _phases(steps[name], device, 1 if small else 5),
            "host_reads": reads[0],
            "host_read_places": reads[1],
        }
        report.add(row)
        _print_row(f"{name_of_model} {name}".strip(), row)
    return timings, steps


def _phases(step: Step, device: torch.device, calls: int) -> dict[str, float]:
    """Milliseconds of every phase, medians over some steps."""
    if isinstance(step, EngineStep):
        return step.phases(calls)
    found = []
    for _ in range(calls):
        clock = PhaseClock(device)
        clock.mark("start")
        step(mark=clock.mark)
        found.append(clock.milliseconds())
    return {phase: statistics.median(one[phase] for one in found) for phase in found[0]}


def _print_row(title: str, row: Mapping[str, Any]) -> None:
    step = row["step_ms"]
    spread = f"({step['min']:.1f}..{step['max']:.1f})"
    memory = "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}"
    columns = "".join(f"{row['phases_ms'].get(phase, 0):11.2f}" for phase in PHASES)
    start = f"{title:34} {row['samples_per_second']:9.1f} {step['median']:8.1f}"
    print(f"{start} {spread:>18} {memory:>9}{columns} {row['host_reads']:>6}", flush=True)
