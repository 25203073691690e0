"""Giving the layers of a model other numbers of channels, as a file of pruned weights says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

__all__ = ["parameter_count", "replace_tensor", "resize_tensors", "zero_count"]


def resize_tensors(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give tensors other shapes, filled with zeros, so that pruned weights can be loaded.

    Args:
        model: a model as its config builds it.
        shapes: by name in the state dict.

    Raises:
        ValueError: if the model has no such tensor, or one that is smaller; nothing is changed then.
    """
    state = model.state_dict()
    for name, shape in shapes.items():
        if name not in state:
            raise ValueError(f"{type(model).__name__} has no tensor {name}, which the pruned weights are to have.")
        own = tuple(state[name].shape)
        if len(own) != len(shape) or any(not 0 < new <= old for new, old in zip(shape, own, strict=True)):
            raise ValueError(
                f"{type(model).__name__}: {name} has the shape {own}, which cannot be pruned to {tuple(shape)}."
            )
    for name, shape in shapes.items():
        if tuple(state[name].shape) != tuple(shape):
            replace_tensor(model, name, state[name].new_zeros(tuple(shape)))


def replace_tensor(model: nn.Module, name: str, value: Tensor) -> None:
    """Put ``value`` in the place of a parameter or buffer and let its layer know its new number of channels."""
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    old = getattr(module, attribute)
    if isinstance(old, nn.Parameter):
        setattr(module, attribute, nn.Parameter(value.detach().clone(), requires_grad=old.requires_grad))
    else:
        setattr(module, attribute, value.detach().clone())
    if attribute != "weight":
        return
    rows = value.shape[0]
    if isinstance(module, nn.modules.conv._ConvNd):
        columns = value.shape[1]
        if module.groups > 1:
            module.groups = module.in_channels = module.out_channels = rows
        elif module.transposed:
            module.in_channels, module.out_channels = rows, columns
        else:
            module.out_channels, module.in_channels = rows, columns
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = rows, value.shape[1]
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = rows


def parameter_count(model: nn.Module) -> int:
    """Numbers in the parameters of a model, those that are not trained included."""
    return sum(parameter.numel() for parameter in model.parameters())


def zero_count(model: nn.Module) -> int:
    """How many of them are exactly zero."""
    return sum(int((parameter == 0).sum()) for parameter in model.parameters())
