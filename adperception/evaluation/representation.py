"""Measures of a learned representation: has it collapsed, and does it tell occupied from empty?

All functions are pure and work on rows: N embeddings of C dimensions, ``(N, C)``. Second moments are held in
float64 on the CPU, so that any number of frames can be pooled exactly without keeping their embeddings.

Sources: effective rank from Roy and Vetterli, "The effective rank" (EUSIPCO 2007); spectrum area from
arXiv 2209.15007; the two probes from the evaluation protocol of AD-L-JEPA (arXiv 2501.04969).
A value that is not defined (no cell of a kind, an empty union) is NaN, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from adperception.evaluation.k_means import k_means

__all__ = [
    "Moments",
    "ProbeIoU",
    "binary_iou",
    "cosine_empty_probe",
    "covariance_spectrum",
    "effective_rank",
    "k_means_foreground_probe",
    "mean_cosine",
    "mean_cross_cosine",
    "mean_pair_cosine",
    "spectrum_area",
    "standard_deviation",
]

NAN = float("nan")


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of outer products of N embeddings; ``a + b`` pools two sets.

    Attributes:
        count: N.
        total: ``(C,)`` float64 sum of the rows.
        products: ``(C, C)`` float64 sum of the outer products of the rows with themselves.
    """

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, embeddings: Tensor) -> Moments:
        """The moments of ``(N, C)`` embeddings, on any device."""
        rows = embeddings.detach().cpu().double()
        return cls(rows.shape[0], rows.sum(dim=0), rows.T @ rows)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    def covariance(self) -> Tensor:
        """``(C, C)`` unbiased covariance; NaN for fewer than two rows."""
        if self.count < 2:
            return torch.full_like(self.products, NAN)
        centred: Tensor = self.products - torch.outer(self.total, self.total) / self.count
        return centred / (self.count - 1)


def standard_deviation(moments: Moments) -> Tensor:
    """``(C,)`` unbiased standard deviation of each dimension.

    For unit vectors the squares sum to at most about 1, so 1/sqrt(C) (0.0625 for 256 dimensions) in every dimension
    is a fully used space and 0 everywhere is complete collapse.
    """
    return moments.covariance().diagonal().clamp(min=0).sqrt()


def covariance_spectrum(moments: Moments) -> Tensor:
    """``(C,)`` eigenvalues of the centred covariance, largest first; all NaN for fewer than two rows."""
    covariance = moments.covariance()
    if moments.count < 2:
        return covariance.diagonal().clone()
    eigenvalues: Tensor = torch.linalg.eigvalsh(covariance)  # ascending
    return eigenvalues.flip(0).clamp(min=0)


def effective_rank(spectrum: Tensor) -> float:
    """``exp(-sum p ln p)`` with ``p`` the eigenvalues over their sum: how many dimensions are really used.

    Args:
        spectrum: ``(C,)`` non-negative eigenvalues, e.g. of :func:`covariance_spectrum`.

    Returns:
        A number in 1..C; 1 for a spectrum without any variance (all embeddings equal); NaN for a NaN spectrum.
    """
    if bool(torch.isnan(spectrum).any()):
        return NAN
    total = spectrum.sum()
    # Below float32's resolution of unit vectors, what is left of the variance is rounding, not structure.
    if float(total) < 1e-12:
        return 1.0
    shares = spectrum / total
    return float(torch.exp(torch.special.entr(shares).sum()))


def spectrum_area(spectrum: Tensor) -> float:
    """Mean of the cumulative explained variance over the number of components, in (C+1)/2C..1.

    1 means that one direction explains everything; (C+1)/2C (just above 1/2) means equal use of all directions.
    """
    total = spectrum.sum()
    return float((spectrum.cumsum(0) / total).mean()) if float(total) > 0 else NAN


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Mean over rows of the cosine between row i of ``first`` and row i of ``second``, both ``(N, C)``."""
    if first.shape[0] == 0:
        return NAN
    return float(functional.cosine_similarity(first.double(), second.double(), dim=1).mean())


def mean_pair_cosine(moments: Moments) -> float:
    """Mean cosine over all pairs of two different rows; the rows must have unit length.

    In closed form, ``(|sum x|^2 - sum |x|^2) / (N (N - 1))``: the expectation of "random pairs" without the draw.
    """
    if moments.count < 2:
        return NAN
    squares = moments.products.trace()
    return float((moments.total @ moments.total - squares) / (moments.count * (moments.count - 1)))


def mean_cross_cosine(first: Moments, second: Moments) -> float:
    """Mean cosine over all pairs of one row of each set; the rows must have unit length."""
    if first.count == 0 or second.count == 0:
        return NAN
    return float(first.total @ second.total / (first.count * second.count))


@dataclass(frozen=True)
class ProbeIoU:
    """Intersection over union of a two-way split with the truth.

    Attributes:
        foreground: IoU of the cells called occupied with the occupied ones.
        empty: IoU of the cells called empty with the empty ones.
    """

    foreground: float
    empty: float


def binary_iou(called: Tensor, true: Tensor) -> float:
    """Intersection over union of two boolean vectors of equal shape; NaN if both are false everywhere."""
    union = int((called | true).sum())
    return int((called & true).sum()) / union if union else NAN


def k_means_foreground_probe(predictions: Tensor, occupied: Tensor, generator: torch.Generator) -> ProbeIoU:
    """Split predicted embeddings of hidden cells into two clusters, without labels, and compare with occupancy.

    The cluster whose IoU with the occupied cells is larger is called foreground. Ten starts (n_init 10).

    Args:
        predictions: ``(N, C)`` predicted embeddings at hidden cells (T1 and T0).
        occupied: ``(N,)`` boolean, true at T1.
        generator: CPU generator of the starts.

    Returns:
        IoU of foreground and of empty; NaN with fewer than two cells.
    """
    if predictions.shape[0] < 2:
        return ProbeIoU(NAN, NAN)
    first = k_means(predictions, clusters=2, generator=generator, starts=10).labels == 0
    occupied = occupied.to(first.device)
    foreground = max((first, ~first), key=lambda called: _iou_or_zero(called, occupied))
    return ProbeIoU(binary_iou(foreground, occupied), binary_iou(~foreground, ~occupied))


def cosine_empty_probe(predictions: Tensor, empty_token: Tensor, occupied: Tensor, threshold: float = 0.5) -> ProbeIoU:
    """Call a hidden cell empty if its predicted embedding is close to the empty token, and compare with occupancy.

    Predictions are non-negative, a Gaussian token is not, so the cosine cannot exceed about 0.71: hence 0.5.

    Args:
        predictions: ``(N, C)`` predicted embeddings at hidden cells.
        empty_token: C values in any shape.
        occupied: ``(N,)`` boolean, true at T1.
        threshold: a cell with ``cos(prediction, token) > threshold`` is empty.
    """
    token = empty_token.detach().reshape(1, -1).to(predictions)
    empty = functional.cosine_similarity(predictions, token, dim=1) > threshold
    occupied = occupied.to(empty.device)
    return ProbeIoU(binary_iou(~empty, occupied), binary_iou(empty, ~occupied))


def _iou_or_zero(called: Tensor, true: Tensor) -> float:
    iou = binary_iou(called, true)
    return 0.0 if iou != iou else iou
