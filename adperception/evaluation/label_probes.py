"""How much of the labels can be read off an encoder's features without fine-tuning: kNN and a linear classifier.

Sources: kNN as in Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (CVPR 2018):
cosine similarity s, votes weighted by exp(s / 0.07); the protocol follows AD-L-JEPA's evaluation (k = 20, 10,000
features per class, accuracies averaged over classes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from adperception.evaluation.representation import NAN
from adperception.geometry import points_in_boxes
from adperception.structures import Boxes3D, VoxelGrid

__all__ = ["BACKGROUND", "SiteLabels", "class_accuracies", "knn_probe", "linear_probe", "site_labels"]

BACKGROUND = "background"
"""Name of the class of sites whose points lie in no box."""

_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class SiteLabels:
    """Labelled sites of an encoder's output grid, of one frame.

    Attributes:
        sites: ``(n, 3)`` int64 (layer, y, x).
        classes: ``(n,)`` int64, position in the class names; the number of class names means background.
    """

    sites: NDArray[np.int64]
    classes: NDArray[np.int64]


def site_labels(
    xyz: NDArray[np.floating], boxes: Boxes3D, class_names: tuple[str, ...], grid: VoxelGrid, layers: int, stride: int
) -> SiteLabels:
    """What the sites are that hold points.

    A site has the class that most of its points in boxes of ``class_names`` have; it is background if none of its
    points lies in any box. Sites with points in boxes of other classes only are left out.

    Args:
        xyz: ``(N, >= 3)`` points, metres.
        boxes: the labels of the frame, of all classes.
        class_names: the classes to tell apart.
        grid: the voxel grid.
        layers: layers of the encoder's output along z; they share the sparse grid's depth equally.
        stride: voxels per site along x and y.
    """
    low, size = np.array(grid.point_cloud_range[:3]), np.array(grid.voxel_size)
    index = np.floor((xyz[:, :3] - low) / size).astype(np.int64)
    inside = ((index >= 0) & (index < grid.size_xyz)).all(axis=1)
    index, xyz = index[inside], xyz[inside]
    layer = np.minimum((index[:, 2] * layers) // grid.sparse_shape[0], layers - 1)
    rows = np.stack([layer, index[:, 1] // stride, index[:, 0] // stride], axis=1)
    sites, member = np.unique(rows, axis=0, return_inverse=True)
    columns = [class_names.index(name) if name in class_names else len(class_names) for name in boxes.names]
    votes = np.zeros((len(sites), len(class_names) + 1), dtype=np.int64)
    for column, within in zip(columns, points_in_boxes(xyz, boxes.boxes), strict=True):
        np.add.at(votes[:, column], member.reshape(-1)[within], 1)
    known = votes[:, :-1].any(axis=1)
    classes = np.where(known, votes[:, :-1].argmax(axis=1), len(class_names))
    kept = known | (votes[:, -1] == 0)
    return SiteLabels(sites[kept].astype(np.int64), classes[kept].astype(np.int64))


def knn_probe(
    bank: Tensor, bank_classes: Tensor, queries: Tensor, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """``(Q,)`` classes of ``queries`` ``(Q, C)`` by a weighted vote of the k most similar rows of the bank.

    Args:
        bank: ``(N, C)`` features with known classes.
        bank_classes: ``(N,)`` int64.
        queries: ``(Q, C)``.
        classes: number of classes.
        k: neighbours; all of the bank if it has fewer.
        temperature: a vote weighs ``exp(cosine / temperature)``.
    """
    bank = F.normalize(bank.float(), dim=1)
    found = []
    for part in torch.split(queries, _QUERIES_AT_ONCE):
        similarity, nearest = (F.normalize(part.float(), dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        weights = torch.exp((similarity - similarity[:, :1]) / temperature)  # the same votes, without large numbers
        votes = weights.new_zeros(len(part), classes).scatter_add_(1, bank_classes[nearest], weights)
        found.append(votes.argmax(dim=1))
    return torch.cat(found) if found else bank_classes[:0]


def linear_probe(bank: Tensor, bank_classes: Tensor, queries: Tensor, classes: int, decay: float = 1e-4) -> Tensor:
    """``(Q,)`` classes of ``queries`` by multinomial logistic regression on the bank.

    Features are standardised with the bank's statistics; every class has the same weight. The problem is convex and
    solved by L-BFGS from zero, so the outcome depends on nothing else.

    Args:
        bank: ``(N, C)`` features with known classes.
        bank_classes: ``(N,)`` int64.
        queries: ``(Q, C)``.
        classes: number of classes.
        decay: weight of the squared norm of the weights.
    """
    rows = bank.float()
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0).clamp(min=1e-6)
    rows = (rows - mean) / deviation
    counts = torch.bincount(bank_classes, minlength=classes)
    share = torch.where(counts > 0, len(rows) / (counts.clamp(min=1) * (counts > 0).sum()), 0.0)
    weight = rows.new_zeros(rows.shape[1], classes, requires_grad=True)
    bias = rows.new_zeros(classes, requires_grad=True)
    solver: Any = torch.optim.LBFGS([weight, bias], max_iter=200, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(rows @ weight + bias, bank_classes, weight=share.to(rows))
        value = value + decay * weight.square().sum()
        torch.autograd.backward(value)
        return value

    with torch.enable_grad():
        solver.step(loss)
    scores = ((queries.float() - mean) / deviation) @ weight.detach() + bias.detach()
    scores[:, counts == 0] = -torch.inf  # a class that the bank does not know is never answered
    return scores.argmax(dim=1)


def class_accuracies(called: Tensor, true: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """Share of rightly called rows per class, and their ``mean`` over the classes that occur; NaN for the others.

    Args:
        called: ``(Q,)`` classes found.
        true: ``(Q,)`` classes.
        names: name of every class.
    """
    values = {}
    for number, name in enumerate(names):
        own = true == number
        values[name] = float((called[own] == number).float().mean()) if bool(own.any()) else NAN
    present = [value for value in values.values() if value == value]
    return values | {"mean": sum(present) / len(present) if present else NAN}
