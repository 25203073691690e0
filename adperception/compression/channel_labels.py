"""Which channels of which tensors stand or fall together: found by watching one forward pass.

Every output channel of a convolution or linear layer gets a label. While the model runs, a second, integer tensor with
the labels goes through the same operations as the activations: cut, shifted, concatenated or reshaped it still says
which channel each value comes from. Where two tensors are added their labels become one; where a layer reads them it is
noted which of its input channels belongs to which label. An operation that is not known here mixes its channels for all
one can tell, so their labels are *fixed*: they are never removed. What is found can thus be too cautious, not wrong.

No model has to be written for this, and shared modules, loops and data-dependent code need no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_iter, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["FIXED", "ChannelLabels", "label_channels"]

FIXED = 0
"""Label of channels that must stay."""

_ANY = -1
"""Label of values that belong to no channel, such as padding: they fit with every other."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTWISE = _names(
    "abs add add_ clamp clamp_ clamp_min clamp_min_ div div_ elu exp gelu hardtanh hardtanh_ leaky_relu leaky_relu_ "
    "log10 maximum minimum mul mul_ neg pow relu relu_ sigmoid sigmoid_ silu silu_ sqrt sub sub_ tanh tanh_"
)
_STRUCTURAL = _names(
    "_to_copy _unsafe_view alias cat clone constant_pad_nd contiguous detach expand flip gather index index_select "
    "permute repeat roll select slice split split_with_sizes squeeze stack t transpose unbind unsqueeze view"
)
_REDUCTIONS = _names("amax amin max mean sum")
_RESIZING = _names(
    "_adaptive_avg_pool2d _adaptive_avg_pool3d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices "
    "upsample_bilinear2d upsample_nearest2d upsample_nearest3d upsample_trilinear3d"
)
_BATCH_NORMS = _names(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
    "_batch_norm_no_update"
)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ChannelLabels:
    """The labels of a model's channels, by tensor of its state dict.

    Attributes:
        axes: for a tensor's name and one of its dimensions, the label of every entry along it. ``FIXED`` ones stay;
            equal labels go together.
        outputs: names of the weights whose rows make channels, and the dimension along which they do.
    """

    def __init__(self) -> None:
        self._parent = [FIXED]
        self.axes: dict[tuple[str, int], list[int]] = {}
        self.outputs: dict[str, int] = {}

    def new(self, count: int) -> list[int]:
        """Labels that nothing else has."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return list(range(first, first + count))

    def root(self, label: int) -> int:
        """The label that stands for all that were joined with ``label``."""
        while self._parent[label] != label:
            self._parent[label] = label = self._parent[self._parent[label]]
        return label

    def join(self, first: int, second: int) -> None:
        """Make two labels one."""
        a, b = sorted((self.root(first), self.root(second)))
        self._parent[b] = a  # the smaller one stands for both, so that FIXED wins

    def fix(self, labels: Iterable[int]) -> None:
        """Channels that must stay."""
        for label in labels:
            if label != _ANY:
                self.join(FIXED, label)

    def note(self, name: str, dimension: int, labels: Sequence[int]) -> None:
        """Entry i along ``dimension`` of tensor ``name`` belongs to ``labels[i]``, beside what it belonged to."""
        known = self.axes.setdefault((name, dimension), list(labels))
        for old, new in zip(known, labels, strict=True):
            self.join(old, new)

    def finish(self) -> None:
        """Fix what no layer reads (it is output), and replace every label by the one that stands for it."""
        read = {
            self.root(label)
            for (name, dimension), labels in self.axes.items()
            if name in self.outputs and dimension != self.outputs[name]
            for label in labels
        }
        for labels in self.axes.values():
            self.fix(label for label in labels if self.root(label) not in read)
        self.axes = {axis: [self.root(label) for label in labels] for axis, labels in self.axes.items()}


def label_channels(model: nn.Module, run: Callable[[], Any]) -> ChannelLabels:
    """Watch one forward pass.

    Args:
        model: the model, on any device; it is run in evaluation mode and left in the mode it was in.
        run: calls the model with an example that reaches every layer. Layers that it does not reach are left alone;
            tensors that it returns keep their channels.
    """
    watch = _Watch(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), watch:
            result = run()
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                watch.fix(tensor)
    finally:
        model.train(was_training)
    watch.labels.finish()
    return watch.labels


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation on tensors, after autograd and Python have been resolved into torch's basic ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.labels = ChannelLabels()
        # The labels of a tensor's values, same shape; absent: all FIXED.
        self._of: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()
        self._modules: dict[int, tuple[str, nn.Module]] = {}  # by the tensor that an operation gets from it
        self._transposed: MutableMapping[Tensor, tuple[str, nn.Module]] = WeakTensorKeyDictionary()
        seen: dict[int, int] = {}
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                seen[id(parameter)] = seen.get(id(parameter), 0) + 1
        for name, module in model.named_modules():
            if isinstance(module, _LAYERS) and seen[id(module.weight)] == 1:  # a weight of two modules stays
                self._modules[id(module.weight)] = (name, module)
            elif isinstance(module, _NORMS) and module.running_mean is not None:
                self._modules[id(module.running_mean)] = (name, module)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name == "convolution":
            self._convolution(result, *args)
        elif name in ("addmm", "mm"):
            self._linear(result, *args[-2:])
        elif name == "t" and id(args[0]) in self._modules:
            self._transposed[result] = self._modules[id(args[0])]
        elif any(isinstance(t, Tensor) and t in self._of for t in tree_iter((args, kwargs))):
            self._other(name, func, result, args, kwargs)
        return result

    def fix(self, tensor: Tensor) -> None:
        """The channels of ``tensor`` must stay."""
        if tensor in self._of:
            self.labels.fix(torch.unique(self._of[tensor]).tolist())

    def _other(self, name: str, func: Any, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outcome: Any = None
        if name in _BATCH_NORMS:
            outcome = self._batch_norm(args)
        elif name in _ELEMENTWISE:
            outcome = self._elementwise([t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)], result.shape)
        elif name in _STRUCTURAL:
            outcome = self._structural(name, func, args, kwargs)
        elif name in _REDUCTIONS and len(args) > 1 and isinstance(args[1], (int, list)):
            outcome = self._reduction(*args, **{k: v for k, v in kwargs.items() if k == "keepdim"})
        elif name in _RESIZING:
            outcome = self._resizing(args[0], result)
        if outcome is None:
            for tensor in tree_iter((args, kwargs)):
                if isinstance(tensor, Tensor):
                    self.fix(tensor)
        results, outcomes = tree_flatten(result)[0], tree_flatten(outcome)[0]
        for number, tensor in enumerate(results):
            if isinstance(tensor, Tensor):
                self._of.pop(tensor, None)  # written in place, it is something else now
                if outcome is not None and number < len(outcomes):
                    self._of[tensor] = outcomes[number]

    def _convolution(
        self,
        result: Tensor,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: bool,
        output_padding: Any,
        groups: int,
    ) -> None:
        name, _ = self._modules.get(id(weight), ("", None))
        channels = self._channels(maps, 1)
        depthwise = groups == maps.shape[1] == result.shape[1]
        if not name or (groups > 1 and not depthwise):
            self.labels.fix(channels)
            return
        if depthwise and groups > 1:
            self._give(result, name, 0, channels)
            return
        self.labels.note(f"{name}.weight", 0 if transposed else 1, channels)
        self._give(result, name, 1 if transposed else 0, self.labels.new(result.shape[1]))

    def _linear(self, result: Tensor, rows: Tensor, weight: Tensor) -> None:
        name = self._transposed[weight][0] if weight in self._transposed else ""
        channels = self._channels(rows, 1)
        if not name:
            self.labels.fix(channels)
            self.fix(weight)
            return
        self.labels.note(f"{name}.weight", 1, channels)
        self._give(result, name, 0, self.labels.new(result.shape[1]))

    def _give(self, result: Tensor, name: str, dimension: int, labels: list[int]) -> None:
        """Label the output channels of a layer; the same ones if it has run before."""
        self.labels.outputs[f"{name}.weight"] = dimension
        self.labels.note(f"{name}.weight", dimension, labels)
        self.labels.note(f"{name}.bias", 0, labels)
        self._of[result] = _along_channels(labels, result)

    def _batch_norm(self, args: tuple[Any, ...]) -> Tensor | None:
        maps, running_mean = args[0], args[3]
        name, _ = self._modules.get(id(running_mean), ("", None))
        if not name:
            return None
        labels = self._channels(maps, 1)
        for part in ("weight", "bias", "running_mean", "running_var"):
            self.labels.note(f"{name}.{part}", 0, labels)
        return self._of[maps]

    def _elementwise(self, tensors: list[Tensor], shape: torch.Size) -> Tensor | None:
        labelled = [self._of[t].expand(shape) for t in tensors if t in self._of and not self._repeated(t, tensors)]
        plain = [t for t in tensors if t not in self._of]
        if not labelled:
            return None
        combined = labelled[0]
        for other in labelled[1:]:
            for first, second in _pairs(combined, other):
                if _ANY not in (first, second):
                    self.labels.join(first, second)
            combined = torch.maximum(combined, other)
        for tensor in plain:
            # A map over places fits any number of channels; values of their own for every channel do not.
            sizes = (1,) * (len(shape) - tensor.dim()) + tuple(tensor.shape)
            if any(size > 1 and self._varies(combined, dim) for dim, size in enumerate(sizes)):
                return None
        return combined

    def _repeated(self, tensor: Tensor, tensors: list[Tensor]) -> bool:
        """Whether ``tensor`` is one channel that is laid over the many channels of another tensor."""
        own = self._of[tensor]
        if len(torch.unique(own)) > 1:
            return False
        for other in tensors:
            if other is tensor or other not in self._of:
                continue
            labels = self._of[other]
            sizes = (1,) * (labels.dim() - own.dim()) + tuple(own.shape)
            if any(s == 1 < labels.shape[dim] and self._varies(labels, dim) for dim, s in enumerate(sizes)):
                return True
        return False

    def _structural(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in ("gather", "index", "index_select") and args[0] not in self._of:
            return None  # the labelled tensor is used as an index

        def swap(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dtype in (torch.int64, torch.bool):
                return value
            return self._of[value] if value in self._of else torch.zeros_like(value, dtype=torch.int32)

        args = tree_map(swap, args)
        if name in ("clone", "_to_copy", "contiguous", "detach", "alias"):
            return args[0]
        if name == "constant_pad_nd":
            return func(args[0], args[1], _ANY)
        if name in ("view", "_unsafe_view"):
            return args[0].reshape(args[1])
        return func(*args, **kwargs)

    def _reduction(self, tensor: Tensor, dims: int | list[int], keepdim: bool = False) -> Tensor | None:
        labels = self._of[tensor]
        dims = [dims] if isinstance(dims, int) else dims
        if not dims or any(self._varies(labels, dim) for dim in dims):
            return None
        return labels.amax(dims, keepdim=keepdim)

    def _resizing(self, maps: Tensor, result: Any) -> Tensor:
        first = result[0] if isinstance(result, tuple) else result
        return _along_channels(self._channels(maps, 1), first)

    def _channels(self, tensor: Tensor, dimension: int) -> list[int]:
        """One label for every entry along ``dimension``; entries that come from several channels fix them."""
        if tensor not in self._of:
            return [FIXED] * tensor.shape[dimension]
        labels = self._of[tensor].transpose(0, dimension)
        found = []
        for row in labels:
            present = [label for label in torch.unique(row).tolist() if label != _ANY]
            if len({self.labels.root(label) for label in present}) != 1:
                self.labels.fix(present)
            found.append(present[0] if present else FIXED)
        return found

    @staticmethod
    def _varies(labels: Tensor, dim: int) -> bool:
        if labels.shape[dim] == 1 or labels.stride(dim) == 0:
            return False
        highest = labels.amax(dim, keepdim=True)
        return bool(((labels != highest) & (labels != _ANY)).any())


def _along_channels(labels: Sequence[int], like: Tensor) -> Tensor:
    """Labels for values ``(B, C, ...)``; expanded, so that they take no memory."""
    column = torch.tensor(labels, dtype=torch.int32, device=like.device)
    return column.view(1, -1, *[1] * (like.dim() - 2)).expand(like.shape)


def _pairs(first: Tensor, second: Tensor) -> list[tuple[int, int]]:
    """The different pairs of values at equal places."""
    for dim in range(first.dim()):
        if first.stride(dim) == 0 and second.stride(dim) == 0:
            first, second = first.narrow(dim, 0, 1), second.narrow(dim, 0, 1)
    base = int(torch.maximum(first.max(), second.max())) + 2
    codes: list[int] = torch.unique((first.long() + 1) * base + (second.long() + 1)).tolist()
    return [(code // base - 1, code % base - 1) for code in codes]
