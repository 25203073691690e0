"""An optimizer around an optimizer: same parameter groups, same state, another ``step``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

_STATE_DICT_HOOKS = (
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


class OptimizerWrapper(Optimizer):
    """What SAM, LPFSGD and EntropySGD share.

    ``param_groups`` and ``state`` are those of the base optimizer, so that learning-rate schedulers, ``zero_grad`` and
    ``add_param_group`` work on either of the two. ``state_dict()`` is the base optimizer's with one more entry under
    the wrapper's class name, if it has a state of its own.

    Args:
        base: any optimizer; it makes the step, from the gradients that the wrapper leaves.

    Raises:
        TypeError: if ``base`` is not an optimizer, or such a wrapper itself.
    """

    base: Optimizer

    def __init__(self, base: Optimizer) -> None:
        name = type(self).__name__
        if not isinstance(base, Optimizer):
            raise TypeError(
                f"{name} wraps a torch.optim.Optimizer, not a {type(base).__name__}: write for example "
                f"{name}(torch.optim.SGD(model.parameters(), lr=0.1), ...)."
            )
        if isinstance(base, OptimizerWrapper):
            raise TypeError(
                f"{name} cannot wrap {type(base).__name__}: both evaluate the loss at points of their own, and only "
                "the outer one would get the closure. Wrap the plain optimizer in one of the two."
            )
        # Not Optimizer.__init__, which would make groups and a state of its own.
        self.__setstate__({"base": base, "defaults": base.defaults})

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimizer's parameter groups, the same objects."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """The base optimizer's state per parameter, the same object."""
        return self.base.state

    @state.setter
    def state(self, state: defaultdict[Tensor, Any]) -> None:
        self.base.state = state

    def trainable(self) -> list[Tensor]:
        """All parameters that require a gradient, in the order of the groups."""
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As of the base optimizer."""
        self.base.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As of the base optimizer."""
        self.base.add_param_group(param_group)

    def own_state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the base optimizer's state dict; tensors and plain values."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``own_state`` gave."""

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state dict, and ``own_state()`` under the class name."""
        own = self.own_state()
        return {**self.base.state_dict(), **({type(self).__name__: own} if own else {})}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue bit by bit where ``state_dict()`` was taken.

        Raises:
            ValueError: if it is not from this class, or the parameter groups differ.
        """
        name = type(self).__name__
        rest = {key: value for key, value in state_dict.items() if key != name}
        if self.own_state() and name not in state_dict:
            raise ValueError(
                f"this state dict has no entry {name!r} (it has {list(state_dict)}), so it was not saved by {name}; to "
                "start from another optimizer's state, load it into the attribute `base`."
            )
        self.base.load_state_dict(rest)
        if name in state_dict:
            self.load_own_state(state_dict[name])

    def __getstate__(self) -> dict[str, Any]:
        # As in torch, hooks stay behind, and so does the `step` that a scheduler has bound to this very object.
        return {key: value for key, value in vars(self).items() if not key.startswith("_optimizer_") and key != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        hooks = {name: getattr(state["base"], name) for name in _STATE_DICT_HOOKS}
        super().__setstate__({**state, **hooks})
