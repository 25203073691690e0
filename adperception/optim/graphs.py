"""Graphs of workers: who may talk to whom, in matchings that can be used one after the other.

Within a matching every worker has at most one partner, so all its exchanges happen at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from adperception.optim.edge_colouring import edge_colouring

__all__ = ["Edge", "Graph", "Matching", "consensus_contraction"]

Edge = tuple[int, int]
Matching = tuple[Edge, ...]


@dataclass(frozen=True)
class Graph:
    """An undirected graph, its edges partitioned into matchings.

    Attributes:
        nodes: worker ids, in the order of the rows of all matrices. Not necessarily 0 to n - 1: workers can be lost.
        matchings: sets of edges (i, j) without a common node. Stored with i < j and sorted within a matching; the order
            of the matchings is kept.

    Raises:
        ValueError: without nodes, and for nodes, edges or matchings that are not as described.
    """

    nodes: tuple[int, ...]
    matchings: tuple[Matching, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        matchings = tuple(tuple(sorted((min(i, j), max(i, j)) for i, j in matching)) for matching in self.matchings)
        object.__setattr__(self, "matchings", matchings)
        _check(self)

    @classmethod
    def from_edges(cls, nodes: Iterable[int], edges: Iterable[Edge]) -> Graph:
        """Edges partitioned into at most (largest degree + 1) matchings, whatever their order."""
        nodes, edges = tuple(nodes), tuple(edges)
        cls(nodes, tuple((edge,) for edge in edges))  # refuses what the colouring would trust
        return cls(nodes, edge_colouring(edges))

    @classmethod
    def path(cls, nodes: Iterable[int]) -> Graph:
        """Each node with the next one, in two matchings."""
        nodes = tuple(nodes)
        steps = tuple(pairwise(nodes))
        return cls(nodes, tuple(matching for matching in (steps[::2], steps[1::2]) if matching))

    @classmethod
    def ring(cls, nodes: Iterable[int]) -> Graph:
        """Each node with the next one and the last with the first, in two matchings, or three for an odd number.

        A ring of two is one edge, a ring of one has none.
        """
        nodes = tuple(nodes)
        path = cls.path(nodes)
        if len(nodes) < 3:
            return path
        closing = (nodes[-1], nodes[0])
        if len(nodes) % 2:
            return cls(nodes, (*path.matchings, (closing,)))
        return cls(nodes, (path.matchings[0], (*path.matchings[1], closing)))

    @classmethod
    def complete(cls, nodes: Iterable[int]) -> Graph:
        """Everyone with everyone, in n - 1 matchings, or n for an odd number: a round-robin tournament."""
        nodes = tuple(nodes)
        seats: list[int | None] = [*nodes, None] if len(nodes) % 2 else [*nodes]
        matchings = []
        for _ in range(len(seats) - 1):
            pairs = zip(seats[: len(seats) // 2], reversed(seats), strict=False)
            matchings.append(tuple((i, j) for i, j in pairs if i is not None and j is not None))
            seats = [seats[0], seats[-1], *seats[1:-1]]
        return cls(nodes, tuple(matching for matching in matchings if matching))

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, matching after matching."""
        return tuple(edge for matching in self.matchings for edge in matching)

    def neighbours(self, node: int) -> tuple[int, ...]:
        """Partners of a node in the order of the matchings.

        Raises:
            ValueError: if it is not a node.
        """
        if node not in self._neighbours:
            raise ValueError(f"{node} is not a node of this graph; its nodes are {self.nodes}")
        return self._neighbours[node]

    def degree(self, node: int) -> int:
        """Number of neighbours."""
        return len(self.neighbours(node))

    def restricted(self, members: Iterable[int]) -> Graph:
        """The graph on some of its nodes: what they had in common. Matchings that become empty are left out.

        Raises:
            ValueError: for a member that is not a node.
        """
        kept = frozenset(members)
        if not kept <= frozenset(self.nodes):
            unknown = sorted(kept - frozenset(self.nodes))
            raise ValueError(
                f"workers {unknown} are not nodes of the graph, whose nodes are {self.nodes}; give a graph with a node "
                "for every worker"
            )
        within = (tuple(edge for edge in matching if kept.issuperset(edge)) for matching in self.matchings)
        return Graph(tuple(n for n in self.nodes if n in kept), tuple(matching for matching in within if matching))

    def without(self, nodes: Iterable[int]) -> Graph:
        """The graph without some of its nodes."""
        lost = frozenset(nodes)
        return self.restricted(node for node in self.nodes if node not in lost)

    @cached_property
    def components(self) -> tuple[tuple[int, ...], ...]:
        """Groups of nodes that edges connect, each in ascending order, the one with the lowest node first."""
        left, groups = set(self.nodes), []
        while left:
            group, new = set(), {min(left)}
            while new:
                group |= new
                new = {neighbour for node in new for neighbour in self._neighbours[node]} - group
            groups.append(tuple(sorted(group)))
            left -= group
        return tuple(groups)

    @property
    def is_connected(self) -> bool:
        """Whether there is a way from every node to every other."""
        return len(self.components) == 1

    def laplacian(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """(n, n): the degrees on the diagonal, -1 for every edge."""
        return sum(self.matching_laplacians(dtype), torch.zeros(len(self.nodes), len(self.nodes), dtype=dtype))

    def matching_laplacians(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """(matchings, n, n): one Laplacian per matching."""
        row = {node: index for index, node in enumerate(self.nodes)}
        laplacians = torch.zeros(len(self.matchings), len(self.nodes), len(self.nodes), dtype=dtype)
        for laplacian, matching in zip(laplacians, self.matchings, strict=True):
            ends = torch.tensor([(row[i], row[j]) for i, j in matching])
            for here, there in ((ends[:, 0], ends[:, 1]), (ends[:, 1], ends[:, 0])):
                laplacian[here, here] = 1
                laplacian[here, there] = -1
        return laplacians

    @property
    def algebraic_connectivity(self) -> float:
        """lambda_2, the second smallest eigenvalue of the Laplacian; 0 unless connected, and for a single node."""
        return self._eigenvalues[1] if self.is_connected and len(self.nodes) > 1 else 0.0

    @property
    def largest_eigenvalue(self) -> float:
        """lambda_n of the Laplacian; 0 without edges."""
        return self._eigenvalues[-1] if self.matchings else 0.0

    @property
    def best_weight(self) -> float:
        """alpha = 2 / (lambda_2 + lambda_n), which minimises ``contraction`` (Xiao and Boyd, 2004); 0 without edges."""
        return 2 / (self.algebraic_connectivity + self.largest_eigenvalue) if self.matchings else 0.0

    def mixing_matrix(self, weight: float) -> Tensor:
        """(n, n) float64: W = I - weight * Laplacian. Symmetric, rows sum to 1, so the mean of the nodes is kept.

        The diagonal is negative where weight * degree exceeds 1.
        """
        return torch.eye(len(self.nodes), dtype=torch.float64) - weight * self.laplacian()

    def contraction(self, weight: float) -> float:
        """By which factor a mixing shrinks the distance from the mean.

        max(|1 - weight lambda_2|, |1 - weight lambda_n|); 1 or above for a disconnected graph, 0 for a single node.
        """
        if len(self.nodes) == 1:
            return 0.0
        return max(abs(1 - weight * self.algebraic_connectivity), abs(1 - weight * self.largest_eigenvalue))

    def rho(self, weight: float) -> float:
        """||W^T W - J||, J the matrix of means: the square of ``contraction``, as MATCHA's tables give it."""
        return self.contraction(weight) ** 2

    @cached_property
    def _neighbours(self) -> dict[int, tuple[int, ...]]:
        found: dict[int, list[int]] = {node: [] for node in self.nodes}
        for i, j in self.edges:
            found[i].append(j)
            found[j].append(i)
        return {node: tuple(neighbours) for node, neighbours in found.items()}

    @cached_property
    def _eigenvalues(self) -> tuple[float, ...]:
        return tuple(torch.linalg.eigvalsh(self.laplacian()).tolist())


def consensus_contraction(mixing_matrices: Iterable[Tensor]) -> float:
    """By which factor one round of a periodic sequence shrinks the distance from the mean, in the long run.

    The spectral radius of W_R ... W_2 W_1 - J to the power 1 / R, with J the matrix of means; 1 means that the workers
    never agree. For a single symmetric matrix it is ``Graph.contraction``.

    Args:
        mixing_matrices: W_1 to W_R, (n, n) float64 each, with rows and columns that sum to 1.
    """
    product, logarithm, rounds = None, 0.0, 0
    for matrix in mixing_matrices:
        without_mean = matrix - 1 / len(matrix)
        product = without_mean if product is None else without_mean @ product
        # A long product would underflow.
        size = product.norm().item()
        if size < 1e-12:
            return 0.0
        product, logarithm, rounds = product / size, logarithm + math.log(size), rounds + 1
    if product is None:
        raise ValueError("no mixing matrices given; give those of at least one round")
    radius = torch.linalg.eigvals(product).abs().max().item()
    return math.exp((math.log(radius) + logarithm) / rounds) if radius > 0 else 0.0


def _check(graph: Graph) -> None:
    if not graph.nodes:
        raise ValueError("a graph needs at least one node")
    nodes = frozenset(graph.nodes)
    if len(nodes) < len(graph.nodes):
        raise ValueError(f"nodes {graph.nodes} name a worker twice; name each once")
    seen: dict[Edge, int] = {}
    for index, matching in enumerate(graph.matchings):
        if not matching:
            raise ValueError(f"matching {index} is empty; leave it out")
        in_matching: set[int] = set()
        for i, j in matching:
            place = f"edge ({i}, {j}) of matching {index}"
            if i == j:
                raise ValueError(f"{place} connects a node with itself; remove it")
            if (i, j) in seen:
                raise ValueError(f"{place} is in matching {seen[i, j]} already; give every edge once")
            if not {i, j} <= nodes:
                raise ValueError(
                    f"{place} has an end that is not among the nodes {graph.nodes}; add it or drop the edge"
                )
            if in_matching & {i, j}:
                raise ValueError(
                    f"{place} meets a node that the matching has already; `Graph.from_edges` finds matchings"
                )
            in_matching |= {i, j}
            seen[i, j] = index
