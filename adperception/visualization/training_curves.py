"""Curves of a run from its ``log.jsonl``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.evaluation.representation_evaluation import ALARM_EFFECTIVE_RANK
from adperception.visualization.style import SERIES, VERMILION, new_figure, save

__all__ = ["CurveGroup", "TrainingLog", "draw_curves", "pretraining_curve_groups", "read_log", "write_training_curves"]


@dataclass(frozen=True)
class TrainingLog:
    """The records of a run, in the order they were written.

    Attributes:
        records: one mapping per line; each has ``step``, the optimizer steps done when it was written.
    """

    records: tuple[dict[str, Any], ...]

    def names(self) -> tuple[str, ...]:
        """All numeric quantities, in the order of their first appearance, without ``step``."""
        found = dict.fromkeys(name for record in self.records for name, value in record.items() if _is_number(value))
        return tuple(name for name in found if name != "step")

    def series(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps and finite values of one quantity. A step logged twice (after a resume) counts with its last value."""
        values = {
            int(record["step"]): float(record[name])
            for record in self.records
            if _is_number(record.get(name)) and math.isfinite(record[name])
        }
        steps = sorted(values)
        return np.array(steps, dtype=np.int64), np.array([values[step] for step in steps], dtype=np.float64)


@dataclass(frozen=True)
class CurveGroup:
    """Quantities that share an axis.

    Attributes:
        title: heading of the axis.
        unit: label of the vertical axis.
        curves: ``(name in the log, label)``.
        limits: vertical range; ``None`` at an end follows the values.
        alarm: a level to mark, with what it means.
    """

    title: str
    unit: str
    curves: tuple[tuple[str, str], ...]
    limits: tuple[float | None, float | None] = (None, None)
    alarm: tuple[float, str] | None = None


PRETRAINING_CURVES = (
    CurveGroup("Loss", "loss", (("loss", "training"), ("val_loss", "validation, fixed masks")), limits=(0, None)),
    CurveGroup(
        "Collapse monitor: effective rank",
        "dimensions in use",
        (("effective_rank", "context embeddings at visible cells"),),
        limits=(0, None),
        alarm=(ALARM_EFFECTIVE_RANK, "alarm below"),
    ),
    CurveGroup(
        "Occupied or empty? Probes at hidden cells",
        "IoU",
        (
            ("k_means_foreground_iou", "k-means, occupied"),
            ("k_means_empty_iou", "k-means, empty"),
            ("cosine_probe_foreground_iou", "cosine with empty token, occupied"),
            ("cosine_probe_empty_iou", "cosine with empty token, empty"),
        ),
        limits=(0.0, 1.0),
    ),
)
"""What the panel of a pre-training run shows."""


