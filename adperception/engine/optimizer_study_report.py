"""Tables of a study of optimisers. What is not finished reads "missing"; nothing is filled in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adperception.engine.communication_plan import Hardware
from adperception.engine.optimizer_methods import METHODS, REFERENCE
from adperception.engine.optimizer_study_plan import Purpose
from adperception.engine.optimizer_study_results import SHARE_OF_BYTES, Entry, StudyResults, collect_results
from adperception.engine.results import write_json
from adperception.engine.study_task import SHARDINGS, Sharding
from adperception.evaluation.seed_statistics import Difference, Spread
from adperception.visualization.optimizer_study_plot import Curves, write_optimizer_study_plot

__all__ = ["StudyResults", "collect_results", "markdown_report", "write_report"]

_MISSING = "missing"
_PURPOSES: tuple[Purpose, ...] = ("tuned", "default")


def markdown_report(results: StudyResults) -> str:
    """The tables, and how to read them."""
    study, metric = results.study, results.metric
    workers = study.workers[0]
    failed = f", {len(results.failures)} failed" if results.failures else ""
    lines = [
        f"# Distributed optimisers: {', '.join(study.methods)}",
        "",
        f"{results.finished} of {len(results.places)} cells are finished{failed}. {workers} workers, {study.steps} "
        f"steps of {workers} x {study.batch_size} samples ({study.steps * workers * study.batch_size:,}), rounds every "
        f"{study.sync_every} steps; {study.configurations} settings tried per method on the validation split, "
        f"{study.seeds} seeds on the test split. Modelled seconds: {_hardware(results.hardware)}.",
    ]
    for sharding in study.shardings:
        lines += [
            "",
            f"## {SHARDINGS[sharding][0].upper()}{SHARDINGS[sharding][1:]}",
            "",
            *_main_table(results, sharding),
        ]
        lines += ["", *_details_table(results, sharding)]
        defaults = _default_table(results, sharding)
        if defaults:
            lines += ["", f"Default strengths, learning rate {study.default_learning_rate:g}:", "", *defaults]
    if len(study.workers) > 1:
        lines += ["", f"## More workers, {study.scaling_steps} steps, one seed", "", *_scaling_table(results)]
    lines += [
        "",
        f"Mean ± standard deviation over seeds, of the consensus model at the end of every run ({metric.name}). Bytes "
        'are payload sent by all workers, start and evaluations left out. "Keeps up": the mean is at most '
        f"{metric.tolerance:g} (or one standard deviation of {REFERENCE}, if that is more) behind {REFERENCE}, with at "
        f'most {SHARE_OF_BYTES:.0%} of its bytes. "Not distinguishable": the 95 % interval of the difference (Welch) '
        "holds 0; the intervals are not corrected for their number. The best worker is chosen by its result on the "
        "test split.",
    ]
    if results.failures:
        lines += ["", "## Failed", ""]
        lines += [f"- {cell}: {' '.join(message.split())}" for cell, message in results.failures]
    return "\n".join(lines) + "\n"


def write_report(results: StudyResults, folder: Path) -> None:
    """Write ``results.json``, ``results.md`` and, once there is something to draw, ``results.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    study = results.study
    entries = [
        {"purpose": purpose, "sharding": sharding, "workers": study.workers[0], **_plain(results, entry)}
        for sharding in study.shardings
        for purpose in _PURPOSES
        for entry in results.entries(purpose, sharding)
    ]
    entries += [
        {"purpose": "scaling", "sharding": study.shardings[0], "workers": workers, **_plain(results, entry)}
        for workers in (study.workers if len(study.workers) > 1 else ())
        for entry in results.entries("scaling", study.shardings[0], workers)
    ]
    write_json(
        folder / "results.json",
        {
            **results.about,
            "metric": asdict(results.metric),
            "hardware": asdict(results.hardware),
            **asdict(study),
            "finished": results.finished,
            "planned": len(results.places),
            "choices": [
                {
                    "sharding": sharding,
                    "method": method,
                    "setting": None if choice.best is None else str(choice.best),
                    "scores": {str(setting): _rounded(score) for setting, score in choice.scores.items()},
                }
                for (sharding, method), choice in results.choices.items()
            ],
            "entries": entries,
            "failed": [{"cell": str(cell), "error": message} for cell, message in results.failures],
        },
    )
    (folder / "results.md").write_text(markdown_report(results), encoding="utf-8")
    curves = _curves(results)
    if curves:
        write_optimizer_study_plot(curves, results.metric.name, folder / "results.png")


