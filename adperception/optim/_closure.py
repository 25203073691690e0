"""Closures of optimizers that evaluate the loss at other points than the current one, and the way back from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

Closure: TypeAlias = Callable[[], Any]
"""Zeroes the gradients, computes the loss, calls ``backward`` and returns the loss (a scalar tensor or a float)."""


def evaluate(closure: Closure) -> Any:
    """The closure's loss, without its graph; gradients are in ``parameter.grad`` afterwards."""
    with torch.enable_grad():
        loss = closure()
    return loss.detach() if isinstance(loss, Tensor) else loss


def required(closure: Closure | None, name: str) -> Closure:
    """The closure.

    Raises:
        ValueError: if there is none.
    """
    if closure is None:
        raise ValueError(
            f"{name}.step() needs a closure, because it evaluates the loss at points of its own: pass a function that "
            "calls zero_grad(), computes the loss, calls backward() and returns the loss."
        )
    return closure


def with_gradient(parameters: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that have a gradient, and the gradients."""
    found = [(p, p.grad) for p in parameters if p.grad is not None]
    return [p for p, _ in found], [g for _, g in found]


@contextmanager
def restored(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Inside, parameters may be moved; afterwards they have their old values, bit by bit, also after an exception.

    Yields:
        Copies of the old values.
    """
    values = [p.detach().clone() for p in parameters]
    try:
        yield values
    finally:
        if values:
            with torch.no_grad():
                torch._foreach_copy_(parameters, values)