def read_log(path: str | Path) -> TrainingLog:
    """Read a ``log.jsonl``: one JSON object per line, each with ``step``.

    The last line may be cut off (a run that was killed while writing); it is left out then.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for any other line that is not a JSON object with a ``step``, with its number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such log. A run writes log.jsonl into its work folder.")
    lines = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline at its end: cut off
                break
            raise ValueError(f"{path}:{number}: not a JSON object ({error.msg}). Remove this line.") from error
        if not isinstance(record, dict) or "step" not in record:
            raise ValueError(f'{path}:{number}: a record needs "step", this one is {line[:80]!r}. Remove this line.')
        records.append(record)
    return TrainingLog(tuple(records))


def pretraining_curve_groups(log: TrainingLog) -> list[CurveGroup]:
    """The groups to show for a run: loss, its terms, collapse monitor, probes, learning rate, rounds, as logged."""
    names = log.names()
    terms = tuple((name, name.removeprefix("loss_").replace("_", " ")) for name in names if name.startswith("loss_"))
    groups = [
        PRETRAINING_CURVES[0],
        CurveGroup("Terms of the training loss", "loss", terms, limits=(0, None)),
        PRETRAINING_CURVES[1],
        CurveGroup(
            "Collapse monitor: standard deviation",
            "standard deviation",
            (
                ("standard_deviation_mean", "mean over dimensions"),
                ("standard_deviation_min", "smallest"),
                ("standard_deviation_max", "largest"),
            ),
            limits=(0, None),
        ),
        CurveGroup(
            "Collapse monitor: cosines",
            "cosine",
            (
                ("prediction_target_cosine", "prediction and target, hidden occupied cells"),
                ("prediction_target_cosine_empty", "prediction and target, hidden empty cells"),
                ("context_pair_cosine", "pairs of context cells"),
                ("target_pair_cosine", "pairs of target cells"),
            ),
        ),
        PRETRAINING_CURVES[2],
        CurveGroup("Learning rate", "learning rate", (("learning_rate", "learning rate"), ("lr", "learning rate"))),
        *_round_groups(names),
    ]
    return [group for group in groups if any(name in names for name, _ in group.curves)]


def _round_groups(names: Sequence[str]) -> list[CurveGroup]:
    """What a run logs whose processes train apart and meet in rounds."""
    leaders = tuple((name, name.replace("_", " ")) for name in names if re.fullmatch(r"leader_\d+", name))
    weights = tuple((name, name.replace("_", " ")) for name in names if re.fullmatch(r"weight_\d+", name))
    return [
        CurveGroup(
            "Rounds: disagreement of the workers",
            "squared distance",
            (("disagreement", "to what they are pulled to, mean over workers"),),
            limits=(0, None),
        ),
        CurveGroup("Rounds: sent", "bytes", (("bytes_sent", "by the first worker, so far"),), limits=(0, None)),
        CurveGroup("Rounds: duration", "seconds", (("round_seconds", "waiting included"),), limits=(0, None)),
        CurveGroup(
            "Rounds: count", "rounds", (("rounds", "done"), ("rounds_skipped", "skipped"), *leaders), limits=(0, None)
        ),
        CurveGroup("Rounds: weight of each worker", "weight", weights, limits=(0, None)),
    ]


def draw_curves(axes: Any, log: TrainingLog, group: CurveGroup) -> None:
    """Draw one group into a matplotlib axis; quantities that were not logged are left out."""
    drawn = 0
    for color, (name, label) in zip(SERIES, group.curves, strict=False):
        steps, values = log.series(name)
        if len(steps):
            axes.plot(steps, values, color=color, label=label, marker="o" if len(steps) < 25 else None, markersize=3.5)
            drawn += 1
    axes.set_title(group.title, fontsize=11)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(group.unit)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if group.alarm is not None and drawn:
        level, meaning = group.alarm
        axes.axhline(level, color=VERMILION, linestyle="--", linewidth=1, label=f"{meaning} {level:g}")
    axes.set_ylim(*group.limits)
    if drawn:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "not logged in this run", transform=axes.transAxes, ha="center", va="center", color="0.4")


def write_training_curves(
    log_path: str | Path, out_path: str | Path, groups: Sequence[CurveGroup] | None = None
) -> Path:
    """Write a PNG with the curves of a run, two axes per row.

    Args:
        log_path: the run's ``log.jsonl``.
        out_path: the PNG.
        groups: what to show; everything known that was logged if ``None``.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_log`; also for a log in which nothing of ``groups`` occurs.
    """
    log = read_log(log_path)
    chosen = pretraining_curve_groups(log) if groups is None else list(groups)
    if not chosen:
        raise ValueError(f"{log_path}: nothing to draw; the log has {', '.join(log.names()) or 'no numbers'}.")
    rows = math.ceil(len(chosen) / 2)
    figure = new_figure(12, 3.2 * rows)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for axis, group in zip(axes, chosen, strict=False):
        draw_curves(axis, log, group)
    for axis in axes[len(chosen) :]:
        axis.remove()
    return save(figure, out_path)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
