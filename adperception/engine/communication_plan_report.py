"""Tables of a communication plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adperception.engine.communication_plan import Costs, Hardware, costs_per_steps
from adperception.optim import Strategy

__all__ = ["PLAN_WORKERS", "plan_report"]

PLAN_WORKERS = (8, 16, 32, 64, 128, 256, 512)


def plan_report(
    strategies: Mapping[str, Strategy],
    workers: Sequence[int],
    sync_every: int,
    parameters: int,
    hardware: Sequence[Hardware],
) -> str:
    """Modelled seconds, for each network, and bytes that 1,000 steps take.

    Args:
        strategies: by heading.
        workers: columns of the tables.
        sync_every: local steps between two rounds.
        parameters: of the model, 4 bytes each.
        hardware: what to plan for.
    """
    if parameters < 1 or not workers or min(workers) < 2:
        raise ValueError(f"--plan {parameters} --workers {' '.join(map(str, workers))}: 1 or more, and 2 or more.")
    lines = [
        f"# 1,000 steps of {parameters:,} parameters ({4 * parameters / 1e6:,.1f} MB), rounds every {sync_every} steps",
        "",
        "Every worker computes equally fast and has a full-duplex link of its own to a switch that is never the "
        "bottleneck. Communication does not overlap with computing; torch's DistributedDataParallel overlaps its "
        "all-reduce with the backward pass, so DataParallel is at best as fast as the larger of both parts.",
    ]
    costs: dict[str, list[Costs]] = {}
    for planned in hardware:
        for name, strategy in strategies.items():
            costs[name] = [costs_per_steps(strategy, count, sync_every, parameters, planned) for count in workers]
        computing = 1000 * planned.step_seconds
        link = planned.link
        lines += [
            "",
            f"## Seconds at {link.bandwidth_bits_per_second / 1e9:g} Gbit/s, {1e3 * link.latency_seconds:g} ms; "
            f"{computing:,.0f} s of them computing",
            "",
            *_table(workers, {name: [f"{cost.seconds:,.0f}" for cost in row] for name, row in costs.items()}),
        ]
    sent = {
        name: [_gigabytes(cost.bytes_sent / count) for cost, count in zip(row, workers, strict=True)]
        for name, row in costs.items()
    }
    lines += ["", "## GB sent per worker", "", *_table(workers, sent)]
    return "\n".join(lines) + "\n"


def _table(workers: Sequence[int], rows: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"| workers | {' | '.join(map(str, workers))} |",
        f"|---|{'---|' * len(workers)}",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()),
    ]


def _gigabytes(sent: float) -> str:
    return f"{sent / 1e9:.3g}"
