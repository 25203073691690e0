"""Tables of a compression study."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adperception.engine.model_comparison_report import MEANS, VIEWS
from adperception.engine.results import write_json
from adperception.evaluation.seed_statistics import Difference, paired_difference, spread
from adperception.visualization.compression_plot import write_compression_plot

__all__ = ["COMPARED", "CompressionResults", "differences", "markdown_report", "write_report"]

COMPARED = {
    "rd_mean_iou_no_background": "RD mIoU, no background",
    "ra_mean_iou_no_background": "RA mIoU, no background",
    "mean_dice": "mDice of both views",
}
"""Metrics whose difference to the network as it was given is judged."""

_METHODS = {
    "structured": "channels removed by L1 norm",
    "unstructured": "weights set to zero by magnitude",
    "none": "nothing removed, only fine-tuned",
}


@dataclass(frozen=True)
class CompressionResults:
    """What a study has found so far.

    Attributes:
        config: name of the networks' config.
        method: what was removed.
        cells: contents of the finished cells' files.
        planned: number of cells of the whole study.
        about: further facts for the results file.
    """

    config: str
    method: str
    cells: tuple[Mapping[str, Any], ...]
    planned: int
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every cell is finished."""
        return len(self.cells) == self.planned

    @property
    def shares(self) -> list[float]:
        """The shares that were reached, 0 first."""
        return sorted({cell["share"] for cell in self.cells})

    def at(self, share: float) -> dict[int, Mapping[str, Any]]:
        """The finished cells of a share by network."""
        return {cell["network"]: cell for cell in self.cells if cell["share"] == share}

    def values(self, share: float, metric: str) -> list[float]:
        """A metric at a share, network by network."""
        return [_value(cell, metric) for _, cell in sorted(self.at(share).items())]


def differences(
    results: CompressionResults, share: float, metric: str, control: CompressionResults | None = None
) -> Difference:
    """A metric after pruning minus that of the network as it was given, paired by network.

    Args:
        results: a study.
        share: how much is removed.
        metric: name of the metric.
        control: compare with this study at the same share instead.
    """
    before = results.at(0.0) if control is None else control.at(share)
    after = results.at(share)
    both = sorted(before.keys() & after.keys())
    return paired_difference([_value(after[n], metric) for n in both], [_value(before[n], metric) for n in both])


def markdown_report(results: CompressionResults, control: CompressionResults | None = None) -> str:
    """What is left at every share, how well it works, and whether that is a difference.

    Args:
        results: a study.
        control: the same networks with ``--method none``: trained on as long, with everything left in.
    """
    networks = len({cell["network"] for cell in results.cells})
    headings = [f"{view.upper()} {title}" for view in VIEWS for title in MEANS.values()]
    lines = [
        f"# {results.config}: {_METHODS[results.method]}",
        "",
        f"{len(results.cells)} of {results.planned} cells are finished. Mean ± standard deviation over networks "
        f"({networks}, each trained with its own seed).",
        "",
        f"| removed | parameters | multiply-adds (G){_situations(results.cells)} | {' | '.join(headings)} |",
        "|---" * (len(headings) + 3) + "|",
    ]
    for share in results.shares:
        cells = list(results.at(share).values())
        numbers = [str(spread(results.values(share, f"{view}_{mean}"))) for view in VIEWS for mean in MEANS]
        lines.append(
            f"| {_percent(cells)} | {_mean(cells, 'parameters'):,.0f} | {_operations(cells)} | {' | '.join(numbers)} |"
        )
    references: dict[str, CompressionResults | None] = {"as it was given": None}
    if control is not None:
        references["trained on as long with nothing removed"] = control
    for what, reference in references.items():
        lines += [
            "",
            f"Minus the same network {what}, mean over networks with the 95 % interval of the paired differences:",
            "",
            f"| removed | {' | '.join(COMPARED.values())} |",
            "|---" * (len(COMPARED) + 1) + "|",
        ]
        for share in results.shares[1:]:
            found = [differences(results, share, metric, reference) for metric in COMPARED]
            lines.append(
                f"| {_percent(list(results.at(share).values()))} | {' | '.join(f'{d}, {d.verdict}' for d in found)} |"
            )
    seconds = [cell["training_seconds"] for cell in results.cells if cell["share"] > 0]
    lines += [
        "",
        '"Not distinguishable": the interval holds 0. The intervals are not corrected for their number.',
        f"Fine-tuning after every round took {sum(seconds) / max(1, len(seconds)):.0f} s.",
    ]
    if results.method == "unstructured":
        lines.append("Zeros are counted as removed parameters; they are multiplied with all the same.")
    return "\n".join(lines) + "\n"


