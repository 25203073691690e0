"""Making a model, as its config builds it, ready for pruned weights."""

from __future__ import annotations

from torch import nn

from adperception.compression.resize import resize_tensors
from adperception.compression.unstructured_pruning import hold_zeros
from adperception.models.base import Pruning

__all__ = ["apply_pruning"]


def apply_pruning(model: nn.Module, pruning: Pruning) -> None:
    """Give ``model`` the widths of a pruned one, filled with zeros, and hold the zeros that are loaded into it.

    Args:
        model: a model that has not been pruned, or the same way.
        pruning: what a weights file says.

    Raises:
        ValueError: if the model has no such tensors; it is left as it was.
    """
    parameters = {name for name, _ in model.named_parameters()}
    unknown = [name for name in pruning.masked if name not in parameters]
    if unknown:
        raise ValueError(f"{type(model).__name__} has no weight {unknown[0]}, whose zeros are to be held.")
    resize_tensors(model, pruning.shapes)
    model.pruning = pruning  # type: ignore[assignment]
    hold_zeros(model, pruning.masked)
