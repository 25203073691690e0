"""The rounds of a run whose workers train apart, from its ``log.jsonl``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.visualization.style import BLUE, ORANGE, SERIES, VERMILION, new_figure, save
from adperception.visualization.training_curves import TrainingLog, read_log

__all__ = ["has_rounds", "per_round", "write_rounds"]

_Series = tuple[NDArray[np.int64], NDArray[np.float64]]


def has_rounds(log: TrainingLog) -> bool:
    """Whether the workers of the run met at least once."""
    return bool(log.series("rounds")[1].any())


def per_round(log: TrainingLog, name: str) -> _Series:
    """Steps, and the growth of a running total per round, between two log lines with rounds in between.

    A total that falls was begun anew by a resumed run and counts from 0 there.
    """
    steps, rounds = log.series("rounds")
    total = dict(zip(*(part.tolist() for part in log.series(name)), strict=True))
    found: list[tuple[int, float]] = []
    last_rounds, last_total = 0.0, 0.0
    for step, count in zip(steps.tolist(), rounds.tolist(), strict=True):
        if step in total and count > last_rounds:
            begun = 0.0 if total[step] < last_total else last_total
            found.append((step, (total[step] - begun) / (count - last_rounds)))
            last_rounds, last_total = count, total[step]
    return np.array([s for s, _ in found], dtype=np.int64), np.array([v for _, v in found], dtype=np.float64)


def write_rounds(log_path: str | Path, out_path: str | Path) -> Path:
    """Write a PNG: traffic and time per round, disagreement, leaders or weights, rounds skipped and workers over steps.

    Args:
        log_path: the run's ``log.jsonl``.
        out_path: the PNG.

    Raises:
        FileNotFoundError, ValueError: see ``read_log``; also for a run without rounds.
    """
    log = read_log(log_path)
    if not has_rounds(log):
        raise ValueError(f"{log_path}: no rounds; only runs with a distributed section and several workers have them.")
    panels: list[Callable[[Any, TrainingLog], None]] = [_traffic, _seconds, _disagreement]
    panels += [draw for draw, kind in ((_leaders, "leader_"), (_weights, "weight_")) if _by_worker(log, kind)]
    panels += [_skipped, _workers]
    rows = -(-len(panels) // 2)
    figure = new_figure(12, 3.2 * rows)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for axis, draw in zip(axes, panels, strict=False):
        draw(axis, log)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.remove()
    return save(figure, out_path)


def _traffic(axes: Any, log: TrainingLog) -> None:
    steps, sent = per_round(log, "bytes_sent")
    size, unit = (1e6, "MB") if sent.max(initial=0) >= 1e5 else (1e3, "kB")
    _line(axes, (steps, sent / size), "Sent per round, with evaluations", f"{unit}, by the first worker", BLUE)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


def _seconds(axes: Any, log: TrainingLog) -> None:
    _line(axes, log.series("round_seconds"), "Time per round, waiting included", "seconds", ORANGE)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


def _disagreement(axes: Any, log: TrainingLog) -> None:
    steps, values = log.series("disagreement")
    _line(axes, (steps, values), "Disagreement", "mean squared distance to the target", BLUE)
    if (values > 0).any():
        axes.set_yscale("log", nonpositive="mask")


def _leaders(axes: Any, log: TrainingLog) -> None:
    counts = {worker: log.series(name)[1][-1] for worker, name in _by_worker(log, "leader_").items()}
    axes.bar(list(counts), list(counts.values()), color=BLUE, width=0.7)
    axes.set_title("Leaders", fontsize=11)
    axes.set_xlabel("worker")
    axes.set_ylabel("elections won")
    axes.set_xlim(-0.6, max([*counts, max(_workers_seen(log)) - 1]) + 0.6)
    axes.locator_params(integer=True)


def _weights(axes: Any, log: TrainingLog) -> None:
    names = _by_worker(log, "weight_")
    for position, (worker, name) in enumerate(names.items()):
        steps, values = log.series(name)
        color = SERIES[position % len(SERIES)]
        marker = "o" if len(steps) < 25 else None
        axes.plot(steps, values, color=color, label=f"worker {worker}", marker=marker, markersize=3.5)
    axes.axhline(1 / len(names), color="0.4", linestyle="--", linewidth=1, label="all alike")
    axes.set_title("Weights in the mean", fontsize=11)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("weight")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    if len(names) < len(SERIES):
        axes.legend(fontsize=8, frameon=False)


def _skipped(axes: Any, log: TrainingLog) -> None:
    _line(
        axes,
        log.series("rounds_skipped"),
        "Rounds skipped so far",
        "rounds",
        VERMILION,
        drawstyle="steps-post",
        clip_on=False,
    )
    axes.set_ylim(0, max(1, *axes.get_ylim()))
    axes.locator_params(axis="y", integer=True)


def _workers(axes: Any, log: TrainingLog) -> None:
    _line(axes, log.series("workers"), "Workers", "workers left", BLUE, drawstyle="steps-post")
    axes.set_ylim(0, max(_workers_seen(log)) + 0.5)
    axes.locator_params(axis="y", integer=True)


def _line(axes: Any, series: _Series, title: str, unit: str, color: str, **style: Any) -> None:
    steps, values = series
    axes.plot(steps, values, color=color, marker="o" if len(steps) < 25 else None, markersize=3.5, **style)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(unit)
    axes.set_xlim(left=0)


def _by_worker(log: TrainingLog, kind: str) -> dict[int, str]:
    """Names in the log by worker id: ``leader_3`` is 3's."""
    ids = (name.removeprefix(kind) for name in log.names() if name.startswith(kind))
    return {worker: f"{kind}{worker}" for worker in sorted(int(number) for number in ids if number.isdigit())}


def _workers_seen(log: TrainingLog) -> list[float]:
    found: list[float] = log.series("workers")[1].tolist()
    return found
