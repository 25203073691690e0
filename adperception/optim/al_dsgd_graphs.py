"""The graphs of 8 workers that MATCHA (number 0) and AL-DSGD (0 to 14) were published with.

Wang et al., "MATCHA: Speeding up decentralized SGD via matching decomposition sampling" (2019); He et al., "Adjacent
leader decentralized stochastic gradient descent" (2024). Three graphs each, to rotate, with 12, 10, 9, 7 and 5 edges.
Those with 5 leave two workers alone: only their unions are connected.
"""

from __future__ import annotations

from adperception.optim.graphs import Graph

__all__ = ["al_dsgd_graph"]

_MATCHINGS = (
    "1-5 6-7 0-4 2-3 | 1-7 3-6 | 1-0 3-7 5-6 | 1-2 7-0 | 3-1",
    "4-6 5-2 3-1 7-0 | 4-2 0-5 | 4-3 0-2 6-5 | 4-7 2-3 | 0-4",
    "2-3 0-4 6-7 1-5 | 4-3 1-0 | 6-3 1-4 0-2 | 3-5 4-6 | 3-1",
    "1-5 0-4 2-3 | 1-7 3-6 | 1-0 3-7 5-6 | 1-2 7-0",
    "4-6 3-1 7-0 | 4-2 0-5 | 4-3 0-2 6-5 | 4-7 2-3",
    "2-3 6-7 1-5 | 4-3 1-0 | 6-3 1-4 0-2 | 3-5 4-6",
    "1-5 0-4 2-3 | 3-6 | 1-0 3-7 5-6 | 1-2 7-0",
    "4-6 3-1 7-0 | 0-5 | 4-3 0-2 6-5 | 4-7 2-3",
    "2-3 6-7 1-5 | 1-0 | 6-3 1-4 0-2 | 3-5 4-6",
    "0-4 2-3 | 3-6 | 1-0 3-7 5-6 | 1-2",
    "3-1 7-0 | 0-5 | 4-3 0-2 6-5 | 4-7",
    "6-7 1-5 | 1-0 | 6-3 1-4 0-2 | 3-5",
    "2-3 | 3-6 | 1-0 5-6 | 1-2",
    "7-0 | 0-5 | 4-3 6-5 | 4-7",
    "1-5 | 1-0 | 6-3 0-2 | 3-5",
)


def al_dsgd_graph(number: int) -> Graph:
    """A published graph of workers 0 to 7, in its published matchings.

    Args:
        number: 0 to 14; 3 k to 3 k + 2 are rotated together.

    Raises:
        ValueError: for another number.
    """
    if not 0 <= number < len(_MATCHINGS):
        raise ValueError(f"there is no published graph {number}; choose 0 to {len(_MATCHINGS) - 1}")
    matchings = []
    for matching in _MATCHINGS[number].split(" | "):
        ends = (edge.split("-") for edge in matching.split())
        matchings.append(tuple((int(i), int(j)) for i, j in ends))
    return Graph(tuple(range(8)), tuple(matchings))
