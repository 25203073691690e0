"""Rounds of a graph schedule side by side: who exchanges with whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.collections import LineCollection

from adperception.optim.graph_schedules import ActiveGraph, GraphSchedule
from adperception.optim.graphs import Edge
from adperception.visualization.style import GREY, SERIES, new_figure, save

__all__ = ["draw_graph_schedule"]

_COLUMNS = 6
_INCHES = 1.9  # of a panel

Places = dict[int, tuple[float, float]]


def draw_graph_schedule(
    schedule: GraphSchedule, members: tuple[int, ...], rounds: Sequence[int], path: str | Path
) -> Path:
    """The workers on a circle, once per round: active edges coloured by matching, inactive ones pale.

    Inactive are those of the graphs of the drawn rounds. Workers without an exchange are grey.

    Args:
        schedule: any.
        members: worker ids, in ascending order.
        rounds: numbers of the rounds to draw.
        path: PNG file.

    Raises:
        ValueError: without rounds, or where ``schedule.at`` does.
    """
    if not rounds:
        raise ValueError("rounds is empty; name at least one round to draw, for instance range(6)")
    active = [schedule.at(index, members) for index in rounds]
    possible = {edge for graph in active for edge in graph.graph.edges}
    places = _on_a_circle(members)

    columns = min(len(active), _COLUMNS)
    rows = math.ceil(len(active) / columns)
    figure = new_figure(max(_INCHES * columns, 4.5), (_INCHES + 0.25) * rows + 0.8)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, index, graph in zip(axes, rounds, active, strict=False):
        _draw_round(axis, graph, possible, places)
        axis.set_title(f"round {index}, weight {graph.weight:.3f}", fontsize=9)

    used = sorted({j for graph in active for j, flag in enumerate(graph.active) if flag})
    # With more matchings than colours a legend would not tell them apart.
    named = used if len(used) <= len(SERIES) else []
    handles = [axes[0].plot([], [], color=_colour(j), lw=2, label=f"matching {j}")[0] for j in named]
    if any(possible - set(graph.edges) for graph in active):
        handles.append(axes[0].plot([], [], color=GREY, lw=1, label="not in this round")[0])
    if handles:
        ncols = min(len(handles), columns + 1)
        figure.legend(handles=handles, loc="outside lower center", ncols=ncols, frameon=False, fontsize=9)
    name, mean = type(schedule).__name__, schedule.mean_degree(members)
    figure.suptitle(
        f"{name}, {len(members)} workers\n{mean:.2f} exchanges per worker and round on average", fontsize=10
    )
    return save(figure, path)


def _draw_round(axis: Any, graph: ActiveGraph, possible: set[Edge], places: Places) -> None:
    _draw_edges(axis, sorted(possible), places, colors=GREY, linewidths=1, zorder=1)
    few = len(places) <= 12
    for j, (matching, active) in enumerate(zip(graph.graph.matchings, graph.active, strict=True)):
        if active:
            _draw_edges(axis, matching, places, colors=_colour(j), linewidths=2.4 if few else 1, zorder=2)
    for worker, (x, y) in places.items():
        busy = graph.degree(worker) > 0
        axis.scatter(x, y, s=170 if few else 60, color="white", edgecolors="black" if busy else "#AAAAAA", zorder=3)
        if len(places) <= 32:
            colour = "black" if busy else "#999999"
            font = 8 if few else 5
            axis.text(x, y, str(worker), color=colour, ha="center", va="center_baseline", fontsize=font, zorder=4)
    axis.set_xlim(-1.25, 1.25)
    axis.set_ylim(-1.25, 1.25)
    axis.set_aspect("equal")


def _draw_edges(axis: Any, edges: Sequence[Edge], places: Places, **style: Any) -> None:
    axis.add_collection(LineCollection([(places[i], places[j]) for i, j in edges], capstyle="round", **style))


def _colour(matching: int) -> str:
    return SERIES[matching % len(SERIES)]


def _on_a_circle(members: tuple[int, ...]) -> Places:
    """Clockwise from the top."""
    turns = ((worker, 2 * math.pi * index / len(members)) for index, worker in enumerate(members))
    return {worker: (math.sin(angle), math.cos(angle)) for worker, angle in turns}
