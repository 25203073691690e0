"""AutoDrop: drop the learning rate when the direction of travel stops turning faster.

Teng, Wang, Choromanska, "AutoDrop: Training Deep Learning Models with Automatic Learning Rate Drop", arXiv 2111.15317.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["AutoDrop", "AutoDropRecord"]


@dataclass(frozen=True)
class AutoDropRecord:
    """What AutoDrop saw and did in one epoch.

    Attributes:
        epoch: calls of ``step`` so far, this one included.
        angle: between the last two directions of travel, in degrees, 0 to 180; NaN if there are not two yet, or one
            of them has length zero.
        change: size of the change of that angle since the epoch before, in degrees; NaN if unknown.
        threshold: what the change was compared with, in degrees.
        saturated: whether the angle has stopped changing since the last drop.
        dropped: whether learning rates were dropped in this epoch (and the average was loaded, if asked for).
        learning_rates: of the parameter groups, afterwards.
    """

    epoch: int
    angle: float
    change: float
    threshold: float
    saturated: bool
    dropped: bool
    learning_rates: tuple[float, ...]


class AutoDrop(LRScheduler):
    """A learning-rate schedule without a schedule; ``step()`` is called once per epoch.

    With x_i the parameters at epoch i and ``s_i = x_i - x_(i-1)``: the angular velocity ``w_i`` is the angle between
    ``s_i`` and ``s_(i-1)``, in degrees per epoch. At a learning rate that has done its work the parameters turn back
    and forth and w saturates. When ``|w_i - w_(i-1)| < threshold``, epochs are counted as k = 1, 2, .. K, the
    saturated one included; at ``K = extra_epochs``

        ``lr <- max(min_lr, drop * lr)``, ``threshold <- min(max_threshold, threshold / drop)``,
        ``x <- sum_k k * x_k / sum_k k``,

    and all begins anew. The average is a running one: besides it, one position and one direction are kept.

    When the average is loaded, running statistics of batch norm no longer fit the parameters: re-estimate them before
    evaluating (``record.dropped`` tells when).

    ``state_dict()``: epochs, k, threshold, the last angle, and the vectors (position, direction, average; n numbers
    each). Learning rates are in the optimizer's state dict. Options are not stored.

    Args:
        optimizer: any torch optimizer; every parameter group's ``lr`` is dropped.
        drop: factor of the learning rate (the paper's rho), between 0 and 1.
        threshold: theta, in degrees, more than 0.
        extra_epochs: K, at least 1.
        min_lr: learning rates do not fall below this; those already below stay.
        max_threshold: cap of the threshold, in degrees, at least ``threshold``.
        average: whether to load the average of the K epochs' parameters.
        reset_momentum: whether to zero momentum (``momentum_buffer``, ``exp_avg``) when the average is loaded: it was
            gathered elsewhere, and at the old learning rate.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        drop: float = 0.2,
        threshold: float = 0.01,
        extra_epochs: int = 20,
        min_lr: float = 1e-4,
        max_threshold: float = 1.0,
        average: bool = True,
        reset_momentum: bool = True,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"AutoDrop needs a torch.optim.Optimizer; got {type(optimizer).__name__}.")
        if not 0 < drop < 1:
            raise ValueError(f"AutoDrop: drop is a factor between 0 and 1; got {drop}.")
        if not 0 < threshold <= max_threshold < math.inf:
            raise ValueError(
                "AutoDrop: threshold, in degrees, has to be more than 0 and at most max_threshold; got "
                f"threshold={threshold} and max_threshold={max_threshold}."
            )
        if extra_epochs < 1:
            raise ValueError(f"AutoDrop: extra_epochs has to be at least 1; got {extra_epochs}.")
        if not min_lr >= 0:
            raise ValueError(f"AutoDrop: min_lr has to be at least 0; got {min_lr}.")
        # Not LRScheduler.__init__, which makes a first step: the first position is taken when one epoch is done.
        self.optimizer = optimizer
        self.drop = drop
        self.threshold = threshold
        self.extra_epochs = extra_epochs
        self.min_lr = min_lr
        self.max_threshold = max_threshold
        self.average = average
        self.reset_momentum = reset_momentum
        self.last_epoch = 0
        self.extra_epochs_done = 0
        self._angle = math.nan
        self._vectors: dict[str, Tensor] = {}
        self._last_lr = self._learning_rates()

    @torch.no_grad()
    def step(self, parameters: Tensor | None = None) -> AutoDropRecord:  # type: ignore[override]
        """Look at the parameters; drop the learning rates if it is time.

        Args:
            parameters: (n,), the parameters that the optimizer trains, flat, in the order of its parameter groups; for
                workers of distributed training their consensus, so that all of them drop together. ``None``: the
                optimizer's own.

        Returns:
            What was seen and done.

        Raises:
            ValueError: if ``parameters`` is of another size.
        """
        position = self._position(parameters)
        angle = self._turn(position)
        change = abs(angle - self._angle)
        self._angle = angle
        self.last_epoch += 1
        threshold = self.threshold
        saturated = self.extra_epochs_done > 0 or change < threshold
        dropped = False
        if saturated:
            self.extra_epochs_done += 1
            self._add_to_average(position)
            if self.extra_epochs_done == self.extra_epochs:
                self._drop()
                dropped = True
        self._last_lr = self._learning_rates()
        return AutoDropRecord(
            self.last_epoch, angle, change, threshold, saturated, dropped, tuple(float(lr) for lr in self._last_lr)
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "last_epoch": self.last_epoch,
            "extra_epochs_done": self.extra_epochs_done,
            "threshold": self.threshold,
            "angle": self._angle,
            "vectors": {name: vector.clone() for name, vector in self._vectors.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue bit by bit where ``state_dict()`` was taken; load the optimizer's state dict too.

        Raises:
            ValueError: if it is of another number of parameters.
        """
        parameters = self._parameters()
        count = sum(p.numel() for p in parameters)
        for name, vector in state_dict["vectors"].items():
            if vector.shape != (count,):
                raise ValueError(f"AutoDrop: the saved {name} is of {vector.numel()} parameters, here are {count}.")
        self.last_epoch = state_dict["last_epoch"]
        self.extra_epochs_done = state_dict["extra_epochs_done"]
        self.threshold = state_dict["threshold"]
        self._angle = state_dict["angle"]
        device = parameters[0].device
        self._vectors = {name: vector.to(device, copy=True) for name, vector in state_dict["vectors"].items()}
        self._last_lr = self._learning_rates()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    def _learning_rates(self) -> list[float | Tensor]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _position(self, given: Tensor | None) -> Tensor:
        """The flat parameters, a copy, on the first one's device and at least in single precision."""
        parameters = self._parameters()
        device = parameters[0].device
        if given is None:
            position = torch.cat([p.detach().reshape(-1).to(device) for p in parameters])
        else:
            count = sum(p.numel() for p in parameters)
            if given.shape != (count,):
                raise ValueError(
                    f"AutoDrop: parameters is the flat vector of the optimizer's {count} parameters that require a "
                    f"gradient; got the shape {tuple(given.shape)}."
                )
            position = given.detach().to(device, copy=True)
        last = self._vectors.get("position")
        if last is not None and last.shape != position.shape:
            # Parameters were added or frozen: what is known of the old ones says nothing about the direction of all.
            self._restart()
        return position.to(torch.promote_types(position.dtype, torch.float32))

    def _turn(self, position: Tensor) -> float:
        """The angle between the last direction and the one that leads here, in degrees; both are remembered."""
        last, direction = self._vectors.get("position"), self._vectors.get("direction")
        self._vectors["position"] = position
        if last is None:
            return math.nan
        new = position - last
        length = torch.linalg.vector_norm(new)
        # A direction of length zero becomes NaN, and so does every angle with it: it never counts as saturated.
        self._vectors["direction"] = new.div_(length)
        if direction is None:
            return math.nan
        # Exact for all angles, where the arc cosine loses half of the digits near 0 and 180 degrees.
        apart, together = torch.linalg.vector_norm(new - direction), torch.linalg.vector_norm(new + direction)
        return math.degrees(2 * float(torch.atan2(apart, together)))

    def _add_to_average(self, position: Tensor) -> None:
        if not self.average:
            return
        k = self.extra_epochs_done
        if k == 1:
            self._vectors["average"] = position.clone()
        else:
            # What the last of the weights 1, 2, .. k is of their sum.
            self._vectors["average"].lerp_(position, 2 / (k + 1))

    def _drop(self) -> None:
        for group in self.optimizer.param_groups:
            lr = float(group["lr"])
            dropped = min(lr, max(self.min_lr, self.drop * lr))
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(dropped)
            else:
                group["lr"] = dropped
        self.threshold = min(self.max_threshold, self.threshold / self.drop)
        self.extra_epochs_done = 0
        if self.average:
            average = self._vectors["average"]
            self._load(average)
            # The jump to the average is no direction of travel.
            self._restart()
            self._vectors["position"] = average

    def _restart(self) -> None:
        self._vectors.clear()
        self._angle = math.nan
        self.extra_epochs_done = 0

    def _load(self, vector: Tensor) -> None:
        parameters = self._parameters()
        parts = torch.split(vector, [p.numel() for p in parameters])
        torch._foreach_copy_(parameters, [part.view_as(p) for part, p in zip(parts, parameters, strict=True)])
        if self.reset_momentum:
            for state in self.optimizer.state.values():
                for name in ("momentum_buffer", "exp_avg"):
                    if isinstance(state.get(name), Tensor):
                        state[name].zero_()