def write_report(results: CompressionResults, folder: Path, beside: Sequence[Path] = ()) -> None:
    """Write ``results.json``, ``results.md`` and ``results.png``; ``beside``: further results for the picture.

    Raises:
        ValueError: if one of these is no results file of a compression study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    others = [_read(path) for path in beside]
    control = find_control(results, others)
    content = {
        **results.about,
        "config": results.config,
        "method": results.method,
        "finished": len(results.cells),
        "planned": results.planned,
        "differences": {
            f"{share:g}": {metric: _plain(differences(results, share, metric)) for metric in COMPARED}
            for share in results.shares
            if share > 0
        },
        "differences_to_control": control
        and {
            f"{share:g}": {metric: _plain(differences(results, share, metric, control)) for metric in COMPARED}
            for share in results.shares
            if share > 0
        },
        "cells": list(results.cells),
    }
    write_json(folder / "results.json", content)
    (folder / "results.md").write_text(markdown_report(results, control), encoding="utf-8")
    series = {}
    for name, each in _named([results, *others]).items():
        series[name] = {share: each.values(share, "mean_dice") for share in each.shares}
    if any(series.values()):
        write_compression_plot(series, "mean Dice of both views (%)", folder / "results.png")


def find_control(results: CompressionResults, others: Sequence[CompressionResults]) -> CompressionResults | None:
    """The study of the same networks with nothing removed."""
    weights = {cell["network"]: cell["weights"] for cell in results.cells}
    for other in others:
        theirs = {cell["network"]: cell["weights"] for cell in other.cells}
        same = all(theirs[network] == path for network, path in weights.items() if network in theirs)
        if other.method == "none" and other.config == results.config and same:
            return other
    return None


def _named(several: Sequence[CompressionResults]) -> dict[str, CompressionResults]:
    return {f"{each.config}, {each.method}": each for each in several}


def _read(path: Path) -> CompressionResults:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return CompressionResults(content["config"], content["method"], tuple(content["cells"]), content["planned"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no results file of tools/compress.py ({error}).") from error


def _value(cell: Mapping[str, Any], metric: str) -> float:
    value = cell["metrics"].get(metric)
    return math.nan if value is None else float(value)


def _mean(cells: Sequence[Mapping[str, Any]], name: str) -> float:
    return math.fsum(cell[name] for cell in cells) / len(cells)


def _situations(cells: Sequence[Mapping[str, Any]]) -> str:
    """What multiply-adds depend on: ", 0 / 1 / 2 objects"."""
    names = [name for name in next((cell["multiply_adds"] for cell in cells), {}) if name]
    counts, words = [name.split()[0] for name in names], {name.split()[-1] for name in names[-1:]}
    return f", {' / '.join(counts)} {' '.join(words)}" if names else ""


def _operations(cells: Sequence[Mapping[str, Any]]) -> str:
    means = [math.fsum(c["multiply_adds"][name] for c in cells) / len(cells) for name in cells[0]["multiply_adds"]]
    return " / ".join(f"{mean / 1e9:.4g}" for mean in means)


def _percent(cells: Sequence[Mapping[str, Any]]) -> str:
    return f"{100 * _mean(cells, 'removed'):.1f} %"


def _plain(difference: Difference) -> dict[str, Any]:
    return {
        "value": difference.value,
        "low": difference.low,
        "high": difference.high,
        "verdict": difference.verdict,
    }
