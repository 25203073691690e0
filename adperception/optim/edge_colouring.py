"""Edge colouring: the edges of a graph in few matchings, none of which has a node twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["edge_colouring"]

Edge = tuple[int, int]


def edge_colouring(edges: Sequence[Edge]) -> tuple[tuple[Edge, ...], ...]:
    """Partition edges into at most (largest degree + 1) matchings; the same edges in any order give the same matchings.

    Vizing's theorem as an algorithm: Misra and Gries, "A constructive proof of Vizing's theorem" (1992). A new edge
    (u, v) is coloured by a fan of u's edges that can pass their colours on, and a path whose two colours swap.

    Args:
        edges: pairs of nodes, without self loops and without double edges.
    """
    edges = sorted((min(edge), max(edge)) for edge in edges)
    degrees: dict[int, int] = {}
    for node in (node for edge in edges for node in edge):
        degrees[node] = degrees.get(node, 0) + 1
    colours = range(max(degrees.values(), default=0) + 1)
    # at[node][colour]: the node at the other end.
    at: dict[int, dict[int, int]] = {node: {} for node in degrees}

    for u, v in edges:
        fan = _fan(at, u, v)
        free_at_u = _free(at, u, colours)
        free_at_last = _free(at, fan[-1], colours)
        _swap_along_path(at, u, free_at_u, free_at_last)
        _colour_by_rotation(at, u, fan, free_at_last)

    matchings = [tuple(e for e in edges if at[e[0]].get(colour) == e[1]) for colour in colours]
    return tuple(matching for matching in matchings if matching)


def _free(at: dict[int, dict[int, int]], node: int, colours: range) -> int:
    return next(colour for colour in colours if colour not in at[node])


def _fan(at: dict[int, dict[int, int]], u: int, v: int) -> list[int]:
    """Neighbours of ``u`` from ``v`` on, as many as possible: each edge's colour is free at the neighbour before."""
    fan = [v]
    left = dict(sorted(at[u].items()))
    while True:
        colour = next((colour for colour in left if colour not in at[fan[-1]]), None)
        if colour is None:
            return fan
        fan.append(left.pop(colour))


def _swap_along_path(at: dict[int, dict[int, int]], start: int, first: int, second: int) -> None:
    """Swap two colours along the path from ``start``, where ``first`` is free; then ``second`` is free there."""
    path = [start]
    colour, other = second, first
    while colour in at[path[-1]]:
        path.append(at[path[-1]][colour])
        colour, other = other, colour
    for node in path:
        taken = {c: at[node].pop(c) for c in (first, second) if c in at[node]}
        at[node].update({first + second - c: end for c, end in taken.items()})


def _colour_by_rotation(at: dict[int, dict[int, int]], u: int, fan: list[int], colour: int) -> None:
    """Each edge of a part of the fan takes the colour of the next one, the last takes ``colour``."""
    of_edge = {end: c for c, end in at[u].items()}
    # The swapped path may have ended the fan early: the first node where `colour` is free ends a fan that still is one.
    last = next(i for i, w in enumerate(fan) if colour not in at[w] and _is_fan(at, of_edge, fan[: i + 1]))
    passed_on = [of_edge[w] for w in fan[1 : last + 1]]
    for w, c in zip(fan[1 : last + 1], passed_on, strict=True):
        del at[u][c], at[w][c]
    for w, c in zip(fan[: last + 1], [*passed_on, colour], strict=True):
        at[u][c], at[w][c] = w, u


def _is_fan(at: dict[int, dict[int, int]], of_edge: dict[int, int], fan: list[int]) -> bool:
    return all(of_edge[w] not in at[before] for before, w in pairwise(fan))
