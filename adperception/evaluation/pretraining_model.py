"""What a self-supervised BEV model offers to evaluations and pictures, as types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from adperception.structures import LidarBatch, VoxelGrid

if TYPE_CHECKING:
    from adperception.models.base import Losses

__all__ = ["BevMasks", "Embeddings", "PretrainingModel", "as_pretraining_model", "is_pretraining_model"]


class BevMasks(Protocol):
    """Four disjoint boolean maps ``(B, H, W)`` that cover the BEV grid (H along y, W along x)."""

    @property
    def context_cells(self) -> Tensor:
        """Occupied cells that the context encoder sees (C1)."""

    @property
    def target_cells(self) -> Tensor:
        """Occupied cells that are hidden from it and given to the target encoder (T1)."""

    @property
    def context_empty(self) -> Tensor:
        """Empty cells shown as empty to the context side (C0)."""

    @property
    def target_empty(self) -> Tensor:
        """Empty cells that are hidden from the context side (T0)."""


class Embeddings(Protocol):
    """BEV maps ``(B, C, H, W)`` of unit length over C, and the masks they were made with."""

    @property
    def context(self) -> Tensor:
        """Input of the predictor: embeddings at C1, tokens everywhere else."""

    @property
    def prediction(self) -> Tensor:
        """Output of the predictor, defined at every cell."""

    @property
    def target(self) -> Tensor:
        """What is to be predicted, defined at T1 and T0."""

    @property
    def masks(self) -> BevMasks:
        """Which cell belongs to which set."""


class PretrainingModel(Protocol):
    """A joint-embedding model: an ``nn.Module`` that also gives its embeddings."""

    empty_token: Tensor
    """``(1, C, 1, 1)``, the vector that stands for an empty cell."""

    grid: VoxelGrid
    """The voxel grid; its x and y range is that of the BEV maps."""

    def embed(self, batch: LidarBatch, generator: torch.Generator | None) -> Embeddings:
        """The embeddings of a batch; the masks are drawn from ``generator``."""

    def encode(self, points: Tensor) -> Tensor:
        """The BEV map ``(1, C, H, W)`` of one whole cloud ``(N, channels)``, nothing hidden."""

    def losses(self, embeddings: Any) -> Losses:
        """The losses of what :meth:`embed` returned."""


def is_pretraining_model(model: nn.Module) -> bool:
    """Whether ``model`` has everything that :class:`PretrainingModel` asks for."""
    return not _missing(model)


def as_pretraining_model(model: nn.Module) -> PretrainingModel:
    """``model`` under the type of this module.

    Raises:
        ValueError: if the model lacks one of the members, so that its representation cannot be measured.
    """
    missing = _missing(model)
    if missing:
        raise ValueError(
            f"{type(model).__name__} has no {' and no '.join(missing)}: only joint-embedding pre-training models "
            "can be measured this way. Remove RepresentationEvaluation from `evaluations` of the config."
        )
    return cast(PretrainingModel, model)


def _missing(model: nn.Module) -> list[str]:
    return [name for name in ("embed", "losses", "encode", "empty_token", "grid") if not hasattr(model, name)]