def _main_table(results: StudyResults, sharding: Sharding) -> list[str]:
    metric = results.metric
    lines = [
        f"| method | setting | {metric.name} | difference to {REFERENCE}, 95 % interval | verdict | bytes of "
        f"{REFERENCE}'s | modelled s | keeps up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in results.study.methods:
        entry = results.entry("tuned", sharding, method)
        if entry is None:
            lines.append(f"| {method} | {_MISSING} | {_MISSING} | | | | | |")
            continue
        share = _MISSING if entry.bytes_of_reference is None else f"{100 * entry.bytes_of_reference:.1f} %"
        lines.append(
            f"| {method} | {entry.setting} | {_score(results, entry)} | {_difference(results, entry.difference)} | "
            f"{entry.verdict or ''} | {share} | {entry.seconds:.3g} | {_yes_no(entry.keeps_up)} |"
        )
    edges = [_edges(entry) for entry in results.entries("tuned", sharding)]
    if any(edges):
        lines += [
            "",
            f"At the edge of the grid, so that a better value may lie outside: {'; '.join(filter(None, edges))}.",
        ]
    return lines


def _edges(entry: Entry) -> str:
    """Strengths at an end of their grid; 0 and 1 are no ends that could be passed."""
    grid = METHODS[entry.method].options
    found = [
        f"{name} {value:g}"
        for name, value in entry.setting.options
        if len(grid[name]) > 1 and value in (min(grid[name]), max(grid[name])) and value not in (0, 1)
    ]
    return f"{entry.method} ({', '.join(found)})" if found else ""


def _details_table(results: StudyResults, sharding: Sharding) -> list[str]:
    decimals = results.metric.decimals
    lines = [
        "| method | mean worker | best worker | training loss | disagreement | MB sent |",
        "|---|---|---|---|---|---|",
    ]
    for entry in results.entries("tuned", sharding):
        m = entry.measures
        lines.append(
            f"| {entry.method} | {_spread(m['mean_worker'], decimals)} | {_spread(m['best_worker'], decimals)} | "
            f"{m['training_loss'].mean:.3g} | {m['disagreement'].mean:.2g} | {entry.bytes_sent / 1e6:.2f} |"
        )
    return lines


def _default_table(results: StudyResults, sharding: Sharding) -> list[str]:
    entries = results.entries("default", sharding)
    if not entries:
        return []
    name = results.metric.name
    lines = [
        f"| method | {name} | mean worker | difference to {REFERENCE} (tuned) | verdict | keeps up |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry.method} | {_score(results, entry)} | "
        f"{_spread(entry.measures['mean_worker'], results.metric.decimals)} | "
        f"{_difference(results, entry.difference)} | {entry.verdict or ''} | {_yes_no(entry.keeps_up)} |"
        for entry in entries
    ]
    return lines


def _scaling_table(results: StudyResults) -> list[str]:
    study = results.study
    numbers = sorted(study.workers)
    heads = [f"{results.metric.name}, {n}" for n in numbers]
    heads += [f"MB per worker, {n}" for n in numbers] + [f"modelled s, {n}" for n in numbers]
    lines = [f"| method | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for method in study.methods:
        entries = [results.entry("scaling", study.shardings[0], method, n) for n in numbers]
        cells = [_MISSING if e is None else f"{e.measures['score'].mean:.{results.metric.decimals}f}" for e in entries]
        cells += [
            _MISSING if e is None else f"{e.bytes_sent / n / 1e6:.3g}" for e, n in zip(entries, numbers, strict=True)
        ]
        cells += [_MISSING if e is None else f"{e.seconds:.3g}" for e in entries]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _curves(results: StudyResults) -> dict[str, Mapping[str, Curves]]:
    """Title of a row -> method -> steps, scores, bytes, seconds."""
    rows: dict[str, Mapping[str, Curves]] = {}
    for sharding in results.study.shardings:
        entries = results.entries("tuned", sharding)
        if entries:
            rows[SHARDINGS[sharding]] = {entry.method: _curve(entry) for entry in entries}
    return rows


def _curve(entry: Entry) -> Curves:
    columns = list(zip(*entry.curve, strict=True))
    return Curves(steps=columns[0], scores=columns[1], bytes_sent=columns[4], seconds=columns[5])


def _plain(results: StudyResults, entry: Entry) -> dict[str, Any]:
    content = asdict(entry)
    content["setting"] = str(entry.setting)
    content["text"] = None if entry.difference is None else _difference(results, entry.difference)
    content["curve_columns"] = ["step", "score", "training_loss", "disagreement", "bytes_sent", "seconds"]
    content["curve"] = [[_rounded(value) for value in row] for row in entry.curve]
    return content


def _rounded(value: float) -> float:
    return value if not math.isfinite(value) else float(f"{value:.5g}")


def _hardware(hardware: Hardware) -> str:
    link = hardware.link
    return (
        f"links of {link.bandwidth_bits_per_second / 1e9:g} Gbit/s with {1e3 * link.latency_seconds:g} ms, "
        f"{1e3 * hardware.step_seconds:g} ms of computing per step"
    )


def _score(results: StudyResults, entry: Entry) -> str:
    text = _spread(entry.measures["score"], results.metric.decimals)
    missing = results.study.seeds - len(entry.scores)
    return f"{text} ({len(entry.scores)} of {results.study.seeds} seeds)" if missing else text


def _spread(over_seeds: Spread, decimals: int) -> str:
    if over_seeds.count < 2:
        return f"{over_seeds.mean:.{decimals}f}"
    return f"{over_seeds.mean:.{decimals}f} ± {over_seeds.deviation:.{decimals}f}"


def _difference(results: StudyResults, difference: Difference | None) -> str:
    if difference is None:
        return ""
    d = results.metric.decimals
    if math.isnan(difference.low):
        return f"{difference.value:+.{d}f}"
    return f"{difference.value:+.{d}f} [{difference.low:+.{d}f}, {difference.high:+.{d}f}]"


def _yes_no(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "**no**"
